"""Curves with intervals, and the record that a figure takes of several."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from manifoldlab.records import Run
from manifoldlab.report import intervals
from manifoldlab.report.plots import Look
from manifoldlab.statistics import mean_interval


def run(**config: float) -> Run:
    return Run("toy", config, {}, 1.0, "0" * 12, {}, Path())


def test_the_fullest_run_of_each_facet() -> None:
    few, many = run(dim=1, seeds=5, points=10), run(dim=1, seeds=5, points=20)
    other = run(dim=0, seeds=2, points=1)
    found = intervals.fullest([few, many, other], ("dim",), ("seeds", "points"))
    assert [r.config["points"] for r in found] == [1, 20] and found[1] is many
    assert intervals.fullest([many, few, other], (), ("seeds", "points")) == [many]


def test_a_curve_is_the_mean_in_its_interval() -> None:
    values = np.random.default_rng(0).normal(size=(3, 5))
    low, high = intervals.intervals(values)
    assert (low[1], high[1]) == tuple(mean_interval(values[1]))
    axes = Figure().add_subplot()
    x = np.array([1.0, 2.0, 3.0])
    intervals.curve(axes, x, values, Look("black", "o"), "toy")
    intervals.level(axes, values[0], "black", "level")
    (line, across) = axes.get_lines()
    assert np.allclose(line.get_ydata(), values.mean(1))
    assert np.allclose(across.get_ydata(), values[0].mean())
    assert axes.collections and line.get_label() == "toy" and across.get_label() == "level"
