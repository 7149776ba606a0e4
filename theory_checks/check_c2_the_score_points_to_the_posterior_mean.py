r"""C2 (Tweedie). With isotropic noise tau the score is s(x) = (E[m|x] - x) / tau^2.

The left side is the gradient of the closed form (Woodbury, Bessel) or of the quadrature; the right
side sums the points of the manifold with their posterior weights, by quadrature in every case. So
a closed form with a wrong constant in its exponent cannot pass.
"""

from functools import cache, partial
from math import sqrt

from torch import Tensor

from manifoldlab import linalg
from manifoldlab.gradients import input_gradient, log_marginal
from manifoldlab.problems.base import Isotropic, Problem
from manifoldlab.problems.quadrature import Quadrature
from manifoldlab.strategies import Case, Families, blurred, problems
from manifoldlab.theorem import EXACT, Control, Identity, Sides, Theorem
from manifoldlab.verification import hold, reject

OTHER = sqrt(1.5)  # tau' / tau of the control


def tweedie(case: Case, factor: float = 1.0) -> Sides:
    """The score against (E[m|x] - x) / (factor tau)^2."""
    x, problem = case.batch.x, case.problem
    score = input_gradient(case.model, x, case.batch.y, log_marginal)
    mean = Quadrature(problem.manifold, problem.densities, problem.noise).denoise(x)
    return Sides(score, (mean - x) / (factor * problem.noise) ** 2, _size(score))


def _size(v: Tensor) -> Tensor:
    return linalg.squared_norm(v).sqrt()


def missing(case: Case) -> Tensor:
    """s (1 - tau^2 / tau'^2)"""
    score = input_gradient(case.model, case.batch.x, case.batch.y, log_marginal)
    return score * (1 - OTHER**-2)


def is_integrable(problem: Problem) -> bool:
    """Whether quadrature reaches the problem: isotropic noise on a curve or surface."""
    return isinstance(problem, Isotropic) and problem.manifold.dim <= 2


@cache
def cases() -> Families:
    return {**blurred([0.03, 0.3, 1.0], n=4), **problems(is_integrable)}


LAW = Theorem(
    id="C2",
    title="The score points to the posterior mean (Tweedie)",
    statement=r"$s(x) = (E[m|x] - x) / \tau^2$ for isotropic noise $\tau$ on any $M$.",
    claim=Identity(),
    cases=cases,
    effort=0.5,
    measure=tweedie,
    controls=(
        Control(
            "another noise in the divisor", partial(tweedie, factor=OTHER), missing, within=EXACT
        ),
    ),
)


def test_holds(family: str) -> None:
    hold(LAW, family)


def test_fails_without_its_assumption(control: Control) -> None:
    reject(LAW, control)
