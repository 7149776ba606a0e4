"""A step of length `radius` in a random direction, which every other attack must beat."""

import torch
from torch import Tensor

from manifoldlab import draws
from manifoldlab.attacks.base import (
    L2,
    Ball,
    Bounds,
    Confinement,
    Strength,
    clipped,
    per_sample,
    projection,
)
from manifoldlab.interfaces import Batch, Model, Source


@torch.no_grad()
def noise(
    model: Model,
    batch: Batch,
    generator: Source,
    *,
    radius: Strength = 0.5,
    ball: Ball = L2,
    bounds: Bounds | None = None,
    confine: Confinement | None = None,
) -> Tensor:
    """Evenly over the sphere in an l2 ball, to a random corner of a free linf ball."""
    del model
    within = projection(confine, batch, bounds)
    step = ball.steepest(draws.normal(batch.x, generator), within)
    return clipped(batch.x + per_sample(radius, batch.x, "radius") * step, bounds)
