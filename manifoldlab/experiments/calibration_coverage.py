"""Do the error bars of calibrated tangent shares cover the truth at their rate, on grounds of their own?

Claim: a tangent share that is read by the nearest known ground lies within its bar of the true one on a new
ground at the stated rate (module calibration). Each family of the stored table is taken out in turn: its
grounds are read by the others, with the bar that the others give. With `results`, the grounds of other
records of experiment calibrate are read by the whole table, which has not seen them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from manifoldlab import records
from manifoldlab.comparison import at_least, measured
from manifoldlab.records import Outcome, Progress
from manifoldlab.studies import calibration
from manifoldlab.studies.calibration import RATE, Entry


@dataclass(frozen=True)
class Config:
    rate: float = RATE
    """At which bars are to cover."""
    results: str = ""
    """A folder with records of calibrate that are not in the stored table."""

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise ValueError(f"a rate lies between 0 and 1, not at {self.rate}")
        if self.results and not Path(self.results).is_dir():
            raise ValueError(f"there is no folder {self.results}")


FAST = Config()


def main(config: Config, progress: Progress) -> Outcome:
    table = calibration.read()
    if not table:
        raise ValueError(f"there is no stored table {calibration.STORED}")
    new = _new(config, table)
    metrics, samples = dict[str, Any](), dict[str, Any]()
    names = sorted({entry.facts.estimator for entry in table})
    for k, name in enumerate(names):
        progress(k / len(names), name)
        found = _read(table, new, name, config.rate, leave_out=not config.results)
        for key, values in found.items():
            samples[f"{name}_{key}"] = values
        metrics[f"{name}, bar"] = measured(found["bar"])
        metrics[f"{name}, coverage"] = at_least(found["coverage"], config.rate)
    progress(1.0, "done")
    return Outcome(metrics, {"estimators": np.array(names), **samples})


def _new(config: Config, table: Sequence[Entry]) -> list[Entry]:
    """Of families by themselves, where none are given."""
    if not config.results:
        return list(table)
    found = calibration.entries_of(records.load("calibrate", Path(config.results)))
    return [entry for entry in found if entry not in table]


def _read(
    table: Sequence[Entry], new: Sequence[Entry], name: str, rate: float, *, leave_out: bool
) -> dict[str, np.ndarray[Any, Any]]:
    """By grounds and gradients; half the width of bars and coverage by families."""
    own = [entry for entry in new if entry.facts.estimator == name]
    rows, shares, bars = list[tuple[float, ...]](), list[float](), list[float]()
    for family in sorted({entry.family for entry in own}):
        others = [e for e in table if e.family != family] if leave_out else list(table)
        inside, halves = list[bool](), list[float]()
        for entry in (entry for entry in own if entry.family == family):
            for true, estimated in zip(entry.true, entry.estimated, strict=True):
                quote = calibration.quote(others, entry.facts, estimated, rate=rate)
                inside.append(quote.low <= true <= quote.high)
                rows.append((true, estimated, quote.value, quote.low, quote.high))
                halves.append((quote.high - quote.low) / 2)
        shares.append(float(np.mean(inside)))
        bars.append(float(np.mean(halves)))
    columns = dict(
        zip(("true", "estimated", "calibrated", "low", "high"), np.array(rows).T, strict=True)
    )
    return columns | {"coverage": np.array(shares), "bar": np.array(bars)}
