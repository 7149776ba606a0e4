"""What is shown while experiments run: a live table on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from time import monotonic
from typing import final

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from manifoldlab.sweep import Job, Reporter

SHOWN = 12  # running ones
PAUSE = 10.0  # seconds between two plain lines of one run

Tell = Callable[[float, str], None]


@final
class Board:
    """How many runs are done, running, failed, and how long the rest will take."""

    def __init__(self, total: int, found: int, jobs: int):
        self.total, self.found, self.jobs = total, found, jobs
        self.done = self.failed = 0
        self.running: dict[str, tuple[str, float]] = {}  # label and start of each
        self.seconds = 0.0  # of all that ended
        self.start = monotonic()

    def begin(self, job: Job) -> None:
        self.running[job.folder.name] = job.label, monotonic()

    def end(self, job: Job, error: str | None) -> None:
        _, start = self.running.pop(job.folder.name, ("", monotonic()))
        self.seconds += monotonic() - start
        self.done += error is None
        self.failed += error is not None

    def left(self) -> float | None:
        """Seconds, as if those to come took as long as those that ended."""
        ended, rest = self.done + self.failed, self.total - self.found - self.done - self.failed
        if not ended:
            return None
        mean, now = self.seconds / ended, monotonic()
        spent = sum(min(mean, now - start) for _, start in self.running.values())
        return max(0.0, rest * mean - spent) / max(1, min(self.jobs, rest))

    def counts(self) -> dict[str, str]:
        left = self.left()
        return {
            "runs": str(self.total),
            "found": str(self.found),
            "done": str(self.done),
            "running": str(len(self.running)),
            "failed": str(self.failed),
            "elapsed": clock(monotonic() - self.start),
            "left": "-" if left is None else clock(left),
        }

    def table(self) -> RenderableType:
        shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        counts = self.counts()
        for name in counts:
            shown.add_column(name, justify="right")
        shown.add_row(*counts.values(), style="red" if self.failed else "")
        now = monotonic()
        lines = [f"{clock(now - start)}  {label}" for label, start in self.running.values()]
        more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
        return Group(shown, *lines[:SHOWN], *more)


@final
class Lines:
    """One plain line a run, as it ends."""

    def __init__(self, board: Board):
        self.board = board

    def begin(self, job: Job) -> None:
        self.board.begin(job)

    def end(self, job: Job, error: str | None) -> None:
        self.board.end(job, error)
        counts = self.board.counts()
        ended = self.board.found + self.board.done + self.board.failed
        what = "done" if error is None else f"failed: {error}"
        line = f"{ended}/{self.board.total} {job.label}: {what}; {counts['left']} left"
        print(line, file=sys.stderr, flush=True)


@contextmanager
def board(total: int, found: int, jobs: int, *, quiet: bool) -> Iterator[Reporter]:
    """Of a sweep."""
    errors, counted = Console(stderr=True, markup=False, highlight=False), Board(total, found, jobs)
    if quiet or not errors.is_terminal:
        yield counted if quiet else Lines(counted)
        return
    with Live(get_renderable=counted.table, console=errors, transient=True):
        yield counted


@contextmanager
def bar(name: str, *, quiet: bool) -> Iterator[Tell]:
    """Of one run."""
    errors = Console(stderr=True, markup=False, highlight=False)
    if quiet or not errors.is_terminal:
        yield _silent if quiet else _lines(name)
        return
    columns = TextColumn("{task.description}", markup=False), BarColumn()
    with Progress(*columns, TimeElapsedColumn(), console=errors, transient=True) as shown:
        task = shown.add_task(name, total=1.0)
        yield lambda done, what: shown.update(
            task, completed=done, description=f"{name}: {what}" if what else name
        )


def _silent(done: float, what: str) -> None:
    del done, what


def _lines(name: str) -> Tell:
    last = monotonic()

    def line(done: float, what: str) -> None:
        nonlocal last
        if monotonic() - last >= PAUSE:
            last = monotonic()
            print(f"{name}: {100 * done:.0f} % {what}".rstrip(), file=sys.stderr, flush=True)

    return line


def clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
