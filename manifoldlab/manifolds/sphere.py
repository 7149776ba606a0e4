"""The sphere of radius r in R^(d+1), in stereographic coordinates from its last pole."""

from dataclasses import dataclass
from functools import partial
from math import log
from typing import final

import torch
from torch import Tensor

from manifoldlab import linalg
from manifoldlab.interfaces import Patch
from manifoldlab.manifolds.base import Manifold


@final
@dataclass(frozen=True)
class Sphere(Manifold):
    dim: int
    radius: float = 1.0

    def __post_init__(self) -> None:
        if self.dim < 1 or not 0 < self.radius < torch.inf:
            raise ValueError(f"a sphere has dim >= 1 and a finite radius > 0, not {self!r}")

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.dim + 1,)

    @property
    def reach(self) -> float:
        """Exact: the centre is as far from every point."""
        return self.radius

    def embed(self, z: Tensor) -> Tensor:
        square = z.square().sum(1, keepdim=True)
        return self.radius * torch.cat([2 * z, 1 - square], 1) / (1 + square)

    def coordinates(self, x: Tensor) -> Tensor:
        norm: Tensor = x.norm(dim=1, keepdim=True)
        head, last = x[:, :-1], x[:, -1:]
        # norm + last cancels below the equator; (norm + last)(norm - last) = |head|^2 does not
        south = last < 0
        below = (norm - last) / head.square().sum(1, keepdim=True).where(south, 1)
        z = head * below.where(south, 1 / (norm + last.where(~south, 1)))
        return z.where(self._within_reach(x), torch.nan)

    def _within_reach(self, x: Tensor) -> Tensor:
        offset: Tensor = x.norm(dim=1, keepdim=True) - self.radius
        return offset.abs() < self.reach

    def normals(self, x: Tensor) -> Tensor:
        return linalg.unit(x).where(self._within_reach(x), torch.nan)[:, :, None]

    def log_volume(self, z: Tensor) -> Tensor:
        return self.dim * (log(2 * self.radius) - z.square().sum(1).log1p())

    def log_compression(self, x: Tensor) -> Tensor:
        shrink: Tensor = (x.norm(dim=1) / self.radius).log()  # I - S_N = (|x| / r) I
        return -self.log_volume(self.coordinates(x)) - self.dim * shrink

    def patches(self) -> tuple[Patch, ...]:
        """The faces of a cube around the sphere, seen from its centre."""
        low, high = (-1.0,) * self.dim, (1.0,) * self.dim
        faces = [(axis, sign) for axis in range(self.dim + 1) for sign in (-1.0, 1.0)]
        return tuple(Patch(low, high, partial(self._of_face, axis, sign)) for axis, sign in faces)

    def _of_face(self, axis: int, sign: float, s: Tensor) -> Tensor:
        apex = torch.full_like(s[:, :1], sign)
        point = torch.cat([s[:, :axis], apex, s[:, axis:]], 1)
        return self.coordinates(self.radius * linalg.unit(point))


def examples(dim: int, seed: int) -> list[Manifold]:
    return [Sphere(dim, radius) for radius in (0.5 + seed % 4 / 2,)]
