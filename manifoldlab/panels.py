"""Composite Gauss-Legendre quadrature over boxes: panels, their nodes and weights.

A panel is a box (low, high); its rule is the tensor product of `order` Gauss-Legendre nodes an
axis. For an integrand that is analytic near the panel the error falls geometrically with the order.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor


@cache
def _rule(order: int) -> tuple[Tensor, Tensor]:
    nodes, weights = np.polynomial.legendre.leggauss(order)
    return torch.from_numpy(nodes), torch.from_numpy(weights)


def split(low: Tensor, high: Tensor, axis: Tensor) -> tuple[Tensor, Tensor]:
    """Each panel (m, d) halved along its own axis (m,): panels (2m, d)."""
    middle = (low + high) / 2
    chosen = torch.nn.functional.one_hot(axis, low.shape[1]).bool()
    lower_high, upper_low = middle.where(chosen, high), middle.where(chosen, low)
    return torch.cat([low, upper_low]), torch.cat([lower_high, high])


def split_axes(low: Tensor, high: Tensor, axes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each panel (m, d) halved along every axis that `axes` (m, d) marks; also where each is from."""
    parent = torch.arange(len(low), device=low.device)
    for axis in range(low.shape[1]):
        chosen = axes[parent, axis]
        along = torch.full_like(parent[chosen], axis)
        halves = split(low[chosen], high[chosen], along)
        low, high = torch.cat([low[~chosen], halves[0]]), torch.cat([high[~chosen], halves[1]])
        parent = torch.cat([parent[~chosen], parent[chosen], parent[chosen]])
    return low, high, parent


def grid(low: Tensor, high: Tensor, counts: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """One box (d,) cut into equal panels, `counts` of them an axis: (m, d) twice."""
    edges = [torch.linspace(0, 1, c + 1, dtype=low.dtype, device=low.device) for c in counts]
    cells = [torch.arange(c, device=low.device) for c in counts]
    index = torch.cartesian_prod(*cells).reshape(-1, len(counts))
    pick: Callable[[int], Tensor] = lambda k: torch.stack(
        [e[index[:, i] + k] for i, e in enumerate(edges)], 1
    )
    return low + (high - low) * pick(0), low + (high - low) * pick(1)


def nodes(low: Tensor, high: Tensor, order: int) -> tuple[Tensor, Tensor]:
    """Nodes (m, order^d, d) and log weights (m, order^d) of panels (m, d)."""
    unit_nodes, unit_weights = (t.to(low) for t in _rule(order))
    dim = low.shape[1]
    at = torch.cartesian_prod(*[unit_nodes] * dim).reshape(-1, dim)
    weight = torch.cartesian_prod(*[unit_weights] * dim).reshape(-1, dim).log().sum(1)
    half = (high - low) / 2
    points = ((low + high) / 2)[:, None] + half[:, None] * at
    return points, weight + half.log().sum(1, keepdim=True)


def ticks(low: Tensor, high: Tensor, order: int) -> Tensor:
    """The nodes of each axis alone, (m, order, d)."""
    at = _rule(order)[0].to(low)
    return ((low + high) / 2)[:, None] + ((high - low) / 2)[:, None] * at[:, None]


def legendre(values: Tensor, order: int, dim: int) -> Tensor:
    """Coefficients in products of Legendre polynomials of values at the nodes: (m, order^d, K) twice."""
    at, weights = _rule(order)
    degree = torch.arange(order, dtype=at.dtype)
    transform = polynomials(at, order).mT * weights * (degree[:, None] + 0.5)
    shaped = torch.unflatten(values, 1, (order,) * dim)
    for axis in range(dim):
        shaped = torch.tensordot(shaped, transform.to(values), ([axis + 1], [1])).movedim(
            -1, axis + 1
        )
    return shaped.flatten(1, dim)


def polynomials(u: Tensor, count: int) -> Tensor:
    """P_0(u) ... P_(count-1)(u), (..., count)."""
    found = [torch.ones_like(u), u]
    for k in range(2, count):
        found.append(((2 * k - 1) * u * found[-1] - (k - 1) * found[-2]) / k)
    return torch.stack(found[:count], -1)


def interpolate(coefficients: Tensor, u: Tensor, order: int) -> Tensor:
    """Values (m, q^d, K) at the products of u (m, q, d) in [-1, 1], of (m, order^d, K)."""
    dim = u.shape[2]
    value = torch.unflatten(coefficients, 1, (order,) * dim)
    for axis in range(dim):
        moved = value.movedim(axis + 1, 1)
        basis = polynomials(u[:, :, axis], order)  # (m, q, order)
        value = torch.unflatten(basis @ moved.flatten(2), 2, moved.shape[2:]).movedim(1, axis + 1)
    return value.flatten(1, dim)
