"""Tangent spaces as the range of a decoder's Jacobian at the encoded point (Srinivas et al. 2023).

    T_x = J(z) R^k,   J = d decode / dz,   z = encode(x),

or, with dim < k, the span of J's `dim` leading left singular vectors. Each of `steps` Gauss-Newton steps
z <- z + J^+ (x - decode(z)) takes z towards the point that decodes nearest to x, where it comes nearer.

Where D dim is small an orthonormal basis is kept, beyond that the factor of `jacobian_range` alone.
"""

from dataclasses import dataclass, field
from math import prod
from typing import Any, Protocol, final

import torch
from torch import Tensor

from manifoldlab import jacobian_range, linalg
from manifoldlab.architecture import Architecture
from manifoldlab.geometries import Looked
from manifoldlab.interfaces import Batch, Geometry
from manifoldlab.jacobian_range import JacobianRange
from manifoldlab.neighbours import check_finite
from manifoldlab.tangents.base import (
    Estimator,
    Leading,
    Spaces,
    check_dim,
    check_evaluating,
    in_chunks,
    leading,
    weights,
)


class Coder(Protocol):
    def encode(self, x: Tensor) -> Tensor: ...  # (n, *shape) -> (n, k)
    def decode(self, z: Tensor) -> Tensor: ...


@final
@dataclass(frozen=True, eq=False)
class Autoencoder(Estimator):
    model: Coder = field(repr=False)
    dim: int
    steps: int = 0
    explicit: int = 2**20  # most numbers D dim of a sample for which a basis is kept
    chunk: int = 2**19  # numbers of x in one pass of the network

    def __post_init__(self) -> None:
        if self.dim < 1 or self.steps < 0:
            raise ValueError(f"an autoencoder's dim is >= 1 and its steps >= 0: {self!r}")
        check_evaluating(self.model)

    def spaces(self, batch: Batch) -> Spaces:
        check_finite(batch.x)
        size = self.chunk // (prod(batch.x.shape[1:]) * self.dim)
        return in_chunks(self._of, batch, size)

    def prepared(self, spaces: Spaces) -> Geometry:
        if spaces.points.shape[1]:
            return JacobianRange(self.model.decode, spaces.points, spaces.columns, self.chunk)
        return Looked(spaces.columns)

    def facts(self) -> dict[str, Any]:
        return {
            "estimator": "autoencoder",
            "model": weights(self.model),
            "dim": self.dim,
            "steps": self.steps,
            "explicit": self.explicit,
        }

    @torch.no_grad()
    def _of(self, batch: Batch) -> Spaces:
        x = batch.x
        z = self.model.encode(x)
        self._check(x, z)
        jacobian, found = self._taken(z, x)
        for _ in range(self.steps):
            nearer = self._nearer(x, z, jacobian, found)
            jacobian, found = self._taken(z := nearer, x)
        factor = found.factor.to(x)
        known = (found.condition.to(x), found.gap.to(x), x.new_zeros(len(x)))
        if jacobian.shape[1] * self.dim > self.explicit:
            return Spaces(factor, z, *known)
        basis = factor.mT @ jacobian.mT  # in rows, as the Jacobian lies in memory
        return Spaces(basis.mT, z[:, :0], *known)

    def _taken(self, z: Tensor, x: Tensor) -> tuple[Tensor, Leading]:
        jacobian = jacobian_range.columns(self.model.decode, z, x[0].numel(), self.chunk)
        # a column of J errs by some eps of the largest, and a singular value by that of all
        floor = (z.shape[1] * torch.finfo(z.dtype).eps) ** 2
        product = jacobian_range.gram(jacobian, self.chunk)
        return jacobian, leading(product, self.dim, floor, "the decoder's Jacobian")

    def _nearer(self, x: Tensor, z: Tensor, jacobian: Tensor, found: Leading) -> Tensor:
        left = x - self.model.decode(z)
        slope = left.flatten(1)[:, None] @ jacobian
        factor = found.factor.to(x)
        new = z + (slope @ factor @ factor.mT).squeeze(1)
        after = linalg.squared_norm(x - self.model.decode(new))
        return new.where((after < linalg.squared_norm(left))[:, None], z)

    def _check(self, x: Tensor, z: Tensor) -> None:
        if z.ndim != 2:
            raise ValueError(f"codes have the shape (n, k), not {tuple(z.shape)}: {self!r}")
        check_dim(self.dim, z.shape[1], f"an autoencoder with {z.shape[1]} latent numbers")
        decoded = self.model.decode(z[:1]).shape[1:]
        if decoded != x.shape[1:]:
            raise ValueError(
                f"a decoder to samples of shape {tuple(decoded)}, and samples of shape {tuple(x.shape[1:])}"
            )


def examples(x: Tensor) -> list[Estimator]:
    options = {"latent": 3, "width": 4, "depth": 1}
    model: Any = Architecture("autoencoder", tuple(x.shape[1:]), None, options).build(0)
    model.to(x).eval()
    return [Autoencoder(model, 3), Autoencoder(model, 2, explicit=0)]
