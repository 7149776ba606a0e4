"""Two Gaussian classes on flats of R^D, a flat of its own for each member of an ensemble.

    x = U z + shift e,   z ~ N(+-separation e_1, I_d) by the label,   the columns of U and e orthonormal

No point sees what lies across the span of U and, unless the shift is 0, of e. The Bayes margin is
2 separation z_1: all of its gradient lies along the flat.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self, final

import torch
from torch import Tensor

from manifoldlab import draws, linalg
from manifoldlab.interfaces import Batch, Geometry


@final
@dataclass(frozen=True, eq=False)
class Flats(Geometry):
    span: Tensor  # (E, D, k): d columns along the flats, and one more along the offset if there is one
    dim: int
    shift: float = 0.0

    @classmethod
    def drawn(cls, ambient: int, dim: int, shift: float, seeds: tuple[int, ...]) -> Self:
        """In general position."""
        frames = [
            linalg.random_frame(ambient, dim + (shift > 0), draws.number(seed, "flat"))
            for seed in seeds
        ]
        return cls(torch.stack(frames), dim, shift)

    @classmethod
    def along_axes(cls, ambient: int, dim: int, shift: float, seeds: tuple[int, ...]) -> Self:
        """The first axes of R^D, the offset along the next one."""
        frame = torch.eye(ambient, dtype=torch.float64)[:, : dim + (shift > 0)]
        return cls(frame.expand(len(seeds), -1, -1), dim, shift)

    def to_tangent(self, x: Tensor, v: Tensor) -> Tensor:
        """Samples come in equal blocks, one a flat."""
        del x
        ambient = v.shape[-1]
        blocks = v.reshape(*v.shape[:-2], len(self.span), -1, ambient)  # (..., E, n, D)
        return self.along(blocks).reshape(v.shape)

    def along(self, v: Tensor) -> Tensor:
        """The part of v (..., E, n, D) along the flats."""
        frame = self.span[:, :, : self.dim].to(v)
        return v @ frame @ frame.mT

    def unseen(self, v: Tensor) -> Tensor:
        """(I - Pi) v, the part of v (..., E, n, D) across the span of the points."""
        span = self.span.to(v)
        return v - v @ span @ span.mT

    def points(
        self,
        n: int,
        separation: float,
        seeds: tuple[int, ...],
        use: str,
        *,
        spread: float = 0.0,
    ) -> Batch:
        """n points on each flat, x (E n, D), or with noise across it; the labels alternate.

        Another `use` has other points.
        """
        members, ambient, columns = self.span.shape
        sources = tuple(draws.source(seed, use) for seed in seeds)
        z = draws.normal(self.span.new_zeros(members * n, self.dim), sources)
        y = (torch.arange(n) % 2).repeat(members)
        z[:, 0] += separation * (2 * y - 1).to(z)
        offset = torch.full_like(z[:, :1], self.shift)
        inside = torch.cat([z, offset], 1)[:, :columns].reshape(members, n, columns)
        x = inside @ self.span.mT
        if spread:
            noise = draws.normal(x.reshape(-1, ambient), sources).reshape(x.shape)
            x = x + spread * self.unseen(noise)
        return Batch(x.reshape(-1, ambient), y)

    def blocks(self, batch: Batch) -> Iterator[tuple[Tensor, Tensor]]:
        """x (n, D) and y (n,) of each flat."""
        members = len(self.span)
        x = batch.x.reshape(members, -1, batch.x.shape[1])
        return zip(x, batch.y.reshape(members, -1), strict=True)
