"""The instrument, with contestants whose time is known."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import repeat
from math import isnan
from time import process_time, sleep
from typing import Any

import pytest
import torch

from manifoldlab.benchmarking import counts, race
from manifoldlab.benchmarking.case import (
    Absent,
    Case,
    Contest,
    Contestant,
    Floor,
    Setting,
    each_sample,
    largest,
    library,
    typical,
    whole,
)
from manifoldlab.benchmarking.clock import Clock, Reading
from manifoldlab.benchmarking.measurement import measure
from manifoldlab.benchmarking.race import Plan

FAST = Plan(rounds=5, least=0.004, most=0.2)


class Scripted:
    """A clock on which each call takes the next time of its script."""

    of_core = True

    def read(self, call: Callable[[], float], calls: int = 1) -> Reading:
        wall = core = call()
        if isinstance(core, complex):  # imaginary: what others took
            wall, core = core.real + core.imag, core.real
        return Reading(wall, core, calls)

    def seconds(self, reading: Reading) -> float:
        return reading.core

    def disturbed(self, reading: Reading) -> bool:
        return reading.interrupted


def script(*times: complex, then: complex = 1.0) -> Callable[[], Any]:
    def all_of_them() -> Iterator[complex]:
        yield from times
        yield from repeat(then)

    return partial(next, all_of_them())


def raced(plan: Plan, **calls: Callable[[], Any]) -> race.Race:
    cold = {name: Reading(0.0, 0.0) for name in calls}
    return race.run(calls, Scripted(), plan, cold)  # type: ignore[arg-type]


PLAN = Plan(rounds=5, least=0.0, most=100.0, again=2.0)


def test_ratios_are_those_within_rounds() -> None:
    """A machine that slows down from round to round, by less than what counts as disturbed."""
    slow = [1.0, 1.0, 1.02, 1.04, 1.06, 1.08]  # the first estimates the number of calls
    seen = raced(PLAN, floor=script(*slow), own=script(*(3 * t for t in slow)))
    assert seen.ratio("own") == pytest.approx((3.0, 0.0))
    assert seen.seconds("own") == pytest.approx(3.12)
    assert (seen.redone, seen.disturbed) == (0, 0)


def test_noise_is_the_standard_error_of_the_median() -> None:
    seen = raced(PLAN, floor=script(), own=script(1, 1.0, 1.1, 1.2, 1.3, 1.4))
    assert seen.ratio("own").value == pytest.approx(1.2)
    assert seen.ratio("own").noise == pytest.approx(1.2533 * 1.4826 * 0.1 / 5**0.5)


def test_a_round_in_which_the_floor_is_off_is_run_again() -> None:
    seen = raced(PLAN, floor=script(1, 1, 1, 9, 1, 1), own=script(2, 2, 2, 7, 2, 2, then=2.0))
    assert (seen.redone, seen.disturbed) == (1, 0)
    assert [reading.core for reading in seen.readings["own"]] == [2.0] * 5


def test_a_round_that_was_interrupted_is_run_again() -> None:
    seen = raced(PLAN, floor=script(), own=script(2, 2 + 5j, then=2.0))
    assert (seen.redone, seen.disturbed) == (1, 0)
    assert all(not reading.interrupted for reading in seen.readings["own"])


def test_patience_ends_and_says_so() -> None:
    seen = raced(PLAN, floor=script(), own=script(then=2 + 5j))
    assert (seen.redone, seen.disturbed) == (10, 5)


def test_a_slow_contestant_has_one_round_and_is_not_called_again() -> None:
    cold = {"floor": Reading(1.0, 1.0), "own": Reading(2.0, 2.0), "loop": Reading(7000.0, 7000.0)}
    calls = {"floor": script(), "own": script(then=2.0), "loop": script(then=-1.0)}
    seen = race.run(calls, Scripted(), PLAN, cold)  # type: ignore[arg-type]
    assert seen.seconds("loop") == 7000
    ratio = seen.ratio("loop")
    assert ratio.value == 7000 and isnan(ratio.noise)


def test_rounds_last_long_enough_and_not_too_long() -> None:
    plan = Plan(rounds=9, least=10.0, most=40.0)
    seen = raced(plan, floor=script(then=4.0), own=script(then=25.0), slow=script(then=41.0))
    assert {reading.calls for reading in seen.readings["floor"]} == {3}
    assert [len(readings) for readings in seen.readings.values()] == [3, 1, 1]


def spin(seconds: float) -> torch.Tensor:
    end = process_time() + seconds
    while process_time() < end:
        pass
    return torch.ones(3)


def test_time_of_a_core_has_no_waiting_in_it() -> None:
    def waits() -> None:
        spin(0.003)
        sleep(0.01)

    reading = Clock().read(waits)
    assert reading.interrupted and Clock().disturbed(reading)
    assert Clock().seconds(reading) < 0.008 < 0.012 < Clock(waits=True).seconds(reading)
    assert not Clock(threads=2).disturbed(reading)


def fake(**options: Any) -> Case:
    right: dict[str, Any] = {
        "own": Contestant(lambda: spin(0.002)),
        "floor": Floor("one pass", lambda: spin(0.001)),
        "exact": lambda: torch.ones(3, dtype=torch.float64),
        "within": 1e-6,
        "reason": "float32",
        "sizes": {"n": 3},
    }
    return Case("fakes/spin", "spins", lambda setting: Contest(**(right | options)))


def test_a_row_says_what_was_measured() -> None:
    peers = {"slower": Contestant(lambda: spin(0.006)), "gone": Absent("not there")}
    row = measure(fake(peers=peers), Setting(), FAST)
    assert row["right"] and row["error"] == 0
    assert row["own"]["ratio"] == pytest.approx(2, rel=0.2)
    assert row["best_peer"]["name"] == "slower"
    assert row["best_peer"]["ratio"] == pytest.approx(1 / 3, rel=0.2)
    assert row["peers"]["gone"] == {"absent": "not there"}
    assert (row["threads"], row["device"], row["clock"]) == (1, "cpu", "core")


def test_who_is_wrong_is_not_timed() -> None:
    wrong = Contestant(lambda: torch.tensor([1.0, 1.0, 1.1]))
    row = measure(fake(peers={"wrong": wrong}), Setting(), FAST)
    assert row["peers"]["wrong"] == {"error": pytest.approx(0.1), "right": False}
    assert row["best_peer"] is None and "seconds" in row["own"]
    row = measure(fake(own=wrong), Setting(), FAST)
    assert not row["right"] and "own" not in row


def test_a_peer_that_raises_takes_no_other_with_it() -> None:
    def broken() -> None:
        raise RuntimeError("no\nkernel")

    row = measure(fake(peers={"broken": Contestant(broken)}), Setting(), FAST)
    assert row["peers"]["broken"] == {"failed": "RuntimeError: no kernel"}
    assert row["right"] and row["best_peer"] is None
    with pytest.raises(RuntimeError, match="no\nkernel"):
        measure(fake(own=Contestant(broken)), Setting(), FAST)


def test_unlike_results_are_refused() -> None:
    with pytest.raises(ValueError, match="compares unlike things"):
        measure(fake(own=Contestant(lambda: torch.ones(2))), Setting(), FAST)


def test_errors_that_are_not_finite_are_infinite() -> None:
    bad = torch.tensor([1.0, torch.nan])
    assert each_sample(bad, torch.ones(2)) == whole(bad, torch.ones(2)) == torch.inf
    huge = torch.tensor([1.0, torch.inf])
    assert each_sample(huge, torch.ones(2)) == largest(huge, torch.ones(2)) == torch.inf
    assert each_sample(torch.zeros(2, 3), torch.ones(2, 3)) == pytest.approx(1)


def test_a_typical_error_is_the_median_unless_one_is_wild() -> None:
    exact = torch.ones(5, 2)
    found = exact + torch.tensor([0.0, 1e-3, 2e-3, 3e-3, 0.1])[:, None]
    assert typical(found, exact) == pytest.approx(2e-3, rel=1e-4)
    assert each_sample(found, exact) == pytest.approx(0.1, rel=1e-4)
    found[4] = 1.3
    assert typical(found, exact) == torch.inf
    assert largest(found, 0.5 * exact) == pytest.approx(0.8)


def test_libraries_that_are_not_there_are_absent() -> None:
    found = library("no_such_library", lambda module: Contestant(module.run))
    assert isinstance(found, Absent) and "make bench installs" in found.why


def test_work_is_that_of_the_kernels() -> None:
    a, b = torch.ones(20, 30), torch.ones(30, 40)
    found = counts.work(lambda: a @ b)
    assert found.flop == 2 * 20 * 30 * 40
    assert found.bytes == 4 * (20 * 30 + 30 * 40 + 20 * 40)
    assert counts.work(lambda: a.mT).bytes == 0  # a view moves nothing


def test_peak_is_what_is_held_at_once() -> None:
    a = torch.ones(500, 500)

    def three_but_two_at_a_time() -> torch.Tensor:
        b = a + 1
        c = b * 2
        del b
        return c + 1

    assert counts.peak(three_but_two_at_a_time, "cpu") == pytest.approx(2 * 4 * 500**2, abs=1000)
