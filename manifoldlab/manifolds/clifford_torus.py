"""The product of circles x_2i + i x_2i+1 = r_i exp(i z_i) in R^(2d)."""

from dataclasses import dataclass
from math import inf, log, pi
from typing import final

import torch
from torch import Tensor

from manifoldlab.interfaces import Axis
from manifoldlab.manifolds.base import Manifold


@final
@dataclass(frozen=True)
class CliffordTorus(Manifold):
    radii: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.radii or not all(0 < radius < inf for radius in self.radii):
            raise ValueError(f"a Clifford torus has one or more finite radii > 0, not {self!r}")

    @property
    def dim(self) -> int:
        return len(self.radii)

    @property
    def shape(self) -> tuple[int, ...]:
        return (2 * self.dim,)

    @property
    def reach(self) -> float:
        """Exact: the centre of the smallest circle is as far from all of that circle."""
        return min(self.radii)

    @property
    def axes(self) -> tuple[Axis, ...]:
        return (Axis(-pi, pi, wraps=True),) * self.dim

    def embed(self, z: Tensor) -> Tensor:
        radii = torch.tensor(self.radii, dtype=z.dtype, device=z.device)
        return torch.stack([radii * z.cos(), radii * z.sin()], 2).flatten(1)

    def coordinates(self, x: Tensor) -> Tensor:
        return self.within_reach(x, torch.atan2(x[:, 1::2], x[:, ::2]))

    def normals(self, x: Tensor) -> Tensor:
        z = self.coordinates(x)
        outward = torch.stack([z.cos(), z.sin()], 2)  # (n, d, 2)
        return torch.einsum("nik,ij->nikj", outward, torch.eye(self.dim).to(z)).flatten(1, 2)

    def log_volume(self, z: Tensor) -> Tensor:
        return 0 * z[:, 0] + sum(map(log, self.radii))

    def log_compression(self, x: Tensor) -> Tensor:
        """- sum of log |x_2i + i x_2i+1|: an angle turns by 1 over the distance from its centre."""
        inside = ~self.coordinates(x).isnan().any(1)
        square = x[:, ::2].square() + x[:, 1::2].square()
        compression: Tensor = -0.5 * square.log().sum(1)
        return compression.where(inside, torch.nan)


def examples(dim: int, seed: int) -> list[Manifold]:
    return [CliffordTorus(tuple(0.75 + (seed + 3 * i) % 4 / 4 for i in range(dim)))]
