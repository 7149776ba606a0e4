"""Of records, files, streams of batches, theorems and their verification, and of what studies conclude."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from manifoldlab import files, ranges, reachable, records, strategies, sweep, theorem, verification
from manifoldlab.evaluation import evaluate
from manifoldlab.factor_mixtures import fit
from manifoldlab.faults.base import Fault, normal
from manifoldlab.interfaces import Batch
from manifoldlab.manifolds.sphere import Sphere
from manifoldlab.probes.tangent_alignment import tangent_alignment
from manifoldlab.records import Outcome
from manifoldlab.strategies import Case
from manifoldlab.studies import calibration, leave_one_out, regimes
from manifoldlab.studies.calibration import Entry, Facts
from manifoldlab.theorem import Bound, Control, Identity, Rate, Sides, Slope, Statistic, Sweep


@dataclass(frozen=True)
class _Toy:
    """A case, and a configuration."""

    seed: int = 0

    def on(self, device: str) -> "_Toy":
        del device
        return self


SCALES = torch.tensor([0.1, 0.2, 0.4, 0.8], dtype=torch.float64)
SIDES = Sides(normal(4, 3), 0.9 * normal(4, 3), torch.full((4,), 5.0, dtype=torch.float64))
RATE = Sweep(SCALES, (SCALES**2)[:, None], (1.01 * SCALES**2)[:, None])


def _number(value: float) -> Tensor:
    return torch.tensor([float(value)], dtype=torch.float64)


def _worst(claim: theorem.Claim, measurement: Any, cases: int = 3) -> Callable[[], Tensor]:
    return lambda: _number(claim.judge(measurement, cases).worst)


def _whole_folder() -> Tensor:
    """Flushes of a folder with two files."""
    with TemporaryDirectory() as place, patch("os.fsync") as flush:
        with files.whole_folder(Path(place) / "a", replace=False) as new:
            for name in "xy":
                (new / name).write_text(name)
        return _number(1 + flush.call_count)


def _left_behind() -> Tensor:
    """Files beside one whose replacement failed."""
    with TemporaryDirectory() as place:
        with patch("os.replace", side_effect=OSError), suppress(OSError):
            files.write_text(Path(place) / "a", "x")
        return _number(1 + len(list(Path(place).iterdir())))


def _recorded(agrees: tuple[bool, ...]) -> Tensor:
    with TemporaryDirectory() as place:
        metrics = {f"m{i}": {"agrees": value} for i, value in enumerate(agrees)}
        config = records.plain(_Toy())
        folder = Path(place) / records.name("dimension_gap", config)
        run = records.save(folder, "dimension_gap", config, Outcome(metrics), seconds=1.0)
        return _number(1 + run.agrees)


def _names() -> Tensor:
    """How many names two configurations have that differ in a number."""
    return _number(len({records.name("a", {"x": x}) for x in (1.0, 1.5)}))


def _evaluated() -> Tensor:
    sphere, x = Sphere(2), Sphere(2).embed(normal(6, 2))
    batches = [Batch(x[i : i + 2], torch.zeros(2, dtype=torch.int64)) for i in (0, 2, 4)]
    model = lambda x: x[:, :2].tanh()
    found: Tensor = evaluate(tangent_alignment, model, batches, sphere).omega
    return found


def _law(**changes: Any) -> theorem.Theorem:
    """True, and its control is off by 1 where 1.2 is predicted."""
    sides: Callable[[float], Sides] = lambda gap: Sides(
        torch.full((1,), gap).double(), torch.zeros(1).double(), torch.ones(1).double()
    )
    control = Control(
        "toy", lambda case: sides(1.0), lambda case: torch.full((1,), 1.2, dtype=torch.float64)
    )
    law = theorem.Theorem(
        "T",
        "toy",
        "toy",
        Identity(),
        lambda: dict.fromkeys("ab", strategies.SEEDS.map(lambda seed: _Toy(seed))),
        lambda case: sides(0.0),
        (control,),
    )
    return replace(law, **changes)


def _row(law: theorem.Theorem) -> dict[str, Any]:
    return verification.check_law(law, profile="quick", seed=0, device="cpu")


def _seen(seed: int) -> Tensor:
    """The cases that a law is judged by."""
    cases = list[int]()

    def measure(case: _Toy) -> Sides:
        cases.append(case.seed)
        return SIDES._replace(right=SIDES.left)

    law = _law(measure=measure)
    verification.check_law(law, profile="quick", seed=seed, device="cpu")
    return torch.tensor(cases, dtype=torch.float64)


def _entries() -> list[Entry]:
    return [
        Entry(
            Facts("local_pca", 2 + k, 10, 100 * (k + 1), 0.8 + 0.01 * k),
            f"ground {k}",
            f"family {k // 4}",
            0.9,
            0.1,
            (0.2, 0.5 + 0.03 * k % 0.1, 0.8 + 0.01 * k),
            (0.3, 0.5 + 0.02 * k, 0.7),
        )
        for k in range(12)
    ]


def _quote() -> Tensor:
    found = calibration.quote(_entries(), Facts("local_pca", 3, 12, 150, 0.82), 0.6, rate=0.7)
    return torch.tensor([found.value, found.low, found.high])


def _claims(name: str) -> Tensor:
    generator = np.random.default_rng(0)
    names = ("alignment", "truth", "score", "accuracy", "on", "off")
    values = {n: generator.uniform(0.5, 1, (3, 4)) for n in names}
    values |= {f"weak_{n}": generator.uniform(0.5, 1, (1, 4)) for n in names}
    values |= {"initial_alignment": generator.uniform(0.5, 1, (1, 4))}
    found = regimes.claims(values | {"bayes_alignment": np.array(0.9)})[name]
    return torch.tensor([float(found[key] or 0) for key in ("predicted", "measured", "low")])


VERIFICATION = "tests/test_verification.py"

FAULTS = (
    Fault(
        "An identity is judged by the mean of its samples",
        "theorem",
        "return _float(t).nan_to_num(inf, inf, inf).max().item() if t.numel() else inf",
        "return _float(t).nan_to_num(inf, inf, inf).mean().item() if t.numel() else inf",
        _worst(Identity(), SIDES),
        ("tests/test_theorem.py::test_an_identity_is_judged_by_its_worst_sample",),
    ),
    Fault(
        "A measurement that is not finite passes",
        "theorem",
        "return _float(t).nan_to_num(inf, inf, inf).max()",
        "return _float(t).nan_to_num(0, 0, 0).max()",
        lambda: _number(
            min(9, 1 + Bound().judge(Sides(*(torch.full((4,), torch.nan),) * 3), 1).worst)
        ),
        ("tests/test_theorem.py::test_numbers_that_are_not_finite_refute",),
    ),
    Fault(
        "No sample is a proof",
        "theorem",
        ".max().item() if t.numel() else inf",
        ".max().item() if t.numel() else 0.0",
        lambda: _number(min(9, 1 + Identity().judge(Sides(*(t[:0] for t in SIDES)), 1).worst)),
        ("tests/test_theorem.py::test_no_sample_is_no_proof",),
    ),
    Fault(
        "A rate is judged by its slope alone",
        "theorem",
        "error.nan_to_num(inf).item() / self.constant_tolerance,",
        "0.0,",
        _worst(Rate(2.0), RATE),
        ("tests/test_theorem.py::test_a_rate_with_a_wrong_constant_is_refuted",),
    ),
    Fault(
        "A rate is judged by its constant alone",
        "theorem",
        "abs(slope - self.power) / self.slope_tolerance,",
        "0.0,",
        _worst(Rate(2.0), RATE._replace(left=(SCALES**1.5)[:, None], right=(SCALES**1.5)[:, None])),
        ("tests/test_theorem.py::test_a_rate_with_a_wrong_slope_is_refuted",),
    ),
    Fault(
        "A slope is judged by the largest third of its scales",
        "theorem",
        "return scales.argsort()[: max(1, len(scales) // 3)]",
        "return scales.argsort()[-max(1, len(scales) // 3) :]",
        _worst(Rate(2.0), RATE._replace(left=(SCALES**2 + SCALES**3)[:, None])),
        ("tests/test_theorem.py::test_the_constant_of_a_rate_is_that_of_small_scales",),
    ),
    Fault(
        "A slope may be off to one side",
        "theorem",
        "return Judgement(abs(slope - self.power), self.tolerance, slope, self.power)",
        "return Judgement(slope - self.power, self.tolerance, slope, self.power)",
        _worst(Slope(2.5), RATE),
        ("tests/test_theorem.py::test_a_slope_claims_no_constant",),
    ),
    Fault(
        "A statistic does not count the cases of its law",
        "theorem",
        "smallest = _float(measurement).min().item() * measurement.numel() * cases",
        "smallest = _float(measurement).min().item() * measurement.numel()",
        _worst(Statistic(), torch.tensor([1e-4, 0.3])),
        ("tests/test_theorem.py::test_a_statistic_counts_its_p_values_and_the_cases_of_the_law",),
    ),
    Fault(
        "A bound holds up to its summand",
        "theorem",
        "excess = (left - right) / summand",
        "excess = (left - right - summand) / summand",
        _worst(Bound(), SIDES._replace(summand=torch.full((4, 1), 0.1, dtype=torch.float64))),
        ("tests/test_theorem.py::test_a_bound_holds_with_equality_and_below",),
    ),
    Fault(
        "A theorem needs no control",
        "theorem",
        "if not self.controls:",
        "if self.controls is None:",
        lambda: _without_control(),
        ("tests/test_theorem.py::test_a_theorem_without_a_control_is_none",),
    ),
    Fault(
        "A control need not come near what is predicted",
        "verification",
        "if not found.deviation <= control.within:",
        "if not found.deviation <= 10:",
        lambda: _number(1 + (_row(_law())["control"]["verdict"] == "rejected")),
        (f"{VERIFICATION}::test_a_control_must_come_within_five_per_cent",),
    ),
    Fault(
        "A control is never run",
        "verification",
        "check_control(law, control, tally=tally, **options)\n    if not tally.judgements:",
        "if False:",
        lambda: _number(1 + (_row(_law())["control"]["verdict"] == "rejected")),
        (f"{VERIFICATION}::test_a_control_that_holds_is_not_rejected",),
    ),
    Fault(
        "A control of which no case was drawn is rejected",
        "verification",
        'tally.failure = tally.failure or "no case was drawn"',
        "pass",
        lambda: _undrawn(),
        (VERIFICATION,),
    ),
    Fault(
        "An exception in a measurement is no refutation",
        "verification",
        'return Judgement(inf, 1.0), f"error: {type(error).__name__}: {error}", None',
        'return Judgement(0.0, 1.0), f"error: {type(error).__name__}: {error}", None',
        lambda: _number(1 + (_row(_law(measure=lambda case: 1 / 0))["verdict"] == "verified")),
        (f"{VERIFICATION}::test_an_exception_is_a_refutation_and_the_run_goes_on",),
    ),
    Fault(
        "Only the first family of a law is checked",
        "verification",
        "for family in law.cases():",
        "for family in list(law.cases())[:1]:",
        lambda: _number(_row(_law())["cases"]),
        (f"{VERIFICATION}::test_cases_are_counted_by_family",),
    ),
    Fault(
        "A law with a control that is not rejected is shown with one that is",
        "verification",
        'return control["verdict"] != "rejected", control["deviation"] or 0.0',
        'return control["verdict"] == "rejected", control["deviation"] or 0.0',
        lambda: _shown(),
        (f"{VERIFICATION}::test_the_worst_control_is_shown",),
    ),
    Fault(
        "All seeds draw the same cases",
        "verification",
        'number = zlib.crc32(f"{seed}/{name}".encode())',
        "number = zlib.crc32(name.encode())",
        lambda: _seen(seed=1),
        (f"{VERIFICATION}::test_the_same_seed_sees_the_same_cases_and_another_one_others",),
    ),
    Fault(
        "All streams of a case are one",
        "strategies",
        "manual_seed(self.seed + 2**20 * stream)",
        "manual_seed(self.seed)",
        lambda: Case(None, 1).normal(5, stream=2),
        ("tests/test_strategies.py::test_a_case_is_the_same_for_the_same_seed",),
    ),
    Fault(
        "A flat manifold counts as curved",
        "strategies",
        "form.norm().item() > 1e-9",
        "form.norm().item() >= 0",
        lambda: _number(1 + strategies.is_curved(_flat())),
        ("tests/test_strategies.py::test_what_is_curved",),
    ),
    Fault(
        "A record is not flushed to the disk",
        "files",
        "os.fsync(descriptor)",
        "os.fstat(descriptor)",
        _whole_folder,
        ("tests/test_files.py::test_a_folder_is_on_the_disk_before_it_has_its_name",),
    ),
    Fault(
        "A write that fails leaves its temporary file",
        "files",
        "Path(name).unlink(missing_ok=True)\n        if isinstance",
        "pass\n        if isinstance",
        _left_behind,
        ("tests/test_files.py::test_a_write_that_fails_leaves_the_old_file_and_nothing_else",),
    ),
    Fault(
        "A record agrees if a part of it does",
        "records",
        'return all(metric.get("agrees", True) for metric in compared)',
        'return any(metric.get("agrees", True) for metric in compared)',
        lambda: _recorded((True, False)),
        ("tests/test_records.py::test_a_record_agrees_if_all_of_it_does",),
    ),
    Fault(
        "A name does not tell numbers with a fraction",
        "records",
        "return int(value) if isinstance(value, float) and value.is_integer() else value",
        "return int(value) if isinstance(value, float) else value",
        _names,
        ("tests/test_records.py::test_a_name_tells_every_field_and_the_experiment",),
    ),
    Fault(
        "A record is never stale",
        "records",
        "return self.sources != sources(self.experiment)",
        "return False",
        lambda: _stale(),
        ("tests/test_records.py::test_records_of_other_sources_are_stale_and_said_to_be",),
    ),
    Fault(
        "Imports inside of functions do not count",
        "reachable",
        "for node in ast.walk(tree) for name in _names(node)",
        "for node in tree.body for name in _names(node)",
        lambda: _number(len(reachable.reachable(Path(records.__file__).with_name("app.py")))),
        ("tests/test_records.py::test_the_fingerprint_is_of_every_source_that_can_be_reached",),
    ),
    Fault(
        "A logarithmic range is a linear one",
        "ranges",
        "return [math.exp((1 - t) * math.log(first) + t * math.log(last)) for t in steps]",
        "return [(1 - t) * first + t * last for t in steps]",
        lambda: torch.tensor([float(x) for x in ranges.values("log:1:100:3")]),
        ("tests/test_sweep.py::test_ranges",),
    ),
    Fault(
        "A range of whole numbers has its end",
        "ranges",
        "return [str(k) for k in range(start, stop)]",
        "return [str(k) for k in range(start, stop + 1)]",
        lambda: _number(sum(map(int, ranges.values("1:4")))),
        ("tests/test_sweep.py::test_ranges",),
    ),
    Fault(
        "What failed is not done again",
        "sweep",
        "if job.redo(found):",
        "if job.redo(found) and not job.error.exists():",
        lambda: _number(1 + _pending()),
        ("tests/test_sweep.py::test_what_is_recorded_is_not_done_again_and_what_failed_is",),
    ),
    Fault(
        "A stream of batches loses what its memory had when it grew",
        "evaluation",
        "if self.count:\n                grown[: self.count] = self.rows[: self.count]",
        "if False:\n                pass",
        _evaluated,
        ("tests/test_evaluation.py::test_chunks_join",),
    ),
    Fault(
        "A calibration is by the farthest ground",
        "studies.calibration",
        "return min(alike or same, key=lambda entry: distance(entry.facts, facts))",
        "return max(alike or same, key=lambda entry: distance(entry.facts, facts))",
        _quote,
        ("tests/test_calibration.py::test_the_nearest_is_near_in_agreement_and_dimension",),
    ),
    Fault(
        "A quantile is that of the families without the new one",
        "studies.calibration",
        "wanted = rate * (len(groups) + 1)",
        "wanted = rate * len(groups)",
        _quote,
        ("tests/test_calibration.py::test_too_few_families_or_no_difference_say_nothing",),
    ),
    Fault(
        "A ground is calibrated by its own family",
        "studies.calibration",
        "others = [other for other in own if other.family != entry.family]",
        "others = [other for other in own if other.ground != entry.ground]",
        lambda: _number(calibration.factor(_entries() + _entries(), "local_pca", 0.7)),
        ("tests/test_calibration.py::test_a_family_is_not_calibrated_by_itself",),
    ),
    Fault(
        "Seeds choose what is best by themselves",
        "studies.leave_one_out",
        "others = values.sum(1, keepdims=True) - values",
        "others = values",
        lambda: torch.from_numpy(1.0 + leave_one_out.best(normal(4, 9).numpy())),
        ("tests/test_three_regimes.py::test_what_is_best_is_chosen_by_the_others",),
    ),
    Fault(
        "A jackknife weighs the others with n",
        "studies.leave_one_out",
        "- (n - 1) * each",
        "- n * each",
        lambda: leave_one_out.jackknife(lambda x: x.square().sum(1), normal(2, 5, 3)),
        ("tests/test_three_regimes.py::test_the_jackknife_has_no_bias_of_a_square",),
    ),
    Fault(
        "The excessive regime is the weakest strength",
        "studies.regimes",
        "_best(samples, name) - samples[name][-1], LOSS)",
        "_best(samples, name) - samples[name][0], LOSS)",
        lambda: _claims("excessive truth, lost"),
        ("tests/test_three_regimes.py::test_claims_are_of_the_seed_that_they_are_about",),
    ),
    Fault(
        "What alignment costs is compared with the wrong regime",
        "studies.regimes",
        'lost = samples["weak_accuracy"][0] - _at(samples["accuracy"], like)',
        'lost = samples["accuracy"][-1] - _at(samples["accuracy"], like)',
        lambda: _claims("aligned accuracy, lost"),
        ("tests/test_three_regimes.py::test_claims_are_of_the_seed_that_they_are_about",),
    ),
    Fault(
        "The noise of fitted factors is that of all dimensions",
        "factor_mixtures",
        "left = ambient - torch.arange(dim + 1, device=x.device)",
        "left = ambient - 0 * torch.arange(dim + 1, device=x.device)",
        lambda: fit(normal(60, 4), 1, 2).law.noises,
        ("tests/test_factor_mixtures.py::test_one_component_is_the_closed_form",),
    ),
)


def _without_control() -> Tensor:
    try:
        _law(controls=())
    except ValueError:
        return _number(1)
    return _number(2)


def _undrawn() -> Tensor:
    control = replace(_law().controls[0], cases=dict)
    return _number(1 + (_row(_law(controls=(control,)))["control"]["verdict"] == "rejected"))


def _shown() -> Tensor:
    good = replace(_law().controls[0], name="good", predicted=None)
    row = _row(_law(controls=(good, _law().controls[0])))
    return _number(1 + (row["control"]["name"] == "good"))


def _flat() -> Any:
    from manifoldlab.manifolds.flat import Flat
    from manifoldlab.manifolds.placed import Placed

    return Placed(Flat(1), 1, 0)


def _stale() -> Tensor:
    run = records.Run("dimension_gap", {}, {}, 0.0, "other", {}, Path())
    return _number(1 + run.stale)


def _pending() -> int:
    """Jobs that are left of one that failed."""
    with TemporaryDirectory() as place:
        job = sweep.Job("dimension_gap", _Toy(), Path(place), "sources")
        job.error.parent.mkdir(parents=True)
        job.error.touch()
        return len(sweep.pending([job], sweep.Tally()))
