"""Projected gradient ascent (Madry et al. 2018): x + v climbs a loss inside a ball, with steps

    v <- nearest point of the ball to  v + size * steepest(gradient at x + v)

The first step reaches past the edge and the last is short (`falling`), which on digits finds more than
the published 2.5 radius / steps (`Steady`) does; with one step it is the fast gradient method.

The passes are those that cannot be avoided, `steps` forward and backward ones to the input; `best`, the
worst point seen in place of the last one, costs one more forward. Nothing accumulates in parameters.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, final

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
Pace = Callable[[Tensor, int], list[Tensor]]  # radius, number of steps -> size of each


def falling(radius: Tensor, steps: int) -> list[Tensor]:
    return [2 * (1 - i / steps) * radius for i in range(steps)]


@final
@dataclass(frozen=True)
class Steady:
    """Steps of `path` radii in all: 2.5 of Madry et al. 2018, 2 in Srinivas et al. 2023."""

    path: float = 2.5

    def __call__(self, radius: Tensor, steps: int) -> list[Tensor]:
        return [self.path / steps * radius] * steps


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
    step_size: Strength | Pace = falling,
    start: Start = at_rest,
    restarts: int = 1,
    target: Tensor | None = None,
    bounds: Bounds | None = None,
    confine: Confinement | None = None,
    best: bool = True,
    training: bool = False,
) -> Tensor:
    """With `target` (n,) the loss of that label falls.

    `best` looks for a point that fools before one of a large loss, as restarts do in any case; all but
    the first of these begin anywhere in the ball. For `training` see attacks.base.undisturbed.
    """
    _check(steps, restarts, batch.y, target)
    with torch.inference_mode(False), torch.no_grad(), undisturbed(model, training=training) as f:
        batch = batch._replace(x=batch.x.detach().clone(), y=batch.y.clone())
        judge = _judge(f, loss, batch.y if target is None else target.clone(), target is not None)
        size = per_sample(radius, batch.x, "radius")
        within = projection(confine, batch, bounds)
        ascent = _Ascent(judge, batch.x, ball, size, within, bounds)
        begins = (start, *[in_ball] * (restarts - 1))
        starts = [ascent.confined(begin(ball, batch.x, size, generator)) for begin in begins]
        found = _search(ascent, starts, _sizes(step_size, steps, size, batch.x), best)
        # once more: where the gradient leaves the space nothing, steps followed its rounding
        return found if confine is None else ascent.place(within(found - batch.x))


def _sizes(step_size: Strength | Pace, steps: int, radius: Tensor, x: Tensor) -> list[Tensor]:
    if isinstance(step_size, float | int | Tensor):
        return [per_sample(step_size, x, "step_size")] * steps
    return step_size(radius, steps)


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

    def climb(self, here: Tensor, step: Tensor) -> tuple[_Judged, Tensor]:
        """What is seen here, and the next point."""
        with torch.enable_grad():
            seen = self.judge(here.detach().requires_grad_())
            (gradient,) = torch.autograd.grad(seen.loss.sum(), seen.x)
        v = here - self.x + step * self.ball.steepest(gradient, self.within)
        return _Judged(*(t.detach() for t in seen)), self.place(v)


def _search(ascent: _Ascent, starts: list[Tensor], sizes: list[Tensor], best: bool) -> Tensor:
    worst: _Judged | None = None
    for start in starts:
        here = ascent.place(start)
        for size in sizes:
            seen, there = ascent.climb(here, size)
            worst = seen.or_worse(worst) if best else worst
            here = there
        if best or len(starts) > 1:
            worst = ascent.judge(here).or_worse(worst)
    return here if worst is None else worst.x


def _check(steps: int, restarts: int, y: Tensor, target: Tensor | None) -> None:
    if steps < 1 or restarts < 1:
        raise ValueError(f"an attack takes 1 step and 1 start or more, not {steps} and {restarts}")
    if target is not None and target.shape != y.shape:
        raise ValueError(f"targets of shape {tuple(target.shape)} for labels {tuple(y.shape)}")
