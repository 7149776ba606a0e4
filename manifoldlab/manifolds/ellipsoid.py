"""The ellipsoid sum (x_i / a_i)^2 = 1 in R^(d+1): x = a u, u on the unit sphere and in its chart.

The nearest point of x is p_i = a_i^2 x_i / (a_i^2 + t), t the largest root of the secular
equation sum (a_i x_i / (a_i^2 + t))^2 = 1; x - p = t A p with A = diag(1 / a_i^2).
"""

from dataclasses import dataclass
from math import inf, log
from typing import final

import torch
from torch import Tensor

from manifoldlab import linalg
from manifoldlab.interfaces import Patch
from manifoldlab.manifolds.base import Manifold
from manifoldlab.manifolds.sphere import Sphere
from manifoldlab.nearest_point import DIFFERENTIABLE_STEPS

_STEPS = 24  # bisection leaves 1e-7 of the bracket's logarithm, Newton squares what is left


@final
@dataclass(frozen=True)
class Ellipsoid(Manifold):
    semiaxes: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.semiaxes) < 2 or not all(0 < a < inf for a in self.semiaxes):
            raise ValueError(f"an ellipsoid has two or more finite semiaxes > 0, not {self!r}")

    @property
    def dim(self) -> int:
        return len(self.semiaxes) - 1

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.semiaxes),)

    @property
    def reach(self) -> float:
        """Exact: the least radius of curvature, at the ends of the longest axis; no two sheets
        of a convex surface are nearer than twice the shortest axis, which is more."""
        return min(self.semiaxes) ** 2 / max(self.semiaxes)

    def embed(self, z: Tensor) -> Tensor:
        return self._semiaxes(z) * self._sphere.embed(z)

    def coordinates(self, x: Tensor) -> Tensor:
        on_sphere = self._semiaxes(x) * x / self._divisor(x)
        return self.within_reach(x, self._sphere.coordinates(on_sphere))

    @property
    def _sphere(self) -> Sphere:
        return Sphere(self.dim)

    def _semiaxes(self, like: Tensor) -> Tensor:
        return torch.tensor(self.semiaxes, dtype=like.dtype, device=like.device)

    def _divisor(self, x: Tensor) -> Tensor:
        """a_i^2 + t, (n, D)."""
        square = self._semiaxes(x).square()
        gap, scaled = square - square.min(), self._semiaxes(x) * x
        with torch.no_grad():
            root = _largest_root(gap, scaled.detach())
        for _ in range(DIFFERENTIABLE_STEPS):
            root = _step(gap, scaled, root)
        return gap + root

    def normals(self, x: Tensor) -> Tensor:
        outside = self.coordinates(x).isnan().any(1, keepdim=True)
        return linalg.unit(x / self._divisor(x)).where(~outside, torch.nan)[:, :, None]

    def log_volume(self, z: Tensor) -> Tensor:
        """The area of the sphere's, times prod a_i, times |u / a|."""
        stretch = (self._sphere.embed(z) / self._semiaxes(z)).square().sum(1)
        return self._sphere.log_volume(z) + sum(map(log, self.semiaxes)) + 0.5 * stretch.log()

    def log_compression(self, x: Tensor) -> Tensor:
        """det(I - S_N) is that of I + t A on the tangent space: det(I + t A) n'(I + t A)^{-1} n."""
        growth = self._divisor(x) / self._semiaxes(x).square()  # I + t A, (n, D)
        normal = self.normals(x).squeeze(2)
        across = (normal.square() / growth).sum(1)
        volume = self.log_volume(self.coordinates(x))
        return -volume - growth.log().sum(1) - across.log()

    def patches(self) -> tuple[Patch, ...]:
        """Those of the sphere: the chart is the same."""
        return self._sphere.patches()


def _step(gap: Tensor, scaled: Tensor, root: Tensor) -> Tensor:
    """Newton for 1 / |u| = 1, u = scaled / (gap + root) (the trick of Hebden 1973).

    1 / |u| is concave and increases, so that from the left no step overshoots.
    """
    square = (scaled / (gap + root)).square()
    total = square.sum(1, keepdim=True)
    slope = (square / (gap + root)).sum(1, keepdim=True)
    return root + total * (total.sqrt() - 1) / slope


def _largest_root(gap: Tensor, scaled: Tensor) -> Tensor:
    """(n, 1): bisection of the root's logarithm and Newton from the left, in turn."""
    high = scaled.norm(dim=1, keepdim=True)  # |u| <= 1
    low = (scaled.abs() - gap).amax(1, keepdim=True)  # |u| >= 1: one term alone is 1
    low = torch.maximum(low, torch.finfo(gap.dtype).eps ** 2 * high)
    for _ in range(_STEPS):
        middle = (low * high).sqrt()
        left = (scaled / (gap + middle)).norm(dim=1, keepdim=True) > 1
        low, high = middle.where(left, low), high.where(left, middle)
        low = torch.maximum(low, torch.minimum(_step(gap, scaled, low), high))
    return low


def examples(dim: int, seed: int) -> list[Manifold]:
    return [Ellipsoid(tuple(1 + (2 * i + seed) % 5 / 8 for i in range(dim + 1)))]
