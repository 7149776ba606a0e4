"""Projection on the spans of given columns A (n, D, k) that are independent, but not orthonormal.

    P v = A W W' A' v,   W = L^{-T},   A'A = L L',    and once more: P v + P (v - P v)

as of Jacobians that come from elsewhere. The product A'A and its Cholesky factor, in the numbers of A, cost
a quarter of an orthonormal basis. The second pass squares their error, eps cond(A)^2; where that is still
more than A itself is known to, eps cond(A), the product is summed in float64 and decomposed, and columns
that are not independent are refused.
"""

from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from manifoldlab import jacobian_range
from manifoldlab.interfaces import Geometry
from manifoldlab.tangents.base import leading

CHUNK = 2**22  # numbers in float64 at a time


@final
@dataclass(frozen=True, eq=False)
class Spanned(Geometry):
    """The spans at the samples of a batch."""

    columns: Tensor = field(repr=False)  # (n, D, k)
    factor: Tensor = field(repr=False)  # (n, k, k) W

    @property
    def dim(self) -> int:
        return self.columns.shape[2]

    def to_tangent(self, x: Tensor, v: Tensor) -> Tensor:
        del x
        n, ambient = self.columns.shape[:2]
        flat = v.reshape(v.numel() // max(n * ambient, 1), n, ambient).transpose(0, 1)  # (n, m, D)
        once = self._projected(flat)
        return (once + self._projected(flat - once)).transpose(0, 1).reshape(v.shape)

    def _projected(self, rows: Tensor) -> Tensor:
        columns, factor = self.columns.to(rows), self.factor.to(rows)
        return rows @ columns @ factor @ factor.mT @ columns.mT


@torch.no_grad()
def spanned(columns: Tensor) -> Spanned:
    if columns.ndim != 3 or not 1 <= columns.shape[2] <= columns.shape[1]:
        raise ValueError(f"columns (n, D, k) have 1 <= k <= D, not {tuple(columns.shape)}")
    gram = columns.mT @ columns
    triangle, failed = torch.linalg.cholesky_ex(gram)
    eye = torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device).expand_as(gram)
    factor = torch.linalg.solve_triangular(triangle, eye, upper=False).mT
    square = _norm(gram) * _norm(factor @ factor.mT)  # no less than cond(A)^2
    # (eps cond^2)^2 < eps cond; not so, too, where it is no number
    certain = (failed == 0) & (square < torch.finfo(gram.dtype).eps ** (-2 / 3))
    return Spanned(columns, factor if bool(certain.all()) else _in_float64(columns))


def _norm(square: Tensor) -> Tensor:
    """The largest sum of a row, no less than the largest eigenvalue."""
    return square.abs().sum(2).amax(1)


def _in_float64(columns: Tensor) -> Tensor:
    k = columns.shape[2]
    floor = (k * torch.finfo(columns.dtype).eps) ** 2  # of a singular value, by the rounding of A
    found = leading(jacobian_range.gram(columns, CHUNK), k, floor, "the set of columns")
    return found.factor.to(columns)
