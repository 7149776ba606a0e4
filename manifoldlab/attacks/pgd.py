"""Projected gradient ascent (Madry et al. 2018): x + v climbs a loss inside a ball, with steps

    v <- nearest point of the ball to  v + step_size * steepest(gradient at x + v)

The passes are those that cannot be avoided, `steps` forward and backward ones to the input; `best`, the
worst point seen in place of the last one, costs one more forward. Nothing accumulates in parameters.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from manifoldlab import draws
from manifoldlab.attacks.base import (
    L2,
    Ball,
    Bounds,
    Confinement,
    Projection,
    Strength,
    anywhere,
    clipped,
    per_sample,
    projection,
    undisturbed,
)
from manifoldlab.gradients import cross_entropy
from manifoldlab.interfaces import Batch, Head, Model, Source

Start = Callable[[Ball, Tensor, Tensor, Source], Tensor]  # ball, x, radius, source -> first v


def at_rest(ball: Ball, x: Tensor, radius: Tensor, source: Source) -> Tensor:
    """At x, where a loss that compares with x has no gradient."""
    del ball, radius, source
    return torch.zeros_like(x)


def in_ball(ball: Ball, x: Tensor, radius: Tensor, source: Source) -> Tensor:
    return radius * ball.uniform(x, source)


def nearby(ball: Ball, x: Tensor, radius: Tensor, source: Source) -> Tensor:
    """0.001 N(0, I), as for TRADES and MART."""
    del ball, radius
    return 1e-3 * draws.normal(x, source)


def in_orthant(ball: Ball, x: Tensor, radius: Tensor, source: Source) -> Tensor:
    """Half way to the edge, all coordinates positive, as in the code of Srinivas et al. 2023."""
    return radius / 2 * ball.unit(draws.uniform(x, source))


def pgd(
    model: Model,
    batch: Batch,
    generator: Source,
    *,
    loss: Head = cross_entropy,
    ball: Ball = L2,
    radius: Strength = 0.5,
    steps: int = 10,
    step_size: Strength | None = None,
    restarts: int = 1,
    start: Start = in_ball,
    target: Tensor | None = None,
    bounds: Bounds | None = None,
    confine: Confinement | None = None,
    best: bool = True,
    training: bool = False,
) -> Tensor:
    """`step_size` is 2.5 radius / steps unless given; with `target` (n,) the loss of that label falls.

    `best` looks for a point that fools before one of a large loss, as restarts do in any case. For
    `training` see attacks.base.undisturbed: the published codes differ.
    """
    _check(steps, restarts, batch.y, target)
    with torch.inference_mode(False), torch.no_grad(), undisturbed(model, training=training) as f:
        batch = batch._replace(x=batch.x.detach().clone(), y=batch.y.clone())
        size = per_sample(radius, batch.x, "radius")
        step = (
            2.5 / steps * size if step_size is None else per_sample(step_size, batch.x, "step_size")
        )
        judge = _judge(f, loss, batch.y if target is None else target.clone(), target is not None)
        within = projection(confine, batch, bounds)
        ascent = _Ascent(judge, batch.x, ball, size, step, within, bounds)
        worst: _Judged | None = None
        for _ in range(restarts):
            here = ascent.place(ascent.confined(start(ball, batch.x, size, generator)))
            for _ in range(steps):
                seen, there = ascent.climb(here)
                worst = seen.or_worse(worst) if best else worst
                here = there
            if best or restarts > 1:
                worst = judge(here).or_worse(worst)
        found = here if worst is None else worst.x
        if confine is None:
            return found
        # once more: where the gradient leaves the space nothing, steps followed its rounding
        return ascent.place(within(found - batch.x))


class _Judged(NamedTuple):
    x: Tensor
    loss: Tensor  # (n,)
    fools: Tensor  # (n,) bool

    def or_worse(self, other: "_Judged | None") -> "_Judged":
        """Sample by sample; where alike, the other, which came first."""
        if other is None:
            return self
        worse = (self.fools & ~other.fools) | (
            (self.fools == other.fools) & (self.loss > other.loss)
        )
        pick = lambda a, b: a.where(worse.reshape(-1, *[1] * (a.ndim - 1)), b)
        return _Judged(*map(pick, self, other))


def _judge(f: Model, loss: Head, y: Tensor, is_target: bool) -> Callable[[Tensor], _Judged]:
    def judge(x: Tensor) -> _Judged:
        logits = f(x)
        hit = logits.argmax(1) == y
        value = loss(logits, y)
        return _Judged(x, -value, hit) if is_target else _Judged(x, value, ~hit)

    return judge


class _Ascent(NamedTuple):
    judge: Callable[[Tensor], _Judged]
    x: Tensor
    ball: Ball
    radius: Tensor
    step: Tensor
    within: Projection
    bounds: Bounds | None

    def confined(self, v: Tensor) -> Tensor:
        """v in the space of perturbations, as long as it was."""
        if self.within is anywhere:
            return v
        return self.ball.unit(self.within(v)) * self.ball.norm(v)

    def place(self, v: Tensor) -> Tensor:
        """x + v, in the ball and the bounds."""
        back = self.ball.nearest if self.within is anywhere else self.ball.shrunk
        return clipped(self.x + back(v, self.radius), self.bounds)

    def climb(self, here: Tensor) -> tuple[_Judged, Tensor]:
        """What is seen here, and the next point."""
        with torch.enable_grad():
            seen = self.judge(here.detach().requires_grad_())
            (gradient,) = torch.autograd.grad(seen.loss.sum(), seen.x)
        step = self.step * self.ball.steepest(gradient, self.within)
        return _Judged(*(t.detach() for t in seen)), self.place(here - self.x + step)


def _check(steps: int, restarts: int, y: Tensor, target: Tensor | None) -> None:
    if steps < 1 or restarts < 1:
        raise ValueError(f"an attack takes 1 step and 1 start or more, not {steps} and {restarts}")
    if target is not None and target.shape != y.shape:
        raise ValueError(f"targets of shape {tuple(target.shape)} for labels {tuple(y.shape)}")
