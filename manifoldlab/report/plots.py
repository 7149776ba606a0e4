"""The plots of a rate law: its sweeps in log-log, and how far they are from the predicted term.

One curve a family, that of its worst case; matplotlib without pyplot, hence without global state.
"""

import io
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.markers import MarkerStyle
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Affine2D

from manifoldlab.report.formulas import outline

COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#e69f00",
    "#000000",
)  # Okabe, Ito
MARKERS = "osD^vP<X>p"  # 7 and 10 have no common factor: 70 families look different
STYLE: dict[Any, Any] = {
    "font.size": 11.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "svg.fonttype": "path",
}

Curves = Mapping[str, Mapping[str, Any]]  # family -> its sweep, as in laws.json


class Look(NamedTuple):
    colour: str
    marker: str


def looks(curves: Curves) -> dict[str, Look]:
    return {
        family: Look(COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)])
        for i, family in enumerate(curves)
    }


def swatch(look: Look) -> Markup:
    """The marker of a family, for the legend."""
    style = MarkerStyle(look.marker)
    path = outline(style.get_path().transformed(style.get_transform() + Affine2D().scale(100)))
    return Markup(
        '<svg class="swatch" viewBox="-60 -60 120 120" aria-hidden="true"><path fill="{}" d="{}"/></svg>'
    ).format(look.colour, path)


def log_log(curves: Curves, label: str) -> Markup:
    """Measured points, the line fitted through them, and the predicted term (dashed)."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure()
        for family, look in looks(curves).items():
            scales, left, right = _sweep(curves[family])
            axes.loglog(scales, left, look.marker, color=look.colour, markersize=5.5)
            if len(scales) > 1:
                fit = np.polynomial.Polynomial.fit(np.log(scales), np.log(left), 1)
                axes.loglog(scales, np.exp(fit(np.log(scales))), color=look.colour, lw=1.2)
            axes.loglog(scales, right, "--", color="#333333", lw=1.0, dashes=(4, 3), zorder=3)
        ticks(axes.xaxis)
        ticks(axes.yaxis)
        axes.set_xlabel("scale")
        axes.set_ylabel("root mean square")
        return svg(
            figure, f"{label}: measured points, fitted and predicted lines", f"{label}-rate-"
        )


def deviation(curves: Curves, label: str) -> Markup:
    """Measured over predicted, less one, in per cent."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure()
        for family, look in looks(curves).items():
            scales, left, right = _sweep(curves[family])
            percent = 100 * (left / right - 1)
            axes.semilogx(
                scales, percent, look.marker, ls="-", color=look.colour, markersize=5.5, lw=1
            )
        axes.axhline(0, color="#333333", lw=1.0, dashes=(4, 3))
        ticks(axes.xaxis)
        axes.set_xlabel("scale")
        axes.set_ylabel("measured against predicted, %")
        return svg(figure, f"{label}: deviation from the predicted term", f"{label}-deviation-")


def _sweep(curve: Mapping[str, Any]) -> Iterator[Any]:
    """Scales, left and right, where all of them have a logarithm."""
    columns = np.array([curve[name] for name in ("scales", "left", "right")], dtype=float)
    with np.errstate(invalid="ignore"):
        return iter(columns[:, np.all(np.isfinite(columns) & (columns > 0), 0)])


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.4, 3.7), layout="constrained")
    return figure, figure.add_subplot()


def ticks(axis: Axis) -> None:
    """Labels at the powers of ten, and at 2 and 5 times them where there are few."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 50 * low else (1,)))
    axis.set_minor_formatter(NullFormatter())
    if high < 50 * low:
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def svg(figure: Figure, label: str, prefix: str) -> Markup:
    """Inline, with ids of its own: two figures of one page must not share them."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    body = file.getvalue().partition("<svg")[2]
    body = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}", body)
    return Markup('<svg role="img" aria-label="{}"').format(label) + Markup(body)
