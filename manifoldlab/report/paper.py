"""A figure of paper_figs: its options, the records that it reads, and a PDF and a PNG fit for a paper."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from manifoldlab import records
from manifoldlab.report import commands
from manifoldlab.report.plots import STYLE

# Type 42 is TrueType: text in the PDF stays text, in embedded fonts.
PAPER: dict[Any, Any] = STYLE | {"font.size": 9.0, "pdf.fonttype": 42, "axes.titlesize": 9.0}
LETTERS = 19  # of the note under a figure, to an inch
BAND = 0.18  # opacity of the interval around a curve


def runs(experiment: str, results: Path, command: str) -> list[records.Run]:
    """Its records, or one line with the command that makes them."""
    found = records.load(experiment, results)
    if not found:
        where = results / experiment
        raise SystemExit(f"there are no records in {where}; make them with: {command}")
    return found


def footnote(page: Figure, found: Sequence[records.Run]) -> None:
    """Under the figure: how many records by which sources and commands, and whether they are stale."""
    stale = any(run.stale for run in found)
    colour = "#b00020" if stale else "#777777"
    made_by = commands.lines(found, int(LETTERS * page.get_figwidth()))
    text = "\n".join([*made_by, records.note(found)])
    page.supxlabel(text, fontsize=6.5, color=colour, x=0.995, ha="right")


def main(
    name: str,
    summary: str | None,
    draw: Callable[[Path], Figure],
    *,
    texts: Mapping[str, Callable[[Path], str]] = MappingProxyType({}),
) -> None:
    """Draws from the records of --results, and prints the files that it wrote.

    `texts` are further files by their suffixes, for a LaTeX table, say.
    """
    parser = argparse.ArgumentParser(description=(summary or "").partition("\n")[0])
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--out", type=Path, default=Path("docs/figures"))
    given = parser.parse_args()
    with matplotlib.rc_context(PAPER):
        page = draw(given.results)
        given.out.mkdir(parents=True, exist_ok=True)
        for suffix, dated in (("pdf", "CreationDate"), ("png", "Creation Time")):
            file = given.out / f"{name}.{suffix}"
            page.savefig(file, dpi=200, metadata={dated: None})
            print(file)
        for suffix, write in texts.items():
            file = given.out / f"{name}.{suffix}"
            file.write_text(write(given.results), encoding="utf-8")
            print(file)
