"""The nearest points of a reference set, exactly, by blocks of a set that need not fit into memory.

By |x - r|^2 = |x|^2 - 2 <x, r> + |r|^2: one matrix product a block, and a running top-k. Rounding moves
a square by no more than a known bound; where the last one found and the first one left out are not
farther apart than that, the sample is searched for again in float64.
"""

import hashlib
from collections.abc import Iterator
from math import isqrt, prod, sqrt
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from manifoldlab.interfaces import Data

# Points in memory, in a memory-mapped array, or streamed: an epoch of Data in its own order.
Points: TypeAlias = Tensor | npt.NDArray[Any] | Data

CHUNK = 2**25  # numbers held at a time


class _Found(NamedTuple):
    square: Tensor  # (n, m) |x - r|^2 but for rounding, ascending
    row: Tensor  # (n, m)
    error: Tensor  # (n, 1) by which rounding may have moved a square


def shape(points: Points) -> tuple[int, ...]:
    """Of one point."""
    return points.shape if isinstance(points, Data) else tuple(points.shape[1:])


@torch.no_grad()
def nearest(
    x: Tensor, points: Points, count: int, *, leave_out: bool = False, chunk: int = CHUNK
) -> Tensor:
    """Rows (n, count) of the points nearest to each x (n, *shape), nearest first but for rounding.

    leave_out: without a point that is equal to x, where there is one. Bytes are pixels, 0 to 255.
    """
    _check(x, points, count)
    size = len(x) if isinstance(points, Data) else isqrt(chunk)  # a stream is read but once
    parts = [
        _nearest(part, points, count, leave_out, chunk) for part in torch.split(x, max(1, size))
    ]
    return torch.cat(parts)


def _nearest(x: Tensor, points: Points, count: int, leave_out: bool, chunk: int) -> Tensor:
    flat, wanted = x.flatten(1), count + leave_out
    found = _search(flat, points, wanted + 1, chunk)
    if found.row.shape[1] < wanted:
        beside = " beside the point itself" if leave_out else ""
        raise ValueError(
            f"{count} neighbours{beside} of a reference set of {found.row.shape[1]} points"
        )
    index = found.row
    doubtful = _doubtful(found, wanted, leave_out)
    if x.dtype != torch.float64 and bool(doubtful.any()):
        index[doubtful] = _search(flat[doubtful].double(), points, index.shape[1], chunk).row
    return _without_itself(x, points, index, count) if leave_out else index[:, :count]


def _check(x: Tensor, points: Points, count: int) -> None:
    if tuple(x.shape[1:]) != shape(points):
        raise ValueError(
            f"points of shape {tuple(x.shape[1:])} and a reference set of points of shape {shape(points)}"
        )
    if count < 1:
        raise ValueError(f"at least 1 neighbour, not {count}")
    check_finite(x)


def check_finite(x: Tensor, what: str = "points") -> None:
    bad = (~x.isfinite().flatten(1).all(1)).nonzero().flatten()
    if len(bad):
        raise ValueError(f"{what} not finite: {len(bad)} of {len(x)}, the first is {int(bad[0])}")


def _search(x: Tensor, points: Points, count: int, chunk: int) -> _Found:
    square, largest = x.new_empty(len(x), 0), x.new_zeros(())
    index = torch.empty(len(x), 0, dtype=torch.int64, device=x.device)
    centre = x.mean(0) if len(x) else x.new_zeros(x.shape[1])
    x = x - centre  # less to cancel
    own, first = x.square().sum(1, keepdim=True), 0
    for block in _blocks(points, max(1, chunk // max(len(x), x.shape[1]))):
        near = block.to(x) - centre
        norm = near.square().sum(1)
        _check_block(norm, first)
        products = torch.addmm(norm[None], x, near.T, alpha=-2)
        best, place = products.topk(min(count, len(near)), largest=False)
        square, index = torch.cat([square, best], 1), torch.cat([index, first + place], 1)
        square, place = square.topk(min(count, square.shape[1]), largest=False)
        index, first = index.gather(1, place), first + len(near)
        largest = torch.maximum(largest, norm.max())
    # a dot product of D terms errs by sqrt(D) eps |x| |r| where roundings are as good as random
    error = 4 * sqrt(x.shape[1]) * torch.finfo(x.dtype).eps * (own + largest)
    return _Found(square + own, index, error)


def _check_block(norm: Tensor, first: int) -> None:
    finite = norm.isfinite()
    if not bool(finite.all()):
        bad = first + int((~finite).nonzero()[0])
        raise ValueError(f"point {bad} of the reference set is not finite")


def _doubtful(found: _Found, wanted: int, leave_out: bool) -> Tensor:
    """(n,)"""
    square, _, error = found
    gap = square[:, wanted : wanted + 1] - square[:, wanted - 1 : wanted]
    doubtful = (gap <= 2 * error).any(1)  # not where there is no other point
    return doubtful | (square[:, 1:2] <= error).any(1) if leave_out else doubtful


def _without_itself(x: Tensor, points: Points, index: Tensor, count: int) -> Tensor:
    first = rows(points, index[:, :1]).to(x)[:, 0]
    itself = (first == x).flatten(1).all(1).long()
    return index.gather(1, itself[:, None] + torch.arange(count, device=index.device))


def _blocks(points: Points, size: int) -> Iterator[Tensor]:
    """(rows, D), in order."""
    if isinstance(points, Data):
        yield from (batch.x.flatten(1) for batch in points.batches(size, None))
        return
    for start in range(0, len(points), size):
        yield _numbers(points[start : start + size]).flatten(1)


def rows(points: Points, index: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Points by their row (n, m) -> (n, m, *shape); of streamed ones in one more pass over them.

    `out` is room for n m points or more, used where all are in memory: pages that are new each time
    cost ten times the copy.
    """
    if isinstance(points, Tensor):  # by index_select, twice as fast as points[index]
        room = None if out is None else out[: index.numel()]
        found = torch.index_select(points, 0, index.flatten().to(points.device), out=room)
        return _numbers(found).reshape(*index.shape, *points.shape[1:])
    if isinstance(points, np.ndarray):
        return _numbers(points[index.cpu().numpy()])
    found, first = torch.empty(*index.shape, *points.shape), 0
    for batch in points.batches(max(1, CHUNK // prod(points.shape)), None):
        inside = (index >= first) & (index < first + len(batch.x))
        found = found.to(batch.x)
        found[inside.to(found.device)] = batch.x[(index[inside] - first).to(batch.x.device)]
        first += len(batch.x)
    return found


def _numbers(points: Tensor | npt.NDArray[Any]) -> Tensor:
    found = points if isinstance(points, Tensor) else torch.from_numpy(np.array(points))
    return found.float() / 255 if found.dtype == torch.uint8 else found


def fingerprint(points: Points) -> str:
    """That of Data, or else a digest of the points and their order."""
    if isinstance(points, Data) and points.fingerprint:
        return points.fingerprint
    digest = hashlib.sha256(str(shape(points)).encode())
    for block in _blocks(points, max(1, CHUNK // prod(shape(points)))):
        digest.update(block.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
