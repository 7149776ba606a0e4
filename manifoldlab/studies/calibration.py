"""What an estimated tangent share is worth: calibrated by the nearest ground on which the truth is known.

Of a unit gradient with tangent share A whose parts are of isotropic direction in tangent and normal space,
an estimated projection P^ of rank d^ sees on average

    E|P^ g|^2 = leak + (capture - leak) A,    capture = tr(P^ P) / d,    leak = (d^ - capture d) / (D - d)

(capture is the mean squared cosine of the principal angles). Gradients of classifiers are not isotropic:
on a twin of digits, whose classes lie on different flats, local PCA sees a share of .56 where .34 is true
and capture is .57. So the line is fitted: by the shares of several models on the nearest ground,

    A = intercept + slope A^    by least squares, `off` its largest error there.

Near is near in dimensions, in the number of samples, and in `agreement`, tr(P^_1 P^_2) / d^ of the spaces
by two halves of the samples, which needs no truth; pictures are read by pictures.

The error bar is conformal over grounds (hierarchical: Lee, Barber and Willett 2023), and grows with the
distance from the nearest one. Each family of grounds is calibrated by the other families; q is the least
number with

    sum over families (share of |A - A_true| <= off + q (NEAR + distance)) >= rate (families + 1),

and the bar off + q (NEAR + distance) covers a new ground that is exchangeable with the families at this
rate. Where an estimator sees no difference between the models of the nearest ground, or a share is further
than LEAST beyond all that it saw there, the bar is all of [0, 1]: a line says nothing beyond its ends.

The stored table is made of records of experiment calibrate:

    python -m manifoldlab.studies.calibration results
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import inf, log2, nan
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
import numpy.typing as npt

from manifoldlab import records
from manifoldlab.comparison import Metric

Array = npt.NDArray[np.float64]

STORED = Path(__file__).with_suffix(".json")
RATE = 0.9
NEAR = 0.05  # distance that does not count
LEAST = 0.05  # spread of estimated shares, below which no line can be fitted


@final
@dataclass(frozen=True)
class Facts:
    """What is known of any data without their tangent spaces, but for the chosen dimension."""

    estimator: str
    dim: int
    ambient: int
    samples: int
    agreement: float
    pictures: bool = False  # or vectors


@final
@dataclass(frozen=True)
class Entry:
    """One estimator on one ground."""

    facts: Facts
    ground: str
    family: str  # those alike, of which none is calibrated by another
    capture: float
    leak: float
    true: tuple[float, ...]  # mean tangent share of the gradients of several models
    estimated: tuple[float, ...]


class Quote(NamedTuple):
    value: float  # calibrated tangent share, or nan
    low: float
    high: float
    entry: Entry  # by which


def distance(a: Facts, b: Facts) -> float:
    """A tenth of agreement weighs as much as a factor 2 in the dimension, or 4 in D or the samples."""
    return (
        10 * abs(a.agreement - b.agreement)
        + abs(log2(a.dim / b.dim))
        + abs(log2(a.ambient / b.ambient)) / 2
        + abs(log2(a.samples / b.samples)) / 2
    )


def nearest(entries: Sequence[Entry], facts: Facts) -> Entry:
    """Pictures are read by pictures where there are any: their classes lie on several flats, as those of
    twins do, and no single manifold tells what an estimator sees there."""
    same = [entry for entry in entries if entry.facts.estimator == facts.estimator]
    if not same:
        known = sorted({entry.facts.estimator for entry in entries})
        raise ValueError(
            f"{facts.estimator} is not calibrated, but {', '.join(known) or 'nothing is'}"
        )
    alike = [entry for entry in same if entry.facts.pictures == facts.pictures]
    return min(alike or same, key=lambda entry: distance(entry.facts, facts))


class Line(NamedTuple):
    intercept: float
    slope: float
    off: float  # its largest error on its own ground

    def __call__(self, estimated: float) -> float:
        """Within [0, 1]."""
        return min(1.0, max(0.0, self.intercept + self.slope * estimated))


def line(entry: Entry) -> Line | None:
    """None where the estimator sees no difference between models."""
    x, y = np.array(entry.estimated), np.array(entry.true)
    if x.max() - x.min() < LEAST:
        return None
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())
    found = Line(float(y.mean()) - slope * float(x.mean()), slope, 0.0)
    pairs = zip(entry.estimated, entry.true, strict=True)
    return found._replace(off=max(abs(found(a) - true) for a, true in pairs))


def quote(entries: Sequence[Entry], facts: Facts, estimated: float, *, rate: float = RATE) -> Quote:
    by = nearest(entries, facts)
    seen, q = line(by), factor(entries, facts.estimator, rate)
    if seen is None or q == inf or _beyond(by, estimated):
        return Quote(nan if seen is None else seen(estimated), 0.0, 1.0, by)
    value, bar = seen(estimated), seen.off + q * (NEAR + distance(by.facts, facts))
    return Quote(value, max(0.0, value - bar), min(1.0, value + bar), by)


def _beyond(entry: Entry, estimated: float) -> bool:
    """Whether no model of the ground was seen to have such a share, or nearly so."""
    return not min(entry.estimated) - LEAST <= estimated <= max(entry.estimated) + LEAST


def quotes(entries: Sequence[Entry], facts: Facts, estimated: Sequence[float]) -> Array:
    """(shares, 3): each as it is calibrated, and its bar."""
    found = [quote(entries, facts, share) for share in estimated]
    return np.array([(one.value, one.low, one.high) for one in found])


def quoted(entries: Sequence[Entry], facts: Facts, estimated: float) -> tuple[str, Metric]:
    """By which ground, and as a metric."""
    found = quote(entries, facts, estimated)
    return found.entry.ground, {"measured": found.value, "low": found.low, "high": found.high}


def factor(entries: Sequence[Entry], estimator: str, rate: float = RATE) -> float:
    """q, or infinity where there are too few families for the rate."""
    own = [entry for entry in entries if entry.facts.estimator == estimator]
    found: dict[str, list[float]] = {}
    for entry in own:
        others = [other for other in own if other.family != entry.family]
        if others:
            by = nearest(others, entry.facts)
            scale = NEAR + distance(by.facts, entry.facts)
            found.setdefault(entry.family, []).extend(e / scale for e in _errors(entry, by))
    return _least(list(found.values()), rate)


def _errors(entry: Entry, by: Entry) -> list[float]:
    """|A - A_true| less `off`; infinite where nothing is seen."""
    seen = line(by)
    if seen is None:
        return [inf] * len(entry.true)
    pairs = zip(entry.true, entry.estimated, strict=True)
    return [max(0.0, abs(seen(estimated) - true) - seen.off) for true, estimated in pairs]


def _least(groups: Sequence[Sequence[float]], rate: float) -> float:
    wanted = rate * (len(groups) + 1)
    for q in sorted({error for group in groups for error in group}):
        if sum(sum(error <= q for error in group) / len(group) for group in groups) >= wanted:
            return q
    return inf


def entries_of(runs: Sequence[records.Run]) -> list[Entry]:
    """One for each estimator of each record of calibrate, means over its seeds; a record is a ground."""
    return [
        _entry(run, run.samples(), k, name)
        for run in sorted(runs, key=lambda run: run.folder.name)
        for k, name in enumerate(run.config["estimators"])
    ]


def _entry(run: records.Run, samples: dict[str, Any], k: int, name: str) -> Entry:
    dim, ambient = int(samples["dim"][0]), int(samples["ambient"][0])
    capture, rank = float(samples["capture"][:, k].mean()), float(samples["rank"][:, k].mean())
    agreement = float(samples["agreement"][:, k].mean())
    config = run.config
    return Entry(
        Facts(
            name,
            config.get("rank") or config["dim"],  # records that are older than the option, too
            ambient,
            config["samples"],
            agreement,
            bool(samples["pictures"][0]),
        ),
        _title(config, dim, ambient),
        config["ground"],
        capture,
        (rank - capture * dim) / (ambient - dim),
        tuple(samples["true"].mean(0).tolist()),
        tuple(samples["estimated"][:, k].mean(0).tolist()),
    )


def _title(config: Mapping[str, Any], dim: int, ambient: int) -> str:
    blur = f", blurred by {config['blur']:g}" if config["blur"] else ""
    rank = f", by {config['rank']} directions" if config.get("rank") else ""
    return f"{config['ground']} of dimension {dim} in R^{ambient}{blur}{rank}"


def write(entries: Sequence[Entry], path: Path) -> None:
    rows = [asdict(entry) for entry in entries]
    path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def read(path: Path = STORED) -> list[Entry]:
    """The stored calibration; none where experiment calibrate has not been summarized yet."""
    if not path.exists():
        return []
    rows = json.loads(path.read_text(encoding="utf-8"))
    return [
        Entry(
            Facts(**row.pop("facts")),
            true=tuple(row.pop("true")),
            estimated=tuple(row.pop("estimated")),
            **row,
        )
        for row in rows
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Stores the calibration that records hold.")
    parser.add_argument("results", type=Path)
    runs = records.load("calibrate", parser.parse_args().results)
    if not runs:
        raise SystemExit(
            "there are no records of calibrate; manifoldlab sweep calibrate makes them"
        )
    write(entries_of(runs), STORED)
    print(f"{STORED}: {records.note(runs)}")


if __name__ == "__main__":
    main()
