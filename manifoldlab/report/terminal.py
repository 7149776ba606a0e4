"""What the command prints: progress while laws are verified, and tables readable at 80 columns.

Where the output is no terminal: one plain line a law, no control codes, 120 columns.
"""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

Row = Mapping[str, Any]  # a law, as in laws.json
DIGITS = "#.3g"
WIDTH = 120  # of a pipe; COLUMNS says otherwise
STYLES = {
    "verified": "green",
    "rejected": "green",
    "refuted": "bold red",
    "not rejected": "bold red",
    "caught": "green",
    "missed": "bold red",
    "error": "bold red",
}


def console() -> Console:
    wide = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(width=WIDTH if wide else None, highlight=False, emoji=False, markup=False)


class Reporter(Protocol):
    def begin(self, law: str, steps: int) -> None: ...
    def advance(self) -> None: ...
    def end(self, row: Row) -> None: ...


class Silent:
    def begin(self, law: str, steps: int) -> None: ...
    def advance(self) -> None: ...
    def end(self, row: Row) -> None: ...


class Lines:
    """One plain line a law, as it ends."""

    def begin(self, law: str, steps: int) -> None: ...
    def advance(self) -> None: ...

    def end(self, row: Row) -> None:
        control = row["control"]["verdict"]
        line = f"{row['id']:4} {row['verdict']}, control {control}, {row['cases']} cases, "
        print(f"{line}{row['seconds']:.1f} s", file=sys.stderr, flush=True)


class Bar:
    """A law is one unit, and so much of it is done as of its families and controls."""

    def __init__(self, progress: Progress, laws: int):
        self.progress, self.steps, self.done = progress, 1, 0
        self.task = progress.add_task("", total=laws)

    def begin(self, law: str, steps: int) -> None:
        self.steps = max(1, steps)
        self.progress.update(self.task, description=law)

    def advance(self) -> None:
        self.progress.advance(self.task, 1 / self.steps)

    def end(self, row: Row) -> None:
        self.done += 1
        self.progress.update(self.task, completed=self.done)


@contextmanager
def progress(laws: int, *, quiet: bool) -> Iterator[Reporter]:
    errors = Console(stderr=True)
    if quiet or not errors.is_terminal:
        yield Silent() if quiet else Lines()
        return
    columns = (
        TextColumn("{task.description:4}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
    )
    with Progress(*columns, TimeElapsedColumn(), console=errors, transient=True) as shown:
        yield Bar(shown, laws)


def verdicts(rows: Sequence[Row]) -> Table:
    """One row a law."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("law")
    table.add_column("statement", min_width=17)
    table.add_column("cases", justify="right")
    for name in ("residual", "control", "verdict"):
        table.add_column(name, overflow="fold")
    for row in rows:
        verdict = Text(row["verdict"], STYLES[row["verdict"]]).append(
            f"\n{row['seconds']:.1f} s", "default"
        )
        cells = row["id"], row["title"], str(row["cases"]), _residual(row), _control(row), verdict
        table.add_row(*cells)
    table.caption = "~ stands between measured and predicted; c is the constant of a rate"
    table.caption_justify = "left"
    return table


def _residual(row: Row) -> str:
    if row["kind"] != "rate":
        return f"{short(row['worst'], '.2g')} <= {short(row['tolerance'], '.2g')}"
    return (
        f"slope {short(row['slope'], '#.4g')} ~ {short(row['slope_predicted'])}\n"
        f"c {short(row['constant'], DIGITS)} ~ {short(row['constant_predicted'], DIGITS)}"
    )


def _control(row: Row) -> Text:
    """The worst one, measured against predicted; and how many of all were rejected."""
    worst, controls = row["control"], row["controls"]
    text = Text()
    if worst["predicted"] is not None:
        text.append(f"{short(worst['measured'], DIGITS)} ~ {short(worst['predicted'], DIGITS)}\n")
    count = sum(control["verdict"] == "rejected" for control in controls)
    return text.append(f"{count} of {len(controls)} rejected", STYLES[worst["verdict"]])


def failures(rows: Sequence[Row]) -> Iterator[str]:
    """Each failing case, as code that rebuilds it."""
    for row in rows:
        if row["failure"]:
            yield f"{row['id']} is refuted. {row['failure']}"
        for control in row["controls"]:
            if control["failure"]:
                yield f"{row['id']}, control {control['name']!r} is not rejected. {control['failure']}"


def fields(summary: Mapping[str, Mapping[str, float | None]]) -> Table:
    """Of a probe: one row a field."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("field")
    columns = list(next(iter(summary.values())))
    for name in columns:
        table.add_column(name, justify="right")
    for field, numbers in summary.items():
        table.add_row(field, *(short(numbers[name]) for name in columns))
    return table


def metrics(found: Mapping[str, Any]) -> Table:
    """Of an experiment: one row a metric, what was predicted beside what was measured."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("metric", overflow="fold")
    for name in ("predicted", "measured", "interval", "agrees"):
        table.add_column(name, justify="right")
    for name, value in found.items():
        if isinstance(value, Mapping):
            ends = (value.get("low"), value.get("high"))
            interval = "" if ends == (None, None) else " to ".join(map(_cell, ends))
            cells = _cell(value.get("predicted")), _cell(value.get("measured")), interval
            table.add_row(name, *cells, _agrees(value.get("agrees")))
        elif not isinstance(value, list | tuple):  # those are for figures
            table.add_row(name, "", _cell(value))
    return table


def holdings(rows: Sequence[Sequence[str]]) -> Table:
    """Of data sets: one row a part."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("data set", no_wrap=True)
    table.add_column("part", no_wrap=True)
    for name in ("images", "classes"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verified")
    table.add_column("where", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def faults(rows: Sequence[Row]) -> Table:
    """One row a planted fault: the line that it changes, by how much, and what notices."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("fault", ratio=3)
    table.add_column("line", overflow="fold", ratio=2)
    table.add_column("change", justify="right", no_wrap=True)
    table.add_column("verdict", overflow="fold", ratio=3)
    for row in rows:
        why = row["error"] or "\n".join(row["missed"] or row["caught"])
        verdict = Text(row["verdict"], STYLES[row["verdict"]]).append(f"\n{why}", "default")
        where = f"{row['module']}:{row['number'] or '?'}"
        table.add_row(row["name"], where, short(row["change"], ".2g"), verdict)
    return table


def _cell(value: Any) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return short(value) if is_number or value is None else str(value)


def _agrees(value: bool | None) -> Text:
    return Text("") if value is None else Text(*(("yes", "green") if value else ("NO", "bold red")))


def short(value: float | None, form: str = ".4g") -> str:
    return "-" if value is None else f"{value:{form}}".rstrip(".")
