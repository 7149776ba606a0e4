"""Figure: images, the score of their class, and gradients of robust and of standard networks.

Reads the records of the experiment gradient_gallery and draws the fullest one of each data set: the
counterpart of Figure 1 of Srinivas et al. 2023, with the mean cosine to the score of all test images
under each column. Of grey images a field is shown by colours about zero, up to its 99.5 % quantile of
|value|; of colour images as published, v / max |v| about grey.

    manifoldlab run gradient_gallery --out results
    manifoldlab run gradient_gallery --data cifar10 --out results
    python paper_figs/fig_gradient_gallery.py --results results --out docs/figures
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from manifoldlab.records import Run
from manifoldlab.report import paper
from manifoldlab.report.intervals import fullest, intervals

COMMAND = "manifoldlab run gradient_gallery"
QUANTILE = 0.995  # of |v|, where the colours of a grey panel end
KINDS = ("robust", "standard", "excessive")
EFFORT = ("seeds", "epochs", "width", "held_out")


def field(axes: Axes, v: Any) -> None:
    """A vector field (C, H, W) as a picture, on a scale of its own."""
    if len(v) == 1:
        bound = max(float(np.quantile(np.abs(v), QUANTILE)), np.finfo(np.float32).tiny)
        axes.imshow(v[0], cmap="RdBu_r", vmin=-bound, vmax=bound, interpolation="nearest")
        return
    largest = max(float(np.abs(v).max()), np.finfo(np.float32).tiny)
    axes.imshow((1 + v.transpose(1, 2, 0) / largest) / 2, interpolation="nearest")


def picture(axes: Axes, x: Any) -> None:
    shown = x[0] if len(x) == 1 else x.transpose(1, 2, 0)
    axes.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def heads(config: Mapping[str, Any]) -> list[str]:
    robust = config["objective"].replace("_", " ")
    how = {
        "robust": f"{robust}, {config['strength']:g}",
        "standard": "cross-entropy",
        "excessive": f"{robust}, {config['excess']:g}",
    }
    score = f"score of the class,\n$\\sigma$ = {config['sigma']:g}"
    return ["image", score, *(f"{kind} gradient,\n{how[kind]}" for kind in KINDS)]


def feet(samples: Any) -> list[str]:
    lines = ["", "cosine\naccuracy"]
    for kind in KINDS:
        cosine, right = (samples[f"{kind}_{name}"].mean(1) for name in ("cosine", "right"))
        lines.append(f"{interval(cosine)}\n{interval(right)}")
    return lines


def interval(values: Any) -> str:
    (low,), (high,) = intervals(values[None])
    return f"{values.mean():.3f} $\\pm$ {(high - low) / 2:.3f}"


def block(part: Any, run: Run) -> None:
    samples = run.samples()
    columns = [samples["image"], samples["score"]]
    columns += [samples[f"{kind}_gradient"] for kind in KINDS]
    names = [str(samples["classes"][label]) for label in samples["label"]]
    grid = part.subplots(len(names), len(columns), squeeze=False)
    for i, (row, name) in enumerate(zip(grid, names, strict=True)):
        picture(row[0], columns[0][i])
        for axes, column in zip(row[1:], columns[1:], strict=True):
            field(axes, column[i])
        for axes in row:
            axes.set(xticks=[], yticks=[])
            axes.grid(False)
            axes.spines[:].set_visible(False)
        row[0].set_ylabel(name, fontsize=8)
    for axes, head in zip(grid[0], heads(run.config), strict=True):
        axes.set_title(head, fontsize=7.5)
    for axes, foot in zip(grid[-1], feet(samples), strict=True):
        axes.set_xlabel(foot, fontsize=7.5)
    part.suptitle(title(run, samples), fontsize=8, color="#444444")


def title(run: Run, samples: Any) -> str:
    seeds, images = samples["standard_cosine"].shape
    config = run.config
    what = f"{config['data']}, {config['network']} of width {config['width']}"
    return f"{what}; below, means of {images} test images, {seeds} seeds, 95 % intervals"


def figure(found: list[Run]) -> Figure:
    chosen = fullest(found, ("data",), EFFORT)
    rows = [run.config["shown"] for run in chosen]
    page = Figure(figsize=(6.6, 1.22 * sum(rows) + 1.0 * len(rows)), layout="constrained")
    parts = np.atleast_1d(page.subfigures(len(rows), 1, height_ratios=[1.22 * n + 1 for n in rows]))
    for part, run in zip(parts, chosen, strict=True):
        block(part, run)
    paper.footnote(page, chosen)
    return page


def draw(results: Path) -> Figure:
    return figure(paper.runs("gradient_gallery", results, f"{COMMAND} --out {results}"))


if __name__ == "__main__":
    paper.main("gradient_gallery", __doc__, draw)
