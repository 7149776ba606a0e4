"""Figure: robust training of image classifiers, the counterpart of Figure 3 of Srinivas et al. 2023.

A column for each training, two panels over its strengths: how far the class probabilities change by steps
along and across the estimated manifold; and accuracy, the likeness of gradients to the score (cosine, and
as a network of the same data sees it) and their tangent share, as estimated and, with its bar at 90 %, as
it is calibrated (exact on twins). Cross-entropy stands on the left, and a dotted line shows where the cosine
is largest.

    manifoldlab sweep regimes_on_images --data digits --count 8 --objective noise_augmentation,adversarial
    python paper_figs/fig_regimes_on_images.py --results results --out docs/figures
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from manifoldlab.records import Run
from manifoldlab.report import paper
from manifoldlab.report.intervals import CALIBRATED, bars, curve, fullest
from manifoldlab.report.plots import COLOURS, Look

COMMAND = "manifoldlab sweep regimes_on_images --objective adversarial,noise_augmentation"
ORDER = (  # the published methods first
    "gradient_penalty",
    "adversarial",
    "noise_augmentation",
    "smoothness_penalty",
    "adversarial_linf",
    "margin_penalty",
    "normal_penalty",
    "score_matching",
    "trades",
    "weat",
    "mart",
)
COLUMNS = 6
CHANGES = {
    "on": ("along the manifold", Look(COLOURS[0], "o"), "-"),
    "off": ("across the manifold", Look(COLOURS[1], "s"), "--"),
}
VALUES = {
    "right": ("accuracy", Look("#000000", "^"), "-"),
    "score": ("cosine with the score", Look(COLOURS[2], "o"), "-"),
    "perceptual": ("likeness as a network sees it", Look(COLOURS[3], "s"), "--"),
    "share": ("tangent share, as estimated", Look(COLOURS[5], "D"), "-."),
}
NULL = "#777777"


def means(run: Run) -> dict[str, Any]:
    """(strengths, seeds) of each field, cross-entropy first; the tangent share by the first estimator."""
    samples = run.samples()
    exact = "exact" if "omega_exact" in samples else run.config["estimators"][0]
    omega = f"omega_{exact}"
    samples |= {"share": 1 - samples[omega], "weak_share": 1 - samples[f"weak_{omega}"]}
    names = (*CHANGES, *VALUES, "perceptual_null")
    found = {n: np.concatenate([samples[f"weak_{n}"], samples[n]]).mean(-1) for n in names}
    low, high = np.log(samples["strengths"][[0, -1]])
    step = (high - low) / (len(samples["strengths"]) - 1)
    place = np.concatenate([[np.exp(low - 1.5 * step)], samples["strengths"]])
    found |= {"place": place, "null_share": 1 - samples[f"null_{omega}"]}
    return found | {"calibrated": samples.get(f"calibrated_{exact}")}


def draw_pair(upper: Axes, lower: Axes, run: Run) -> None:
    found = means(run)
    for axes, lines in ((upper, CHANGES), (lower, VALUES)):
        for name, (label, look, style) in lines.items():
            curve(axes, found["place"], found[name], look, label, style=style)
        axes.set_xscale("log")
        best = found["place"][1:][found["score"][1:].mean(1).argmax()]
        axes.axvline(best, color=NULL, lw=0.8, ls=":", label="largest cosine")
    nulls = {
        "isotropic: tangent share": (found["null_share"], COLOURS[5]),
        "isotropic: likeness": (found["perceptual_null"].mean(), COLOURS[3]),
    }
    for label, (value, colour) in nulls.items():
        lower.axhline(value, color=colour, lw=0.9, ls=(0, (1, 3)), label=label)
    if found["calibrated"] is not None:
        bars(lower, found["place"], found["calibrated"], CALIBRATED, "tangent share, calibrated")
    training = run.config["objective"].replace("_", " ")
    upper.set_title(f"{run.config['data'].replace('_', ' ')}\n{training}", fontsize=8.5)
    lower.set_ylim(-0.12, 1.02)
    for axes in (upper, lower):
        draw_places(axes, found["place"])
    upper.tick_params(labelbottom=False)


def draw_places(axes: Axes, place: Any) -> None:
    """Cross-entropy is strength 0, which has no logarithm."""
    low, high = np.ceil(np.log10(place[1])), np.floor(np.log10(place[-1]))
    powers = np.arange(low, high + 1, max(1, np.ceil((high - low) / 3)))
    axes.set_xticks([place[0], *10.0**powers], ["0", *(f"$10^{{{p:.0f}}}$" for p in powers)])
    axes.minorticks_off()


def figure(found: Sequence[Run]) -> Figure:
    shown = fullest(found, ("data", "objective"), ("seeds", "samples", "count", "epochs"))
    shown.sort(key=lambda run: (run.config["data"], ORDER.index(run.config["objective"])))
    blocks = [shown[i : i + COLUMNS] for i in range(0, len(shown), COLUMNS)]
    width = len(blocks[0])
    page = Figure(figsize=(2.1 * width + 1, 3.4 * len(blocks) + 1.1), layout="constrained")
    grid = page.subplots(2 * len(blocks), width, squeeze=False, sharey="row")
    for k, block in enumerate(blocks):
        for column in range(width):
            pair = grid[2 * k, column], grid[2 * k + 1, column]
            if column < len(block):
                draw_pair(*pair, block[column])
            else:
                for axes in pair:
                    axes.set_axis_off()
        grid[2 * k, 0].set_ylim(bottom=0)  # of the row, once all of it is drawn
        grid[2 * k, 0].set_ylabel("change of\nprobabilities")
        for axes in grid[2 * k + 1]:
            axes.set_xlabel("strength")
    legends = [grid[row, 0].get_legend_handles_labels() for row in (0, 1)]
    entries = {n: h for handles, names in legends for h, n in zip(handles, names, strict=True)}
    ncols = max(2, width)
    page.legend(
        entries.values(), entries, loc="outside lower left", ncols=ncols, frameon=False, fontsize=7
    )
    page.suptitle(title(shown, 45 * width), fontsize=7, color="#444444")
    paper.footnote(page, shown)
    return page


def title(shown: Sequence[Run], width: int) -> str:
    words = []
    for run in {run.config["data"]: run for run in shown}.values():
        config, count = run.config, run.config["samples"] or "all"
        words.append(
            f"{config['data']}: {config['network']} of width {config['width']}, {count} training "
            f"images, {config['held_out']} test images, {config['seeds']} seeds, "
            f"score at noise {config['sigma']:g}"
        )
    lines = [*words, "means over seeds with 95 % intervals; strength 0 is cross-entropy"]
    return "\n".join(part for line in lines for part in textwrap.wrap(line, width))


def draw(results: Path) -> Figure:
    return figure(paper.runs("regimes_on_images", results, f"{COMMAND} --out {results}"))


if __name__ == "__main__":
    paper.main("regimes_on_images", __doc__, draw)
