"""Figure: frozen and killed weights across the data through eight trainings, laws D3 and D4.

Reads the fullest record of the experiment normal_weights and draws.

    manifoldlab run normal_weights --out results
    python paper_figs/fig_normal_weights.py --results results --out docs/figures
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from manifoldlab.report import paper
from manifoldlab.report.intervals import curve, fullest
from manifoldlab.report.plots import COLOURS, MARKERS, Look

COMMAND = "manifoldlab run normal_weights"
GREY = "#777777"
LOOKS = tuple(Look(*pair) for pair in zip((*COLOURS, GREY), MARKERS, strict=False))
STYLES = ("-", "--", "-", "-", "-", "-", "--", ":")
ROUNDING = 2.0**-52
FLOOR = 1e-17  # where exact zeros are drawn
Samples = dict[str, Any]


def lines(axes: Axes, samples: Samples, values: Any) -> None:
    """Of each training, (trainings, seeds, times)."""
    for name, own, look, style in zip(samples["trainings"], values, LOOKS, STYLES, strict=True):
        curve(axes, samples["times"], own.T, look, str(name), style=style)


def moved(axes: Axes, samples: Samples, kind: int) -> None:
    lines(axes, samples, logarithm(samples["moved"][:, kind]))
    axes.plot(samples["times"], logarithm(samples["times"] * ROUNDING), color="k", lw=0.7)
    axes.set_ylim(np.log10(FLOOR) - 0.5, 1.5)


def kept(axes: Axes, samples: Samples, kind: int) -> None:
    lines(axes, samples, samples["kept"][:, kind])
    predicted = samples["predicted"][:, kind].mean(1)
    for row in predicted[np.isfinite(predicted).all(1)]:
        axes.plot(samples["times"], row, color="k", lw=0.7, zorder=3)
    axes.set_ylim(-0.1, 1.6)


def gradient(axes: Axes, samples: Samples, kind: int) -> None:
    lines(axes, samples, logarithm(samples["gradient"][:, kind]))
    axes.set_ylim(-5, 4)


def omega(axes: Axes, samples: Samples, kind: int) -> None:
    lines(axes, samples, samples["omega"][:, kind])
    for level, style in ((samples["omega_null"], ":"), (samples["omega_bayes"], "-.")):
        axes.axhline(float(level), color="k", ls=style, lw=0.9)
    axes.set_ylim(-0.04, 1.04)


def logarithm(values: Any) -> Any:
    """Of which means and intervals are taken where values of many sizes are shown."""
    return np.log10(np.maximum(values, FLOOR))


ROWS: dict[str, Callable[[Axes, Samples, int], None]] = {
    "moved, $\\log_{10}$ of\n$\\max|N(t) - N(0)|\\,/\\,\\max|N(0)|$": moved,
    "left of the first weights\n$\\langle N(t), N(0)\\rangle\\,/\\,|N(0)|^2$": kept,
    "normal gradient of the margin\n$\\log_{10}|(I-\\Pi)g|^2$": gradient,
    "off-manifold share\n$\\omega = |Qg|^2/|g|^2$": omega,
}


NOTES = (  # row and column of a panel, place in it
    (0, 1, (0.25, 0.4), "thin line: steps $2^{-52}$\nbottom: 0 exactly"),
    (1, 0, (0.05, 0.05), "thin lines: predicted"),
    (3, 4, (0.05, 0.1), "dotted: isotropic\ndash-dotted: Bayes"),
)


def figure(samples: Samples, title: str) -> Figure:
    page = Figure(figsize=(11, 9.2), layout="constrained")
    kinds = [str(kind) for kind in samples["networks"]]
    panels = page.subplots(len(ROWS), len(kinds), sharex=True, sharey="row")
    for (label, draw), row in zip(ROWS.items(), panels, strict=True):
        for i, axes in enumerate(row):
            draw(axes, samples, i)
        row[0].set_ylabel(label)
    for axes, kind in zip(panels[0], kinds, strict=True):
        axes.set_title(kind)
    for axes in panels[-1]:
        steps(axes, int(samples["times"][-1]))
    for row, column, place, note in NOTES:
        axes = panels[row, column]
        axes.text(*place, note, transform=axes.transAxes, fontsize=7)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    legend = page.legend(
        handles, labels, loc="outside upper center", ncols=4, frameon=False, title=title
    )
    legend.get_title().set_multialignment("center")
    return page


def steps(axes: Axes, last: int) -> None:
    """From 0 in the logarithm."""
    axes.set_xscale("symlog", linthresh=1, linscale=0.4)
    powers = [10**i for i in range(1 + int(np.log10(last)))]
    axes.xaxis.set_major_locator(FixedLocator([0, *powers]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlim(0, 1.1 * last)
    axes.set_xlabel("steps")


def draw(results: Path) -> Figure:
    found = paper.runs("normal_weights", results, COMMAND)
    (chosen,) = fullest(found, (), ("steps", "seeds", "ambient"))
    config = chosen.config
    title = (
        f"weights across a {config['dim']}-flat in $R^{{{config['ambient']}}}$, width"
        f" {config['width']}: means of {config['seeds']} seeds with 95 % intervals\n"
        f"attacks of radius {config['radius']:g}, noise {config['noise']:g}, rate {config['rate']:g},"
        f" $\\lambda$ = {config['decay']:g}, noise {config['spread']:g} in the points"
    )
    page = figure(chosen.samples(), title)
    paper.footnote(page, [chosen])
    return page


if __name__ == "__main__":
    paper.main("normal_weights", __doc__, draw)
