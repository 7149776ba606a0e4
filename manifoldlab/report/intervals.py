"""Curves of means over seeds with their 95 % intervals, and the fullest of several records."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from manifoldlab import records
from manifoldlab.report.paper import BAND
from manifoldlab.report.plots import Look
from manifoldlab.statistics import mean_interval

Array = NDArray[Any]
CALIBRATED = "#8c510a"  # of what estimators say, as calibration reads it


def curve(axes: Axes, x: Array, values: Array, look: Look, label: str, *, style: str = "-") -> None:
    """The mean of values (points, seeds) at each of x (points,), with a band."""
    low, high = intervals(values)
    axes.fill_between(x, low, high, color=look.colour, alpha=BAND, lw=0)
    axes.plot(
        x,
        values.mean(1),
        style,
        color=look.colour,
        marker=look.marker,
        markersize=3.5,
        lw=1.2,
        label=label,
    )


def level(axes: Axes, values: Array, colour: str, label: str, *, style: str = "--") -> None:
    """One mean of values (seeds,), across the whole panel."""
    low, high = mean_interval(values)
    axes.axhspan(low, high, color=colour, alpha=BAND, lw=0)
    axes.axhline(float(values.mean()), color=colour, ls=style, lw=1.2, label=label)


def bars(axes: Axes, x: Array, quotes: Array, colour: str, label: str) -> None:
    """Of quotes (points, 3): values, nan where nothing can be said, and the ends of their bars."""
    value, low, high = quotes.T
    known = np.isfinite(value)
    ends = np.stack([value - low, high - value])[:, known]
    axes.errorbar(
        x[known], value[known], ends, fmt="_", ms=4, lw=0.8, alpha=0.8, color=colour, label=label
    )


def intervals(values: Array) -> tuple[Array, Array]:
    """Of each row of (points, seeds)."""
    low, high = np.array([mean_interval(row) for row in values]).T
    return low, high


def fullest(
    found: Sequence[records.Run], facets: Sequence[str], effort: Sequence[str]
) -> list[records.Run]:
    """For each combination of the fields `facets` the run with the largest product of `effort`."""

    def size(run: records.Run) -> float:
        return float(np.prod([float(run.config[name]) for name in effort]))

    best: dict[tuple[Any, ...], records.Run] = {}
    for run in sorted(found, key=size):
        best[tuple(run.config[name] for name in facets)] = run
    return [best[key] for key in sorted(best)]
