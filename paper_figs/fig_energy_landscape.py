"""Figure: the energy along attacks on the exact Bayes classifier and on networks, law E4.

Reads the records of the experiment energy_landscape and draws; of each problem (dim, codim) the
fullest record. Maps are of the plane of the modes, the first seed's network.

    manifoldlab run energy_landscape --out results
    manifoldlab run energy_landscape --dim 4 --codim 11 --out results
    python paper_figs/fig_energy_landscape.py --results results --out docs/figures
"""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from manifoldlab import records
from manifoldlab.report import paper
from manifoldlab.report.intervals import curve, fullest
from manifoldlab.report.plots import COLOURS, MARKERS, Look

COMMAND = "manifoldlab run energy_landscape"
NAMES = {
    "bayes": "Bayes (exact)",
    "cross_entropy": "cross-entropy",
    "adversarial": "adversarial",
    "trades": "TRADES",
    "weat": "WEAT natural",
}
LOOKS = {
    name: Look(colour, marker)
    for name, colour, marker in zip(NAMES, (COLOURS[6], *COLOURS), MARKERS, strict=False)
}
UNTARGETED, TARGETED = 0, 1  # the kinds in l2
GREY = "#777777"
MOST = 3  # problems on a page


def maps(page: Any, samples: Any, problem: str) -> None:
    panels = page.subplots(1, len(samples["models"]), sharex=True, sharey=True)
    what = "energy less its mean at the data; attacks in $\\ell_2$, untargeted (solid) and targeted (dashed)"
    page.suptitle(f"{problem}\n{what}", fontsize=9)
    for i, (axes, name) in enumerate(zip(panels, samples["models"], strict=True)):
        energy = samples["energy"][i, 0]
        bound = np.quantile(np.abs(energy), 0.9)
        levels = np.linspace(-bound, bound, 13)
        grid = samples["axis"]
        shown = axes.contourf(grid, grid, energy, levels=levels, cmap="Greys", extend="both")
        page.colorbar(shown, ax=axes, shrink=0.75, pad=0.02, format="%.2g", ticks=levels[::3])
        paths(axes, samples["path"][i])
        axes.set_title(NAMES[str(name)], fontsize=9)
        axes.set_aspect("equal")
        axes.grid(False)
        axes.tick_params(labelsize=7)


def paths(axes: Axes, ends: Any) -> None:
    """Where untargeted and targeted attacks of growing length end."""
    for which, colour, style in ((UNTARGETED, COLOURS[0], "-"), (TARGETED, COLOURS[1], "--")):
        axes.plot(*ends[which].transpose(2, 0, 1), ls=style, color=colour, lw=1.1)
    axes.plot(*ends[0, 0].T, "o", color="white", mec="black", mew=0.6, markersize=3, zorder=3)


def lines(panels: Any, run: records.Run, samples: Any) -> None:
    x = samples["lengths"]
    change, raised, share, agree = panels
    for i, name in enumerate(map(str, samples["models"])):
        look, label = LOOKS[name], NAMES[name]
        curve(change, x, samples["change"][i, UNTARGETED, :, 0], look, label)
        curve(raised, x, samples["change"][i, TARGETED, :, 0], look, label, style="--")
        curve(share, x, samples["lowered"][i, UNTARGETED, :, 0], look, label)
        curve(agree, x, samples["agreement"][i, UNTARGETED, :, 0], look, label)
        expected = float(samples["lowered_by_e4"][i, UNTARGETED, 0].mean())
        share.plot(x[0] / 2, expected, look.marker, color="white", mec=look.colour, markersize=6)
    share.plot([], [], "o", color="white", mec="black", markersize=6, label="predicted by E4")
    for axes in panels:
        axes.set_xscale("log")
        axes.axvline(run.config["radius"], color=GREY, ls=":", lw=1, label="trained against")
        axes.set_xlabel("length of the attack")
    for axes in (change, raised):
        axes.axhline(0, color=GREY, lw=0.9)
        axes.set_yscale("symlog", linthresh=0.01)
        axes.set_ylim(top=3 * axes.get_ylim()[1])  # the scale is logarithmic
        axes.set_ylabel("mean change of E")
    for axes in (share, agree):
        axes.axhline(0.5, color=GREY, ls="--", lw=0.9, label="random direction")
        axes.set_ylim(-0.03, 1.03)
    share.set_ylabel("share of points where E falls")
    agree.set_ylabel("share of signs as by E4")


def title(run: records.Run) -> str:
    config = run.config
    space = rf"$\mathbb{{R}}^{{{config['dim'] + 1 + config['codim']}}}$"
    size = f"{config['seeds']} seeds of {config['samples']} samples and {config['points']} points"
    return f"{config['classes']} classes on the {config['dim']}-sphere in {space}, {size}"


def figure(found: list[records.Run]) -> Figure:
    chosen = fullest(found, ("dim", "codim"), ("seeds", "samples", "points", "epochs"))[:MOST]
    page = Figure(figsize=(11, 2.5 + 3.0 * len(chosen)), layout="constrained")
    above, below = page.subfigures(2, 1, height_ratios=(2.5, 3.0 * len(chosen)))
    maps(above, chosen[0].samples(), title(chosen[0]))
    rows = np.atleast_1d(below.subfigures(len(chosen), 1))
    for k, (row, run) in enumerate(zip(rows, chosen, strict=True)):
        panels = row.subplots(1, 4)
        lines(panels, run, run.samples())
        row.suptitle(title(run), fontsize=9)
        if k == 0:
            heads = ("untargeted attacks", "targeted attacks", "untargeted", "untargeted")
            for axes, head in zip(panels, heads, strict=True):
                axes.set_title(head, fontsize=9)
    handles, labels = panels[2].get_legend_handles_labels()
    page.legend(handles, labels, loc="outside lower left", ncols=4, frameon=False, fontsize=8)
    paper.footnote(page, chosen)
    return page


def draw(results: Path) -> Figure:
    return figure(paper.runs("energy_landscape", results, f"{COMMAND} --out {results}"))


if __name__ == "__main__":
    paper.main("energy_landscape", __doc__, draw)
