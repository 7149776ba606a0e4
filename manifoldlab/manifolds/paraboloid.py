"""The paraboloid (z, a |z|^2 / 2) in R^(d+1), the graph of a quadratic over R^d."""

from dataclasses import dataclass
from math import inf
from typing import final

import torch
from torch import Tensor

from manifoldlab.manifolds.base import Manifold
from manifoldlab.nearest_point import DIFFERENTIABLE_STEPS

_STEPS = 30  # Newton halves its error at least, and soon squares it


@final
@dataclass(frozen=True)
class Paraboloid(Manifold):
    dim: int
    curvature: float = 0.5

    def __post_init__(self) -> None:
        if self.dim < 1 or not 0 < self.curvature < inf:
            raise ValueError(f"a paraboloid has dim >= 1 and a finite curvature > 0, not {self!r}")

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.dim + 1,)

    @property
    def reach(self) -> float:
        """Exact: dist(q - p, T_p) = a |z_q - z_p|^2 / 2 sqrt(1 + a^2 |z_p|^2) <= a |q - p|^2 / 2.

        By Federer (1959, 4.18) the reach is the least |q - p|^2 / 2 dist(q - p, T_p), and at the
        vertex this tends to 1 / a.
        """
        return 1 / self.curvature

    def embed(self, z: Tensor) -> Tensor:
        return torch.cat([z, self.curvature / 2 * z.square().sum(1, keepdim=True)], 1)

    def coordinates(self, x: Tensor) -> Tensor:
        return self.within_reach(x, x[:, :-1] / self._stretch(x))

    def _stretch(self, x: Tensor) -> Tensor:
        """c (n, 1) with z = x_head / c: the largest root of c^3 - b c^2 - q."""
        b = 1 - self.curvature * x[:, -1:]
        q = self.curvature**2 / 2 * x[:, :-1].square().sum(1, keepdim=True)
        with torch.no_grad():  # from the right, where the cubic is convex: no step overshoots
            c = b.detach().clamp_min(0) + q.detach() ** (1 / 3)
            for _ in range(_STEPS):
                c = _step(b.detach(), q.detach(), c)
        for _ in range(DIFFERENTIABLE_STEPS):
            c = _step(b, q, c)
        return c

    def normals(self, x: Tensor) -> Tensor:
        slope = self.curvature * self.coordinates(x)
        upward = torch.cat([-slope, torch.ones_like(slope[:, :1])], 1)
        return (upward / (1 + slope.square().sum(1, keepdim=True)).sqrt())[:, :, None]

    def log_volume(self, z: Tensor) -> Tensor:
        return 0.5 * (self.curvature * z).square().sum(1).log1p()

    def log_compression(self, x: Tensor) -> Tensor:
        """With G = I + a^2 z z' the Jacobian of z(x) is (c I + a^2 z z')^{-1} J', J'J = G."""
        z, c = self.coordinates(x), self._stretch(x).squeeze(1)
        steepness = (self.curvature * z).square().sum(1)
        return 0.5 * steepness.log1p() - (self.dim - 1) * c.log() - (c + steepness).log()


def _step(b: Tensor, q: Tensor, c: Tensor) -> Tensor:
    return c - (c.square() * (c - b) - q) / (c * (3 * c - 2 * b))


def examples(dim: int, seed: int) -> list[Manifold]:
    return [Paraboloid(dim, 0.25 + seed % 4 / 4)]
