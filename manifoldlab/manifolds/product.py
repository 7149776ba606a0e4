"""The product of two manifolds, x = (x_1, x_2) with flattened factors and z = (z_1, z_2)."""

from dataclasses import dataclass
from functools import partial
from typing import final

import torch
from torch import Tensor

from manifoldlab.interfaces import Axis, Patch
from manifoldlab.manifolds.base import Manifold
from manifoldlab.manifolds.ellipsoid import Ellipsoid
from manifoldlab.manifolds.flat import Flat
from manifoldlab.manifolds.paraboloid import Paraboloid
from manifoldlab.manifolds.sphere import Sphere


@final
@dataclass(frozen=True)
class Product(Manifold):
    first: Manifold
    second: Manifold

    def __post_init__(self) -> None:
        if not (isinstance(self.first, Manifold) and isinstance(self.second, Manifold)):
            raise ValueError(f"a product has two manifolds as factors, not {self!r}")

    @property
    def dim(self) -> int:
        return self.first.dim + self.second.dim

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.first.ambient + self.second.ambient,)

    @property
    def reach(self) -> float:
        """Exact where the factors' are: a pair of points may differ in one factor only."""
        return min(self.first.reach, self.second.reach)

    @property
    def reach_certified(self) -> bool:
        return self.first.reach_certified and self.second.reach_certified

    @property
    def axes(self) -> tuple[Axis, ...]:
        return self.first.axes + self.second.axes

    def embed(self, z: Tensor) -> Tensor:
        first = self.first.embed(z[:, : self.first.dim])
        second = self.second.embed(z[:, self.first.dim :])
        return torch.cat([first.flatten(1), second.flatten(1)], 1)

    def coordinates(self, x: Tensor) -> Tensor:
        """A whole offset inside the reach has both parts inside the factors' reaches: no factor's
        nan is lost or added. The converse is false, so the whole offset is tested too."""
        first, second = self._parts(x)
        z = torch.cat([self.first.coordinates(first), self.second.coordinates(second)], 1)
        return self.within_reach(x, z)

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first, second = x[:, : self.first.ambient], x[:, self.first.ambient :]
        return first.reshape(len(x), *self.first.shape), second.reshape(len(x), *self.second.shape)

    def normals(self, x: Tensor) -> Tensor | None:
        first, second = self._parts(x)
        above, below = self.first.normals(first), self.second.normals(second)
        if above is None or below is None:
            return None
        above = torch.nn.functional.pad(above, (0, below.shape[2]))
        below = torch.nn.functional.pad(below, (above.shape[2] - below.shape[2], 0))
        return torch.cat([above, below], 1).where(self._inside(x)[:, None, None], torch.nan)

    def _inside(self, x: Tensor) -> Tensor:
        return ~self.coordinates(x).isnan().any(1)

    def log_volume(self, z: Tensor) -> Tensor:
        first, second = z[:, : self.first.dim], z[:, self.first.dim :]
        return self.first.log_volume(first) + self.second.log_volume(second)

    def log_compression(self, x: Tensor) -> Tensor:
        first, second = self._parts(x)
        both = self.first.log_compression(first) + self.second.log_compression(second)
        return both.where(self._inside(x), torch.nan)

    def patches(self) -> tuple[Patch, ...]:
        pairs = [(a, b) for a in self.first.patches() for b in self.second.patches()]
        return tuple(Patch(a.low + b.low, a.high + b.high, partial(_both, a, b)) for a, b in pairs)


def _both(first: Patch, second: Patch, s: Tensor) -> Tensor:
    cut = len(first.low)
    return torch.cat([first.coordinates(s[:, :cut]), second.coordinates(s[:, cut:])], 1)


def examples(dim: int, seed: int) -> list[Manifold]:
    if dim < 2:
        return []
    circle, ellipse = Sphere(1, 0.75 + seed % 3 / 4), Ellipsoid((1.0, 1.25 + seed % 2 / 4))
    curved = Paraboloid(dim - 1, 0.25 + seed % 4 / 4)
    return [Product(circle, Flat(dim - 1)), Product(ellipse, curved)]
