"""A manifold in general position: the rigid motion x = U m + shift e of another one into R^D."""

from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import final

import torch
from torch import Tensor

from manifoldlab import linalg
from manifoldlab.interfaces import Axis, Patch
from manifoldlab.manifolds.base import Manifold
from manifoldlab.manifolds.ellipsoid import Ellipsoid
from manifoldlab.manifolds.flat import Flat
from manifoldlab.manifolds.paraboloid import Paraboloid


@final
@dataclass(frozen=True)
class Placed(Manifold):
    base: Manifold
    codim: int = 1  # beside the base's own
    seed: int = 0
    shift: float = 0.0

    def __post_init__(self) -> None:
        if self.codim < 0 or self.seed < 0 or not 0 <= self.shift < inf:
            raise ValueError(f"codim, seed and a finite shift are at least 0, not as in {self!r}")
        with torch.inference_mode(False):  # now: the first use may be inside vmap or inference mode
            _ = self.frame, self.origin

    @property
    def dim(self) -> int:
        return self.base.dim

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.base.ambient + self.codim,)

    @property
    def reach(self) -> float:
        """Exact where the base's is: distances to the points of M grow alike across its space."""
        return self.base.reach

    @property
    def reach_certified(self) -> bool:
        return self.base.reach_certified

    @property
    def axes(self) -> tuple[Axis, ...]:
        return self.base.axes

    @cached_property
    def frame(self) -> Tensor:
        """U, (D, D of the base)."""
        return linalg.random_frame(self.ambient, self.base.ambient, self.seed)

    @cached_property
    def origin(self) -> Tensor:
        """(D,)"""
        return self.shift * linalg.random_frame(self.ambient, 1, self.seed + 1).squeeze(1)

    def embed(self, z: Tensor) -> Tensor:
        return self.base.embed(z).flatten(1) @ self.frame.to(z).mT + self.origin.to(z)

    def coordinates(self, x: Tensor) -> Tensor:
        """The offset has a part in the base's space and one across; the test is of the whole."""
        return self.within_reach(x, self.base.coordinates(self._in_base(x)))

    def _in_base(self, x: Tensor) -> Tensor:
        return ((x - self.origin.to(x)) @ self.frame.to(x)).reshape(len(x), *self.base.shape)

    def log_volume(self, z: Tensor) -> Tensor:
        return self.base.log_volume(z)

    def log_compression(self, x: Tensor) -> Tensor:
        """J_z = J_z of the base times U', and U'U = I."""
        inside = ~self.coordinates(x).isnan().any(1)
        return self.base.log_compression(self._in_base(x)).where(inside, torch.nan)

    def patches(self) -> tuple[Patch, ...]:
        return self.base.patches()


def examples(dim: int, seed: int) -> list[Manifold]:
    ellipsoid = Ellipsoid(tuple(1 + (i + seed) % 3 / 4 for i in range(dim + 1)))
    return [
        Placed(Flat(dim), codim=1 + seed % 3, seed=seed),
        Placed(ellipsoid, codim=2, seed=seed, shift=0.5),
        Placed(Paraboloid(dim, 0.25 + seed % 3 / 4), codim=1 + seed % 2, seed=seed),
    ]
