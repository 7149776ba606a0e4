"""Finite mixtures: rows of components, one row a class, as rectangles of tensors.

A row shorter than the longest is filled up with copies of its last component at weight zero.
"""

from math import isclose
from typing import Any

import torch
from torch import Tensor

Vector = tuple[float, ...]
Matrix = tuple[Vector, ...]


def uneven(count: int) -> Vector:
    """Probabilities in the proportion 2 : 3 : 4 : ..."""
    total = sum(range(2, count + 2))
    return tuple(k / total for k in range(2, count + 2))


def check_weights(weights: Matrix, priors: Vector, owner: object) -> None:
    """Refuses rows of weights that are not one a class, not positive, or do not sum to one."""
    if len(weights) != len(priors):
        raise ValueError(f"weights of {len(weights)} mixtures for {len(priors)} priors: {owner!r}")
    for row in weights:
        if any(not w > 0 for w in row) or not isclose(sum(row), 1, abs_tol=1e-12):
            raise ValueError(
                f"weights of a mixture must be positive and sum to 1, "
                f"not {row} with sum {sum(row)}: {owner!r}"
            )


def table(rows: tuple[Any, ...], what: str, weights: Matrix, owner: object) -> Tensor:
    """What belongs to each component, as (K, J, ...); rows are those of `weights`, one a class."""
    if len(rows) != len(weights):
        raise ValueError(f"{what} of {len(rows)} classes for {len(weights)} priors: {owner!r}")
    counts, expected = [len(row) for row in rows], [len(row) for row in weights]
    if counts != expected:
        raise ValueError(f"{what} of {counts} components a class, weights of {expected}: {owner!r}")
    longest = max(counts)
    full = [row + (row[-1],) * (longest - len(row)) for row in rows]
    try:
        values = torch.tensor(full, dtype=torch.float64)
    except ValueError as error:
        raise ValueError(f"{what} of different sizes ({error}): {owner!r}") from None
    if not values.isfinite().all():
        raise ValueError(f"{what} must be finite: {owner!r}")
    return values


def log_weights(weights: Matrix, priors: Vector) -> Tensor:
    """log(prior_y w_yj), (K, J), -inf where a class has fewer components."""
    longest = max(map(len, weights))
    full = [row + (0.0,) * (longest - len(row)) for row in weights]
    value = torch.tensor(full, dtype=torch.float64).log()
    return value + torch.tensor(priors, dtype=torch.float64).log()[:, None]


def draw_indices(weights: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """n of the indices of weights (m,), as often as these say."""
    if n == 0:  # which torch.multinomial refuses
        return torch.empty(0, dtype=torch.long)
    return torch.multinomial(weights, n, replacement=True, generator=generator)


def draw(log_weights: Tensor, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """n components, as positions in the flattened (K, J), and their classes."""
    component = draw_indices(log_weights.exp().flatten(), n, generator)
    return component, component // log_weights.shape[1]


def as_tuples(values: Tensor) -> Any:
    """Nested tuples of floats, which a frozen dataclass can hold and its repr rebuilds."""
    if values.ndim == 0:
        return float(values)
    return tuple(as_tuples(value) for value in values)
