"""The cases of D5 and D6: two classes of a problem that are Gaussians of one covariance, N(c +- mu, Sigma).

They are read off the problem: the Hessian of log p(x, y) is -Sigma^{-1} everywhere, and the gradient at
zero Sigma^{-1} times the mean of the class. And what both laws hold closed forms against: population
risks E l(m) of margins m = w.mu - eps |w| + |Sigma^{1/2} w| z, with their minimum found by descent.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from math import prod
from typing import Self, final

import torch
from torch import Tensor
from torch.autograd.functional import hessian, jacobian

from manifoldlab import linalg
from manifoldlab.densities.gaussians import random_gaussians
from manifoldlab.gaussian_regimes import GaussianRegimes
from manifoldlab.interfaces import Batch
from manifoldlab.manifolds.flat import Flat
from manifoldlab.problems.base import Problem
from manifoldlab.problems.gaussian_subspace import GaussianSubspace
from manifoldlab.problems.quadrature import Quadrature
from manifoldlab.problems.tube import Tube
from manifoldlab.strategies import SEEDS, Families, problems

DIMS = (2, 3, 5, 12)  # of Gaussians in general position
LARGEST = 12  # D, for the Hessians
STEPS = 100  # of descent, which takes about 8
ENOUGH = 1e-15  # a relative change that is rounding
TURNED = 0.05  # |difference of unit vectors| that controls are to see

Loss = Callable[[Tensor], Tensor]  # of margins
Risk = Callable[[Tensor], Tensor]  # of what is seen of rules, (m, 3) -> (m,)


@final
@dataclass(frozen=True)
class Pair:
    """Classes 0 and 1."""

    problem: Problem
    seed: int = 0
    device: str = "cpu"

    def on(self, device: str) -> Self:
        return replace(self, device=device)

    def normal(self, *shape: int, stream: int = 1) -> Tensor:
        """Standard normal numbers that belong to this pair; another stream, other numbers."""
        generator = torch.Generator().manual_seed(self.seed + 2**20 * stream)
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(self.device)

    @cached_property
    def covariance(self) -> Tensor:
        sigma: Tensor = torch.linalg.inv(precision(self.problem))
        return ((sigma + sigma.mT) / 2).to(self.device)

    @cached_property
    def mean(self) -> Tensor:
        """mu, (D,)"""
        slopes = slope(self.problem).to(self.device)
        return self.covariance @ (slopes[1] - slopes[0]) / 2

    @cached_property
    def frame(self) -> Tensor:
        """Orthonormal tangent columns (D, d)."""
        x = _zero(self.problem)[None]
        geometry = self.problem.geometry(Batch(x, torch.zeros(1, dtype=torch.int64)))
        rows = geometry.to_tangent(x, torch.eye(x.shape[1]).to(x)[:, None])[:, 0]
        frame: Tensor = torch.linalg.eigh((rows + rows.mT) / 2).eigenvectors[:, -geometry.dim :]
        return frame.to(self.device)

    @cached_property
    def regimes(self) -> GaussianRegimes:
        return GaussianRegimes(self.mean, self.covariance)

    def seen(self, w: Tensor) -> Tensor:
        """w.mu, w.Sigma w and w.w, all of a rule (..., D) that risks depend on: (..., 3)."""
        return torch.stack(
            [w @ self.mean, ((w @ self.covariance) * w).sum(-1), (w * w).sum(-1)], -1
        )

    def risk(
        self, loss: Loss, seen: Tensor, radius: Tensor | float = 0.0, noise: Tensor | float = 0.0
    ) -> Tensor:
        """E l(y w.(x + noise u) - radius |w|), by the trapezoidal rule: 1e-13 for deviations up to 10."""
        z = torch.linspace(-11, 11, 353, dtype=seen.dtype, device=seen.device)  # by 1/16
        weights = (-z.square() / 2).exp()
        mean, spread, square = seen.unbind(-1)
        deviation = (spread + noise**2 * square).sqrt()
        margin = (mean - radius * square.sqrt())[..., None] + deviation[..., None] * z
        total: Tensor = loss(margin) @ weights
        return total / weights.sum()

    def minimize(self, risk: Risk, count: int) -> Tensor:
        """The w (count, D) of least risk, each of its own: convex and, away from 0, smooth."""
        w = (self.mean / 10).expand(count, -1)
        for _ in range(STEPS):
            value, step = self._newton(risk, w)
            highest, share = value * (1 + ENOUGH), torch.ones_like(w[:, :1])
            while (
                up := risk(self.seen(w - share * step)) > highest
            ).any() and share.min() > ENOUGH:
                share = share.where(~up[:, None], share / 2)
            w = w - share * step
            if (step.norm(dim=1) <= 100 * ENOUGH * w.norm(dim=1)).all():
                break
        return w

    def _newton(self, risk: Risk, w: Tensor) -> tuple[Tensor, Tensor]:
        """The risk and Newton's step, by the chain rule through the three numbers of `seen`."""
        seen = self.seen(w).requires_grad_()
        value = risk(seen)
        (slope,) = torch.autograd.grad(value.sum(), seen, create_graph=True)
        rows = [torch.autograd.grad(s.sum(), seen, retain_graph=True)[0] for s in slope.unbind(1)]
        slope = slope.detach()[:, :, None]
        sides = torch.stack([self.mean.expand_as(w), 2 * w @ self.covariance, 2 * w], 2)
        eye = torch.eye(len(self.mean)).to(w)
        bent = 2 * (slope[:, 1:2] * self.covariance + slope[:, 2:] * eye)
        hessian = sides @ torch.stack(rows, 1) @ sides.mT + bent
        step: Tensor = torch.linalg.solve(hessian, sides @ slope)[..., 0]
        return value.detach(), step


@cache
def is_pair(problem: Problem) -> bool:
    """Whether classes 0 and 1 are Gaussians of one covariance and alike likely.

    The difference of their logits is linear then, and each is quadratic: on a line, whose second and
    third differences are taken; and in the middle of the means the logits are equal.
    """
    if isinstance(problem, Quadrature | Tube) or prod(problem.shape) > LARGEST:
        return False
    size = prod(problem.shape)
    line = linalg.random_frame(size, 1, 0).T * torch.arange(-2, 2)[:, None] + 1 / size
    values = problem.log_joint(line)[:, :2]
    bend = values.diff(dim=1).diff(n=2, dim=0).abs().max() + values.diff(n=3, dim=0).abs().max()
    if problem.num_classes < 2 or bend > 1e-9 * values.abs().max():
        return False
    middle = torch.linalg.solve(precision(problem), slope(problem).mean(0))
    first, second = logits(problem, middle)
    return bool((first - second).abs() < 1e-9)


def precision(problem: Problem) -> Tensor:
    """Minus the Hessian of a logit, (D, D)."""
    found: Tensor = hessian(lambda x: logits(problem, x)[0], _zero(problem))  # type: ignore[no-untyped-call]
    return -found


def slope(problem: Problem) -> Tensor:
    """Of both logits at zero, (2, D)."""
    found: Tensor = jacobian(lambda x: logits(problem, x), _zero(problem))  # type: ignore[no-untyped-call]
    return found


def logits(problem: Problem, x: Tensor) -> Tensor:
    """Of classes 0 and 1, at a point (D,)."""
    return problem.log_joint(x[None])[0, :2]


def _zero(problem: Problem) -> Tensor:
    return torch.zeros(prod(problem.shape), dtype=torch.float64)


@cache
def pairs() -> Families:
    """In general position, where all of space is tangent, and those of the catalog."""

    def general(number: int) -> Pair:
        dim = DIMS[number % len(DIMS)]
        law = random_gaussians(dim, 2, number, anisotropy=2.0, shared=True)
        return Pair(GaussianSubspace(Flat(dim), law, 0.3), number)

    of_catalog = {
        name: strategy.map(lambda case: Pair(case.problem, case.seed))
        for name, strategy in problems(is_pair).items()
    }
    return {"general position": SEEDS.map(general), **of_catalog}


def is_turned(pair: Pair) -> bool:
    """Whether the rule of Bayes has another direction than mu."""
    ends = pair.regimes.direction(pair.mean.new_tensor([0.0, torch.inf]))
    return bool((ends[0] - ends[1]).norm() > TURNED)


@cache
def turned() -> Families:
    return {name: strategy.filter(is_turned) for name, strategy in pairs().items()}
