"""How far noise on the signal changes the output, against noise on the distractor (Srinivas et al. 2023,
Figure 5).

With R the region of the label's evidence and u ~ N(0, I), steps are sigma Ru and sigma (1 - R)u, and

    ratio = E change(x + sigma Ru) / E change(x + sigma (1 - R)u)

over the steps of a sample: 1 where the output does not tell one from the other, large where it depends
on the signal only. To first order the change of a head is sigma |g.u|, and the ratio |Rg| / |(1 - R)g|.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from manifoldlab.interfaces import Batch, Geometry, Model, Probe
from manifoldlab.probes.base import Change, changes, noise
from manifoldlab.probes.on_off_robustness import softmax_change


class SignalRobustness(NamedTuple):
    signal: Tensor  # (n, sizes) mean change for noise in the region
    distractor: Tensor  # (n, sizes) and for noise beside it
    ratio: Tensor  # (n, sizes)
    ratio_null: Tensor  # (n,) for an isotropic random gradient, as a ratio of root mean squares


def signal_robustness(
    model: Model,
    batch: Batch,
    geometry: Geometry,
    *,
    sizes: tuple[float, ...] = (0.01, 0.1, 1.0),
    directions: int = 8,
    change: Change | None = None,
    seed: int = 0,
    chunk: int = 2**19,
) -> SignalRobustness:
    """`sizes` are deviations of the noise, `change` the published L1 norm of the change of the softmax;
    `chunk` bounds the numbers of x in a forward pass."""
    del geometry
    region = _region(batch)
    u = noise(batch.x, directions, seed)
    vectors = torch.stack([u * region, u * ~region])
    with torch.no_grad():
        here = model(batch.x)
    found = changes(model, batch, here, vectors, sizes, change or softmax_change(1.0), chunk)
    signal, distractor = found.mean(1).unbind(0)
    inside = region.flatten(1).to(batch.x).mean(1)
    null = (inside / (1 - inside)).sqrt()
    return SignalRobustness(signal, distractor, signal / distractor, null)


def _region(batch: Batch) -> Tensor:
    if batch.region is None:
        raise ValueError(
            "signal_robustness needs batch.region, where the label's evidence is: none given"
        )
    if batch.region.shape != batch.x.shape or batch.region.dtype != torch.bool:
        given = f"{tuple(batch.region.shape)} of {batch.region.dtype}"
        raise ValueError(f"a region {given} for samples of shape {tuple(batch.x.shape)}")
    return batch.region


def example(model: Model) -> Probe:
    del model
    return signal_robustness
