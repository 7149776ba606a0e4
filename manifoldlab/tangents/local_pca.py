"""Tangent spaces from the nearest points of a reference set: their `dim` leading principal directions.

    P = projection on the leading eigenvectors of  sum_j (r_j - c)(r_j - c)',   r_j the neighbours of x,

c their mean, or x itself. Noise of deviation tau about a d-dimensional manifold in R^D tilts the space
unless the neighbours reach much farther than tau sqrt(D), and curvature does where they reach far.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod, sqrt
from typing import Any, final

import torch
from torch import Tensor

from manifoldlab import neighbours
from manifoldlab.geometries import Looked
from manifoldlab.interfaces import Batch, Geometry
from manifoldlab.neighbours import Points
from manifoldlab.tangents.base import Estimator, Spaces, check_dim, joined, leading, orthonormal


@final
@dataclass(frozen=True, eq=False)
class LocalPca(Estimator):
    reference: Points = field(repr=False)  # in memory, memory-mapped, or streamed
    dim: int
    neighbours: int = 32
    leave_out: bool = False  # the point itself, where the reference set has it
    at_point: bool = False  # directions from x rather than from the mean of its neighbours
    explicit: int = 2**20  # of spaces with more numbers D dim, neighbours and W are kept, no basis
    chunk: int = 2**22  # numbers held at a time; for each such part a stream is read once more

    def __post_init__(self) -> None:
        check_dim(self.dim, self._ambient, f"points of shape {neighbours.shape(self.reference)}")
        most = self.neighbours - (not self.at_point)  # the mean takes one
        check_dim(self.dim, most, f"{self.neighbours} neighbours")

    def spaces(self, batch: Batch) -> Spaces:
        return joined([self._of(*part) for part in self._offsets(batch.x)])

    @torch.no_grad()
    def prepared(self, spaces: Spaces) -> Geometry:
        if not spaces.points.shape[1]:
            return Looked(spaces.columns)
        parts = (torch.split(t, self._size) for t in (spaces.points, spaces.columns))
        return Looked(torch.cat([self._basis(*part) for part in zip(*parts, strict=True)]))

    def facts(self) -> dict[str, Any]:
        return {
            "estimator": "local_pca",
            "reference": neighbours.fingerprint(self.reference),
            "dim": self.dim,
            "neighbours": self.neighbours,
            "leave_out": self.leave_out,
            "at_point": self.at_point,
            "explicit": self.explicit,
        }

    @torch.no_grad()
    def _offsets(self, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """r_j - c, (n, m, D), and the rows j (n, m), a chunk of the samples at a time."""
        index = neighbours.nearest(
            x, self.reference, self.neighbours, leave_out=self.leave_out, chunk=self.chunk
        )
        own, room = self.reference, min(self._size, len(x)) * self.neighbours
        memory = own.new_empty(room, *own.shape[1:]) if isinstance(own, Tensor) else None
        for some, points in zip(*(torch.split(t, self._size) for t in (index, x)), strict=True):
            near = neighbours.rows(own, some, out=memory).to(x).flatten(2)
            centre = points.flatten(1)[:, None] if self.at_point else near.mean(1, keepdim=True)
            yield near.sub_(centre), some

    def _basis(self, index: Tensor, factor: Tensor) -> Tensor:
        """From what is kept."""
        near = neighbours.rows(self.reference, index).to(factor).flatten(2)
        return orthonormal(factor.mT @ near.sub_(near.mean(1, keepdim=True)))

    @property
    def _ambient(self) -> int:
        return prod(neighbours.shape(self.reference))

    @property
    def _size(self) -> int:
        return max(1, self.chunk // (self.neighbours * self._ambient))

    @torch.no_grad()
    def _of(self, offset: Tensor, index: Tensor) -> Spaces:
        """By whichever is smaller, the products of neighbours or the covariance of coordinates."""
        count, ambient = offset.shape[1:]
        few = count <= ambient
        gram = offset @ offset.mT if few else offset.mT @ offset
        floor = 4 * sqrt(ambient) * torch.finfo(offset.dtype).eps  # of sums of so many terms
        found = leading(gram, self.dim, floor, f"the set of {count} neighbours")
        known = (found.condition, found.gap, offset.new_zeros(len(offset)))
        if few and not self.at_point and ambient * self.dim > self.explicit:
            return Spaces(found.factor, index, *known)
        rows = found.factor.mT @ offset if few else found.vectors.mT
        return Spaces(orthonormal(rows), offset.new_zeros(len(offset), 0), *known)


def examples(x: Tensor) -> list[Estimator]:
    return [LocalPca(x, 2, 6), LocalPca(x, 3, 9, leave_out=True, at_point=True)]
