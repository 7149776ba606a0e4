"""Cosine between the input gradient and a reference field, such as the score; whole and tangent."""

from typing import NamedTuple

import torch
from torch import Tensor

from manifoldlab import linalg
from manifoldlab.gradients import input_gradient, log_marginal, margin
from manifoldlab.interfaces import Batch, Geometry, Head, Model, Probe, Reference


class ScoreAlignment(NamedTuple):
    cosine: Tensor  # (n,) of gradient and reference
    tangent_cosine: Tensor  # (n,) of their tangential parts
    reference_omega: Tensor  # (n,) off-manifold share of the reference
    cosine_null: Tensor  # (n,) D^(-1/2), root mean square for an isotropic random gradient
    tangent_cosine_null: Tensor  # (n,) d^(-1/2)


def score_alignment(
    model: Model, batch: Batch, geometry: Geometry, *, reference: Reference, head: Head = margin
) -> ScoreAlignment:
    gradient = input_gradient(model, batch.x, batch.y, head)
    field = reference(batch)
    tangents = geometry.to_tangent(batch.x, torch.stack([gradient, field]))
    omega = linalg.squared_norm(field - tangents[1]) / linalg.squared_norm(field)
    cosine = _cosine(gradient, field)
    return ScoreAlignment(
        cosine,
        _cosine(*tangents),
        omega,
        torch.full_like(cosine, batch.x[0].numel() ** -0.5),
        torch.full_like(cosine, geometry.dim**-0.5),
    )


def _cosine(u: Tensor, v: Tensor) -> Tensor:
    return linalg.inner(linalg.unit(u), linalg.unit(v))


def example(model: Model) -> Probe:
    """Against the model's own log_marginal gradient, which is the score if the model is Bayes."""

    def own_score(batch: Batch) -> Tensor:
        return input_gradient(model, batch.x, batch.y, log_marginal)

    def probe(model: Model, batch: Batch, geometry: Geometry) -> ScoreAlignment:
        return score_alignment(model, batch, geometry, reference=own_score)

    return probe
