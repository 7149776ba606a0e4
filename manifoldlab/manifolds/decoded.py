"""What a decoder makes of its latent coordinates, x = G(z): pictures or vectors by a smooth network.

The nearest point is found by Newton's iteration from the nearest of a grid, and given only where the
offset is normal and shorter than the reach, which is an estimate: a network may cross itself unseen.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import inf, prod
from typing import Protocol, final

import torch
from torch import Tensor

from manifoldlab.interfaces import Axis
from manifoldlab.linalg import random_frame
from manifoldlab.manifolds.base import Manifold
from manifoldlab.nearest_point import coarse, newton
from manifoldlab.reach_bounds import estimated_reach

GRID = {1: 129, 2: 33, 3: 13}  # starts an axis


class Decoder(Protocol):
    """Smooth, in the dtype and on the device of z; hashable, and its repr rebuilds it."""

    @property
    def latent(self) -> int: ...
    @property
    def shape(self) -> tuple[int, ...]: ...  # of what it makes
    def __call__(self, z: Tensor) -> Tensor: ...  # (n, latent) -> (n, *shape)


@final
@dataclass(frozen=True)
class RandomDecoder:
    """1/2 + F z + bend B tanh(C z + c), F and B orthonormal together: a graph over a plane.

    So it never meets itself, and its reach is at least 1 / max |G''|.
    """

    shape: tuple[int, ...]
    latent: int
    seed: int = 0
    bend: float = 0.5
    units: int = 4

    def __post_init__(self) -> None:
        if self.latent < 1 or self.units < 1 or self.latent + self.units > prod(self.shape):
            raise ValueError(f"latent and units are 1 or more, in all at most D, not {self!r}")
        if not 0 <= self.bend < inf:
            raise ValueError(f"a bend is 0 or more and finite, not {self!r}")

    def __call__(self, z: Tensor) -> Tensor:
        frame, weight, bias = (t.to(z) for t in _drawn(self))
        hidden = self.bend * (z @ weight + bias).tanh()
        return (0.5 + torch.cat([z, hidden], 1) @ frame.mT).reshape(-1, *self.shape)

    @property
    def largest_curvature(self) -> float:
        """A bound of |G''(v, v)| for unit v: |tanh''| < 0.77."""
        steep = _drawn(self)[1].square().sum(0)  # |c_k|^2
        return 0.77 * self.bend * float(steep.norm())


@final
@dataclass(frozen=True)
class Decoded(Manifold):
    """The coordinates that count, for densities and for starts, are within `extent` of 0 on each axis."""

    decoder: Decoder
    extent: float = 4.0

    reach_certified = False

    def __post_init__(self) -> None:
        if self.dim not in GRID:
            raise ValueError(f"a decoder of 1 to 3 latent coordinates, not {self.dim}: {self!r}")
        if not 0 < self.extent < inf:
            raise ValueError(f"an extent is positive and finite, not {self.extent}: {self!r}")

    @property
    def dim(self) -> int:
        return self.decoder.latent

    @property
    def shape(self) -> tuple[int, ...]:
        return self.decoder.shape

    @cached_property
    def reach(self) -> float:
        """An estimate, of the part within the extent."""
        return estimated_reach(self.embed, (Axis(-self.extent, self.extent),) * self.dim)

    def embed(self, z: Tensor) -> Tensor:
        return self.decoder(z)

    def coordinates(self, x: Tensor) -> Tensor:
        start = coarse(self.embed, x, self._grid(x))
        return self.confirmed(x, newton(self.embed, x, start, steps=8))

    def _grid(self, like: Tensor) -> Tensor:
        """Coordinates (m, d) all over the extent."""
        ticks = torch.linspace(-self.extent, self.extent, GRID[self.dim]).to(like)
        return torch.cartesian_prod(*[ticks] * self.dim).reshape(-1, self.dim)


@lru_cache(maxsize=64)
def _drawn(decoder: RandomDecoder) -> tuple[Tensor, Tensor, Tensor]:
    """Frame (D, latent + units), weights (latent, units) and biases (units,)."""
    generator = torch.Generator().manual_seed(decoder.seed)
    normal = torch.randn(
        decoder.latent + 1, decoder.units, generator=generator, dtype=torch.float64
    )
    frame = random_frame(prod(decoder.shape), decoder.latent + decoder.units, decoder.seed)
    return frame, normal[:-1] / decoder.latent**0.5, normal[-1]


def examples(dim: int, seed: int) -> list[Manifold]:
    if dim > 2:
        return []
    return [Decoded(RandomDecoder((1 + seed % 2, 3, 3), dim, seed))]
