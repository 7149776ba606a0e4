"""Figure: from toy to real, the tangent share of gradients on ever less known ground, on one scale.

A panel for each ground, from manifolds through twins of images to images: the tangent share of the
gradient of networks trained by noise augmentation, over strengths from low to high, cross-entropy on the
left; beside it accuracy and, where the truth is known, what the Bayes classifier has. On manifolds and
twins the share is exact; on images it is estimated, and beside it stands how calibration reads it, with a
bar at 90 %.

    manifoldlab sweep three_regimes --problem sphere,circle --objective noise_augmentation
    manifoldlab sweep regimes_on_images --data digits,digits_twin --objective noise_augmentation
    python paper_figs/fig_toy_to_real.py --results results --out docs/figures
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from manifoldlab import records
from manifoldlab.records import Run
from manifoldlab.report import paper
from manifoldlab.report.intervals import CALIBRATED, bars, curve, fullest
from manifoldlab.report.plots import COLOURS, Look

OBJECTIVE = "noise_augmentation"
COMMAND = f"manifoldlab sweep regimes_on_images --data digits,digits_twin --objective {OBJECTIVE}"
GROUNDS = ("subspace", "sphere", "torus", "circle", "helix")
SETS = ("digits_twin", "mnist_twin", "cifar10_twin", "digits", "mnist", "cifar10", "tiny_imagenet")
WEAK = -0.25  # where cross-entropy, strength 0, stands on an axis from 0 to 1
SHARE, ACCURACY = Look(COLOURS[5], "D"), Look("#000000", "^")


class Panel(NamedTuple):
    title: str
    share: Any  # (strengths, seeds), cross-entropy first
    accuracy: Any
    null: float
    bayes: float | None  # tangent share of the Bayes classifier
    calibrated: Any = None  # (strengths, 3) value and bar


def on_known_ground(run: Run) -> Panel:
    samples = run.samples()
    both: Any = lambda name: np.concatenate([samples[f"weak_{name}"], samples[name]])
    return Panel(
        f"{run.config['problem']}\nexact",
        both("alignment"),
        both("accuracy"),
        float(samples["null_alignment"]),
        float(samples["bayes_alignment"]),
    )


def on_images(run: Run) -> Panel:
    samples = run.samples()
    exact = "omega_exact" in samples
    name = "exact" if exact else run.config["estimators"][0]
    omega = f"omega_{name}"
    both: Any = lambda name: np.concatenate([samples[f"weak_{name}"], samples[name]]).mean(-1)
    return Panel(
        f"{run.config['data'].replace('_', ' ')}\n{name.replace('_', ' ')}",
        1 - both(omega),
        both("right"),
        1 - float(samples[f"null_{omega}"]),
        1 - float(samples[f"bayes_{omega}"].mean()) if exact else None,
        samples.get(f"calibrated_{name}"),
    )


def draw_panel(axes: Axes, panel: Panel) -> None:
    place = np.concatenate([[WEAK], np.linspace(0, 1, len(panel.share) - 1)])
    curve(axes, place, panel.accuracy, ACCURACY, "accuracy", style=":")
    curve(axes, place, panel.share, SHARE, "tangent share of the gradient")
    if panel.calibrated is not None:
        bars(axes, place, panel.calibrated, CALIBRATED, "tangent share, calibrated")
    axes.axhline(panel.null, color="#777777", lw=0.9, ls=(0, (1, 2)), label="isotropic gradient")
    if panel.bayes is not None:
        axes.axhline(panel.bayes, color=COLOURS[0], lw=1.3, label="Bayes, exact")
    axes.set_title(panel.title, fontsize=8)
    axes.set_xticks([WEAK, 0, 1], ["0", "low", "high"])
    axes.set_ylim(-0.03, 1.03)


def figure(panels: list[Panel], found: list[Run]) -> Figure:
    page = Figure(figsize=(1.5 * len(panels) + 1, 3.1), layout="constrained")
    row = page.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axes, panel in zip(row, panels, strict=True):
        draw_panel(axes, panel)
    row[0].set_ylabel("share, accuracy")
    row[len(row) // 2].set_xlabel("strength of noise augmentation (log)")
    entries: dict[str, Any] = {}
    for axes in row:
        handles, labels = axes.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    page.legend(
        entries.values(),
        entries,
        loc="outside upper left",
        ncols=2 if len(panels) < 5 else 4,
        frameon=False,
        fontsize=7.5,
    )
    paper.footnote(page, found)
    return page


def draw(results: Path) -> Figure:
    images = paper.runs("regimes_on_images", results, f"{COMMAND} --out {results}")
    known = records.load("three_regimes", results)
    effort = ("seeds", "samples", "epochs")
    pick = lambda runs, facet: fullest(
        [run for run in runs if run.config["objective"] == OBJECTIVE], (facet,), effort
    )
    by_problem = {run.config["problem"]: run for run in pick(known, "problem")}
    by_set = {run.config["data"]: run for run in pick(images, "data")}
    first = [by_problem[name] for name in GROUNDS if name in by_problem]
    then = [by_set[name] for name in SETS if name in by_set]
    panels = [*map(on_known_ground, first), *map(on_images, then)]
    if not panels:
        raise SystemExit(f"no records by {OBJECTIVE}; make them with: {COMMAND} --out {results}")
    return figure(panels, [*first, *then])


if __name__ == "__main__":
    paper.main("toy_to_real", __doc__, draw)
