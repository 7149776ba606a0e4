"""Figure: what penalizing only the normal part of gradients does, beside the whole and the tangential.

Reads the records of the experiment causal_normal_penalty and draws the fullest one that penalizes the
margin, or the loss if there is no other.

    manifoldlab run causal_normal_penalty --out results
    python paper_figs/fig_causal_normal_penalty.py --results results --out docs/figures
"""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from manifoldlab import records
from manifoldlab.report import paper
from manifoldlab.report.intervals import curve, fullest, level
from manifoldlab.report.plots import COLOURS, MARKERS, Look

COMMAND = "manifoldlab run causal_normal_penalty"
NAMES = {
    "normal_penalty": r"$\|Qg\|^2$ (across the manifold)",
    "gradient_penalty": r"$\|g\|^2$ (whole gradient)",
    "tangent_penalty": r"$\|Pg\|^2$ (along: the control)",
}
STYLES = ("-", "--", ":")
FIELDS = {
    "alignment": r"alignment $1-\omega$",
    "cosine": "cosine with the Bayes gradient",
    "accuracy": "accuracy",
    "on": "change along the manifold",
    "off": "change across the manifold",
}
GREY = "#777777"


def panel(axes: Axes, samples: Any, field: str, problem: int) -> None:
    for i, name in enumerate(map(str, samples["penalties"])):
        look = Look(COLOURS[i], MARKERS[i])
        values = samples[field][problem, i]
        curve(axes, samples["strengths"], values, look, NAMES[name], style=STYLES[i])
    level(axes, samples[f"{field}_bayes"][problem], "black", "Bayes (exact)", style="-")
    level(axes, samples[f"{field}_cross_entropy"][problem], COLOURS[5], "cross-entropy")
    nulls = {"alignment": float(samples["alignment_null"]), "cosine": 0.0}
    if field in nulls:
        axes.axhline(nulls[field], color=GREY, ls="-.", lw=1, label="isotropic gradient")
    axes.set_xscale("log")
    if field in ("on", "off"):
        axes.set_yscale("symlog", linthresh=1e-3)
        axes.set_ylim(bottom=0)
    axes.set_xlabel("strength")


def title(run: records.Run, problem: str) -> str:
    config = run.config
    where = rf"{problem} of dimension {config['dim']} in $\mathbb{{R}}^{{{config['ambient']}}}$"
    of = "margin" if config["head"] == "margin" else "loss"
    return f"{where}, penalties of the {of}, {config['seeds']} seeds of {config['samples']} samples"


def figure(found: list[records.Run]) -> Figure:
    run = fullest(found, ("head",), ("seeds", "samples", "points", "epochs", "width"))[-1]
    samples = run.samples()
    page = Figure(figsize=(12.5, 6.2), layout="constrained")
    rows = page.subfigures(len(samples["problems"]), 1)
    for k, row in enumerate(rows):
        row.suptitle(title(run, str(samples["problems"][k])), fontsize=9)
        panels = row.subplots(1, len(FIELDS))
        for axes, (field, label) in zip(panels, FIELDS.items(), strict=True):
            panel(axes, samples, field, k)
            axes.set_ylabel(label)
    handles, labels = panels[0].get_legend_handles_labels()
    page.legend(handles, labels, loc="outside lower left", ncols=3, frameon=False, fontsize=8)
    paper.footnote(page, [run])
    return page


def draw(results: Path) -> Figure:
    return figure(paper.runs("causal_normal_penalty", results, f"{COMMAND} --out {results}"))


if __name__ == "__main__":
    paper.main("causal_normal_penalty", __doc__, draw)
