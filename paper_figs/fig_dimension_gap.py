"""Figure: how much nearer the flip across the data comes with the dimension, law F2.

Reads the fullest record of the experiment dimension_gap and draws.

    manifoldlab run dimension_gap --out results
    python paper_figs/fig_dimension_gap.py --results results --out docs/figures
"""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from manifoldlab.report import paper
from manifoldlab.report.intervals import curve, fullest
from manifoldlab.report.plots import COLOURS, MARKERS, Look

COMMAND = "manifoldlab run dimension_gap"
WIDE = 128  # from which D - d on the slope is claimed
LOOKS = tuple(Look(*pair) for pair in zip(COLOURS, MARKERS, strict=False))
Samples = dict[str, Any]


def variants(axes: Axes, samples: Samples, name: str) -> None:
    """Of each variant, (variants, codims, seeds)."""
    for key, values, look in zip(samples["variants"], samples[name], LOOKS, strict=True):
        curve(axes, samples["codims"], values, look, str(key))


def in_input_space(axes: Axes, samples: Samples) -> None:
    """Medians over points; along the flat (dashed) for plain training alone."""
    names = list(samples["variants"])
    for key in ("before training", "descent", "attacks", "noise"):
        i = names.index(key)
        curve(axes, samples["codims"], samples["across"][i], LOOKS[i], key)
    i = names.index("descent")
    curve(axes, samples["codims"], samples["along"][i], LOOKS[i], "along", style="--")
    axes.set_title("nearest flip across the flat, along it dashed")
    axes.set_ylabel("distance in input space, median over points")
    note = "Bayes: never flips across\nisotropic gradients: before training"
    axes.text(0.04, 0.04, note, transform=axes.transAxes, fontsize=7)


def first_order(axes: Axes, samples: Samples) -> None:
    variants(axes, samples, "linear_in_units")
    for law in samples["law_in_units"]:
        axes.plot(samples["codims"], law, color="k", lw=0.7, zorder=3)
    axes.set_title("first order; thin lines: exact law")
    axes.set_ylabel(r"distance in units of $|f|\sqrt{m/k}$")


def true(axes: Axes, samples: Samples) -> None:
    variants(axes, samples, "across_in_units")
    wide = samples["codims"][samples["codims"] >= WIDE]
    axes.plot(wide, 2.4 * wide**-0.5, color="k", ls=":", lw=1.1, zorder=3)
    axes.set_title("nearest flip across; dotted: slope $-1/2$")


def figure(samples: Samples, title: str) -> Figure:
    page = Figure(figsize=(11, 4.3), layout="constrained")
    left, middle, right = page.subplots(1, 3)
    for axes, draw_panel in ((left, in_input_space), (middle, first_order), (right, true)):
        draw_panel(axes, samples)
        axes.set_yscale("log")
        powers(axes, samples["codims"])
    right.sharey(middle)
    handles, labels = middle.get_legend_handles_labels()
    legend = page.legend(
        handles, labels, loc="outside upper center", ncols=7, frameon=False, title=title
    )
    legend.get_title().set_multialignment("center")
    return page


def powers(axes: Axes, codims: Any) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(codims))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.tick_params(axis="x", labelsize=7)
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("$D - d$")


def draw(results: Path) -> Figure:
    found = paper.runs("dimension_gap", results, COMMAND)
    effort = ("steps", "seeds", "points")
    (chosen,) = fullest(found, (), effort)
    config = chosen.config
    title = (
        f"{config['width']} rectifiers on a {config['dim']}-flat, {config['steps']} steps:"
        f" means of {config['seeds']} seeds with 95 % intervals\n$s_0$ = {config['deviation']:g},"
        f" attacks of radius {config['radius']:g}, noise {config['noise']:g},"
        f" rate {config['rate']:g}, $\\lambda$ = {config['decay']:g}"
    )
    page = figure(chosen.samples(), title)
    paper.footnote(page, [chosen])
    return page


if __name__ == "__main__":
    paper.main("dimension_gap", __doc__, draw)
