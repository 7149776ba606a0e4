r"""B3. R^D = S + N, orthogonal, with (y, x_S) independent of x_N for the noisy coordinates: the Bayes
margin has no gradient in N.

Each of three controls lets x_N tell of the label: its mean depends on it; it is dependent on x_S
given the label, though uninformative alone; or only the clean m_N is independent of y given m_S,
which the noise undoes: for unit variances the component is rho tau^2 mu / ((1 + tau^2)^2 - rho^2).
The predicted gaps come from the law of x_N given x_S and the class.
"""

from functools import partial

from torch import Tensor

from manifoldlab.problems.base import Problem
from manifoldlab.problems.signal_distractor import SignalDistractor
from manifoldlab.strategies import Case, Families, problems
from manifoldlab.theorem import EXACT, Control, Identity, Theorem
from manifoldlab.verification import hold, reject
from theory_checks.normal_gradient import normal_gradient, runner_up

BREAKS = {
    "a distractor whose mean tells the label": "label_shift",
    "a distractor dependent on the signal given the label": "coupling",
    "independence of the clean parts only": "regression",
}


def broken(problem: Problem, by: tuple[str, ...]) -> bool:
    """Whether exactly these assumptions are broken."""
    return isinstance(problem, SignalDistractor) and all(
        bool(getattr(problem, name)) == (name in by) for name in BREAKS.values()
    )


def signals(by: tuple[str, ...] = ()) -> Families:
    return problems(partial(broken, by=by))


def distractor_gap(case: Case) -> Tensor:
    x, y = case.batch.x, case.batch.y
    gradient = case.problem.distractor_gradient
    gap: Tensor = gradient(x, y) - gradient(x, runner_up(case))
    return gap


LAW = Theorem(
    id="B3",
    title="An independent distractor leaves no gradient",
    statement=r"If $(y, x_S)$ is independent of $x_N$, then $\nabla_N(\ell_a - \ell_b) = 0$.",
    claim=Identity(),
    cases=signals,
    measure=normal_gradient,
    controls=tuple(
        Control(name, normal_gradient, distractor_gap, partial(signals, by=(option,)), within=EXACT)
        for name, option in BREAKS.items()
    ),
)


def test_holds(family: str) -> None:
    hold(LAW, family)


def test_fails_without_its_assumption(control: Control) -> None:
    reject(LAW, control)
