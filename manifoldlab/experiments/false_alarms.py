"""How often is a law refuted that is true, when its cases and random numbers are drawn anew?

Claim: under no seed is a law refuted, or a control not rejected. The statistical laws say themselves how
often they may fail by chance: each claim on p-values with probability `level` at most, all its cases
together (Bonferroni), so that a run of them fails with the sum of their levels at most. Runs without a
failure support less, an upper bound by Clopper and Pearson; the p-values of laws support more: of valid
ones at most 5 % are below 0.05. Verdicts are written seed by seed into verdicts.jsonl of the folder of
the run, and a killed run goes on from there; other seeds (`first_seed`) make another record.
"""

import hashlib
import importlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from time import process_time
from typing import Any, NamedTuple, final

import numpy as np
from torch import Tensor

import manifoldlab
from manifoldlab import verification
from manifoldlab.records import Outcome, Progress
from manifoldlab.statistics import proportion_interval
from manifoldlab.theorem import Claim, Several, Statistic, Theorem
from manifoldlab.verification import PROFILES, Tally, check_family, check_law

SMALL = 0.05  # how small a p-value is to be counted, and how often valid ones are so at most
SURE = 0.999  # of the interval of that share: there is one for every law

Row = dict[str, Any]  # a line of verdicts.jsonl


@dataclass(frozen=True)
class Config:
    statistical_seeds: int = 200
    """Under how many seeds the statistical laws are judged, without their controls."""
    quick_seeds: int = 30
    """Under how many of them the whole quick profile runs, with its controls."""
    first_seed: int = 1
    """At seed 0 the quick profile begins with the simplest cases, which do not depend on it."""
    laws: tuple[str, ...] = ()
    """Only these; else all."""

    def __post_init__(self) -> None:
        if min(self.statistical_seeds, self.quick_seeds, self.first_seed) < 0:
            raise ValueError(f"seeds are counted from 0, not as {self}")
        unknown = set(self.laws) - set(verification.laws())
        if unknown:
            raise ValueError(f"laws are {', '.join(verification.laws())}, not {sorted(unknown)}")


FAST = Config(statistical_seeds=10, quick_seeds=1, laws=("D4", "E1"))


@final
class Task(NamedTuple):
    seed: int
    law: str
    whole: bool  # with its controls


def main(config: Config, progress: Progress) -> Outcome:
    wanted, made_by = tasks(config), fingerprint()
    file = progress.folder / "verdicts.jsonl"
    rows = {task: row for task, row in read(file, made_by).items() if task in set(wanted)}
    with file.open("a", encoding="utf-8") as written:
        for task in wanted:
            progress(len(rows) / len(wanted), f"law {task.law}, seed {task.seed}")
            if task not in rows:
                rows[task] = judged(task) | {"made_by": made_by}
                written.write(json.dumps(rows[task]) + "\n")
                written.flush()
    progress(1.0, "done")
    found = [rows[task] for task in wanted]
    return Outcome(metrics(config, found) | {"made by": made_by}, samples(found))


def tasks(config: Config) -> list[Task]:
    """The statistical laws first, then seed by seed the quick profile."""
    known = verification.laws()
    chosen = [name for name in known if name in (config.laws or known)]
    some = [name for name in chosen if levels(known[name].claim)]
    first, last = config.first_seed, config.first_seed + config.statistical_seeds
    few = [Task(seed, name, False) for seed in range(first, last) for name in some]
    last = config.first_seed + config.quick_seeds
    return few + [Task(seed, name, True) for seed in range(first, last) for name in chosen]


def levels(claim: Claim) -> dict[int, float]:
    """Of the parts of a claim that judge p-values: with what probability each fails by chance at most."""
    parts = claim.parts if isinstance(claim, Several) else (claim,)
    return {i: part.level for i, part in enumerate(parts) if isinstance(part, Statistic)}


def judged(task: Task) -> Row:
    law, start = verification.laws()[task.law], process_time()
    if task.whole:
        found = check_law(law, profile="quick", seed=task.seed, device="cpu")
        held = {control["name"]: control["failure"] for control in found["controls"]}
        told = {"failure": found["failure"], "cases": found["cases"]}
        told |= {"held": {name: why for name, why in held.items() if why}}
    else:
        told = statistical(law, task.seed)
    return task._asdict() | told | {"seconds": process_time() - start}


def statistical(law: Theorem, seed: int) -> Row:
    """The quick profile of a law without its controls, and the p-value of all its cases together."""
    chances: list[Tensor] = []

    def measure(case: Any) -> Any:
        measurement = law.measure(case)
        parts = measurement if isinstance(law.claim, Several) else (measurement,)
        chances.extend(p for i in levels(law.claim) if (p := parts[i]) is not None)
        return measurement

    tally, watched = Tally(), replace(law, measure=measure)
    for family in law.cases():
        how: dict[str, Any] = {"profile": PROFILES["quick"], "seed": seed, "device": "cpu"}
        check_family(watched, family, tally=tally, **how)
    smallest = [len(p) * p.min().item() for p in chances]
    p = min(1.0, len(smallest) * min(smallest)) if smallest else None
    return {"failure": tally.failure, "cases": sum(tally.families.values()), "p": p}


def read(file: Path, made_by: str) -> dict[Task, Row]:
    """What this very source has judged; a line that a kill cut short is left out."""
    found = {}
    for row in _lines(file):
        if row["made_by"] == made_by:
            found[Task(row["seed"], row["law"], row["whole"])] = row
    return found


def _lines(file: Path) -> Iterator[Row]:
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    if text and not text.endswith("\n"):
        text = text[: text.rfind("\n") + 1]
        file.write_text(text, encoding="utf-8")
    yield from (json.loads(line) for line in text.splitlines())


def fingerprint() -> str:
    """Of the package and of theory_checks, which no import names."""
    laws = importlib.import_module("theory_checks")
    folders = (Path(manifoldlab.__path__[0]), Path(laws.__path__[0]))
    files = sorted(file for folder in folders for file in folder.rglob("*.py"))
    digest = hashlib.sha256(b"\0".join(file.read_bytes() for file in files))
    return digest.hexdigest()[:12]


def metrics(config: Config, rows: list[Row]) -> dict[str, Any]:
    found: dict[str, Any] = {"seconds": sum(row["seconds"] for row in rows)}
    few, whole = ([row for row in rows if row["whole"] == which] for which in (False, True))
    names = sorted({row["law"] for row in few})
    for name in names:
        p_values = [row["p"] for row in few if row["law"] == name and row["p"] is not None]
        found[f"{name}, share of p below {SMALL}"] = share(p_values)
    if few:
        chance = sum(sum(levels(verification.laws()[name].claim).values()) for name in names)
        seeds, failed = config.statistical_seeds, {row["seed"] for row in few if row["failure"]}
        found["statistical laws refuted"] = rate(len(failed), seeds, chance)
    if whole:
        seeds, failed = config.quick_seeds, {row["seed"] for row in whole if row["failure"]}
        found["quick profile refutes a law"] = rate(len(failed), seeds)
        failed = {row["seed"] for row in whole if row["held"]}
        found["quick profile does not reject a control"] = rate(len(failed), seeds)
    return found


def rate(failed: int, seeds: int, predicted: float = 0.0) -> dict[str, Any]:
    """Of seeds that fail, with 95 % bounds on either side; no failure is what was claimed."""
    low, high = proportion_interval(failed, seeds, 0.9)
    told = {"predicted": predicted, "measured": failed / seeds, "low": low, "high": high}
    return told | {"agrees": failed == 0}


def share(p_values: list[float]) -> dict[str, Any]:
    low, high = proportion_interval(sum(p <= SMALL for p in p_values), len(p_values), SURE)
    measured = float(np.mean(np.array(p_values) <= SMALL))
    told = {"predicted": SMALL, "measured": measured, "low": low, "high": high}
    return told | {"agrees": low <= SMALL}


def samples(rows: list[Row]) -> dict[str, np.ndarray[Any, Any]]:
    """Column by column; nan for a law without a p-value."""
    columns = {key: np.array([row[key] for row in rows]) for key in ("seed", "law", "whole")}
    columns["p"] = np.array([row.get("p") for row in rows], dtype=np.float64)
    columns["refuted"] = np.array([bool(row["failure"]) for row in rows])
    columns["control_held"] = np.array([bool(row.get("held")) for row in rows])
    columns["cases"] = np.array([row["cases"] for row in rows])
    return columns | {"seconds": np.array([row["seconds"] for row in rows])}
