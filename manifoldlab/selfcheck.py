"""`manifoldlab selfcheck`: faults planted one at a time, and which checks see them.

A fault is caught if every check that is named for it fails with it, each of which holds without; it is
missed if one holds with it, and then there is a hole to be closed. An error is a fault that cannot be
planted, changes no number, or makes a check break down in another way than by failing.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from math import hypot, inf, isfinite, nan
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from manifoldlab import environment, files, options, planting
from manifoldlab.faults import base
from manifoldlab.faults.base import Fault
from manifoldlab.report import terminal

Found = dict[str, Any]  # what manifoldlab.trials writes
PATIENCE = 600  # seconds for one process
SMALL = 0.01  # the share by which a small fault changes a result
ROUNDING = 1e-14  # what changes less changes nothing


class Planted(NamedTuple):
    """A fault of the catalogue, and the file of manifoldlab/faults that it is in."""

    group: str
    fault: Fault


def catalogue() -> list[Planted]:
    found = [Planted(name, fault) for name in base.groups() for fault in base.group(name)]
    names = [one.fault.name for one in found]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"faults of one name: {sorted(twice)}")
    return found


def run(command: options.Selfcheck) -> int:
    if command.jobs < 0:
        raise ValueError(f"--jobs counts processes, 0 for one a core, not {command.jobs}")
    chosen = [one for one in catalogue() if _fits(one, command.only)]
    if not chosen:
        raise ValueError(f"no fault, and no file of manifoldlab/faults, is called {command.only!r}")
    files.check_writable(command.out)
    rows = list[Found]()
    with planting.checkout() as sound:
        for row in check(chosen, sound, command.out, jobs=command.jobs or environment.cores()):
            rows.append(row)
            if not command.quiet:
                print(f"{row['verdict']:6} {row['name']}", file=sys.stderr, flush=True)
    order = [one.fault.name for one in chosen]
    rows.sort(key=lambda row: order.index(row["name"]))
    bad = [row for row in rows if row["verdict"] != "caught"]
    if bad or not command.quiet:
        terminal.console().print(terminal.faults(bad if command.quiet else rows))
    made_with = environment.environment("cpu")
    files.write_json(command.out / "selfcheck.json", {"faults": rows, "environment": made_with})
    if not command.quiet:
        print(f"{_counts(rows)}\nRecord: {command.out / 'selfcheck.json'}")
    return 1 if bad else 0


def _fits(one: Planted, words: str) -> bool:
    return words in ("", one.group) or words.casefold() in one.fault.name.casefold()


def _counts(rows: Sequence[Found]) -> str:
    small = sum(0 < (row["change"] or inf) < SMALL for row in rows)
    verdicts = [row["verdict"] for row in rows]
    counted = ", ".join(f"{verdicts.count(v)} {v}" for v in ("caught", "missed", "error"))
    seconds = sum(row["seconds"] for row in rows)
    return f"{counted}; {small} change a result by less than {SMALL:.0%}; {seconds:.0f} s of CPU"


def check(chosen: Sequence[Planted], sound: Path, out: Path, *, jobs: int) -> Iterator[Found]:
    """Rows as they are done; each process's finding is kept in `out`, so that a stopped run goes on."""
    kept = out / planting.stamp(sound)
    kept.mkdir(exist_ok=True)
    groups = list(dict.fromkeys(one.group for one in chosen))
    with ThreadPoolExecutor(jobs) as pool:
        try:
            tasks = {g: pool.submit(_sound, g, chosen, sound, kept) for g in groups}
            without = {group: task.result() for group, task in tasks.items()}
            rows = [pool.submit(_row, one, without[one.group], sound, kept) for one in chosen]
            for row in as_completed(rows):
                yield row.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _sound(group: str, chosen: Iterable[Planted], sound: Path, kept: Path) -> Found:
    """The numbers and checks of a group without any fault."""
    faults = [one.fault for one in chosen if one.group == group]
    checks = list(dict.fromkeys(check for fault in faults for check in fault.checks))
    names = [fault.name for fault in faults]
    asked = {"group": group, "names": names, "checks": checks}
    file = _file(kept, sound, group, json.dumps(asked))
    return _kept(file, partial(_process, asked, sound))


def _row(one: Planted, without: Found, sound: Path, kept: Path) -> Found:
    group, fault = one
    row: Found = {"name": fault.name, "module": fault.module, "group": group}
    row |= {"line": fault.line, "replacement": fault.replacement, "number": None, "change": None}
    row |= {"caught": {}, "missed": [], "error": None, "seconds": 0.0}
    try:
        row["number"] = fault.number((sound / fault.place).read_text(encoding="utf-8"))
        file = _file(kept, sound, group, fault.name)
        found = _kept(file, partial(_faulty, one, sound))
        row |= _compared(fault, without, found)
    except ValueError as error:
        row["error"] = str(error)
    row["verdict"] = "error" if row["error"] else "missed" if row["missed"] else "caught"
    return row


def _faulty(one: Planted, sound: Path) -> Found:
    fault = one.fault
    asked = {"group": one.group, "names": [fault.name], "checks": list(fault.checks)}
    with planting.planted(sound, fault) as folder:
        return _process(asked, folder)


def _compared(fault: Fault, without: Found, found: Found) -> Found:
    caught, missed, wrong = dict[str, str](), list[str](), list[str]()
    for name in fault.checks:
        before, after = without["checks"][name], found["checks"][name]
        if before["verdict"] != "holds":
            wrong.append(f"{name} {before['verdict']} without the fault: {before['why']}")
        elif after["verdict"] == "fails":
            caught[name] = after["why"]
        elif after["verdict"] == "holds":
            missed.append(name)
        else:
            wrong.append(f"{name} breaks: {after['why']}")
    size = change(without["numbers"][fault.name], found["numbers"][fault.name])
    if not size > ROUNDING:
        wrong.append("its effect has no number" if size != size else "it changes no number")
    if not fault.checks:
        wrong.append("it names no check")
    return {
        "change": size if isfinite(size) else None,  # it raises an error, or is not finite
        "caught": caught,
        "missed": missed,
        "error": "; ".join(wrong) or None,
        "seconds": found["seconds"],
    }


def change(before: Sequence[float | None], after: Sequence[float | None]) -> float:
    """|after - before| / |before|, where None is a number that is not finite."""
    old, new = ([x for x in side if x is not None] for side in (before, after))
    if len(old) < len(before) or not hypot(*old) > 0:
        return nan
    if len(new) < len(after) or len(old) != len(new):
        return inf
    return hypot(*(b - a for a, b in zip(old, new, strict=True))) / hypot(*old)


def _file(kept: Path, sound: Path, group: str, what: str) -> Path:
    source = (sound / "manifoldlab" / "faults" / f"{group}.py").read_text(encoding="utf-8")
    return kept / f"{group}-{planting.key(source, what)}.json"


def _kept(file: Path, make: Callable[[], Found]) -> Found:
    """What an earlier run has found already."""
    if not file.exists():
        files.write_json(file, make())
    found: Found = json.loads(file.read_text(encoding="utf-8"))
    return found


def _process(asked: Found, folder: Path) -> Found:
    """What `trials` finds with the sources of a folder."""
    with TemporaryDirectory(dir=folder.parent) as place:
        file = Path(place) / "found.json"
        words = [sys.executable, "-m", "manifoldlab.trials", str(file)]
        try:
            ended = subprocess.run(
                words, input=json.dumps(asked), capture_output=True, text=True, errors="replace",
                cwd=folder, env=planting.environment(folder), timeout=PATIENCE,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise ValueError(f"its process has not ended after {PATIENCE} s") from None
        if not file.exists():
            said = ended.stderr.strip() or ended.stdout.strip() or "no word"
            last = said.splitlines()[-1]
            raise ValueError(f"its process ended with status {ended.returncode}: {last}")
        found: Found = json.loads(file.read_text(encoding="utf-8"))
    return found
