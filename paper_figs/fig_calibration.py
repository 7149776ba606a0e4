"""Figure: tangent shares of gradients as estimators see them, beside the truth, and as they are calibrated.

A panel for each estimator: points are gradients of known tangent share on known grounds, open as estimated
and filled as read by the nearest ground of other families, with the bars that these give. On the diagonal
an estimator tells the truth.

    manifoldlab run calibration_coverage
    python paper_figs/fig_calibration.py --results results --out docs/figures
"""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from manifoldlab.records import Run
from manifoldlab.report import paper
from manifoldlab.report.plots import COLOURS

COMMAND = "manifoldlab run calibration_coverage"
COLUMNS = 3


def draw_estimator(axes: Axes, run: Run, name: str, samples: dict[str, Any]) -> None:
    true, estimated, calibrated, low, high = (
        samples[f"{name}_{key}"] for key in ("true", "estimated", "calibrated", "low", "high")
    )
    axes.plot([0, 1], [0, 1], color="#777777", lw=0.8, zorder=1)
    known = np.isfinite(calibrated)
    axes.errorbar(
        true[known],
        calibrated[known],
        np.stack([calibrated - low, high - calibrated])[:, known],
        fmt="o",
        ms=2.5,
        lw=0.5,
        color=COLOURS[0],
        alpha=0.7,
        label="calibrated, with bars",
    )
    axes.plot(
        true, estimated, "s", ms=3, mfc="none", mew=0.8, color=COLOURS[1], label="as estimated"
    )
    bar, coverage = (run.metrics[f"{name}, {what}"]["measured"] for what in ("bar", "coverage"))
    axes.set_title(
        f"{name.replace('_', ' ')}\nbars ±{bar:.2f}, cover {100 * coverage:.0f} %", fontsize=8.5
    )
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(-0.03, 1.03)
    axes.set_aspect("equal")


def figure(run: Run) -> Figure:
    samples = run.samples()
    names = [str(name) for name in samples["estimators"]]
    rows = -(-len(names) // COLUMNS)
    page = Figure(figsize=(2.5 * COLUMNS, 2.75 * rows + 0.7), layout="constrained")
    grid = page.subplots(rows, COLUMNS, squeeze=False)
    for axes, name in zip(grid.flat, names, strict=False):
        draw_estimator(axes, run, name, samples)
    for axes in list(grid.flat)[len(names) :]:
        axes.set_axis_off()
    for axes in grid[-1]:
        axes.set_xlabel("true tangent share")
    for axes in grid[:, 0]:
        axes.set_ylabel("tangent share")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    page.legend(handles, labels, loc="outside lower left", ncols=2, frameon=False, fontsize=8)
    rate = run.config["rate"]
    page.suptitle(
        f"each family of grounds is read by the others, at a rate of {rate:.0%}",
        fontsize=8,
        color="#444444",
    )
    paper.footnote(page, [run])
    return page


def draw(results: Path) -> Figure:
    found = paper.runs("calibration_coverage", results, f"{COMMAND} --out {results}")
    return figure(min(found, key=lambda run: (bool(run.config["results"]), run.stale)))


if __name__ == "__main__":
    paper.main("calibration", __doc__, draw)
