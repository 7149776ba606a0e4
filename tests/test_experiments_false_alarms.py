"""Runs of laws under many seeds: verdicts, p-values, a killed run, and a law that is false."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from manifoldlab import verification
from manifoldlab.experiments import false_alarms
from manifoldlab.experiments.false_alarms import Config, Task, levels, main, tasks
from manifoldlab.statistics import FALSE_ALARM, kolmogorov_p
from manifoldlab.theorem import Control, Identity, Several, Statistic


class Progress:
    """Dies after so many verdicts."""

    def __init__(self, folder: Path, lives: float = float("inf")) -> None:
        self.folder, self.lives = folder, lives

    def __call__(self, done: float, what: str = "") -> None:
        self.lives -= 1
        if self.lives < 0:
            raise KeyboardInterrupt


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """In place of the laws one statistical law with valid p-values, spread by the power."""

    def put(power: float = 1.0, level: float = FALSE_ALARM) -> None:
        def measure(case: Any) -> Any:
            random = torch.Generator().manual_seed(case.task.seed)
            return None, torch.rand(3, generator=random, dtype=torch.float64) ** power

        law = replace(verification.laws()["D4"], claim=Several((Identity(), Statistic(level))))
        law = replace(law, measure=measure, controls=(Control("nothing dropped", measure),))
        monkeypatch.setattr(verification, "laws", lambda: {"D4": law})

    return put


def test_of_the_laws_those_are_statistical_that_judge_p_values() -> None:
    found = {task.law for task in tasks(Config(quick_seeds=0))}
    assert found == {"D2", "D3", "D4", "F2"}
    assert all(levels(verification.laws()[name].claim) for name in found)
    whole = {task.law for task in tasks(Config(statistical_seeds=0)) if task.whole}
    assert whole == set(verification.laws())


def test_valid_p_values_agree_and_invalid_ones_do_not(tmp_path: Path, toys: Any) -> None:
    for folder, power, valid in ((tmp_path / "a", 1.0, True), (tmp_path / "b", 3.0, False)):
        toys(power)
        folder.mkdir()
        outcome = main(Config(statistical_seeds=40, quick_seeds=0), Progress(folder))
        assert outcome.metrics["D4, share of p below 0.05"]["agrees"] is valid
        seen = outcome.metrics["statistical laws refuted"]
        assert (seen["measured"] == 0) is seen["agrees"] and seen["predicted"] == FALSE_ALARM
        # of eight cases with three p-values each the corrected smallest is nearly uniform below 0.1
        p = outcome.samples["p"]
        bent = 1 - (1 - np.minimum(p, 1) / 24) ** 24
        assert (kolmogorov_p(bent[p < 1], lambda u: u / (1 - (23 / 24) ** 24)) > 1e-3) is valid


def test_a_law_with_too_high_a_level_is_refuted_and_counted(tmp_path: Path, toys: Any) -> None:
    toys(level=0.5)
    outcome = main(Config(statistical_seeds=20, quick_seeds=20, first_seed=9), Progress(tmp_path))
    for name in ("statistical laws refuted", "quick profile refutes a law"):
        metric = outcome.metrics[name]
        assert metric["low"] < metric["measured"] < metric["high"] and not metric["agrees"]
    toys()
    outcome = main(Config(statistical_seeds=0, quick_seeds=2), Progress(tmp_path))
    held = outcome.metrics["quick profile does not reject a control"]
    assert held["measured"] == 1 and not held["agrees"] and outcome.samples["control_held"].all()


def test_a_killed_run_goes_on(tmp_path: Path, toys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    toys()
    config = Config(statistical_seeds=6, quick_seeds=1)
    whole = main(config, Progress(tmp_path)).samples
    again = tmp_path / "again"
    again.mkdir()
    with pytest.raises(KeyboardInterrupt):
        main(config, Progress(again, lives=4))
    file = again / "verdicts.jsonl"
    lines = file.read_text().splitlines()
    assert len(lines) == 4 and json.loads(lines[0])["law"] == "D4"
    file.write_text("\n".join(lines)[:-5])  # the last one was being written
    judged, asked = false_alarms.judged, list[Task]()
    monkeypatch.setattr(false_alarms, "judged", lambda task: (asked.append(task), judged(task))[1])
    found = main(config, Progress(again)).samples
    assert asked == tasks(config)[3:]
    assert all(
        np.array_equal(found[key], whole[key], equal_nan=key == "p")
        for key in whole
        if key != "seconds"
    )


def test_verdicts_of_other_sources_do_not_count(tmp_path: Path) -> None:
    file = tmp_path / "verdicts.jsonl"
    file.write_text(json.dumps({"seed": 1, "law": "D4", "whole": True, "made_by": "other"}) + "\n")
    assert false_alarms.read(file, "other").keys() == {Task(1, "D4", True)}
    assert not false_alarms.read(file, false_alarms.fingerprint())


def test_wrong_configurations_are_refused() -> None:
    with pytest.raises(ValueError, match="seeds are counted from 0, not as"):
        Config(quick_seeds=-1)
    with pytest.raises(ValueError, match=r"laws are A1, .*, not \['X9'\]"):
        Config(laws=("X9",))
