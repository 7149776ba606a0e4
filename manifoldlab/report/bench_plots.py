"""The plots of a bench: how far each contestant is from its floor, and how time and memory grow."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from manifoldlab.report.plots import COLOURS, MARKERS, STYLE, svg, ticks

Row = Mapping[str, Any]
LINE = 0.27  # inches a case


def ladder(rows: Sequence[Row], kind: str) -> Markup:
    """Ratios to the floor, one line a case: own filled, with four standard errors; peers hollow."""
    rows = [row for row in rows if "own" in row]
    if not rows:
        return Markup("")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.8, 1.0 + LINE * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        _own(axes, rows)
        names = list(dict.fromkeys(name for row in rows for name in row["peers"]))
        for i, name in enumerate(names):
            _peer(axes, rows, name, i)
        axes.axvline(1, color="#333333", lw=1.0, dashes=(4, 3))
        axes.set_xscale("log")
        ticks(axes.xaxis)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_yticks(range(len(rows)), [row["name"].partition("/")[2] for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel("time over that of the floor")
        if names:
            figure.legend(loc="outside right upper", frameon=False)
        return svg(figure, f"{kind}: ratios to the floor", f"{kind}-ratios-")


def _own(axes: Axes, rows: Sequence[Row]) -> None:
    values = [row["own"]["ratio"] for row in rows]
    bars = [4 * (row["own"]["noise"] or 0.0) for row in rows]
    axes.errorbar(
        values,
        range(len(rows)),
        xerr=[[min(b, 0.9 * v) for v, b in zip(values, bars, strict=True)], bars],
        fmt="o",
        color=COLOURS[0],
        markersize=6.5,
        zorder=3,
        label="manifoldlab",
    )


def _peer(axes: Axes, rows: Sequence[Row], name: str, i: int) -> None:
    timed = [
        (row["peers"][name]["ratio"], y)
        for y, row in enumerate(rows)
        if "ratio" in row["peers"].get(name, {})
    ]
    if timed:
        axes.plot(
            *zip(*timed, strict=True),
            MARKERS[1 + i % (len(MARKERS) - 1)],
            label=name,
            markersize=6.5,
            color=COLOURS[1 + i % (len(COLOURS) - 1)],
            fillstyle="none",
        )


def growth(row: Row, what: str, unit: str, scale: float) -> Markup:
    """Of one function along each of its axes, from where all start: `what` is seconds or peak_bytes."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.4, 3.7), layout="constrained")
        axes = figure.add_subplot()
        for i, (axis, found) in enumerate(row["axes"].items()):
            points = [p for p in found["points"] if p[what] > 0]
            x = [p["sizes"][axis] / row["start"][axis] for p in points]
            y = [p[what] / scale for p in points]
            axes.loglog(
                x, y, MARKERS[i], ls="-", lw=1, color=COLOURS[i], markersize=5.5, label=axis
            )
        ticks(axes.xaxis)
        ticks(axes.yaxis)
        axes.set_xlabel("size, over that of the start")
        axes.set_ylabel(unit)
        axes.legend(frameon=False)
        label = row["name"].replace("/", "-")
        return svg(figure, f"{row['name']}: {unit}", f"{label}-{what}-")
