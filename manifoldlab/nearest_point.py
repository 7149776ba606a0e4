"""The nearest point of a chart by Newton's iteration, differentiable as often as need be.

Stationarity of |x - embed(z)|^2 / 2 reads F(z, x) = -J(z)' (x - embed(z)) = 0, its Hessian is
H = J'J - <x - embed(z), embed''(z)>; H > 0 within the reach. From a converged and detached z,
k further Newton steps have the derivatives of z(x) right up to order 2^k - 1, because each step
doubles the order of contact with the solution.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import jvp, vjp

Embed = Callable[[Tensor], Tensor]

DIFFERENTIABLE_STEPS = 2  # derivatives right to the third order: Hessians of densities and more
DAMPING = (3.0, 1.0, 0.1, 0.01, 0.0)  # shares of J'J to try; 0 is Newton's step
BUDGET = 2**22  # numbers at once in the search for a start


def jacobian(embed: Embed, z: Tensor) -> Tensor:
    """d embed / dz as columns (n, D, d), one forward derivative a column."""
    embed(z[:0])  # what an embedding draws once and keeps cannot be drawn inside vmap
    directions = torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
    column = lambda e: jvp(embed, (z,), (e.expand_as(z),))[1].flatten(1)
    columns: Tensor = torch.func.vmap(column)(directions)
    return columns.movedim(0, 2)


def curvature_form(embed: Embed, z: Tensor, v: Tensor) -> Tensor:
    """<v, d^2 embed / dz_i dz_j>, (n, d, d), for v (n, *shape)."""
    embed(z[:0])  # as above
    directions = torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
    gradient = lambda z: vjp(embed, z)[1](v)[0]
    row = lambda e: jvp(gradient, (z,), (e.expand_as(z),))[1]
    # not out_dims=2: of rows that do not depend on e (a linear embed) torch 2.13 drops the rest
    rows: Tensor = torch.func.vmap(row)(directions)
    return rows.movedim(0, 2)


def step(embed: Embed, x: Tensor, z: Tensor) -> Tensor:
    """One Newton step of z towards the nearest point of x."""
    metric, form, slope = _system(embed, x, z)
    return z + _solve(metric - form, slope)


def _system(embed: Embed, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """J'J (n, d, d), <x - embed(z), embed''(z)> (n, d, d) and J'(x - embed(z)) (n, d)."""
    tangents = jacobian(embed, z)  # (n, D, d)
    offset = x - embed(z)
    slope = (tangents.mT @ offset.flatten(1)[:, :, None]).squeeze(2)
    return tangents.mT @ tangents, curvature_form(embed, z, offset), slope


def _solve(matrix: Tensor, vector: Tensor) -> Tensor:
    """By the inverse: the forward derivative of torch 2.13's linalg.solve is wrong in vmap of vmap."""
    inverse: Tensor = torch.linalg.inv_ex(matrix).inverse
    return (inverse @ vector[..., None]).squeeze(-1)


def coarse(embed: Embed, x: Tensor, grid: Tensor) -> Tensor:
    """Of the coordinates `grid` (m, d) those of the point nearest to each x (n, *shape), (n, d).

    By |x - p|^2 = |x|^2 - 2 <x, p> + |p|^2, in pieces: a start for `newton`, not more.
    """
    with torch.no_grad():
        flat = x.detach().flatten(1)
        least, start = torch.full_like(flat[:, 0], torch.inf), grid[:1].expand(len(x), -1)
        size = max(1, BUDGET // max(len(x), flat.shape[1], 1))
        for piece in (grid[i : i + size] for i in range(0, len(grid), size)):
            points = embed(piece).flatten(1)  # (m, D)
            value, index = (points.square().sum(1) / 2 - flat @ points.mT).min(1)
            start = torch.where((value < least)[:, None], piece[index], start)
            least = torch.minimum(least, value)
    return start


def newton(embed: Embed, x: Tensor, start: Tensor, *, steps: int = 12) -> Tensor:
    """z (n, d) of a stationary point near `start`: damped steps that must not lead away from x."""
    with torch.no_grad():  # which forward mode does not heed
        z = start.detach()
        for _ in range(steps):
            z = _nearer(embed, x.detach(), z)
    for _ in range(DIFFERENTIABLE_STEPS):
        z = step(embed, x, z)
    return z


def _nearer(embed: Embed, x: Tensor, z: Tensor) -> Tensor:
    """The nearest to x among z, its Newton step and steps with a share of J'J added to the Hessian.

    Small shares are for points next to the focal set, where a Newton step goes too far.
    """
    metric, form, slope = _system(embed, x, z)
    damped = torch.stack([(1 + share) * metric - form for share in DAMPING])
    tries = torch.cat([z[None], z + _solve(damped, slope.expand(len(DAMPING), *z.shape))])
    points = embed(tries.flatten(0, 1)).reshape(len(tries), *x.shape)
    distance = (x - points).flatten(2).norm(dim=2)
    best = distance.nan_to_num(torch.inf, torch.inf).argmin(0)  # of equals the first
    return tries.gather(0, best[None, :, None].expand(1, *z.shape)).squeeze(0)
