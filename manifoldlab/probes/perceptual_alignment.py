"""How alike gradient and reference look to a network: 1 - d, d its distance of pictures.

Each field is divided by its largest absolute number, sample by sample, as published (Srinivas et al.
2023), and shown as (1 + v) / 2 to a network for pictures in [0, 1]: gray where it is zero. With features
of a network that was trained on the same data, 1 - d is a mean cosine of channels. It is no LPIPS, and
not comparable with it: `lpips_alignment` is.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from manifoldlab.gradients import input_gradient, log_marginal, margin
from manifoldlab.interfaces import Batch, Geometry, Head, Model, Probe, Reference
from manifoldlab.perception import Features, Perception
from manifoldlab.probes.base import noise

# of fields (m, n, *shape) and another (n, *shape), all in [-1, 1] -> (m, n)
Distances = Callable[[Tensor, Tensor], Tensor]


class PerceptualAlignment(NamedTuple):
    similarity: Tensor  # (n,) of gradient and reference, by the features of a stated network
    similarity_null: Tensor  # (n,) of white noise and the reference, one draw


def perceptual_alignment(
    model: Model,
    batch: Batch,
    geometry: Geometry,
    *,
    reference: Reference,
    features: Features,
    head: Head = margin,
    seed: int = 0,
) -> PerceptualAlignment:
    del geometry
    distances = Perception(features).distances
    shown: Distances = lambda a, b: distances((1 + a) / 2, (1 + b) / 2)
    return PerceptualAlignment(*likeness(model, batch, reference, shown, head, seed))


def likeness(
    model: Model, batch: Batch, reference: Reference, distances: Distances, head: Head, seed: int
) -> tuple[Tensor, Tensor]:
    """1 - d of gradient and reference, and of noise and reference."""
    gradient = input_gradient(model, batch.x, batch.y, head)
    field, other = reference(batch), noise(batch.x, 1, seed)[0]
    gradient, field, other = map(scaled, (gradient, field, other))
    of_gradient, of_noise = 1 - distances(torch.stack([gradient, other]), field).to(field)
    return of_gradient, of_noise


def scaled(v: Tensor) -> Tensor:
    """v / max |v| sample by sample; a zero field stays zero."""
    largest = v.flatten(1).abs().amax(1).clamp_min(torch.finfo(v.dtype).tiny)
    return v / largest.reshape(-1, *[1] * (v.ndim - 1))


def example(model: Model) -> Probe:
    """With the model's own logits for features, against its own log_marginal gradient."""
    own_score: Reference = lambda batch: input_gradient(model, batch.x, batch.y, log_marginal)

    def probe(
        model: Model, batch: Batch, geometry: Geometry, *, seed: int = 0
    ) -> PerceptualAlignment:
        features: Features = lambda v: [model(v)]
        found = perceptual_alignment
        return found(model, batch, geometry, reference=own_score, features=features, seed=seed)

    return probe
