"""Mean squared changes under Gaussian noise by Gauss-Hermite quadrature, and their limits.

If f depends on x through C'x alone (C of k columns), then f(x + sigma L u), u ~ N(0, I), depends on
u through the span of L'C alone. With orthonormal columns U of this span L U w, w ~ N(0, I_k), is as
good a noise as L u: k dimensions are enough, whatever the one of x.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

ORDER = 6  # nodes a direction: exact for polynomials of degree 11
Linear = Callable[[Tensor], Tensor]  # of columns (n, D, k)
Field = Callable[[Tensor], Tensor]  # x (m, n, *shape) -> (m, n)


class Nodes(NamedTuple):
    """Of N(0, I_k)."""

    points: Tensor  # (m, k)
    weights: Tensor  # (m,)


@cache
def gauss_hermite(dim: int, order: int = ORDER) -> Nodes:
    """The product rule, order^dim nodes."""
    points, weights = np.polynomial.hermite_e.hermegauss(order)
    one, share = torch.from_numpy(points), torch.from_numpy(weights / weights.sum())
    grid = torch.cartesian_prod(*[one] * dim).reshape(-1, dim)
    return Nodes(grid, torch.cartesian_prod(*[share] * dim).reshape(-1, dim).prod(1))


def directions(noise: Linear, transposed: Linear, columns: Tensor) -> Tensor:
    """L U for the noise L u and a function of C'x, (n, D, k); `transposed` is L'."""
    return noise(torch.linalg.qr(transposed(columns)).Q)


def mean_squared_change(
    f: Field, x: Tensor, directions: Tensor, scale: float, *, order: int = ORDER
) -> Tensor:
    """E (f(x + scale A w) - f(x))^2 for the directions A (n, D, k) and w ~ N(0, I_k), (n,)."""
    nodes = gauss_hermite(directions.shape[2], order)
    moves = torch.einsum("mk,nDk->mnD", nodes.points.to(x), directions)
    change = f(x + scale * moves.reshape(-1, *x.shape)) - f(x[None])
    return nodes.weights.to(x) @ change.square()


def limit(values: Tensor) -> Tensor:
    """At scale 0, of values (m, ...) at scales h, 2h, 4h, ... with an expansion in squares.

    Richardson: each step removes the lowest power left, and the last error is of order h^(2m).
    """
    for step in range(1, len(values)):
        values = (4**step * values[:-1] - values[1:]) / (4**step - 1)
    return values[0]
