"""The Swiss roll (a t cos t, h, a t sin t) in R^3: an Archimedean spiral times a height."""

from dataclasses import dataclass
from functools import cached_property
from math import ceil, inf
from typing import final

import torch
from torch import Tensor

from manifoldlab.interfaces import Axis
from manifoldlab.manifolds.base import Manifold
from manifoldlab.nearest_point import coarse, newton
from manifoldlab.reach_bounds import certified_curve_reach


@final
@dataclass(frozen=True)
class SwissRoll(Manifold):
    """Coordinates: the angle t from `first` to `last`, and h from 0 to `height`."""

    scale: float = 0.25  # a: turns are 2 pi a apart
    first: float = 4.5
    last: float = 12.5
    height: float = 2.0

    def __post_init__(self) -> None:
        if not (self.scale > 0 and 0 < self.first < self.last and self.height > 0):
            raise ValueError(
                f"a Swiss roll has scale > 0, 0 < first < last and height > 0, not {self!r}"
            )
        if not max(self.scale, self.last, self.height) < inf:
            raise ValueError(f"a Swiss roll is finite, not {self!r}")

    @property
    def dim(self) -> int:
        return 2

    @property
    def shape(self) -> tuple[int, ...]:
        return (3,)

    @property
    def axes(self) -> tuple[Axis, ...]:
        return (Axis(self.first, self.last), Axis(0.0, self.height))

    @cached_property
    def reach(self) -> float:
        """A certified lower bound, that of the spiral: heights only add to |q - p|.

        Over s = t^2 + 2t its speed is a sqrt(1 + t^2) / (2 + 2t) <= a / 2. Its curvature
        (t^2 + 2) / (a (1 + t^2)^(3/2)) falls with t, so it is greatest at `first`.
        """
        square = self.first**2
        return certified_curve_reach(
            lambda s: self._spiral(_angle(s)),
            square + 2 * self.first,
            self.last**2 + 2 * self.last,
            speed=self.scale / 2,
            curvature=(square + 2) / (self.scale * (1 + square) ** 1.5),
        )

    def _spiral(self, t: Tensor) -> Tensor:
        return self.scale * torch.cat([t * t.cos(), t * t.sin()], 1)

    def embed(self, z: Tensor) -> Tensor:
        spiral = self._spiral(z[:, :1])
        return torch.stack([spiral[:, 0], z[:, 1], spiral[:, 1]], 1)

    def coordinates(self, x: Tensor) -> Tensor:
        low, high = (t**2 + 2 * t for t in (self.first, self.last))
        count = 2 + ceil(8 * self.scale * (high - low) / self.reach)
        grid = _angle(torch.linspace(low, high, count, dtype=x.dtype, device=x.device))
        section = x[:, ::2]
        t = newton(self._spiral, section, coarse(self._spiral, section, grid[:, None]))
        return self.confirmed(x, torch.cat([t, x[:, 1:2]], 1))


def _angle(s: Tensor) -> Tensor:
    """t with t^2 + 2t = s: equal steps of s are nearly equal lengths of the spiral."""
    return (1 + s).sqrt() - 1


def examples(dim: int, seed: int) -> list[Manifold]:
    return [SwissRoll((2 + seed % 3) / 10, height=1.0 + seed % 2)] if dim == 2 else []
