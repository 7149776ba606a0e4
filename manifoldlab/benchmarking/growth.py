"""How time and memory of a function grow with its sizes, one size at a time, and a formula for its cost.

Growth is the slope of log time, or of log bytes, in log size. A cost formula is a sum of terms

    seconds = sum_j c_j t_j(sizes),   c_j >= 0,

such as n D k for a product with bases, fitted to all measured sizes by least squares of log ratios; sizes
that lie off the axes are measured, too, and left out of the fit to judge it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, NamedTuple, final

import numpy as np
from scipy.optimize import least_squares, nnls

from manifoldlab.benchmarking import counts
from manifoldlab.benchmarking.case import Call, Setting
from manifoldlab.benchmarking.clock import Clock
from manifoldlab.statistics import fit_power

Sizes = Mapping[str, int]
Term = Callable[[Sizes], float]

ROUNDS, LEAST, MOST = 5, 0.02, 2.0
NOTHING = 1e-3  # of the cost at every size: no term
Row = dict[str, Any]


@final
@dataclass(frozen=True)
class Growing:
    name: str  # as of a case
    about: str
    ready: Callable[[Setting, Sizes], Call]
    start: Sizes  # what each axis starts from
    axes: Mapping[str, Sequence[int]]
    terms: Mapping[str, Term]  # of the cost formula
    held_out: Sequence[Sizes] = ()
    passes: Mapping[str, int] = field(default_factory=dict)  # of a user's network, for each sample


class Point(NamedTuple):
    sizes: Sizes
    seconds: float
    peak_bytes: int


def measure(one: Growing, setting: Setting, clock: Clock) -> Row:
    axes = {
        name: sorted(values)[: 3 if setting.small else None] for name, values in one.axes.items()
    }
    seen = dict[tuple[tuple[str, int], ...], Point]()

    def at(sizes: Sizes) -> Point:
        key = tuple(sorted(sizes.items()))
        if key not in seen:
            seen[key] = _point(one.ready(setting, sizes), sizes, clock)
        return seen[key]

    along = {
        axis: [at({**one.start, axis: value}) for value in values] for axis, values in axes.items()
    }
    fitted = list(seen.values())
    costs = fit(one.terms, fitted)
    others = [] if setting.small else [at({**one.start, **sizes}) for sizes in one.held_out]
    return {
        "name": one.name,
        "about": one.about,
        "start": dict(one.start),
        "passes": dict(one.passes),
        "axes": {axis: _axis(axis, points) for axis, points in along.items()},
        "formula": costs,
        "fit_factor": worst(costs, one.terms, fitted),
        "held_out_factor": worst(costs, one.terms, others) if others else None,
        "held_out": [_plain(point) for point in others],
    }


def _point(call: Call, sizes: Sizes, clock: Clock) -> Point:
    """Seconds of a call: a median of rounds that last long enough."""
    call()
    first = clock.read(call)
    calls = max(1, round(LEAST / max(clock.seconds(first), 1e-9)))
    rounds = max(1, min(ROUNDS, int(MOST / max(clock.seconds(first) * calls, 1e-9))))
    readings = [clock.seconds(clock.read(call, calls)) for _ in range(rounds)]
    return Point(sizes, median(readings), counts.peak(call, clock.device))


def fit(terms: Mapping[str, Term], points: Sequence[Point]) -> dict[str, float]:
    """From the solution for relative errors, which counts what is too small for less."""
    seconds = np.array([point.seconds for point in points])
    rows = np.array([[term(point.sizes) for term in terms.values()] for point in points])
    scaled = rows / seconds[:, None]
    size = np.linalg.norm(scaled, axis=0)
    size[size == 0] = 1.0  # of a term that these sizes do not reach
    unit = scaled / size  # numbers of like size, for the solvers
    start = nnls(unit, np.ones(len(points)))[0]
    off = lambda c: np.log(np.maximum(unit @ c, 1e-300))
    found = least_squares(off, start + 1e-6 * start.max(), bounds=(0, np.inf)).x
    found = np.where((unit * found).max(0) > NOTHING, found, 0.0)
    return dict(zip(terms, map(float, found / size), strict=True))


def predicted(costs: Mapping[str, float], terms: Mapping[str, Term], sizes: Sizes) -> float:
    return sum(costs[name] * term(sizes) for name, term in terms.items())


def worst(costs: Mapping[str, float], terms: Mapping[str, Term], points: Sequence[Point]) -> float:
    """The largest factor between what is measured and what the formula says."""
    ratios = [predicted(costs, terms, p.sizes) / p.seconds for p in points]
    return max(max(r, 1 / r) if r > 0 else float("inf") for r in ratios)


def _axis(axis: str, points: Sequence[Point]) -> Row:
    values = [float(point.sizes[axis]) for point in points]
    time = fit_power(values, [point.seconds for point in points])
    held = [float(point.peak_bytes) for point in points]
    memory = fit_power(values, held) if min(held) > 0 else None
    return {
        "points": [_plain(point) for point in points],
        "time": {"slope": time.slope, "error": time.slope_error},
        "memory": memory and {"slope": memory.slope, "error": memory.slope_error},
    }


def _plain(point: Point) -> Row:
    return {
        "sizes": dict(point.sizes),
        "seconds": point.seconds,
        "peak_bytes": point.peak_bytes,
    }
