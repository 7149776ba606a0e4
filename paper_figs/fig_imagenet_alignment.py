"""Figure: gradients of classifiers over a folder of large images, a row for each network.

Reads the records of the experiment imagenet_alignment and draws: the counterpart of Figure 4 of
Srinivas et al. 2023. Points are means over images with 95 % intervals; open ones are of random networks.
On the right the shares of the gradient's energy by octaves of spatial frequency, those of the score, and
what white noise has. Scores of different kinds or noise levels are not to be compared: the label says which.

    manifoldlab run imagenet_alignment --model torchvision:resnet18 --weights resnet18.pth --out results
    python paper_figs/fig_imagenet_alignment.py --results results --out docs/figures
"""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from manifoldlab.records import Run
from manifoldlab.report import paper
from manifoldlab.report.intervals import intervals
from manifoldlab.report.plots import COLOURS, MARKERS

COMMAND = "manifoldlab run imagenet_alignment"
COLUMNS = {
    "answers_right": "accuracy",
    "gradient_norm": "|gradient of the margin|",
    "score_cosine": "cosine with the score",
    "spectrum_overlap": "overlap of spectra",
    "gradient_alignment": "tangent share",
}
NULLS = {"spectrum_overlap": "spectrum_overlap_null"}
BANDS = ("< 1/16", "1/16 - 1/8", "1/8 - 1/4", "> 1/4")
OWN = ("data", "model", "weights", "head", "denoiser", "sigma", "estimator", "dim")
GREY, BLACK = "#777777", "#000000"


def most_images(found: list[Run]) -> list[Run]:
    """Of each network and score the record of the most images."""
    best = {
        tuple(run.config[key] for key in OWN): run
        for run in sorted(found, key=lambda run: run.metrics["images"])
    }
    return [best[key] for key in sorted(best)]


def name(run: Run) -> str:
    """The network, whether it is trained, and the score."""
    config = run.config
    model = Path(config["model"]).stem.partition(":")[2] or Path(config["model"]).stem
    trained = config["weights"] or config["model"].endswith(".safetensors")
    kind = "denoiser" if config["denoiser"] else "stationary Gaussian"
    how = Path(config["weights"]).stem if config["weights"] else "" if trained else "random weights"
    words = f"{model} {how}".strip()
    images = f"{run.metrics['images']} of {config['data']}"
    return f"{words}, {images}\n{kind}, $\\sigma$ = {config['sigma']:g}"


def is_random(run: Run) -> bool:
    return not run.config["weights"] and not run.config["model"].endswith(".safetensors")


def points(axes: Axes, runs: list[Run], column: str) -> None:
    for k, run in enumerate(runs):
        samples = run.samples()
        if column not in samples:
            continue
        values = samples[column]
        (low,), (high,) = intervals(values[None])
        error = [[values.mean() - low], [high - values.mean()]]
        colour = COLOURS[k % len(COLOURS)]
        face = "white" if is_random(run) else colour
        axes.errorbar(values.mean(), k, xerr=error, fmt="o", color=colour, mfc=face, ms=5, lw=1.2)
        if column in NULLS:
            axes.plot(samples[NULLS[column]].mean(), k, "|", color=GREY, ms=14)
    axes.set_title(COLUMNS[column])
    axes.set_ylim(len(runs) - 0.5, -0.5)


def shares(axes: Axes, runs: list[Run]) -> None:
    for k, run in enumerate(runs):
        samples, colour = run.samples(), COLOURS[k % len(COLOURS)]
        places = np.arange(samples["spectrum_share"].shape[1])
        low, high = intervals(samples["spectrum_share"].T)
        axes.fill_between(places, low, high, color=colour, alpha=paper.BAND, lw=0)
        style = {"color": colour, "marker": MARKERS[k % len(MARKERS)], "ms": 4, "lw": 1.2}
        axes.plot(places, samples["spectrum_share"].mean(0), **style)
        axes.plot(places, samples["spectrum_reference_share"].mean(0), ls=":", color=colour, lw=1)
    axes.plot(places, samples["spectrum_share_null"].mean(0), "--", color=GREY, lw=1)
    axes.plot([], [], "-", color=BLACK, label="gradient")
    axes.plot([], [], ":", color=BLACK, label="score")
    axes.plot([], [], "--", color=GREY, label="white noise")
    axes.set_xticks(places, BANDS, fontsize=7.5)
    axes.set(xlabel="cycles a pixel", yscale="log")
    axes.set_title("share of energy by octave")
    axes.legend(fontsize=7, frameon=False)


def figure(found: list[Run]) -> Figure:
    runs = most_images(found)
    shown = [c for c in COLUMNS if any(c in run.samples() for run in runs)]
    width = [1.0] * len(shown) + [1.7]
    page = Figure(
        figsize=(2.6 + 1.9 * sum(width), 1.6 + 0.55 * len(runs) + 0.9), layout="constrained"
    )
    grid = page.subplots(1, len(width), squeeze=False, width_ratios=width)[0]
    for axes, column in zip(grid, shown, strict=False):
        points(axes, runs, column)
        axes.set_yticks(range(len(runs)), [""] * len(runs))
    grid[0].set_yticks(range(len(runs)), [name(run) for run in runs], fontsize=7.5)
    grid[0].set_xlim(-0.03, 1.03)
    if "score_cosine" in shown:
        grid[shown.index("score_cosine")].axvline(0, color=GREY, lw=1, ls="--")
    shares(grid[-1], runs)
    words = "images at full resolution, means with 95 % intervals over images"
    page.suptitle(f"{words}; open: random weights, of which nothing is claimed", fontsize=8)
    paper.footnote(page, runs)
    return page


def draw(results: Path) -> Figure:
    return figure(paper.runs("imagenet_alignment", results, f"{COMMAND} --out {results}"))


if __name__ == "__main__":
    paper.main("imagenet_alignment", __doc__, draw)
