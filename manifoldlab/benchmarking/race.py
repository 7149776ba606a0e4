"""Contestants timed in interleaved rounds, and ratios with the noise that rounds show.

A round times each contestant in turn, by as many calls as last long enough. It is disturbed, and run
again, if a reading was interrupted, or the floor's is off the median of its readings:

    |log f_i - median log f| > max(OFF, FAR robust deviations).

A ratio is the median of those within rounds, for what slows a round down slows both; its noise is the
standard error of that median, 1.2533 * 1.4826 MAD / sqrt(rounds).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import ceil, log, nan, sqrt
from statistics import median
from typing import NamedTuple, final

from manifoldlab.benchmarking.case import Call
from manifoldlab.benchmarking.clock import Clock, Reading

FLOOR = "floor"
OFF, FAR = 0.1, 5.0
COLD = 10.0  # a first call may take so many times as long as the next are allowed
TO_DEVIATION = 1.4826  # from the median absolute deviation of a normal law
OF_MEDIAN = 1.2533  # standard error of a median over that of a mean, of a normal law


@final
@dataclass(frozen=True)
class Plan:
    rounds: int = 9
    least: float = 0.02  # seconds a contestant and round
    most: float = 3.0  # seconds a contestant: a slower one has fewer rounds, at least one
    again: float = 1.0  # disturbed rounds run again, as a multiple of the rounds


class Estimate(NamedTuple):
    value: float
    noise: float  # standard error; nan of a single round


@final
@dataclass
class Race:
    """Readings of each contestant; one with few rounds has those of the first."""

    clock: Clock
    readings: dict[str, list[Reading]] = field(default_factory=dict)
    redone: int = 0
    disturbed: int = 0  # rounds that were so when the patience was used up

    def seconds(self, name: str) -> float:
        return median(map(self.clock.seconds, self.readings[name]))

    def wall(self, name: str) -> float:
        return median(reading.wall for reading in self.readings[name])

    def ratio(self, name: str, to: str = FLOOR) -> Estimate:
        """Of two with unlike numbers of rounds that of their medians, if one has too few to pair."""
        a, b = ([self.clock.seconds(r) for r in self.readings[n]] for n in (name, to))
        pairs = list(zip(a, b, strict=False))
        if len(pairs) < 3:
            return Estimate(median(a) / median(b), nan)
        ratios = [x / y for x, y in pairs]
        return Estimate(median(ratios), OF_MEDIAN * deviation(ratios) / sqrt(len(ratios)))


def deviation(values: list[float]) -> float:
    """A robust one."""
    centre = median(values)
    return TO_DEVIATION * median(abs(value - centre) for value in values)


def run(
    calls: Mapping[str, Call],
    clock: Clock,
    plan: Plan,
    cold: Mapping[str, Reading],
    advance: Callable[[float], None] = lambda done: None,
) -> Race:
    """`cold` are readings of a first call each; one that took very long is not called again."""
    race = Race(clock)
    counts, rounds = dict[str, int](), dict[str, int]()
    for name, call in calls.items():
        first = cold[name]
        if clock.seconds(first) <= COLD * plan.most:  # the next may be faster
            first = clock.read(call)
        second = max(clock.seconds(first), 1e-9)
        race.readings[name] = [first] if second > plan.most else []
        if second <= plan.most:
            counts[name] = max(1, ceil(plan.least / second))
            rounds[name] = max(1, min(plan.rounds, int(plan.most / (second * counts[name]))))
    quick = {name: calls[name] for name in counts}
    for i in range(plan.rounds):
        for name, call in quick.items():
            if i < rounds[name]:
                race.readings[name].append(clock.read(call, counts[name]))
        advance((i + 1) / plan.rounds)
    _mend(race, quick, counts, int(plan.again * plan.rounds))
    return race


def _mend(race: Race, calls: Mapping[str, Call], counts: Mapping[str, int], patience: int) -> None:
    while wrong := _disturbed(race, calls):
        if race.redone >= patience:
            race.disturbed = len(wrong)
            return
        for i in wrong[: patience - race.redone]:
            race.redone += 1
            for name, call in calls.items():
                if i < len(race.readings[name]):
                    race.readings[name][i] = race.clock.read(call, counts[name])


def _disturbed(race: Race, names: Mapping[str, Call]) -> list[int]:
    floor = [log(max(race.clock.seconds(r), 1e-12)) for r in race.readings[FLOOR]]
    far = max(OFF, FAR * deviation(floor))
    centre = median(floor)
    wrong = {i for i, value in enumerate(floor) if abs(value - centre) > far}
    for name in names:
        wrong |= {i for i, r in enumerate(race.readings[name]) if race.clock.disturbed(r)}
    return sorted(wrong)
