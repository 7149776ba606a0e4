"""Figure: noise on the signal against noise on a distractor, for standard and robust networks.

Reads the records of the experiment distractor and draws a row for the fullest one of each data set: the
counterpart of Figure 5 of Srinivas et al. 2023, whose red line at 1 it has, with the share of the
gradient in the half of the image beside it. Gradients are those of the first seed at one test image,
by colours about zero up to their 99.5 % quantile of |value|; of colour images the sum over channels.

    manifoldlab run distractor --out results
    manifoldlab run distractor --data mnist --samples 10000 --out results
    python paper_figs/fig_distractor.py --results results --out docs/figures
"""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from manifoldlab.records import Run
from manifoldlab.report import paper
from manifoldlab.report.intervals import curve, fullest, intervals
from manifoldlab.report.plots import COLOURS, MARKERS, Look

COMMAND = "manifoldlab run distractor"
EFFORT = ("seeds", "epochs", "width", "held_out", "count")
RED, GREY, BLACK = "#b00020", "#777777", "#000000"
QUANTILE = 0.995


def looks(strengths: Any) -> dict[float, Look]:
    """Standard networks are black."""
    colours = (BLACK, *COLOURS[:6])
    return {s: Look(colours[k % 7], MARKERS[k]) for k, s in enumerate(strengths)}


def name(strength: float) -> str:
    return f"{strength:g}" if strength else "standard"


def picture(axes: Axes, x: Any) -> None:
    axes.imshow(x[0] if len(x) == 1 else x.transpose(1, 2, 0), cmap="gray", vmin=0, vmax=1)


def field(axes: Axes, v: Any) -> None:
    shown = v.sum(0)
    bound = max(float(np.quantile(np.abs(shown), QUANTILE)), np.finfo(np.float32).tiny)
    axes.imshow(shown, cmap="RdBu_r", vmin=-bound, vmax=bound)


def pictures(part: Any, samples: Any) -> None:
    strengths = samples["strengths"]
    panels = part.subplots(1, 1 + len(strengths), squeeze=False)[0]
    picture(panels[0], samples["image"])
    for axes, v in zip(panels[1:], samples["gradient"], strict=True):
        field(axes, v)
    for axes, head in zip(panels, ["image", *map(name, strengths)], strict=True):
        axes.set(xticks=[], yticks=[])
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.set_title(head, fontsize=7.5)


def ratios(axes: Axes, run: Run, samples: Any) -> None:
    found = looks(samples["strengths"])
    ratio = samples["signal"] / samples["distractor"]  # (strengths, seeds, sizes)
    for (strength, look), values in zip(found.items(), ratio, strict=True):
        curve(axes, samples["sizes"], values.T, look, name(strength))
    axes.axhline(1, color=RED, lw=1.2)
    axes.axvline(run.config["noise"], color=GREY, ls=":", lw=1)
    axes.set(xscale="log", xlabel="deviation of the noise", ylabel="change, signal / distractor")
    axes.set_ylim(bottom=0)
    objective = run.config["objective"].replace("_", " ")
    axes.legend(title=f"{objective}, strength", fontsize=7, title_fontsize=7, frameon=False)


def by_strength(axes: Axes, samples: Any, values: Any, label: str) -> None:
    """Means over images of (strengths, seeds, images), with intervals over seeds."""
    means = values.mean(-1)
    low, high = intervals(means)
    places = np.arange(len(means))
    for k, look in enumerate(looks(samples["strengths"]).values()):
        error = [[means[k].mean() - low[k]], [high[k] - means[k].mean()]]
        axes.errorbar(places[k], means[k].mean(), error, fmt=look.marker, color=look.colour, ms=5)
    words = [name(s).replace("standard", "stan-\ndard") for s in samples["strengths"]]
    axes.set_xticks(places, words)
    axes.set_xlim(-0.5, len(places) - 0.5)
    axes.set(xlabel="strength", ylabel=label, ylim=(0, 1.04))


def row(part: Any, run: Run) -> None:
    samples = run.samples()
    left, right = part.subfigures(1, 2, width_ratios=(2, 4.2))
    pictures(left, samples)
    curves, share, accuracy = right.subplots(1, 3, width_ratios=(2, 1, 1))
    ratios(curves, run, samples)
    by_strength(share, samples, samples["share"], "share of the gradient\non the signal")
    share.axhline(1, color=BLACK, lw=1.2)
    share.axhline(0.5, color=GREY, ls="--", lw=1)
    by_strength(accuracy, samples, samples["right"], "accuracy")
    part.suptitle(title(run, samples), fontsize=8, color="#444444")


def title(run: Run, samples: Any) -> str:
    _, seeds, images = samples["share"].shape
    config = run.config
    what = f"{config['data']} and a letter, {config['network']} of width {config['width']}"
    lines = "share: Bayes 1 (black), isotropic 0.5 (dashed)"
    return f"{what}; {images} test images, {seeds} seeds with 95 % intervals; {lines}"


def figure(found: list[Run]) -> Figure:
    chosen = fullest(found, ("data", "objective"), EFFORT)
    page = Figure(figsize=(11, 2.9 * len(chosen) + 0.2), layout="constrained")
    parts = np.atleast_1d(page.subfigures(len(chosen), 1))
    for part, run in zip(parts, chosen, strict=True):
        row(part, run)
    paper.footnote(page, chosen)
    return page


def draw(results: Path) -> Figure:
    return figure(paper.runs("distractor", results, f"{COMMAND} --out {results}"))


if __name__ == "__main__":
    paper.main("distractor", __doc__, draw)
