"""`manifoldlab data`: which data sets are where, counted and verified, and which are missing."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from rich.console import Console
from rich.status import Status

from manifoldlab import catalog, options
from manifoldlab.data import base
from manifoldlab.data.base import Found, Missing
from manifoldlab.report import terminal

PATIENCE = 2.0  # seconds until it is said what is being looked at


class Held(NamedTuple):
    """Of one data set."""

    found: list[Found]
    missing: list[str]
    wrong: list[str]


def show(command: options.Data) -> int:
    if command.root and not Path(command.root).expanduser().is_dir():
        raise ValueError(f"--root {command.root}: there is no such folder")
    held = dict[str, Held]()
    with _progress() as tell:
        for name in base.loaders():
            if "found" in vars(catalog.module("data", name)):
                tell.at(name)
                held[name] = look(name, command.root)
    rows = [_row(name, found) for name, one in held.items() for found in one.found]
    terminal.console().print(terminal.holdings(rows))
    for one in held.values():
        for line in one.missing:
            print(f"missing: {line}")
    wrong = [line for one in held.values() for line in one.wrong]
    for line in wrong:
        print(f"wrong: {line}")
    return 1 if wrong else 0


def look(name: str, root: str) -> Held:
    """Both parts of a data set; that both are missing is said once."""
    held = Held([], [], [])
    for train in (True, False):
        try:
            held.found.append(catalog.module("data", name).found(root, train))
        except Missing as error:
            held.missing.append(" ".join(str(error).split()))
        except (ValueError, OSError) as error:
            held.wrong.append(" ".join(str(error).split()))
    return held if held.found else held._replace(missing=held.missing[:1])


def _row(name: str, found: Found) -> tuple[str, ...]:
    classes = str(found.classes) if found.classes == found.of else f"{found.classes} of {found.of}"
    return name, found.part, f"{found.images:,}", classes, found.verified, found.where


class _Teller:
    """A line on a terminal that goes away again; elsewhere one for each data set after a while."""

    def __init__(self, status: Status | None):
        self.status, self.start = status, monotonic()

    def at(self, name: str) -> None:
        if self.status is not None:
            self.status.update(f"looking at {name}")
        elif monotonic() - self.start > PATIENCE:
            print(f"looking at {name}", file=sys.stderr, flush=True)


@contextmanager
def _progress() -> Iterator[_Teller]:
    errors = Console(stderr=True)
    if not errors.is_terminal:
        yield _Teller(None)
        return
    with errors.status("looking") as status:
        yield _Teller(status)
