"""Schedules: the share of all steps that is done -> what the learning rate is multiplied by.

Options are bound by functools.partial.
"""

from collections.abc import Callable
from math import cos, pi

Schedule = Callable[[float], float]


def constant(done: float) -> float:
    del done
    return 1.0


def linear(done: float) -> float:
    return 1 - done


def cosine(done: float) -> float:
    return (1 + cos(pi * done)) / 2


def steps(
    done: float, *, milestones: tuple[float, ...] = (0.5, 0.75), factor: float = 0.1
) -> float:
    return factor ** sum(done >= milestone for milestone in milestones)


def one_cycle(done: float, *, peak: float = 0.3, first: float = 0.04, last: float = 4e-6) -> float:
    """Up to 1 at the share `peak` of the steps, and down, by half waves (Smith and Topin 2019)."""
    if done < peak:
        return 1 + (first - 1) * cosine(done / peak)
    return last + (1 - last) * cosine((done - peak) / (1 - peak))
