"""A table of theorems: each law, its kind of claim, how near it held, and how its controls failed.

Reads the laws.json of `manifoldlab verify`; beside the page it writes a longtable for LaTeX, with the
statements. Two lines a law: the worst residual of all cases against its tolerance, and the control
that came worst: its gap, measured against predicted.

    manifoldlab verify --profile full --out results/verify
    python paper_figs/fig_theorems.py --results results --out docs/figures
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from manifoldlab.report import paper

Row = Mapping[str, Any]  # a law, as in laws.json
MAKE = "manifoldlab verify --profile full --out"
CHECKS = Path(__file__).parents[1] / "theory_checks"
EDGES = (0.05, 0.42, 4.0, 4.72, 5.5, 6.3, 6.48)  # of the columns, in inches
SIDES = ("left", "left", "left", "right", "right", "right", "left")
WIDTH, HEIGHT, ROOM = 7.35, 0.315, (0.42, 0.72)  # of the page, of a law, above and below all
HEAD = (
    ("law", "claim", "kind", "cases", "residual", "tolerance", "verdict"),
    ("", "control: what is dropped", "", "cases", "gap", "predicted", ""),
)
GOOD, BAD, SOFT, BAND = "#0a6b4b", "#b00020", "#5b6570", "#f2f4f6"
NOTE = (
    "Residual: the worst of all cases; of a rate the larger deviation, of slope or constant, and of a "
    "statistic log p / log level, in units of\nwhat is tolerated; several claims that make one law show "
    "their worst. Gap: by how much a control misses the law, as a root mean square,\nof a rate in units "
    "of its power of the scale; a dash where no amount is predicted."
)


class Line(NamedTuple):
    """The cells of one line, and whether all is as it should be."""

    cells: tuple[str, ...]
    good: bool


def laws(results: Path) -> list[Row]:
    file = results / "verify" / "laws.json"
    if not file.is_file():
        raise SystemExit(f"there is no {file}; make it with: {MAKE} {file.parent}")
    found: list[Row] = json.loads(file.read_text(encoding="utf-8"))
    return found


def missing(rows: Sequence[Row]) -> list[str]:
    """Laws of theory_checks, by the names of their files, that the record has not."""
    known = {file.stem.split("_")[1].capitalize() for file in CHECKS.glob("check_*.py")}
    return sorted(known - {row["id"] for row in rows})


def lines(row: Row) -> tuple[Line, Line]:
    """Of the law, and of the worst of its controls."""
    control, all_of_them = row["control"], row["controls"]
    rejected = sum(one["verdict"] == "rejected" for one in all_of_them)
    residual = number(row["worst"], "not finite"), number(row["tolerance"], "–")
    good = row["verdict"] == "verified"
    verdict = "verified" if good else "REFUTED"
    amounts = number(control["measured"], "–"), number(control["predicted"], "–")
    cases = sum(one["cases"] for one in all_of_them)
    judged = f"{rejected} of {len(all_of_them)} rejected"
    return (
        Line((row["id"], row["title"], row["kind"], str(row["cases"]), *residual, verdict), good),
        Line(("", control["name"], "", str(cases), *amounts, judged), rejected == len(all_of_them)),
    )


def number(value: float | None, absent: str) -> str:
    """Three digits, as a formula that matplotlib and LaTeX read alike."""
    if value is None:
        return absent
    mantissa, _, exponent = f"{value:.3g}".partition("e")
    if not exponent:
        return f"${mantissa}$"
    power = f"10^{{{int(exponent)}}}"
    return f"${power}$" if mantissa == "1" else f"${mantissa} \\times {power}$"


def summary(rows: Sequence[Row]) -> tuple[str, bool]:
    """What was verified and by what; and whether nothing is refuted or missing."""
    verified = sum(row["verdict"] == "verified" for row in rows)
    controls = [one["verdict"] == "rejected" for row in rows for one in row["controls"]]
    settings = sorted({f"{r['profile']}, seed {r['seed']}, {r['device']}" for r in rows})
    absent = missing(rows)
    line = (
        f"{verified} of {len(rows)} laws verified, {sum(controls)} of {len(controls)} controls "
        f"rejected, {sum(row['cases'] for row in rows)} cases ({'; '.join(settings)})"
    )
    without = f"; NOT IN THIS RECORD: {', '.join(absent)}" if absent else ""
    return line + without, verified == len(rows) and all(controls) and not absent


def figure(rows: Sequence[Row]) -> Figure:
    above, below = ROOM
    page = Figure(figsize=(WIDTH, above + HEIGHT * len(rows) + below))
    axes = page.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(page.get_figheight(), 0))
    axes.set_axis_off()
    for i, cells in enumerate(HEAD):
        style = {"fontsize": 6.8 - 0.5 * i, "color": SOFT}
        write(axes, above - 0.26 + 0.14 * i, Line(cells, True), style, SOFT)
    for i, row in enumerate(rows):
        top = above + HEIGHT * i
        law, control = lines(row)
        if i % 2 == 0:
            axes.axhspan(top, top + HEIGHT, color=BAND, lw=0)
        write(axes, top + 0.1, law, {"fontsize": 7.2, "color": "#1c2126"}, GOOD)
        write(axes, top + 0.23, control, {"fontsize": 6.3, "color": SOFT}, SOFT)
    for height in (above, above + HEIGHT * len(rows)):
        axes.axhline(height, color="#1c2126", lw=0.8)
    words, good = summary(rows)
    end = above + HEIGHT * len(rows) + 0.1
    axes.text(0.05, end, words, fontsize=6.8, va="top", color=SOFT if good else BAD)
    axes.text(0.05, end + 0.16, NOTE, fontsize=6.2, va="top", color=SOFT, linespacing=1.25)
    return page


def write(axes: Any, height: float, line: Line, style: Mapping[str, Any], verdict: str) -> None:
    """The verdict in its colour; what is not good in bold red, for readers in grey."""
    for edge, side, cell in zip(EDGES, SIDES, line.cells, strict=True):
        axes.text(edge, height, cell, ha=side, va="center_baseline", **style)
    word = axes.texts[-1]
    word.set_color(verdict if line.good else BAD)
    word.set_fontweight("normal" if line.good else "bold")


def latex(results: Path) -> str:
    """With booktabs, longtable and amsfonts."""
    rows = laws(results)
    body = [r"\begin{longtable}{@{}lp{0.48\textwidth}lrrrl@{}}", r"\toprule"]
    body += [" & ".join(cells) + r" \\" for cells in HEAD]
    body += [r"\midrule", r"\endhead"]
    for row in rows:
        law, control = (list(map(escaped, line.cells)) for line in lines(row))
        law[1] = f"{law[1]}. " + r"{\footnotesize " + escaped(row["statement"]) + "}"
        control[1] = r"\emph{" + control[1] + "}"
        body += [" & ".join(cells) + r" \\" for cells in (law, control)] + [r"\addlinespace"]
    words = escaped(summary(rows)[0] + ". " + " ".join(NOTE.split()))
    return "\n".join(
        [*body, r"\bottomrule", rf"\caption{{{words}}}", r"\end{longtable}", ""],
    )


def escaped(text: str) -> str:
    """For LaTeX, but for what stands between dollars."""
    parts = re.split(r"(\$.+?\$)", text)
    plain = (re.sub(r"([#%&_{}])", r"\\\1", part).replace("–", "--") for part in parts[::2])
    joined = [*parts]
    joined[::2] = plain
    return "".join(joined)


def draw(results: Path) -> Figure:
    return figure(laws(results))


if __name__ == "__main__":
    paper.main("theorems", __doc__, draw, texts={"tex": latex})
