"""Projected gradient ascent in a ball about each sample: l2 or linf, free, along or across a manifold.

Each step goes `step_size` along the direction of steepest ascent, and back to the ball if it left it:
    l2    x + v, v <- to |v| <= radius of v + step g / |g|          linf   v + step sign(g), clamped
The passes are those that cannot be avoided, `steps` forward and backward ones to the input; `best`, the
worst point seen in place of the last one, costs one more forward.
Layers like BatchNorm are in eval mode meanwhile, so that a sample's perturbation depends on that sample
alone and no running statistics move; the published codes differ here. Nothing accumulates in parameters.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from math import isfinite
from typing import NamedTuple

import torch
from torch import Tensor, nn

from manifoldlab import draws, linalg
from manifoldlab.gradients import cross_entropy
from manifoldlab.interfaces import Batch, Geometry, Head, Model, Source

Confine = Callable[[Tensor, Tensor], Tensor]  # x, v -> the part of v that is allowed at x
Start = Callable[
    ["Ball", Tensor, Tensor, Source], Tensor
]  # ball, x, radius -> a first perturbation


class Ball(NamedTuple):
    """How a unit step rises most, how a perturbation comes back to a radius (n, 1...), and a draw."""

    steepest: Callable[[Tensor], Tensor]
    back: Callable[[Tensor, Tensor], Tensor]
    draw: Callable[[Tensor, Source], Tensor]  # like x -> evenly in the unit ball
    keeps_subspaces: bool  # whether a step or a return leaves a linear subspace


def _shrunk(v: Tensor, radius: Tensor) -> Tensor:
    norm = _column(linalg.squared_norm(v).sqrt(), v)
    return v * (radius / norm.clamp_min(torch.finfo(v.dtype).tiny)).clamp_max(1)


def _even(x: Tensor, source: Source) -> Tensor:
    direction = linalg.unit(draws.normal(x, source))
    share = draws.uniform(x.flatten(1)[:, 0], source)  # of the volume inside
    length: Tensor = share ** (1 / x[0].numel())
    return direction * _column(length, x)


def _of_batch(v: Tensor) -> Tensor:
    norm: Tensor = v.norm()
    return v / norm.clamp_min(torch.finfo(v.dtype).tiny)


L2 = Ball(linalg.unit, _shrunk, _even, True)
LINF = Ball(
    torch.sign,
    lambda v, radius: v.clamp(-radius, radius),
    lambda x, source: 2 * draws.uniform(x, source) - 1,
    False,
)
# One norm for the whole batch, as in the code of Srinivas et al. 2023: about radius / sqrt(n) a sample.
WHOLE_BATCH_L2 = Ball(
    _of_batch,
    lambda v, radius: v * (radius / v.norm().clamp_min(torch.finfo(v.dtype).tiny)).clamp_max(1),
    lambda x, source: _of_batch(draws.uniform(x, source)),  # in the positive orthant, as there
    False,
)


def at_rest(ball: Ball, x: Tensor, radius: Tensor, source: Source) -> Tensor:
    del ball, radius, source
    return torch.zeros_like(x)


def in_ball(ball: Ball, x: Tensor, radius: Tensor, source: Source) -> Tensor:
    return radius * ball.draw(x, source)


def nearby(ball: Ball, x: Tensor, radius: Tensor, source: Source) -> Tensor:
    """0.001 N(0, I), as for TRADES."""
    del ball, radius
    return 1e-3 * draws.normal(x, source)


def anywhere(x: Tensor, v: Tensor) -> Tensor:
    del x
    return v


def along(geometry: Geometry) -> Confine:
    """Perturbations in the tangent space at the sample."""
    return geometry.to_tangent


def across(geometry: Geometry) -> Confine:
    """Perturbations in the normal space at the sample."""
    return lambda x, v: v - geometry.to_tangent(x, v)


@contextmanager
def evaluating(model: Model) -> Iterator[None]:
    """Every module in eval mode, and back in its own mode afterwards."""
    modes = [(m, m.training) for m in model.modules()] if isinstance(model, nn.Module) else []
    try:
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for module, training in modes:
            module.training = training


class _Worst(NamedTuple):
    """The worst perturbation seen of each sample: one that fools, before one of a large loss."""

    v: Tensor
    loss: Tensor  # (n,)
    fools: Tensor  # (n,) bool

    def or_worse(self, other: "_Worst") -> "_Worst":
        worse = (other.fools & ~self.fools) | (
            (other.fools == self.fools) & (other.loss > self.loss)
        )
        pick = lambda a, b: b.where(worse.reshape(-1, *[1] * (a.ndim - 1)), a)
        return _Worst(*map(pick, self, other))


def pgd(
    model: Model,
    batch: Batch,
    generator: Source,
    *,
    loss: Head = cross_entropy,
    ball: Ball = L2,
    radius: float | Tensor = 0.5,
    steps: int = 10,
    step_size: float | Tensor | None = None,
    restarts: int = 1,
    start: Start = in_ball,
    target: Tensor | None = None,
    bounds: tuple[float, float] | None = None,
    confine: Confine = anywhere,
    best: bool = True,
) -> Tensor:
    """`step_size` is 2.5 radius / steps unless given; with `target` (n,) the loss of that label falls."""
    _check(ball, radius, steps, step_size, restarts, bounds, confine)
    x = batch.x.detach()
    size = _column(radius, x)
    step = 2.5 / steps * size if step_size is None else _column(step_size, x)
    y, sign = (batch.y, 1.0) if target is None else (target, -1.0)
    if y.shape != batch.y.shape:
        raise ValueError(f"targets of shape {tuple(y.shape)} for labels {tuple(batch.y.shape)}")

    def back(v: Tensor) -> Tensor:
        v = ball.back(v, size)
        return v if bounds is None else (x + v).clamp(*bounds) - x

    def judged(v: Tensor, logits: Tensor) -> _Worst:
        hit = logits.argmax(1) == y
        return _Worst(v, sign * loss(logits, y), ~hit if target is None else hit)

    worst: _Worst | None = None
    with evaluating(model), torch.enable_grad(), torch.inference_mode(False):
        for _ in range(restarts):
            v = back(confine(x, start(ball, x, size, generator)))
            for _ in range(steps):
                v = v.detach().clone().requires_grad_()
                seen = judged(v, model(x + v))
                (gradient,) = torch.autograd.grad(seen.loss.sum(), v)
                seen = _Worst(*(t.detach() for t in seen))
                worst = worst.or_worse(seen) if best and worst else seen
                v = back(v.detach() + step * ball.steepest(confine(x, gradient)))
            if best and worst:
                with torch.no_grad():
                    worst = worst.or_worse(judged(v, model(x + v)))
    found = worst.v if best and worst else v
    return (x + found).detach()


def _column(value: float | Tensor, x: Tensor) -> Tensor:
    """One number a sample, (n, 1, ...)."""
    given = torch.as_tensor(value, dtype=x.dtype, device=x.device)
    if given.ndim and given.shape != (len(x),):
        raise ValueError(f"one number a sample has shape ({len(x)},), not {tuple(given.shape)}")
    return given.expand(len(x)).reshape(-1, *[1] * (x.ndim - 1))


def _check(
    ball: Ball,
    radius: float | Tensor,
    steps: int,
    step_size: float | Tensor | None,
    restarts: int,
    bounds: tuple[float, float] | None,
    confine: Confine,
) -> None:
    if steps < 1 or restarts < 1:
        raise ValueError(f"an attack takes 1 step and 1 start or more, not {steps} and {restarts}")
    for name, value in (("radius", radius), ("step_size", step_size)):
        if isinstance(value, float | int) and not (isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be finite and not negative, not {value}")
    if bounds is not None and not bounds[0] < bounds[1]:
        raise ValueError(f"bounds must be (low, high) with low < high, not {bounds}")
    if confine is not anywhere and not (ball.keeps_subspaces and bounds is None):
        raise ValueError(
            f"a confined perturbation needs an l2 ball and no bounds, which would lead it out of its "
            f"space; not bounds {bounds}"
        )


example = partial(pgd, radius=0.3, steps=3)
