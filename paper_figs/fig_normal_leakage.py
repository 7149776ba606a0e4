"""Figure: the normal part of Bayes gradients on curved manifolds against the noise, law B2.

Reads the laws.json of `manifoldlab verify` and draws; of each family of manifolds the worst case.

    python paper_figs/fig_normal_leakage.py --results results --out docs/figures
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from manifoldlab.report import paper
from manifoldlab.report.plots import Look, looks

Curve = Mapping[str, Any]  # scales, left (measured), right (predicted)


def curves(results: Path) -> Mapping[str, Curve]:
    """Of each family; one line that says how to make them where there are none."""
    file = results / "verify" / "laws.json"
    make = f"make it with: manifoldlab verify B2 --profile full --out {file.parent}"
    if not file.is_file():
        raise SystemExit(f"there is no {file}; {make}")
    rows = {row["id"]: row for row in json.loads(file.read_text())}
    if "B2" not in rows or not rows["B2"].get("curves"):
        raise SystemExit(f"{file} has no curves of law B2; {make}")
    found: Mapping[str, Curve] = rows["B2"]["curves"]
    return found


def draw_leakage(axes: Axes, curve: Curve, look: Look, family: str) -> None:
    axes.loglog(curve["scales"], curve["right"], "--", color="#888888", lw=0.9, zorder=1)
    axes.loglog(
        curve["scales"],
        curve["left"],
        look.marker,
        color=look.colour,
        markersize=5,
        label=family.replace("_", " "),
    )


def draw_excess(axes: Axes, curve: Curve, look: Look) -> None:
    pairs = zip(curve["left"], curve["right"], strict=True)
    excess = [100 * abs(left / right - 1) for left, right in pairs]
    axes.loglog(
        curve["scales"], excess, look.marker, ls="-", color=look.colour, markersize=4, lw=0.9
    )


def figure(found: Mapping[str, Curve]) -> Figure:
    page = Figure(figsize=(9.5, 3.8), layout="constrained")
    leakage, excess = page.subplots(1, 2)
    for family, look in looks(found).items():
        draw_leakage(leakage, found[family], look, family)
        draw_excess(excess, found[family], look)
    for axes in (leakage, excess):
        axes.set_xlabel(r"noise $\tau$")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    leakage.set_ylabel(r"$\|Q\,\nabla(\ell_a - \ell_b)\|$, root mean square")
    leakage.set_title(r"measured, and predicted at order $\tau^2$ (dashed)", fontsize=10)
    excess.set_ylabel("measured over predicted, less 1, %")
    excess.set_title(r"the next term, of relative order $\tau^2$", fontsize=10)
    page.legend(loc="outside right center", frameon=False, fontsize=8)
    return page


def draw(results: Path) -> Figure:
    return figure(curves(results))


if __name__ == "__main__":
    paper.main("normal_leakage", __doc__, draw)
