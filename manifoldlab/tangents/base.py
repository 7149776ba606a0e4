"""Estimator: a geometry whose tangent spaces are estimated, and says how well they are determined.

A space is the span of the leading left singular vectors of a matrix A (D, k) a sample, offsets to
neighbours or a Jacobian. With the eigenvectors U and eigenvalues s^2 of the small matrix A'A,

    W = U_d / s_d,   A W orthonormal,   P = (A W)(A W)' = A (A'A)^{-1} A' where d = k.

A module of this package also gives `examples(x)`: a few small estimators of spaces at points x
(n, *shape), 12 or more of 4 or more numbers, for contract tests.
"""

import abc
from collections.abc import Callable, Sequence
from dataclasses import is_dataclass
from functools import partial
from types import BuiltinFunctionType, FunctionType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from manifoldlab import linalg
from manifoldlab.geometries import Looked
from manifoldlab.interfaces import Batch, Geometry
from manifoldlab.resuming import digest


class Spaces(NamedTuple):
    """All that is worth keeping of the tangent spaces at n points."""

    columns: Tensor  # (n, D, d) orthonormal; or (n, k, d) W, of a map that can be had again
    points: Tensor  # (n, k) where such a map is taken, or (n, 0)
    condition: Tensor  # (n,) largest over smallest singular value that is kept
    gap: Tensor  # (n,) largest singular value that is left out over the smallest that is kept
    unsettled: Tensor  # (n,) |A B - B (B'A B)| / |A B| where A B was iterated, else 0


class Diagnostics(NamedTuple):
    condition: Tensor  # (n,) as above: digits lost
    residual: Tensor  # (n,) |P P v - P v| / |P v| of a random v: 0 for an exact projection
    gap: Tensor  # (n,) as above: near 1 the data do not tell where the space ends
    unsettled: Tensor  # (n,) as above: 0 where iteration ended, or was not needed


class Estimator(Geometry):
    """A subclass is a frozen dataclass and final; it gives dim, `spaces` and `facts`."""

    @abc.abstractmethod
    def spaces(self, batch: Batch) -> Spaces:
        """At the samples of a batch; y is -1 where labels are not known."""

    @abc.abstractmethod
    def facts(self) -> dict[str, Any]:
        """All that the spaces depend on, as JSON has it, by which caches know them."""

    def prepared(self, spaces: Spaces) -> Geometry:
        """The geometry of spaces that were computed or kept."""
        return Looked(spaces.columns)

    def at(self, batch: Batch) -> Geometry:
        return self.prepared(self.spaces(batch))

    def to_tangent(self, x: Tensor, v: Tensor) -> Tensor:
        """Computes the spaces anew; of a batch that is used twice, `at` computes them once."""
        return self.at(unlabelled(x)).to_tangent(x, v)

    def diagnostics(self, batch: Batch) -> Diagnostics:
        return diagnosed(self, self.spaces(batch), batch.x)


def diagnosed(estimator: Estimator, spaces: Spaces, x: Tensor) -> Diagnostics:
    left = residual(estimator.prepared(spaces), x)
    return Diagnostics(spaces.condition, left, spaces.gap, spaces.unsettled)


def unlabelled(x: Tensor) -> Batch:
    return Batch(x, torch.full((len(x),), -1, device=x.device))


def residual(geometry: Geometry, x: Tensor) -> Tensor:
    """|P P v - P v| / |P v| of a normal v, the same for every sample, (n,)."""
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(x.shape[1:], generator=generator, dtype=torch.float64).to(x).expand_as(x)
    once = geometry.to_tangent(x, v)
    change = geometry.to_tangent(x, once) - once
    return (linalg.squared_norm(change) / linalg.squared_norm(once)).sqrt()


class Leading(NamedTuple):
    factor: Tensor  # (n, k, d) W, of the kind of numbers that A'A comes in
    vectors: Tensor  # (n, k, d) U
    condition: Tensor  # (n,)
    gap: Tensor  # (n,)


def leading(gram: Tensor, dim: int, floor: float, what: str) -> Leading:
    """Of A'A (n, k, k); eigenvalues below `floor` times the largest are rounding and no rank.

    Neither are those below the rounding of A'A itself, in whatever kind of numbers it comes.
    """
    finite = gram.isfinite().flatten(1).all(1)
    if not bool(finite.all()):
        first = int((~finite).nonzero()[0])
        raise ValueError(f"{what} is not finite in {int((~finite).sum())} samples, first {first}")
    values, vectors = torch.linalg.eigh(gram)  # ascending
    kept = values[:, -dim:].flip(1)
    check_rank(kept, max(floor, gram.shape[1] * torch.finfo(gram.dtype).eps), what)
    vectors = vectors[:, :, -dim:].flip(2)
    last = kept[:, -1]
    rest = values[:, -dim - 1] if dim < gram.shape[1] else torch.zeros_like(last)
    gap = (rest.clamp_min(0) / last).sqrt()
    return Leading(vectors / kept.sqrt()[:, None], vectors, (kept[:, 0] / last).sqrt(), gap)


def check_rank(values: Tensor, floor: float, what: str) -> None:
    """Refuses (n, d) eigenvalues, descending, of which some are rounding next to the first."""
    counted = values > floor * values[:, :1]
    lacking = (~counted.all(1)).nonzero().flatten()
    if len(lacking):
        worst = int(lacking[0])
        raise ValueError(
            f"{what} has {int(counted[worst].sum())} independent directions, not {values.shape[1]}, "
            f"in {len(lacking)} of {len(values)} samples, the first is {worst}: eigenvalues from "
            f"{values[worst, 0]:.2g} to {values[worst, -1]:.2g}, where {floor:.1e} of the first is rounding"
        )


def orthonormal(rows: Tensor) -> Tensor:
    """Columns (n, D, d) of nearly orthonormal rows (n, d, D), without what rounding left in these."""
    triangle = torch.linalg.cholesky((rows @ rows.mT).double())
    eye = torch.eye(rows.shape[1], dtype=triangle.dtype, device=rows.device)
    inverse = torch.linalg.solve_triangular(triangle, eye, upper=False)
    columns: Tensor = (inverse.to(rows) @ rows).mT
    return columns


def check_dim(dim: int, most: int, what: str) -> None:
    if not 1 <= dim <= most:
        raise ValueError(f"{dim} tangent directions of {what}: 1 to {most} can be had")


def in_chunks(estimate: Callable[[Batch], Spaces], batch: Batch, size: int) -> Spaces:
    """So many samples at a time, at least one."""
    parts = [
        estimate(Batch(x, y))
        for x, y in zip(*(torch.split(t, max(1, size)) for t in batch[:2]), strict=True)
    ]
    return joined(parts)


def joined(parts: Sequence[Spaces]) -> Spaces:
    """Columns stay as they come, each whole in memory, where products with vectors are fastest."""
    columns, *others = zip(*parts, strict=True)
    rows = torch.cat([column.mT for column in columns])
    return Spaces(rows.mT, *(torch.cat(tensors) for tensors in others))


def check_evaluating(model: object) -> None:
    """Refuses a network whose samples are coupled, or disturbed, because it is in training mode."""
    couples = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
    for name, module in model.named_modules() if isinstance(model, nn.Module) else ():
        if isinstance(module, couples) and module.training:
            raise ValueError(
                f"a network in training mode couples samples at {name}: call eval() first"
            )


def weights(model: object) -> str:
    """A digest of all tensors of a network and of the plain options of its modules."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"no weights to know a cache by: {model!r} is no nn.Module")
    options = [
        (name, type(module).__qualname__, key, _plain(value))
        for name, module in model.named_modules()
        for key, value in sorted(vars(module).items())
        if not key.startswith("_")
    ]
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    text = torch.tensor(list(repr((options, list(tensors))).encode()), dtype=torch.uint8)
    return digest(text, *tensors.values())


def _plain(value: object) -> str:
    """Words that are the same in the next process."""
    if isinstance(value, bool | int | float | str | tuple | list | dict) or is_dataclass(value):
        return repr(value)
    if isinstance(value, FunctionType | BuiltinFunctionType | type):
        return value.__qualname__
    if isinstance(value, partial):
        return repr((_plain(value.func), value.args, sorted(value.keywords.items())))
    return type(value).__qualname__
