"""Figure: how the gradients of trained networks come to those of Bayes with n samples, by n, D and d.

Reads of each problem the fullest record of the experiment sample_complexity and draws: means over seeds with
95 % intervals, and the closed form for linear rules: terms of order 1 / n dashed, all orders solid.

    manifoldlab sweep sample_complexity --problem gaussian,sphere
    python paper_figs/fig_sample_complexity.py --results results --out docs/figures
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from manifoldlab import records
from manifoldlab.report import paper
from manifoldlab.report.intervals import fullest, intervals
from manifoldlab.report.plots import COLOURS

COMMAND = "manifoldlab sweep sample_complexity --problem gaussian,sphere"
TITLES = {
    "gaussian": "two Gaussians on a flat, linear logistic models",
    "sphere": "von Mises–Fisher mixtures on a sphere, two hidden layers of {width}, {steps} steps;"
    " rates of the excess over Bayes",
}
ROUNDING = 1e-12
LABELS = {"omega": r"off-manifold share $\omega$", "misalignment": "1 – cosine to Bayes"}
SCANS = {"n": "samples $n$", "D - d": "$D - d$", "d": "$d$"}
NULL, BAYES = "#888888", COLOURS[2]


def panel(axes: Axes, run: records.Run, scan: str, name: str) -> None:
    samples, chosen = run.samples(), members(run, scan)
    x = places(samples, scan)[chosen]
    order = np.argsort(x)
    x, rows = x[order], chosen[order]
    values = samples[name][rows]
    low, high = intervals(values)
    mean = values.mean(1)
    axes.errorbar(
        x,
        mean,
        (mean - low, high - mean),
        fmt="o",
        color=COLOURS[0],
        ms=3.5,
        lw=1.2,
        label="trained",
    )
    for key, style, label in (
        ("leading", (0, (4, 2)), "order $1/n$"),
        ("all_orders", "-", "all orders in $D/n$"),
    ):
        if f"{key}_{name}" in samples:
            axes.plot(x, samples[f"{key}_{name}"][rows], color="k", ls=style, lw=0.9, label=label)
    null = samples["null_omega"][rows] if name == "omega" else np.ones(len(x))
    axes.plot(x, null, color=NULL, ls=":", lw=1.4, label="isotropic gradient")
    if name == "omega" and not bayes_is_zero(run, name):
        bayes = samples["bayes_omega"][rows]
        axes.plot(x, bayes, color=BAYES, ls="-.", lw=1.2, label="Bayes")
    decorate(axes, x, rate(run, scan, name))


def bayes_is_zero(run: records.Run, name: str) -> bool:
    """To rounding, where there is no place for it on a logarithmic axis."""
    return name == "misalignment" or float(run.samples()["bayes_omega"].max()) < ROUNDING


def decorate(axes: Axes, x: Any, text: str) -> None:
    axes.set(xscale="log", yscale="log")
    axes.xaxis.set_major_locator(FixedLocator(x))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.tick_params(labelsize=7)
    axes.set_title(text, fontsize=7.5)


def short(value: float) -> str:
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"


def places(samples: dict[str, Any], scan: str) -> Any:
    return samples["D"] - samples["d"] if scan == "D - d" else samples[scan]


def members(run: records.Run, scan: str) -> Any:
    """Which points of the record are of this scan."""
    config, samples = run.config, run.samples()
    same = {
        "d": samples["d"] == config["dim"],
        "n": samples["n"] == config["size"],
        "D": samples["D"] == config["ambient"],
        "D - d": samples["D"] - samples["d"] == config["ambient"] - config["dim"],
    }
    held = {"n": ("d", "D"), "D - d": ("d", "n"), "d": ("D - d", "n")}[scan]
    listed = config[{"n": "sizes", "D - d": "ambients", "d": "dims"}[scan]]
    of_scan = np.isin(samples["D" if scan == "D - d" else scan], listed)
    return np.flatnonzero(same[held[0]] & same[held[1]] & of_scan)


def rate(run: records.Run, scan: str, name: str) -> str:
    metric = run.metrics[f"{name}: rate in {scan}"]
    lines = [f"rate {measured(metric)}"]
    if "predicted" in metric:
        free = {"n": r"$\leq$ ", "D - d": r"$\geq$ "}
        sign = free.get(scan, "") if run.config["problem"] == "sphere" else ""
        claim = f"{metric['predicted']:.2f}".replace("-0.00", "0.00")
        lines[0] += f", predicted {sign}{claim}" + ("" if metric["agrees"] else ": DISAGREES")
    step = {"n": "largest rise", "D - d": "largest fall"}.get(scan, "")
    against = run.metrics.get(f"{name}: {step} in {scan}")
    if against is not None and not against["agrees"]:
        lines.append(f"NOT MONOTONE: {step} {measured(against)}")
    return "\n".join(lines)


def measured(metric: Mapping[str, Any]) -> str:
    return f"{metric['measured']:.2f} ({metric['low']:.2f} to {metric['high']:.2f})"


def title(run: records.Run) -> str:
    config = run.config
    where = f"d = {config['dim']}, D = {config['ambient']}, n = {config['size']} where not varied"
    what = TITLES[config["problem"]].format(**config)
    return f"{what}\nnoise {config['noise']:g}, {where}, {config['seeds']} seeds"


def figure(runs: list[records.Run]) -> Figure:
    page = Figure(figsize=(9.2, 4.6 * len(runs) + 0.3), layout="constrained")
    parts = page.subfigures(len(runs), 1, squeeze=False)[:, 0]
    for part, run in zip(parts, runs, strict=True):
        grid = part.subplots(2, 3, sharex="col", sharey="row")
        for row, name in zip(grid, LABELS, strict=True):
            for axes, scan in zip(row, SCANS, strict=True):
                panel(axes, run, scan, name)
            bayes = " (Bayes: 0)" if bayes_is_zero(run, name) else ""
            row[0].set_ylabel(LABELS[name] + bayes, fontsize=8)
        for axes, label in zip(grid[1], SCANS.values(), strict=True):
            axes.set_xlabel(label, fontsize=8)
        part.suptitle(title(run), fontsize=9)
        handles, labels = grid[0, 0].get_legend_handles_labels()
        part.legend(
            handles, labels, loc="outside lower center", ncols=5, frameon=False, fontsize=7.5
        )
    return page


def draw(results: Path) -> Figure:
    found = paper.runs("sample_complexity", results, COMMAND)
    chosen = fullest(found, ("problem",), ("seeds", "size", "steps"))
    page = figure(chosen)
    paper.footnote(page, chosen)
    return page


if __name__ == "__main__":
    paper.main("sample_complexity", __doc__, draw)
