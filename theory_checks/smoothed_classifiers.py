r"""Classifiers smoothed by noise: f_s(x) = E f(x + s u), soft ones by a rule, sets in closed form.

`Soft` is the softmax of a model along a plane (f(x) changes along two directions, so that u counts in
these alone), `Hard` the sets t2 > a sin(s t1) / s of the plane, of which a = 0 is a half-space. Moves are
coordinates t (n, k) in the plane, in units of s: a gradient along them is s grad f_s.

The rule is the trapezoidal one with step h. Where f is bounded on |Im u| < a, it errs by e^{-2 pi a / h}
(and 1e-12, for it stops at |u| = 7.5), its gradient by 2 pi / h = 13 times as much: 1e-9 of an identity
asks for 1e-11, with a margin. The softmax of two logits whose difference has the slope g in u has its
poles at a = pi / g; those of the catalog become steeper away from their data, and the log-density of a
circle with noise tau branches 2.4 tau^2 off its centre, in imaginary directions (a zero of I_0). So a is
not known beforehand: s is halved until a rule with half the step agrees to 1e-11.
"""

from dataclasses import dataclass, replace
from functools import cache, cached_property
from math import pi, prod, sqrt
from typing import NamedTuple, Self, final

import torch
from torch import Tensor

from manifoldlab import linalg
from manifoldlab.expectations import Nodes
from manifoldlab.strategies import Case

STEP = 0.5  # of the rule in the plane: enough for a = 1.9
ALONG = 0.125  # on a line, which is cheap
FARTHEST = 7.5
RESOLVED = 1e-11  # what half the step may change
HALVINGS = 12
SPREAD = 2.0  # of soft logits about their mean: no probability is lost in rounding
FAR = 1.5  # distance of points from a hard boundary, in units of s
ROOT = sqrt(3.0)


@cache
def rule(dim: int, step: float) -> Nodes:
    """Of N(0, I)."""
    count = int(FARTHEST / step)
    line = step * torch.arange(-count, count + 1, dtype=torch.float64)
    grid = torch.cartesian_prod(*[line] * dim).reshape(-1, dim)
    squares = grid.square().sum(1)
    near = squares <= FARTHEST**2
    weights = (-squares[near] / 2).exp()
    return Nodes(grid[near], weights / weights.sum())


class Smoothed(NamedTuple):
    probabilities: Tensor  # f_s (n, K)
    moments: Tensor  # E[f u] (n, K, k)


@final
@dataclass(frozen=True)
class Soft:
    """The softmax of a model at a temperature."""

    case: Case
    start: float  # s, before it is halved

    def on(self, device: str) -> Self:
        return replace(self, case=self.case.on(device))

    def normal(self, *shape: int) -> Tensor:
        return self.case.normal(*shape, stream=4)

    @property
    def origin(self) -> Tensor:
        """t = 0, at the points of the case"""
        return self.case.batch.x.new_zeros(self.case.n, self.columns.shape[1])

    @cached_property
    def columns(self) -> Tensor:
        """(D, k) orthonormal"""
        size = prod(self.case.problem.shape)
        return linalg.random_frame(size, min(size, 2), self.case.seed).to(self.case.batch.x)

    @cached_property
    def noise(self) -> float:
        for halving in range(HALVINGS):
            s = self.start * 0.5**halving
            coarse, fine = (self._mean(self.origin, s, step) for step in (STEP, STEP / 2))
            if all((a - b).abs().max() < RESOLVED for a, b in zip(coarse, fine, strict=True)):
                return s
        raise ValueError(f"steps of {STEP} do not resolve noise {s}: {self!r}")

    def at(self, t: Tensor) -> Smoothed:
        return self._mean(t, self.noise, STEP)

    def _mean(self, t: Tensor, s: float, step: float) -> Smoothed:
        nodes = rule(t.shape[1], step)
        points, weights, x = nodes.points.to(t), nodes.weights.to(t), self.case.batch.x
        moves = (t + points[:, None]) @ self.columns.mT  # (m, n, D)
        moved = (x + s * moves.reshape(-1, *x.shape)).flatten(0, 1)
        logits: Tensor = self.case.problem.log_joint(moved) / self._temperature
        values = logits.softmax(1).reshape(len(points), len(x), -1)
        return Smoothed(
            torch.einsum("m,mnk->nk", weights, values),
            torch.einsum("mj,mnk->nkj", weights[:, None] * points, values),
        )

    @cached_property
    def _temperature(self) -> Tensor:
        logits: Tensor = self.case.problem.log_joint(self.case.batch.x)
        return ((logits - logits.mean(1, keepdim=True)).abs().amax() / SPREAD).clamp_min(1.0)


@final
@dataclass(frozen=True)
class Hard:
    """1 where t2 > a sin(s t1) / s and 0 elsewhere, and the other way round."""

    wave: float  # a
    noise: float  # s
    uniform: bool = False  # noise along t2, of unit deviation too
    seed: int = 0
    n: int = 6
    device: str = "cpu"

    def on(self, device: str) -> Self:
        return replace(self, device=device)

    def normal(self, *shape: int, stream: int = 4) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed + 2**20 * stream)
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(self.device)

    @property
    def origin(self) -> Tensor:
        return torch.zeros(self.n, 2, dtype=torch.float64, device=self.device)

    @cached_property
    def far(self) -> Tensor:
        """The points' t2 above the boundary, on one side or the other."""
        size: Tensor = FAR * (0.1 + 0.9 * torch.special.ndtr(self.normal(self.n, stream=5)))
        return size * (1 - 2 * (torch.arange(self.n, device=self.device) % 2))

    def at(self, t: Tensor) -> Smoothed:
        """In closed form along t2, by the rule along t1."""
        nodes = rule(1, ALONG)
        points, weights = nodes.points.to(t), nodes.weights.to(t)
        edge = self._edge(t, points)
        above, first = self._above(edge)
        p = weights @ above
        moment = torch.stack([(weights * points[:, 0]) @ above, weights @ first], 1)
        return Smoothed(torch.stack([p, 1 - p], 1), torch.stack([moment, -moment], 1))

    def _edge(self, t: Tensor, points: Tensor) -> Tensor:
        """The u2 above which t + u is in the set, (m, n), for u1 of the rule."""
        phase: Tensor = 2 * pi * torch.special.ndtr(self.normal(self.n, stream=6))
        moved = (phase + self.noise * (t[:, 0] + points)).sin()
        return self.wave * (moved - phase.sin()) / self.noise - self.far - t[:, 1]

    def _above(self, edge: Tensor) -> tuple[Tensor, Tensor]:
        """P(u > edge) and E[u; u > edge]"""
        if self.uniform:
            return (ROOT - edge) / (2 * ROOT), (3 - edge.square()) / (4 * ROOT)
        return torch.special.ndtr(-edge), density(edge)


def density(u: Tensor) -> Tensor:
    bell: Tensor = (-u.square() / 2).exp()
    return bell / sqrt(2 * pi)
