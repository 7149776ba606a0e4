r"""B1. On an affine subspace with isotropic noise, whatever the densities on it, p(y|x) depends on Px
only: Q grad(l_a - l_b) = 0 everywhere, to 100 eps of the largest grad l_y.

The normal factor N(Qx; 0, tau^2 I) is common to all classes and leaves their differences. It does
not if the normal noise depends on the class, when the margin's normal gradient is
-(1/tau_a^2 - 1/tau_b^2) Qx, nor if it is correlated with the tangent coordinates, when it is the
normal block of Sigma^{-1} (mu_a - mu_b).
"""

from functools import cache

import torch
from torch import Tensor

from manifoldlab.manifolds.base import Manifold
from manifoldlab.problems.base import Isotropic, Problem
from manifoldlab.problems.correlated_noise import CorrelatedNoise
from manifoldlab.problems.factor_mixture import FactorMixture, RandomFactors
from manifoldlab.strategies import Case, Families, blurred, is_curved, problems
from manifoldlab.theorem import EXACT, Control, Identity, Theorem
from manifoldlab.verification import hold, reject
from theory_checks.normal_gradient import normal_gradient, runner_up

TOLERANCE = 100 * torch.finfo(torch.float64).eps


def is_flat(manifold: Manifold) -> bool:
    return manifold.ambient > manifold.dim and not is_curved(manifold)


def is_flat_problem(problem: Problem) -> bool:
    if isinstance(problem, FactorMixture):
        return isinstance(problem.factors, RandomFactors) and problem.factors.one_flat
    return isinstance(problem, Isotropic) and is_flat(problem.manifold)


@cache
def flat() -> Families:
    """The closed forms on flats by their names, and smooth densities on the flat manifolds."""
    smooth = blurred([0.1, 0.5], fits=is_flat)
    return {**problems(is_flat_problem), **smooth}


def unequal_noise() -> Families:
    return problems(
        lambda p: isinstance(p, CorrelatedNoise) and bool(p.normal_noise) and not p.covariance
    )


def correlated_noise() -> Families:
    return problems(
        lambda p: isinstance(p, CorrelatedNoise) and bool(p.covariance) and not p.normal_noise
    )


def unequal_gap(case: Case) -> Tensor:
    """-(1/tau_a^2 - 1/tau_b^2) Qx"""
    x, y = case.batch.x, case.batch.y
    precision = torch.tensor(case.problem.normal_noise, dtype=torch.float64).to(x) ** -2
    offset: Tensor = x - case.problem.manifold.nearest(x)
    return (precision[runner_up(case)] - precision[y])[:, None] * offset


def correlated_gap(case: Case) -> Tensor:
    """From the law of Qx given Px and the class."""
    x, y = case.batch.x, case.batch.y
    gradient = case.problem.normal_gradient
    gap: Tensor = gradient(x, y) - gradient(x, runner_up(case))
    return gap


LAW = Theorem(
    id="B1",
    title="On flats, Bayes margins have tangent gradients",
    statement=r"On an affine subspace with isotropic noise, $Q\,\nabla(\ell_a - \ell_b) = 0$"
    r" everywhere in $\mathbb{R}^D$, whatever the densities.",
    claim=Identity(TOLERANCE),
    cases=flat,
    measure=normal_gradient,
    controls=(
        Control(
            "normal noise that differs by class",
            normal_gradient,
            unequal_gap,
            unequal_noise,
            within=EXACT,
        ),
        Control(
            "normal noise correlated with tangent coordinates",
            normal_gradient,
            correlated_gap,
            correlated_noise,
            within=EXACT,
        ),
    ),
)


def test_holds(family: str) -> None:
    hold(LAW, family)


def test_fails_without_its_assumption(control: Control) -> None:
    reject(LAW, control)
