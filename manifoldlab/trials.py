"""In a process of its own: the numbers that faults change, and whether their checks hold.

    python -m manifoldlab.trials FILE    with {"group", "names", "checks"} on standard input

FILE then holds {"numbers": {name: [...]}, "checks": {check: {"verdict", "why"}}, "seconds"}. A check that
breaks is none that fails: an exception that neither a check nor the package's own validation raises shows
nothing but that something is wrong.
"""

import json
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch

from manifoldlab import verification
from manifoldlab.faults import base
from manifoldlab.faults.base import Fault
from manifoldlab.verification import Tally

HOLDS, FAILS, BREAKS = "holds", "fails", "breaks"
OWN = ("AssertionError", "Failed", "ValueError", "FloatingPointError")  # of checks and validation
LATE = "ignore::pytest.PytestAssertRewriteWarning"  # of what is imported here before pytest runs
RAISED = re.compile(r"(?:error|no case could be drawn): (\w+): ")


class Trial(NamedTuple):
    """What a check says, and why it does not hold."""

    verdict: str
    why: str = ""


def main() -> None:
    asked = json.load(sys.stdin)
    torch.set_num_threads(1)
    faults = {fault.name: fault for fault in base.group(asked["group"])}
    tests = [check for check in asked["checks"] if check.startswith("tests/")]
    checks = {check: _test(check)._asdict() for check in tests}  # pytest wants no hypothesis before
    numbers = {name: _numbers(faults[name]) for name in asked["names"]}
    laws = [check for check in asked["checks"] if check not in checks]
    checks |= {check: _law(check)._asdict() for check in laws}
    found = {"numbers": numbers, "checks": checks, "seconds": sum(os.times()[:4])}
    Path(sys.argv[1]).write_text(json.dumps(found))


def _numbers(fault: Fault) -> list[float]:
    """None at all where the fault raises an error: it is for the checks to say what that means."""
    try:
        found = fault.effect()
    except Exception:
        return []
    numbers: list[float] = found.detach().to(torch.float64).flatten().tolist()
    return numbers


def _law(check: str) -> Trial:
    """The quick profile, on one family, of a law or of one of its controls."""
    name, family, *number = check.split("/")
    law, tally = verification.laws()[name], Tally()
    options: dict[str, Any] = {"profile": verification.PROFILES["quick"], "seed": 0}
    options |= {"device": "cpu", "tally": tally}
    with patch.object(verification, "SHRINK_BUDGET", 0):  # that a case fails is enough
        if number:
            control = law.controls[int(number[0])]
            cases = control.cases or law.cases
            one = replace(control, cases=lambda: {family: cases()[family]})
            verification.check_control(law, one, **options)
        else:
            verification.check_family(law, family, **options)
    return _judged(tally.failure.splitlines()[0] if tally.failure else "")


def _judged(why: str) -> Trial:
    if not why:
        return Trial(HOLDS)
    raised = RAISED.search(why)
    return Trial(FAILS if raised is None or raised[1] in OWN else BREAKS, why)


class Watch:
    """What pytest reports."""

    def __init__(self) -> None:
        self.passed = 0
        self.raised = list[tuple[bool, str]]()  # whether by a check, and what

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.passed += report.when == "call" and report.passed

    def pytest_exception_interact(self, call: Any) -> None:
        for error in _leaves(call.excinfo.value):
            names = {parent.__name__ for parent in type(error).__mro__}
            line = f"{type(error).__name__}: {error}".splitlines()[0]
            self.raised.append((bool(names & set(OWN)), line))


def _leaves(error: BaseException) -> Iterable[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _leaves(one)
    else:
        yield error


def _test(check: str) -> Trial:
    import pytest

    watch = Watch()
    options = ["-x", "-q", "-p", "no:cacheprovider", "-W", LATE]
    pytest.main([check, *options], plugins=[watch])
    if watch.raised:
        own, line = watch.raised[0]
        return Trial(FAILS if own else BREAKS, line)
    return Trial(HOLDS) if watch.passed else Trial(BREAKS, "no test has run")


if __name__ == "__main__":
    main()
