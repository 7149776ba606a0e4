"""A bench in words: its tables on a terminal, and bench.html, a page that needs nothing else."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from manifoldlab.benchmarking.differences import Change
from manifoldlab.report import bench_plots, page

Row = Mapping[str, Any]
UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
STYLES = {"same": "default", "faster": "green", "slower": "bold red"}


def table(rows: Sequence[Row]) -> Table:
    """One row a case, under the name of its kind."""
    found = _table("function / size", "time", "floor", "x floor", "x best peer", "error")
    for kind, some in groupby(rows, lambda row: str(row["name"]).partition("/")[0]):
        found.add_row(Text(kind, "bold"))
        for row in some:
            name = row["name"].partition("/")[2]
            found.add_row(f"  {name}", *_cells(row), _error(row))
    found.caption = "medians of interleaved rounds; x stands for own time over that of another"
    found.caption_justify = "left"
    return found


def _table(first: str, *others: str) -> Table:
    found = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    found.add_column(first, overflow="fold")
    for name in others:
        found.add_column(name, justify="right")
    return found


def _cells(row: Row) -> tuple[str, str, str, str]:
    if "own" not in row:
        return "", "", "", ""
    best = row["best_peer"]
    peer = "-" if best is None else f"{ratio(best)} {best['name']}"
    return (
        duration(row["own"]["seconds"]),
        duration(row["floor"]["seconds"]),
        ratio(row["own"]),
        peer,
    )


def _error(row: Row) -> Text:
    if "failure" in row:
        return Text(f"FAILED {row['failure']}", "bold red")
    if row["right"]:
        return Text(f"{row['error']:.0e}")
    return Text(f"WRONG {row['error']:.0e} > {row['within']:.0e}", "bold red")


def duration(seconds: float) -> str:
    unit, name = next(((u, n) for u, n in UNITS if seconds >= u), UNITS[-1])
    return f"{seconds / unit:.3g} {name}"


def ratio(found: Row) -> str:
    """With its noise where this is known."""
    value, noise = found["ratio"], found["noise"]
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f}" + ("" if noise is None else f" ± {noise:.{digits}f}")


def size(count: float) -> str:
    """Of memory, in binary units."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} GiB"


def rate(value: float, unit: str) -> str:
    return f"{value / 1e9:.3g} G{unit}/s"


def growth_table(rows: Sequence[Row]) -> Table:
    found = _table("growth of", "with", "time", "memory", "formula off by")
    for row in rows:
        for i, (axis, slopes) in enumerate(row["axes"].items()):
            off = "" if i else factor(row["held_out_factor"] or row["fit_factor"])
            cells = axis, slope(slopes["time"]), slope(slopes["memory"]), off
            found.add_row(row["name"] if i == 0 else "", *cells)
    found.caption = (
        "exponents; a formula is judged by sizes that were not fitted, where there are some"
    )
    found.caption_justify = "left"
    return found


def slope(found: Row | None) -> str:
    return "-" if found is None else f"{found['slope']:.2f} ± {found['error']:.2f}"


def factor(value: float | None) -> str:
    return "-" if value is None else f"x {value:.2f}"


def changes_table(changes: Sequence[Change]) -> Table:
    found = _table("ratio to the floor", "before", "after", "allowed change", "")
    for change in changes:
        numbers = (f"{value:.3g}" for value in (change.before, change.after, change.allowed))
        found.add_row(change.name, *numbers, Text(change.verdict, STYLES[change.verdict]))
    return found


def render(found: Row, changes: Sequence[Change]) -> str:
    environment = page.templates()
    environment.filters |= {"duration": duration, "ratio": ratio, "size": size, "rate": rate}
    environment.filters |= {"slope": slope, "factor": factor}
    rows = found["cases"]
    timed = [row for row in rows if "own" in row]
    rivals = [row for row in timed if row["best_peer"] is not None]
    return environment.get_template("bench.html.jinja").render(
        found=found,
        facts=page.facts(found["environment"]),
        kinds={k: list(r) for k, r in groupby(rows, lambda r: r["name"].partition("/")[0])},
        right=sum(row["right"] for row in rows),
        rivals=len(rivals),
        fastest=sum(row["best_peer"]["ratio"] <= 1 for row in rivals),
        redone=sum(row["redone"] for row in timed),
        disturbed=sum(row["disturbed"] for row in timed),
        changes=changes,
        plots=bench_plots,
    )
