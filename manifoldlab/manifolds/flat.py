"""R^d itself, x = z; `Placed` makes an affine subspace of it."""

from dataclasses import dataclass
from math import inf
from typing import final

from torch import Tensor

from manifoldlab.manifolds.base import Manifold


@final
@dataclass(frozen=True)
class Flat(Manifold):
    dim: int

    def __post_init__(self) -> None:
        if self.dim < 1:
            raise ValueError(f"a flat has dim >= 1, not {self!r}")

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.dim,)

    @property
    def reach(self) -> float:
        """Exact: every point is on it."""
        return inf

    def embed(self, z: Tensor) -> Tensor:
        return z

    def coordinates(self, x: Tensor) -> Tensor:
        return x

    def normals(self, x: Tensor) -> Tensor:
        return x[:, :, None][:, :, :0]  # (n, d, 0)

    def log_volume(self, z: Tensor) -> Tensor:
        return 0 * z[:, 0]

    def log_compression(self, x: Tensor) -> Tensor:
        return 0 * x[:, 0]


def examples(dim: int, seed: int) -> list[Manifold]:
    del seed
    return [Flat(dim)]
