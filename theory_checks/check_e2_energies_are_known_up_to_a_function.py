r"""E2. Adding h(x) to all logits changes the energies by -h and leaves p(y|x): a discriminative model's
energies are identified only up to h. What fixes h is normalization, int sum_y e^{-E(x, y)} dx = 1,
and the Bayes classifier's energies are the normalized ones.

The mass is a trapezoid sum over a square around the data: for a density blurred by noise tau its
error is about exp(-2 (pi tau / step)^2). So the cases are problems in the plane whose density is
smooth there: the closed forms, every law of `densities` blurred on closed curves, and tubes that are
cut where hardly a thing is left. What is the same for all classes, as a constant in a density or the
volume that a tube's coordinates compress, no margin shows, but the mass does.
"""

from dataclasses import replace
from functools import cache, lru_cache

import torch
from torch import Tensor

from manifoldlab.gradients import log_marginal
from manifoldlab.manifolds.base import Manifold, has_ends
from manifoldlab.problems.base import Isotropic, Problem
from manifoldlab.problems.quadrature import Quadrature
from manifoldlab.problems.tube import Tube
from manifoldlab.strategies import (
    Case,
    Families,
    has_tube,
    of_densities,
    problems,
    some_points,
    tubes,
)
from manifoldlab.theorem import EXACT, Control, Identity, Sides, Theorem
from manifoldlab.verification import hold, reject

STEP = 0.85  # of the sum, in units of the noise: an error near 2e-12
CELLS = 256  # an axis, where the noise is not one number
REACH = 2.5  # half the square, in units of the farthest of 1,000 samples: 8 deviations or so
MARGIN = 9.0  # or that sample and so many noises, if that is less: on a bounded curve
BLUR = 0.4  # noise of the laws on curves, in units of the reach
NARROW = 0.1  # noise of the tubes, likewise: where they are cut, at 0.8, exp(-32) = 1e-14 is left


def shifted(case: Case, only: int | None = None) -> Sides:
    """log p(y|x), E(x) + h and the mass, before and after h is added, to all logits or to one."""
    x, y = case.batch.x, case.batch.y
    logits, h = case.model(x), addition(x)
    chosen = torch.ones_like(logits) if only is None else torch.zeros_like(logits)
    if only is not None:
        chosen[:, only] = 1
    moved = logits + h[:, None] * chosen
    mass = torch.full_like(h, total_mass(case.problem))
    after = (moved.log_softmax(1), (h - log_marginal(moved, y))[:, None], mass[:, None])
    before = (logits.log_softmax(1), -log_marginal(logits, y)[:, None], torch.ones_like(h)[:, None])
    return Sides(torch.cat(after, 1), torch.cat(before, 1), logits.abs().amax(1))


def addition(x: Tensor) -> Tensor:
    """h(x), any function of order one."""
    return (3 * x.flatten(1)).sin().mean(1) + 0.5


@lru_cache(maxsize=64)
def total_mass(problem: Problem) -> float:
    """int sum_y p(x, y) dx over the plane."""
    x = problem.sample(1000, torch.Generator().manual_seed(0)).x
    middle = x.mean(0)
    farthest = (x - middle).abs().amax().item()
    half, cells = REACH * farthest, CELLS
    if isinstance(problem, Isotropic | Tube) and isinstance(problem.noise, float):
        if is_bounded(problem.manifold):
            half = min(half, farthest + MARGIN * problem.noise)
        cells = int(2 * half / (STEP * problem.noise)) + 1
    ticks = torch.linspace(-half, half, cells + 1, dtype=x.dtype)
    grid = middle + torch.cartesian_prod(ticks, ticks)
    return problem.log_joint(grid).exp().sum().item() * (2 * half / cells) ** 2


def to_one_logit(case: Case) -> Sides:
    return shifted(case, only=0)


def one_logit_gap(case: Case) -> Tensor:
    """The marginal grows by log(1 + p_0 (e^h - 1)), and no logit but the first follows."""
    logits, h = case.model(case.batch.x), addition(case.batch.x)
    growth = (logits.softmax(1)[:, 0] * h.expm1()).log1p()
    posterior = -growth[:, None].repeat(1, logits.shape[1])
    posterior[:, 0] += h
    return torch.cat([posterior, (h - growth)[:, None], torch.zeros_like(h)[:, None]], 1)


def is_smooth_in_the_plane(problem: Problem) -> bool:
    return problem.shape == (2,) and not isinstance(problem, Tube)


def closed_forms() -> Families:
    return problems(is_smooth_in_the_plane)


def is_bounded(manifold: Manifold) -> bool:
    """Whether its points stay where they are if the coordinates without an end go far away."""
    z = some_points(manifold)
    ends = torch.tensor([has_ends(axis, manifold) for axis in manifold.axes])
    near, far = (manifold.embed(t).norm(dim=1).amax() for t in (z, z.where(ends, 1e3 * z)))
    return bool(far < 10 * (1 + near))


def is_closed_in_the_plane(manifold: Manifold) -> bool:
    return manifold.shape == (2,) and manifold.dim == 1 and is_bounded(manifold)


def has_smooth_tube(manifold: Manifold) -> bool:
    """Along a curve a tube is as smooth as its density: those of angles are."""
    return is_closed_in_the_plane(manifold) and has_tube(manifold) and manifold.axes[0].wraps


def narrow(case: Case) -> Case:
    noise = NARROW * case.problem.manifold.reach
    return replace(case, problem=replace(case.problem, noise=noise))


@cache
def in_the_plane() -> Families:
    """Closed forms and densities by their names, tubes by those of their manifolds."""
    blur = lambda manifold, law: Quadrature(manifold, law, BLUR * min(manifold.reach, 1.0))
    laws = of_densities(blur, fits=is_closed_in_the_plane)
    around = {name: case.map(narrow) for name, case in tubes(fits=has_smooth_tube).items()}
    return {**closed_forms(), **laws, **around}


LAW = Theorem(
    id="E2",
    title="Energies are known up to a function of x, which normalization fixes",
    statement=r"$\ell_y(x) + h(x)$ has the same $p(y|x)$ as $\ell_y(x)$ and the energy $E(x) - h(x)$;"
    r" Bayes energies have $\int\sum_y e^{-E(x, y)}\,dx = 1$.",
    claim=Identity(),
    cases=in_the_plane,
    effort=0.5,
    measure=shifted,
    controls=(Control("added to one logit", to_one_logit, one_logit_gap, closed_forms, EXACT),),
)


def test_holds(family: str) -> None:
    hold(LAW, family)


def test_fails_without_its_assumption(control: Control) -> None:
    reject(LAW, control)
