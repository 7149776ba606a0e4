"""The S-curve r (sin t, h / r, (sin 2t - 2t) / 4) in R^3, a smooth S times a height.

scikit-learn's make_s_curve has dz = -|sin t| dt where this has -sin(t)^2 dt: its two circular arcs
meet with a jump of the curvature (C^1 only), and the laws need C^4. This one is analytic.
"""

from dataclasses import dataclass
from functools import cached_property
from math import ceil, inf, pi
from typing import final

import torch
from torch import Tensor

from manifoldlab.interfaces import Axis
from manifoldlab.manifolds.base import Manifold
from manifoldlab.nearest_point import coarse, newton
from manifoldlab.reach_bounds import certified_curve_reach


@final
@dataclass(frozen=True)
class SCurve(Manifold):
    """Coordinates: t from -3 pi / 2 to 3 pi / 2 along the S, and h from 0 to `height`."""

    radius: float = 1.0
    height: float = 2.0

    def __post_init__(self) -> None:
        if not (0 < self.radius < inf and 0 < self.height < inf):
            raise ValueError(f"an S-curve has a finite radius and height > 0, not {self!r}")

    @property
    def dim(self) -> int:
        return 2

    @property
    def shape(self) -> tuple[int, ...]:
        return (3,)

    @property
    def axes(self) -> tuple[Axis, ...]:
        return (Axis(-1.5 * pi, 1.5 * pi), Axis(0.0, self.height))

    @cached_property
    def reach(self) -> float:
        """A certified lower bound, that of the S: heights only add to |q - p|.

        With c = cos(t)^2 its speed is r sqrt(1 - c + c^2) <= r and its curvature
        sqrt(1 - c) (1 + c) / (r (1 - c + c^2)^(3/2)) <= 1.648 / r (the maximum is at c = 0.4467).
        """
        return certified_curve_reach(
            self._letter, -1.5 * pi, 1.5 * pi, speed=self.radius, curvature=1.648 / self.radius
        )

    def _letter(self, t: Tensor) -> Tensor:
        return self.radius * torch.cat([t.sin(), ((2 * t).sin() - 2 * t) / 4], 1)

    def embed(self, z: Tensor) -> Tensor:
        letter = self._letter(z[:, :1])
        return torch.stack([letter[:, 0], z[:, 1], letter[:, 1]], 1)

    def coordinates(self, x: Tensor) -> Tensor:
        low, high, _ = self.axes[0]
        count = ceil(20 * self.radius * (high - low) / self.reach)
        grid = torch.linspace(low, high, count, dtype=x.dtype, device=x.device)
        section = x[:, ::2]
        t = newton(self._letter, section, coarse(self._letter, section, grid[:, None]))
        return self.confirmed(x, torch.cat([t, x[:, 1:2]], 1))


def examples(dim: int, seed: int) -> list[Manifold]:
    return [SCurve(0.75 + seed % 3 / 4, 1.0 + seed % 2)] if dim == 2 else []
