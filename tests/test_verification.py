"""What runs the theorems, on tiny laws that are true, false or broken by design."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf, nan
from typing import Any

import pytest
import torch
from hypothesis import strategies as st

from manifoldlab import catalog, verification
from manifoldlab.strategies import Case
from manifoldlab.theorem import Control, Identity, Rate, Sides, Sweep, Theorem
from manifoldlab.verification import check_law, hold, laws, rebuild, reject

LAWS = [
    "A1",
    "A2",
    "A3",
    "A4",
    "B1",
    "B1t",
    "B2",
    "B3",
    "B4",
    "C1",
    "C2",
    "C3",
    "C5",
    "D1",
    "D2",
    "D3",
    "D4",
    "D5",
    "D6",
    "E1",
    "E2",
    "E3",
    "E4",
    "E5",
    "F1",
    "F2",
    "G2",
]


@dataclass(frozen=True)
class Number:
    value: int
    device: str = "cpu"

    def on(self, device: str) -> "Number":
        return replace(self, device=device)


NUMBERS = st.builds(Number, st.integers(0, 1000))


def gap(value: float) -> Sides:
    """left - right = value, of summands of size 1, for two samples."""
    left = torch.full((2,), value, dtype=torch.float64)
    return Sides(left, torch.zeros_like(left), torch.ones_like(left))


def true(case: Any) -> Sides:
    del case
    return gap(0.0)


def false(case: Any) -> Sides:
    del case
    return gap(1.0)


def broken(case: Any) -> Sides:
    raise RuntimeError(f"cannot be measured: {case.value}")


def off_by(value: float) -> Control:
    """The gap is 1 and another is predicted."""
    return Control("c", false, lambda case: torch.full((2,), value, dtype=torch.float64))


def theorem(
    measure: Callable[[Any], Any] = true,
    *controls: Control,
    families: Any = None,
    claim: Any = None,
    effort: float = 1.0,
) -> Theorem:
    return Theorem(
        id="X",
        title="x",
        statement="x",
        claim=claim or Identity(),
        cases=lambda: {"numbers": NUMBERS} if families is None else families,
        measure=measure,
        controls=controls or (Control("c", false),),
        effort=effort,
    )


def run(law: Theorem, profile: str = "full", seed: int = 0, device: str = "cpu") -> dict[str, Any]:
    return check_law(law, profile=profile, seed=seed, device=device)


def test_a_true_law_whose_control_fails_is_verified() -> None:
    row = run(theorem(true, off_by(1.0)))
    assert row["verdict"] == "verified" and row["failure"] is None
    assert row["control"] == row["controls"][0]
    assert row["control"]["verdict"] == "rejected"
    assert row["control"]["measured"] == row["control"]["predicted"] == pytest.approx(1)
    assert row["control"]["deviation"] == pytest.approx(0)
    assert {"id", "title", "statement", "kind", "worst", "tolerance", "seconds"} <= row.keys()


def test_a_false_law_is_refuted_and_its_case_shrunk_and_printed_as_code() -> None:
    row = run(theorem(lambda case: gap(float(case.value >= 37))))
    assert row["verdict"] == "refuted" and row["worst"] == 1
    first, _, code = row["failure"].partition("\n")
    assert first == "numbers: 1 against 1e-09"
    assert code.endswith("case = Number(value=37, device='cpu')")


def test_the_code_that_is_printed_rebuilds_the_case() -> None:
    for name in ("tube", "gaussian_subspace"):
        examples = catalog.module("problems", name).examples(0)
        strategy = st.builds(Case, st.sampled_from(examples), st.integers(0, 9))
        row = run(theorem(false, families={name: strategy}), "quick")
        scope: dict[str, Any] = {}
        exec(row["failure"].partition("\n")[2], scope)
        case = scope["case"]
        assert isinstance(case, Case)
        assert case == eval(repr(case), scope)
        assert rebuild(case) == row["failure"].partition("\n")[2]
        assert case.problem.log_joint(case.batch.x).isfinite().all()


def test_a_law_that_fails_by_two_causes_is_refuted_all_the_same() -> None:
    """Hypothesis tells failures apart by the line that raises them, and calls changes flaky."""
    row = run(theorem(lambda case: broken(case) if case.value % 2 else gap(case.value / 1e3)))
    assert row["verdict"] == "refuted"


def test_an_exception_is_a_refutation_and_the_run_goes_on() -> None:
    row = run(theorem(broken, Control("works", false), Control("raises", broken)))
    assert row["verdict"] == "refuted"
    assert row["failure"].startswith("numbers: error: RuntimeError: cannot be measured: 0\n")
    assert [control["verdict"] for control in row["controls"]] == ["rejected", "not rejected"]
    assert row["control"]["name"] == "raises"
    assert "case = Number(" in row["control"]["failure"]


@pytest.mark.parametrize(
    "strategy",
    [st.nothing(), NUMBERS.filter(lambda case: False), st.builds(broken, NUMBERS)],
    ids=["nothing", "filtered", "raising"],
)
def test_a_family_without_cases_is_refuted(strategy: Any) -> None:
    row = run(theorem(true, families={"numbers": NUMBERS, "none": strategy}))
    assert row["verdict"] == "refuted"
    assert row["failure"].startswith("none: no case could be drawn")
    assert row["families"] == {"numbers": 10, "none": 0}
    assert row["control"]["verdict"] == "not rejected"


def test_a_law_without_families_is_refuted() -> None:
    row = run(theorem(true, families={}))
    assert row["verdict"] == "refuted" and "no family" in row["failure"]
    assert row["control"]["verdict"] == "not rejected"


def test_a_control_that_holds_is_not_rejected() -> None:
    row = run(theorem(true, Control("fails", false), Control("holds", true)))
    assert row["verdict"] == "verified"
    assert row["control"]["name"] == "holds" and row["control"]["verdict"] == "not rejected"
    assert row["control"]["failure"].startswith("the law holds still\n")


@pytest.mark.parametrize(
    ("predicted", "verdict"),
    [(1.04, "rejected"), (0.96, "rejected"), (1.06, "not rejected"), (0.94, "not rejected")]
    + [(-1.0, "not rejected"), (nan, "not rejected"), (inf, "not rejected"), (0.0, "not rejected")],
)
def test_a_control_must_come_within_five_per_cent(predicted: float, verdict: str) -> None:
    row = run(theorem(true, off_by(predicted)))
    assert row["control"]["verdict"] == verdict


@pytest.mark.parametrize("value", [nan, inf])
def test_a_control_that_measures_nothing_is_not_rejected(value: float) -> None:
    """It is refuted, but not by the assumption that was dropped."""
    row = run(theorem(true, Control("c", lambda case: gap(value))))
    assert row["control"]["verdict"] == "not rejected"
    assert row["control"]["failure"].startswith("nothing finite is measured\n")
    empty = Control("c", lambda case: Sides(*(torch.ones(0, 2),) * 2, torch.ones(0)))
    assert run(theorem(true, empty))["control"]["verdict"] == "not rejected"


def test_the_worst_control_is_shown() -> None:
    row = run(theorem(true, off_by(1.01), off_by(0.97), off_by(1.0)))
    assert row["control"]["predicted"] == pytest.approx(0.97)
    assert len(row["controls"]) == 3
    for controls in (
        (off_by(1.04), Control("holds", true)),
        (Control("holds", true), off_by(1.04)),
    ):
        row = run(theorem(true, *controls))["control"]  # which no deviation can outdo
        assert row["name"] == "holds" and row["verdict"] == "not rejected"


def test_a_prediction_that_cannot_be_computed_is_not_met() -> None:
    for predicted in (broken, lambda case: torch.ones(3)):
        row = run(theorem(true, Control("c", false, predicted)))
        assert row["control"]["verdict"] == "not rejected"
        assert row["control"]["failure"].startswith("error: ")


@pytest.mark.parametrize(("profile", "cases", "controls"), [("quick", 2, 1), ("full", 10, 3)])
def test_cases_are_counted_by_family(profile: str, cases: int, controls: int) -> None:
    families = {"low": NUMBERS, "high": NUMBERS.map(lambda case: Number(case.value + 2000))}
    row = run(theorem(families=families), profile)
    assert row["families"] == {"low": cases, "high": cases} and row["cases"] == 2 * cases
    assert row["control"]["families"] == {"low": controls, "high": controls}
    assert row["control"]["cases"] == 2 * controls
    assert run(theorem(families=families, effort=0.5), profile)["cases"] == cases


def test_steps_are_announced_one_by_one() -> None:
    law = theorem(true, off_by(1.0), off_by(1.0), families={"a": NUMBERS, "b": NUMBERS})
    steps: list[None] = []
    check_law(law, profile="quick", seed=0, device="cpu", advance=lambda: steps.append(None))
    assert len(steps) == verification.steps(law) == 4


def watched(profile: str, seed: int = 0) -> list[int]:
    seen: list[int] = []
    run(theorem(lambda case: (seen.append(case.value), gap(0.0))[1]), profile, seed)
    return seen


def test_the_same_seed_sees_the_same_cases_and_another_one_others() -> None:
    assert watched("full") == watched("full")
    assert len(watched("thorough")) == 10 * len(watched("full")) == 100
    assert watched("full")[0] == 0 and watched("full")[1:] != watched("full", seed=1)[1:]
    assert watched("full", seed=1) != watched("full", seed=2)
    assert 0 not in watched("full", seed=1) + watched("thorough")
    assert watched("thorough")[1:10] != watched("full")[1:]


def test_a_law_of_one_case_sees_the_simplest_at_the_default_seed_alone() -> None:
    """As eight laws do in the quick profile: others would else see no other at any seed."""
    first: list[int] = []
    law = theorem(lambda case: (first.append(case.value), gap(0.0))[1], effort=0.5)
    for seed in range(10):
        run(law, "quick", seed)
    assert first[0] == 0 and len({*first}) == 10


def test_the_same_seed_gives_the_same_row() -> None:
    law = theorem(lambda case: gap(case.value / 1e14), off_by(0.99))
    first, second = (run(law) | {"seconds": 0} for _ in range(2))
    assert first == second


def test_cases_go_to_the_device() -> None:
    seen: set[str] = set()
    law = theorem(lambda case: (seen.add(case.device), gap(0.0))[1], Control("c", false))
    assert run(law, device="meta")["device"] == "meta" and seen == {"meta"}


def test_a_rate_law_reports_its_fit_and_a_curve_of_each_family() -> None:
    scales = torch.tensor([1e-3, 2e-3, 4e-3], dtype=torch.float64)

    def measure(case: Any) -> Sweep:
        right = (scales**2)[:, None] * torch.ones(1, 4)
        return Sweep(scales, right * (1 + 1e-5 * case.value), right)

    control = Control("c", lambda case: Sweep(scales, scales[:, None], scales[:, None] ** 2))
    row = run(theorem(measure, control, claim=Rate(power=2)))
    assert row["verdict"] == "verified" and row["tolerance"] == 1
    assert row["slope"] == pytest.approx(2) and row["slope_predicted"] == 2
    worst = row["worst"] * 0.02  # the constant's tolerance
    assert row["constant"] / row["constant_predicted"] == pytest.approx(1 + worst)
    curve = row["curves"]["numbers"]
    assert curve["scales"] == scales.tolist() and curve["right"] == (scales**2).tolist()
    assert curve["left"] == pytest.approx([(1 + worst) * right for right in curve["right"]])


def test_as_tests_laws_raise_what_went_wrong() -> None:
    law = theorem(true, off_by(1.0))
    hold(law, "numbers")
    reject(law, law.controls[0])
    with pytest.raises(AssertionError, match=r"law X is refuted: numbers: 1 against 1e-09\nfrom "):
        hold(theorem(false), "numbers")
    with pytest.raises(AssertionError, match="law X, control 'c' is not rejected: off by 1 where"):
        reject(theorem(), off_by(2.0))


def test_every_law_has_words_and_controls() -> None:
    found = laws()
    assert list(found) == LAWS
    for law in found.values():
        assert law.title and law.statement.count("$") % 2 == 0
        names = [control.name for control in law.controls]
        assert len(set(names)) == len(names) >= 1
