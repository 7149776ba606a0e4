"""The torus ((R + r cos v) cos u, (R + r cos v) sin u, r sin v) in R^3."""

from dataclasses import dataclass
from math import inf, log, pi
from typing import final

import torch
from torch import Tensor

from manifoldlab.interfaces import Axis
from manifoldlab.manifolds.base import Manifold


@final
@dataclass(frozen=True)
class TorusOfRevolution(Manifold):
    major: float = 2.0
    minor: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.minor < self.major < inf:
            raise ValueError(f"a torus of revolution has 0 < minor < major < inf, not {self!r}")

    @property
    def dim(self) -> int:
        return 2

    @property
    def shape(self) -> tuple[int, ...]:
        return (3,)

    @property
    def reach(self) -> float:
        """Exact: the circle inside the tube is `minor` away, the middle of the hole the rest."""
        return min(self.minor, self.major - self.minor)

    @property
    def axes(self) -> tuple[Axis, ...]:
        return (Axis(-pi, pi, wraps=True),) * 2

    def embed(self, z: Tensor) -> Tensor:
        around, tube = z.unbind(1)
        distance = self.major + self.minor * tube.cos()
        height = self.minor * tube.sin()
        return torch.stack([distance * around.cos(), distance * around.sin(), height], 1)

    def coordinates(self, x: Tensor) -> Tensor:
        around = torch.atan2(x[:, 1], x[:, 0])
        tube = torch.atan2(x[:, 2], x[:, :2].norm(dim=1) - self.major)
        return self.within_reach(x, torch.stack([around, tube], 1))

    def normals(self, x: Tensor) -> Tensor:
        around, tube = self.coordinates(x).unbind(1)
        outward = [tube.cos() * around.cos(), tube.cos() * around.sin(), tube.sin()]
        return torch.stack(outward, 1)[:, :, None]

    def log_volume(self, z: Tensor) -> Tensor:
        return log(self.minor) + (self.major + self.minor * z[:, 1].cos()).log()

    def log_compression(self, x: Tensor) -> Tensor:
        """Each angle turns by 1 over the distance from its centre."""
        inside = ~self.coordinates(x).isnan().any(1)
        distance: Tensor = x[:, :2].norm(dim=1)
        from_core: Tensor = torch.stack([distance - self.major, x[:, 2]], 1).norm(dim=1)
        return (-distance.log() - from_core.log()).where(inside, torch.nan)


def examples(dim: int, seed: int) -> list[Manifold]:
    return [TorusOfRevolution(2.0, 0.75 + seed % 3 / 4)] if dim == 2 else []
