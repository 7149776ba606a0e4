"""Geometries made of another one, its tangent spaces looked up or its normal spaces; and those of no
manifold: all directions, and the coordinates of a region."""

from dataclasses import dataclass, field
from typing import final

from torch import Tensor

from manifoldlab import linalg
from manifoldlab.interfaces import Batch, Geometry


@final
@dataclass(frozen=True, eq=False)
class Looked(Geometry):
    """The spaces of the samples of a batch, orthonormal columns (n, D, d)."""

    basis: Tensor = field(repr=False)

    @property
    def dim(self) -> int:
        return self.basis.shape[2]

    def to_tangent(self, x: Tensor, v: Tensor) -> Tensor:
        del x
        return linalg.project(self.basis.to(v), v)


@final
@dataclass(frozen=True, eq=False)
class Tabulated(Geometry):
    """A geometry whose spaces at the samples of a data set are known, by their index."""

    geometry: Geometry
    basis: Tensor = field(repr=False)  # (samples, D, d)

    @property
    def dim(self) -> int:
        return self.geometry.dim

    def to_tangent(self, x: Tensor, v: Tensor) -> Tensor:
        return self.geometry.to_tangent(x, v)

    def at(self, batch: Batch) -> Geometry:
        return self.geometry.at(batch) if batch.index is None else Looked(self.basis[batch.index])


@final
@dataclass(frozen=True)
class Across(Geometry):
    """The normal spaces of a geometry in R^D: its P is I less that one's."""

    geometry: Geometry
    ambient: int  # D

    @property
    def dim(self) -> int:
        return self.ambient - self.geometry.dim

    def to_tangent(self, x: Tensor, v: Tensor) -> Tensor:
        return v - self.geometry.to_tangent(x, v)

    def at(self, batch: Batch) -> Geometry:
        return Across(self.geometry.at(batch), self.ambient)


@final
@dataclass(frozen=True)
class Everything(Geometry):
    """All of R^D, P = I: for what is asked of a vector as a whole, where no tangent space is known."""

    dim: int

    def to_tangent(self, x: Tensor, v: Tensor) -> Tensor:
        del x
        return v


@final
@dataclass(frozen=True, eq=False)
class Region(Geometry):
    """The coordinates where the label's evidence is: of each sample the region of its batch."""

    dim: int  # how many these are, alike for all samples
    where: Tensor | None = field(default=None, repr=False)  # (n, *shape)

    def to_tangent(self, x: Tensor, v: Tensor) -> Tensor:
        if self.where is None:
            raise ValueError("a region is that of a batch: at(batch) gives a geometry that has it")
        del x
        return v * self.where

    def at(self, batch: Batch) -> Geometry:
        if batch.region is None:
            raise ValueError("regions of a batch without batch.region, where the evidence is")
        wrong = batch.region.flatten(1).sum(1).ne(self.dim).nonzero().flatten().tolist()
        if wrong:
            own = int(batch.region[wrong[0]].sum())
            raise ValueError(f"regions of {self.dim} coordinates, sample {wrong[0]} has {own}")
        return Region(self.dim, batch.region)
