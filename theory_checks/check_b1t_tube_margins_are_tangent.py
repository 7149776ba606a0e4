"""B1t. Noise along normals only, alike for all classes, leaves the Bayes margins with gradients
that are exactly tangent at the nearest point, however curved the manifold.

p(x, y) = q_y(z) * compression(x) * nu(|x - nearest|): the last two factors cancel in a margin, and
z(x) is constant along normals. They do not cancel in a logit, whose derivative along the unit
normal n at distance r is (log nu)'(r) + tr S_n (I - r S_n)^{-1}, because along the normal the
compression is 1 / det(I - r S_n) times a constant. In codimension above 1 the derivative along a
further normal n' is tr S_n' (I - r S_n)^{-1}, so the gap is compared as a vector. If the radial laws
differ between classes, a margin's normal derivative is the difference of their (log nu)' = -r / tau^2.
"""

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from manifoldlab.gradients import logit
from manifoldlab.strategies import Case, tubes
from manifoldlab.theorem import EXACT, Control, Identity, Theorem
from manifoldlab.verification import hold, reject
from theory_checks.normal_gradient import normal_gradient, runner_up


def logit_normal_gradient(case: Case) -> Tensor:
    """-N / tau^2 + sum_ij ((I - S_N)^{-1})_ij II_ij for the offset N; log nu(r) = -r^2 / 2 tau^2."""
    manifold, x = case.problem.manifold, case.batch.x
    offset = x - manifold.nearest(x)
    eye = torch.eye(manifold.dim).to(x)
    inverse = torch.linalg.inv(eye - manifold.shape_operator(x, offset))
    bending = torch.einsum("nij,nij...->n...", inverse, manifold.second_fundamental_form(x))
    gradient: Tensor = bending - offset / case.problem.noise**2
    return gradient


def unequal(case: Case) -> Case:
    """The same case with a wider radial law for each next class."""
    classes = range(case.problem.num_classes)
    noise = tuple(case.problem.noise * (1 + 0.3 * label) for label in classes)
    return replace(case, problem=replace(case.problem, noise=noise))


def unequal_gap(case: Case) -> Tensor:
    """-(1 / tau_y^2 - 1 / tau_a^2) N, a the runner-up class."""
    case = unequal(case)
    x, y = case.batch.x, case.batch.y
    precision = torch.tensor(case.problem.noise, dtype=torch.float64).to(x) ** -2
    factor = precision[runner_up(case)] - precision[y]
    offset: Tensor = x - case.problem.manifold.nearest(x)
    return factor.reshape(-1, *[1] * (x.ndim - 1)) * offset


LAW = Theorem(
    id="B1t",
    title="In a tube, Bayes margins have tangent gradients",
    statement=r"With normal noise alike for all classes, $Q\,\nabla(\ell_a - \ell_b)(x) = 0$ at the"
    r" nearest point of $x$, however curved $M$ is.",
    claim=Identity(),
    cases=tubes,
    effort=0.5,
    measure=normal_gradient,
    controls=(
        Control(
            "a single logit",
            partial(normal_gradient, head=logit),
            logit_normal_gradient,
            within=EXACT,
        ),
        Control(
            "radial laws that differ by class",
            lambda c: normal_gradient(unequal(c)),
            unequal_gap,
            within=EXACT,
        ),
    ),
)


def test_holds(family: str) -> None:
    hold(LAW, family)


def test_fails_without_its_assumption(control: Control) -> None:
    reject(LAW, control)
