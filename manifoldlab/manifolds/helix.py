"""The helix (r cos t, r sin t, p t / 2 pi) in R^3, t from 0 to 2 pi turns."""

from dataclasses import dataclass
from functools import cached_property
from math import ceil, hypot, inf, pi
from typing import final

import torch
from torch import Tensor

from manifoldlab.interfaces import Axis
from manifoldlab.manifolds.base import Manifold
from manifoldlab.nearest_point import coarse, newton
from manifoldlab.reach_bounds import certified_curve_reach


@final
@dataclass(frozen=True)
class Helix(Manifold):
    radius: float = 1.0
    pitch: float = 4.0
    turns: float = 1.5

    def __post_init__(self) -> None:
        if not all(0 < value < inf for value in (self.radius, self.pitch, self.turns)):
            raise ValueError(f"a helix has radius, pitch and turns > 0 and finite, not {self!r}")

    @property
    def dim(self) -> int:
        return 1

    @property
    def shape(self) -> tuple[int, ...]:
        return (3,)

    @property
    def axes(self) -> tuple[Axis, ...]:
        return (Axis(0.0, 2 * pi * self.turns),)

    @property
    def speed(self) -> float:
        return hypot(self.radius, self.pitch / (2 * pi))

    @cached_property
    def reach(self) -> float:
        """A certified lower bound; the curvature r / (r^2 + (p / 2 pi)^2) is the same everywhere.

        All points look alike, so the first and the last turn have every pair of the others; turns
        more than 2 / k apart in height have a quotient above |q - p| / 2 > 1 / k.
        """
        curvature = self.radius / self.speed**2
        high = min(self.axes[0].high, 2 * pi * (1 + 2 / (curvature * self.pitch)))
        return certified_curve_reach(self.embed, 0.0, high, speed=self.speed, curvature=curvature)

    def embed(self, z: Tensor) -> Tensor:
        t = z[:, 0]
        height = t * (self.pitch / (2 * pi))
        return torch.stack([self.radius * t.cos(), self.radius * t.sin(), height], 1)

    def coordinates(self, x: Tensor) -> Tensor:
        low, high, _ = self.axes[0]
        count = 2 + ceil(16 * self.speed * (high - low) / self.reach)
        grid = torch.linspace(low, high, count, dtype=x.dtype, device=x.device)
        start = coarse(self.embed, x, grid[:, None])
        return self.confirmed(x, newton(self.embed, x, start))


def examples(dim: int, seed: int) -> list[Manifold]:
    return [Helix(1.0, 3.0 + seed % 3, 1.25)] if dim == 1 else []
