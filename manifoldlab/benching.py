"""`manifoldlab bench`: measures the cases of `benchmarks`, and writes bench.json and bench.html."""

import importlib
import json
import pkgutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from manifoldlab import catalog, environment, files
from manifoldlab.benchmarking import ceilings, differences, growth, measurement
from manifoldlab.benchmarking.case import Case, Setting
from manifoldlab.benchmarking.clock import Clock
from manifoldlab.benchmarking.differences import KIND, VERSION
from manifoldlab.benchmarking.growth import Growing
from manifoldlab.benchmarking.race import Plan
from manifoldlab.options import Bench
from manifoldlab.report import bench, costs, live, terminal

Found = dict[str, Any]
FAST = Plan(rounds=1, least=0.0, most=0.02, again=0.0)


def run(command: Bench) -> int:
    _check(command)
    old = None if command.compare is None else _read("--compare", command.compare)
    files.check_writable(command.out)
    if command.doc is not None:
        files.check_file(command.doc)
    found = _measured(command, old) if command.read is None else _read("--read", command.read)
    changes = _changes(command, old, found)
    if not command.quiet:
        _show(found, changes)
    files.write_json(command.out / "bench.json", found)
    files.write_text(command.out / "bench.html", bench.render(found, changes))
    if command.doc is not None:
        costs.write(command.doc, found)
    wrong = [row["name"] for row in found["cases"] if not row["right"]]
    for name in wrong:
        print(f"manifoldlab: {name} is wrong, or failed", file=sys.stderr)
    return int(bool(wrong) or any(change.verdict == "slower" for change in changes))


def cases() -> list[Case]:
    return [case for module in _modules() for case in getattr(module, "CASES", ())]


def growing() -> list[Growing]:
    return [one for module in _modules() for one in getattr(module, "GROWING", ())]


def _modules() -> list[Any]:
    """All of the package `benchmarks`, which lies beside this one and imports it."""
    package = importlib.import_module("benchmarks")
    names = sorted(m.name for m in pkgutil.iter_modules(package.__path__))
    own = [name for name in names if name.startswith("cases_")]
    if not own:  # a common name: of another package, perhaps
        raise ValueError(f"the package benchmarks of {list(package.__path__)} has no cases_*.py")
    return [importlib.import_module(f"benchmarks.{name}") for name in own]


def chosen(names: Sequence[str]) -> tuple[list[Case], list[Growing]]:
    """Those that a name names, or begins."""
    found, curves = cases(), growing()
    all_names = [case.name for case in found] + [one.name for one in curves]
    known = sorted({start for name in all_names for start in _starts(name)})
    for name in names:
        if name.strip("/") not in known:
            functions = [start for start in known if start.count("/") < 2]
            raise ValueError(catalog.unknown("benchmark", name, functions))
    wanted = {name.strip("/") for name in names} or set(known)
    some = [case for case in found if wanted & set(_starts(case.name))]
    return some, [one for one in curves if wanted & set(_starts(one.name))]


def _starts(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[: i + 1]) for i in range(len(parts))]


def _check(command: Bench) -> None:
    if command.device not in ("cpu", "cuda"):
        raise ValueError(catalog.unknown("device", command.device, ["cpu", "cuda"]))
    if command.device == "cuda" and command.read is None and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch finds no CUDA device here; --device cpu works")
    if command.threads < 1:
        raise ValueError(f"--threads is 1 or more, not {command.threads}")
    chosen(command.only)


def _read(option: str, path: Path) -> Found:
    try:
        found: Found = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{option}: {path} is no file of manifoldlab bench: {error}") from error
    differences.check_file(found, f"{option}: {path}")
    return found


def _changes(command: Bench, old: Found | None, new: Found) -> list[differences.Change]:
    if old is None:
        return []
    path = f"--compare: {command.compare}"
    differences.check_alike(old, new, path)
    return differences.changes(old["cases"], new["cases"], path)


def _measured(command: Bench, old: Found | None) -> Found:
    start = perf_counter()
    facts = {"device": command.device, "threads": command.threads, "fast": command.fast}
    if old is not None:
        differences.check_alike(old, facts, f"--compare: {command.compare}")
    with _threads(command.threads), live.bar("bench", quiet=command.quiet) as tell:
        clock = Clock(command.device, command.threads)
        top = ceilings.measured(clock, small=command.fast)
        rows, grown = _all(command, clock, tell)
        made_with = environment.environment(command.device)
    for row in rows:
        if "own" in row:
            row["floor"]["at_ceilings"] = ceilings.least(row["floor"], row["dtype"], top)
    found = {"kind": KIND, "version": VERSION, **facts, "environment": made_with, "ceilings": top}
    return found | {"seconds": perf_counter() - start, "cases": rows, "growth": grown}


def _all(command: Bench, clock: Clock, tell: live.Tell) -> tuple[list[Found], list[Found]]:
    """Cases, and growth where it is asked for."""
    some, curves = chosen(command.only)
    curves = curves if command.scale else []
    setting = Setting(command.device, command.fast)
    plan = FAST if command.fast else Plan()
    rows, total = list[Found](), len(some) + len(curves)
    for i, case in enumerate(some):
        tell(i / total, case.name)
        rows.append(_row(case, setting, plan))
    grown = list[Found]()
    for i, one in enumerate(curves, len(some)):
        tell(i / total, f"growth of {one.name}")
        grown.append(growth.measure(one, setting, clock))
    return rows, grown


def _row(case: Case, setting: Setting, plan: Plan) -> Found:
    """One that fails does not take the others with it."""
    try:
        return measurement.measure(case, setting, plan)
    except Exception as error:
        line = f"{type(error).__name__}: {' '.join(str(error).split())}"
        kept = {"name": case.name, "about": case.about, "right": False, "failure": line}
        return kept | {"sizes": {}, "dtype": "none", "peers": {}}


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _show(found: Found, changes: Sequence[differences.Change]) -> None:
    console = terminal.console()
    console.print(bench.table(found["cases"]))
    if found["growth"]:
        console.print(bench.growth_table(found["growth"]))
    if changes:
        console.print(bench.changes_table(changes))
    redone = sum(row.get("redone", 0) for row in found["cases"])
    left = sum(row.get("disturbed", 0) for row in found["cases"])
    print(f"{redone} disturbed rounds were run again; {left} were disturbed to the end")
