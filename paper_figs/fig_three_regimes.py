"""Figure: what robust training does to networks on known ground, beside the exact Bayes classifier.

A row of panels for each problem, a curve for each training over the range of its own strengths: the
counterpart of Figure 3 of Srinivas et al. 2023, with the truth in it. Linear models are beside their
closed forms where these are known, for accuracy and alignment.

    manifoldlab sweep three_regimes --problem distractor,subspace,sphere,circle --objective \
        noise_augmentation,adversarial,adversarial_linf,gradient_penalty,margin_penalty,\
smoothness_penalty,normal_penalty,trades,weat,mart,score_matching
    python paper_figs/fig_three_regimes.py --results results --out docs/figures
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from manifoldlab.records import Run
from manifoldlab.report import paper
from manifoldlab.report.intervals import curve, intervals
from manifoldlab.report.plots import COLOURS, Look

COMMAND = "manifoldlab sweep three_regimes --problem distractor,sphere --objective adversarial"
LOOKS = {  # penalties of gradients and logits have one line style, noise and attacks theirs
    "noise_augmentation": (Look(COLOURS[0], "o"), "-"),
    "score_matching": (Look(COLOURS[4], "X"), "-"),
    "gradient_penalty": (Look(COLOURS[2], "s"), "--"),
    "margin_penalty": (Look(COLOURS[5], "D"), "--"),
    "smoothness_penalty": (Look("#999933", "<"), "--"),
    "normal_penalty": (Look(COLOURS[3], "v"), "--"),
    "adversarial": (Look(COLOURS[1], "^"), "-."),
    "adversarial_linf": (Look("#882255", ">"), "-."),
    "trades": (Look("#332288", "P"), ":"),
    "weat": (Look("#888888", "p"), ":"),
    "mart": (Look("#000000", "*"), ":"),
}
PROBLEMS = {
    "distractor": "thin distractor",
    "subspace": "subspace",
    "sphere": "2-sphere",
    "torus": "flat torus",
    "circle": "circle of 6 arcs",
    "helix": "helix",
}
COLUMNS = {
    "accuracy": "accuracy",
    "on": "change along\nthe manifold",
    "off": "change across\nthe manifold",
    "alignment": "tangent share of\nthe gradient",
    "truth": "cosine with the\nBayes gradient",
    "score": "cosine with the\nscore of the class",
}
OWN = ("problem", "objective", "low", "high")  # fields in which runs of one figure may differ
WEAK = -0.25  # where cross-entropy, strength 0, stands on an axis from 0 to 1
NULL = "#777777"


def alike(found: Sequence[Run]) -> list[Run]:
    """Of one configuration: the largest trainings, and of those the one with the most runs."""
    rest = [str(sorted((k, v) for k, v in run.config.items() if k not in OWN)) for run in found]
    effort = [np.prod([run.config[k] for k in ("seeds", "samples", "epochs")]) for run in found]
    count = Counter(rest)
    best = max(range(len(found)), key=lambda i: (effort[i], count[rest[i]]))
    return [run for run, own in zip(found, rest, strict=True) if own == rest[best]]


def position(strengths: Any, run: Run) -> Any:
    """Of strengths in the run's range, from 0 to 1 by their logarithms."""
    low, high = np.log(run.samples()["strengths"][[0, -1]])
    return (np.log(strengths) - low) / (high - low)


def draw_run(axes: Axes, run: Run, column: str) -> None:
    samples, name = run.samples(), run.config["objective"]
    look, style = LOOKS[name]
    label = name.replace("_", " ").replace("linf", r"$\ell_\infty$")
    ends = " to ".join(f"{s:g}" for s in samples["strengths"][[0, -1]])
    place = position(samples["strengths"], run)
    curve(axes, place, samples[column], look, f"{label}, {ends}", style=style)
    if f"closed_{column}" in samples:
        place, values = position(samples["linear_strengths"], run), samples[f"linear_{column}"]
        low, high = intervals(values)
        error = np.stack([high - low, high - low]) / 2
        axes.plot(place, samples[f"closed_{column}"], color=look.colour, lw=0.7)
        axes.errorbar(
            place,
            values.mean(1),
            error,
            fmt=look.marker,
            mfc="white",
            color=look.colour,
            ms=3,
            lw=0.8,
        )


def draw_ground(axes: Axes, run: Run, column: str) -> None:
    """Bayes, the isotropic null and cross-entropy, which all trainings share."""
    samples = run.samples()
    axes.axhline(samples[f"bayes_{column}"], color="black", lw=1.6, label="Bayes, exact", zorder=1)
    if f"null_{column}" in samples:
        null = samples[f"null_{column}"]
        axes.axhline(null, color=NULL, lw=1.2, ls=(0, (1, 2)), label="isotropic gradient", zorder=1)
    mean, (low, high) = samples[f"weak_{column}"].mean(), intervals(samples[f"weak_{column}"])
    error = [mean - low, high - mean]
    axes.errorbar(
        [WEAK], [mean], error, fmt="s", color="black", ms=4, lw=1.2, label="cross-entropy"
    )


def draw_row(row: Sequence[Axes], runs: Sequence[Run]) -> None:
    order = sorted(runs, key=lambda run: list(LOOKS).index(run.config["objective"]))
    for axes, column in zip(row, COLUMNS, strict=True):
        draw_ground(axes, order[0], column)
        for run in order:
            draw_run(axes, run, column)
        axes.set_xlim(WEAK - 0.1, 1.06)
        axes.set_xticks([WEAK, 0, 0.5, 1], ["0", "low", "", "high"])
        if column in ("on", "off"):
            axes.set_yscale("symlog", linthresh=1e-3)
            axes.set_ylim(bottom=0)
    row[0].set_ylabel(PROBLEMS[runs[0].config["problem"]], fontsize=10)


def figure(found: Sequence[Run]) -> Figure:
    shown = alike(found)
    rows = {p: [run for run in shown if run.config["problem"] == p] for p in PROBLEMS}
    rows = {problem: runs for problem, runs in rows.items() if runs}
    page = Figure(figsize=(13, 1.9 * len(rows) + 1.6), layout="constrained")
    grid = page.subplots(len(rows), len(COLUMNS), squeeze=False, sharex=True)
    for row, runs in zip(grid, rows.values(), strict=True):
        draw_row(row, runs)
    for axes, title in zip(grid[0], COLUMNS.values(), strict=True):
        axes.set_title(title)
    for axes in grid[-1]:
        axes.set_xlabel("strength (log)")
    draw_legend(page, grid)
    page.suptitle(title_of(shown[0], len(found) - len(shown)), fontsize=8, color="#444444")
    paper.footnote(page, shown)
    return page


def draw_legend(page: Figure, grid: Any) -> None:
    """The ground first, then the trainings of all rows."""
    found = [axes.get_legend_handles_labels() for axes in grid[:, list(COLUMNS).index("truth")]]
    entries = {
        label: h for handles, labels in found for h, label in zip(handles, labels, strict=True)
    }
    ground = ("Bayes, exact", "cross-entropy", "isotropic gradient")
    labels = [*ground, *(label for label in entries if label not in ground)]
    handles = [entries[label] for label in labels]
    page.legend(handles, labels, loc="outside lower left", ncols=5, frameon=False, fontsize=8)


def title_of(run: Run, others: int) -> str:
    config = run.config
    words = (
        f"networks of {config['depth']} x {config['width']} on {config['samples']} samples, "
        f"{config['seeds']} seeds with 95 % intervals; closed forms thin, linear models open"
    )
    return words + (f"; {others} runs of other configurations left out" if others else "")


def draw(results: Path) -> Figure:
    return figure(paper.runs("three_regimes", results, f"{COMMAND} --out {results}"))


if __name__ == "__main__":
    paper.main("three_regimes", __doc__, draw)
