r"""B4. With a manifold for each class the margin points from one to the other: at x in M_a

    grad(l_a - l_b)(x) = (x - pi_b(x)) / tau^2 + O(1),   pi_b(x) the nearest point of M_b,

so omega tends to |Q(x - pi_b x)|^2 / |x - pi_b x|^2: 1 between parallel flats, cos^2 of the angle
between crossing lines. This is what breaks B1 and B2 on real data, and one manifold for both
classes is what breaks it: then the gradient stays O(1), and all of the right side is missing.
"""

from dataclasses import replace
from functools import cache, partial

import torch
from torch import Tensor

from manifoldlab.densities.smooth import Smooth
from manifoldlab.manifolds.base import Manifold
from manifoldlab.manifolds.placed import Placed
from manifoldlab.problems.base import Isotropic, Problem
from manifoldlab.problems.quadrature import Quadrature
from manifoldlab.problems.separate_manifolds import SeparateManifolds
from manifoldlab.strategies import INTERIOR, Case, Families, blurred, problems
from manifoldlab.theorem import Control, Rate, Sweep, Theorem
from manifoldlab.verification import hold, reject

SCALES = (3e-3, 6e-3, 1.2e-2)  # tau in units of the smaller reach
APART = 0.3  # distance of the two placements, likewise
MANY = 8  # candidates for a foot: on a narrow band most of the nearest points lie past an edge


def margin_gradient(case: Case, same: bool = False) -> Sweep:
    """grad(l_0 - l_1) on M_0 against (x - pi_1(x)) / tau^2; `same` puts both classes on M_0."""
    first, second = case.problem.parts[:2]
    x = first.manifold.embed(feet(case))
    away = (x - second.manifold.nearest(x)).flatten(1)
    noises = torch.tensor(SCALES, dtype=torch.float64).to(x) * _unit(case)
    other = replace(second, manifold=first.manifold) if same else second
    left = [
        _gradient(replace(first, noise=noise), replace(other, noise=noise), x)
        for noise in noises.tolist()
    ]
    return Sweep(noises, torch.stack(left), away / noises.square()[:, None, None])


def feet(case: Case) -> Tensor:
    """Coordinates on M_0, far from its edges, of points whose nearest points on M_1 are so too."""
    first, second = case.problem.parts[:2]
    z = Case(first, case.seed, MANY * case.n, case.device).feet
    there = second.manifold.coordinates(first.manifold.embed(z))
    inside = there.isfinite().all(1) & (second.manifold.interior(there) > INTERIOR)
    return z[inside][: case.n]


def _gradient(first: Isotropic, second: Isotropic, x: Tensor) -> Tensor:
    """grad log p(x|0) - grad log p(x|1), (n, D); priors do not matter."""
    x = x.detach().requires_grad_()
    difference = first.log_joint(x) - second.log_joint(x)
    return torch.autograd.grad(difference.sum(), x)[0].flatten(1)


def missing(case: Case) -> Tensor:
    """-(x - pi_1(x)) in units of 1/tau^2: all of it."""
    return -(margin_gradient(case).right[:1] * SCALES[0] ** 2 * _unit(case) ** 2)


def _unit(case: Case) -> float:
    unit: float = min(*(part.manifold.reach for part in case.problem.parts[:2]), 1.0)
    return unit


def is_placed(manifold: Manifold) -> bool:
    return isinstance(manifold, Placed)


def apart(case: Case) -> Case:
    """Two placements of one manifold, a share of the reach from each other, a class on each."""
    problem = case.problem
    here = problem.manifold
    there = replace(here, shift=here.shift + APART * min(here.reach, 1.0))
    tilt = replace(problem.densities.log_weight, num_classes=1)
    parts = tuple(
        Quadrature(manifold, Smooth(manifold, replace(tilt, seed=k), (1.0,)), problem.noise)
        for k, manifold in enumerate((here, there))
    )
    return Case(SeparateManifolds(parts, (0.5, 0.5)), case.seed, case.n)


def on_flats(problem: Problem) -> bool:
    return isinstance(problem, SeparateManifolds) and all(
        isinstance(part, Isotropic) and part.manifold.reach == torch.inf for part in problem.parts
    )


@cache
def cases() -> Families:
    pairs = {name: found.map(apart) for name, found in blurred([0.01], fits=is_placed, n=3).items()}
    return {**problems(on_flats), **pairs}


LAW = Theorem(
    id="B4",
    title="Separate class manifolds turn margins normal",
    statement=r"At $x \in M_a$, $\nabla(\ell_a - \ell_b)(x) = (x - \pi_b(x))/\tau^2 + O(1)$, so"
    r" $\omega \to \|Q(x - \pi_b x)\|^2 / \|x - \pi_b x\|^2$.",
    claim=Rate(power=-2),
    cases=cases,
    effort=0.5,
    measure=margin_gradient,
    controls=(
        Control("one manifold for both classes", partial(margin_gradient, same=True), missing),
    ),
)


def test_holds(family: str) -> None:
    hold(LAW, family)


def test_fails_without_its_assumption(control: Control) -> None:
    reject(LAW, control)
