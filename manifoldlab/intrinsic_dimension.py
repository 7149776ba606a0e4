"""How many dimensions a data manifold has, from the nearest neighbours of its points.

    maximum_likelihood   1/d = mean over points and j < m of log(T_m / T_j), T_j the distance of the j-th
                         neighbour (Levina and Bickel 2004; inverses averaged: MacKay, Ghahramani 2005)
    two_nearest          the same with m = 2 (Facco et al. 2017)
    local_pca_gap        where the eigenvalues of the neighbours' covariance fall by the largest factor

On a flat with constant density, and away from its edges, log(T_m / T_j) summed over j < m is exactly a
Gamma variable of shape m - 1 and rate d. Over n points with neighbours of their own, with S the sum of
all N = n (m - 1) logarithms, (N - 1) / S is unbiased, with deviation d / sqrt(N - 2).
Curvature, slopes of the density and edges bias it at the scale of T_m, noise at scales below its own.
"""

from collections.abc import Iterator
from math import prod, sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from manifoldlab import neighbours
from manifoldlab.neighbours import Points


class IntrinsicDimension(NamedTuple):
    dimension: float
    error: (
        float  # standard error from the spread over points, too small where they share neighbours
    )
    model_error: float  # d / sqrt(N - 2) as above, or nan
    of_point: Tensor  # (n,) at each point alone


def maximum_likelihood(
    x: Tensor,
    reference: Points,
    *,
    neighbours: int = 20,
    leave_out: bool = True,
    chunk: int = 2**22,
) -> IntrinsicDimension:
    """At points x (n, *shape), by their `neighbours` nearest points of a reference set."""
    if neighbours < 2:
        raise ValueError(f"ratios of distances need 2 neighbours or more, not {neighbours}")
    found = [o.norm(dim=2) for o in _offsets(x, reference, neighbours, leave_out, chunk)]
    distance = torch.cat(found).double().sort(1).values
    _check_distances(distance)
    sums = (distance[:, -1:] / distance[:, :-1]).log().sum(1)  # (n,)
    count = sums.numel() * (neighbours - 1)
    if count < 3:
        raise ValueError(f"{len(x)} points with {neighbours} neighbours: 3 ratios are the least")
    estimate = (count - 1) / sums.sum().item()
    relative = (sums.std() / sums.mean()).item() / sqrt(len(x)) if len(x) > 1 else torch.nan
    return IntrinsicDimension(
        estimate, estimate * relative, estimate / sqrt(count - 2), (neighbours - 1) / sums
    )


def two_nearest(
    x: Tensor, reference: Points, *, leave_out: bool = True, chunk: int = 2**22
) -> IntrinsicDimension:
    return maximum_likelihood(x, reference, neighbours=2, leave_out=leave_out, chunk=chunk)


def local_pca_gap(
    x: Tensor,
    reference: Points,
    *,
    neighbours: int = 32,
    most: int | None = None,
    floor: float = 1e-2,
    leave_out: bool = True,
    chunk: int = 2**22,
) -> IntrinsicDimension:
    """The mean over points of the place of the largest gap, from 1 to `most`, which must be below D.

    By default `most` is half the number of neighbours: the last eigenvalues of any sample fall steeply.
    Eigenvalues below `floor` times the largest count as equal: on data without noise the deepest fall
    is not from d to d + 1 but from the directions of curvature to nothing at all.
    """
    ambient = prod(x.shape[1:])
    limit = min(neighbours - 2, ambient - 1)  # of eigenvalues that have another one behind them
    last = min(neighbours // 2, limit) if most is None else most
    if not 1 <= last <= limit:
        raise ValueError(
            f"gaps up to dimension {last} from {neighbours} neighbours in {ambient} dimensions: 1 to {limit}"
        )
    if not 1e-6 <= floor < 1:
        raise ValueError(f"a floor of eigenvalues above rounding is from 1e-6 to 1, not {floor}")
    parts = [_gaps(o, last, floor) for o in _offsets(x, reference, neighbours, leave_out, chunk)]
    found = torch.cat(parts).double()
    error = found.std().item() / sqrt(len(found)) if len(found) > 1 else torch.nan
    return IntrinsicDimension(found.mean().item(), error, torch.nan, found)


@torch.no_grad()
def _gaps(offset: Tensor, last: int, floor: float) -> Tensor:
    """(n,) in 1 to last"""
    centred = offset - offset.mean(1, keepdim=True)
    few = centred.shape[1] <= centred.shape[2]
    gram = centred @ centred.mT if few else centred.mT @ centred
    values = torch.linalg.eigvalsh(gram.double()).flip(1)
    values = torch.maximum(values, floor * values[:, :1])
    return (values[:, :last] / values[:, 1 : last + 1]).argmax(1) + 1


@torch.no_grad()
def _offsets(
    x: Tensor, points: Points, count: int, leave_out: bool, chunk: int
) -> Iterator[Tensor]:
    """Neighbours less x, (n, m, D), a chunk of the points at a time."""
    index = neighbours.nearest(x, points, count, leave_out=leave_out, chunk=chunk)
    size = max(1, chunk // (count * prod(x.shape[1:])))
    for some, here in zip(torch.split(index, size), torch.split(x, size), strict=True):
        near = neighbours.rows(points, some).to(x).flatten(2)
        yield near.sub_(here.flatten(1)[:, None])


def _check_distances(distance: Tensor) -> None:
    equal = (distance[:, 0] == 0) | (distance[:, -1] == distance[:, 0])
    if bool(equal.any()):
        first = int(equal.nonzero()[0])
        raise ValueError(
            f"{int(equal.sum())} of {len(distance)} points have neighbours equal to them, or all as far: "
            f"no ratio of distances, the first is {first}; leave duplicates out"
        )
