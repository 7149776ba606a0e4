"""How far random steps along (on) and across (off) the manifold change the output.

Two conventions of steps, laws A2 and A3, for noise u ~ N(0, I) and the projections P, Q:
    gaussian_steps  sigma Pu and sigma Qu: mean squares sigma^2 |Pg|^2 and sigma^2 |Qg|^2, so
                    omega = r^2 / (1 + r^2)
    unit_steps      eps Pu/|Pu| and eps Qu/|Qu|: eps^2 |Pg|^2 / d and eps^2 |Qg|^2 / (D - d), so
                    omega = r^2 (D - d) / (r^2 (D - d) + d)
to first order in the size, r being the ratio off / on of root mean squares.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from manifoldlab import linalg
from manifoldlab.gradients import logits_and_gradient, margin
from manifoldlab.interfaces import Batch, Geometry, Head, Model, Probe
from manifoldlab.probes.base import Change, changes, noise


class Steps(NamedTuple):
    on: Tensor  # (m, n, *shape)
    off: Tensor  # (m, n, *shape)
    weight: float  # omega = r^2 weight / (r^2 weight + 1)
    r_null: float  # r of an isotropic random gradient, as a ratio of expected squares


def gaussian_steps(tangent: Tensor, normal: Tensor, dim: int, codim: int) -> Steps:
    return Steps(tangent, normal, 1.0, (codim / dim) ** 0.5)


def unit_steps(tangent: Tensor, normal: Tensor, dim: int, codim: int) -> Steps:
    unit: Callable[[Tensor], Tensor] = lambda v: linalg.unit(v.flatten(0, 1)).reshape(v.shape)
    return Steps(unit(tangent), unit(normal), codim / dim, 1.0)


def head_change(head: Head) -> Change:
    """|head(moved) - head(here)|"""
    return lambda moved, here, y: (head(moved, y) - head(here, y)).abs()


def softmax_change(order: float) -> Change:
    """The norm of the change of all class probabilities, as published: order 2 or 1."""
    return lambda moved, here, y: (moved.softmax(1) - here.softmax(1)).norm(p=order, dim=1)


class OnOffRobustness(NamedTuple):
    on: Tensor  # (n, sizes) root mean square change for steps along the manifold
    off: Tensor  # (n, sizes) and across it
    r: Tensor  # (n, sizes) off / on
    omega_steps: Tensor  # (n, sizes) off-manifold share that r implies
    omega: Tensor  # (n,) off-manifold share of the gradient of `head`
    r_null: Tensor  # (n,) for an isotropic random gradient
    omega_null: Tensor  # (n,) likewise, (D - d) / D


def on_off_robustness(
    model: Model,
    batch: Batch,
    geometry: Geometry,
    *,
    sizes: tuple[float, ...] = (1e-3, 1e-2, 1e-1),
    directions: int = 8,
    head: Head = margin,
    change: Change | None = None,
    steps: Callable[[Tensor, Tensor, int, int], Steps] = unit_steps,
    seed: int = 0,
    chunk: int = 2**19,
) -> OnOffRobustness:
    """`change` defaults to that of `head`; `chunk` bounds the numbers of x in a forward pass."""
    x, y = batch.x, batch.y
    dim, ambient = geometry.dim, x[0].numel()
    here, gradient = logits_and_gradient(model, x, y, head)
    vectors = torch.cat([noise(x, directions, seed), gradient[None]])
    tangent = geometry.to_tangent(x, vectors)  # at once: the tangent spaces may be dear
    normal = vectors - tangent
    moves = steps(tangent[:-1], normal[:-1], dim, ambient - dim)
    both = torch.stack([moves.on, moves.off])
    found = changes(model, batch, here, both, sizes, change or head_change(head), chunk)
    on, off = found.square().mean(1).sqrt().unbind(0)
    r = off / on
    share = r.square() * moves.weight
    omega = linalg.squared_norm(normal[-1]) / linalg.squared_norm(gradient)
    return OnOffRobustness(
        on,
        off,
        r,
        share / (share + 1),
        omega,
        torch.full_like(omega, moves.r_null),
        torch.full_like(omega, 1 - dim / ambient),
    )


def example(model: Model) -> Probe:
    del model
    return on_off_robustness
