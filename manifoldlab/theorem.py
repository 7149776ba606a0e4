"""Theorem: a statement measured on cases, its kind of claim, and the controls that must fail.

A measurement compares two sides of a law on one case. Four kinds of claim judge it:
    identity   |left - right| <= tolerance * max(|left|, |right|, largest summand)
    rate       left ~ right = constant * scale^power, as scale -> 0
    bound      left <= right
    statistic  the p-value of the observations is no false alarm
A slope is a rate whose constant is not claimed, and several claims may be one law together.
A control is the same measurement with one assumption dropped: its claim must be refuted, and by
the predicted amount where there is a prediction.
"""

import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf, log, nan
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from manifoldlab.statistics import FALSE_ALARM, fit_power

LEADING = 0.05  # for a control whose prediction is the leading term of an expansion
EXACT = 1e-6  # for one whose prediction is exact: of the size of the law's summands it is 1e-9

Case = Any  # a frozen dataclass whose repr rebuilds it
Measurement = Any  # what the claim of the theorem judges: Sides, Sweep or p-values (Tensor)


class Sides(NamedTuple):
    """The two sides of an identity or a bound, sample by sample."""

    left: Tensor  # (n, ...)
    right: Tensor  # (n, ...)
    summand: Tensor  # (n,) the largest summand on either side


class Sweep(NamedTuple):
    """Two sides at falling scales: what was measured, and the leading term predicted for it."""

    scales: Tensor  # (m,)
    left: Tensor  # (m, n, ...)
    right: Tensor  # (m, n, ...)


class Judgement(NamedTuple):
    """One case, judged: it holds when worst <= tolerance."""

    worst: float
    tolerance: float
    slope: float = nan
    slope_predicted: float = nan
    constant: float = nan
    constant_predicted: float = nan

    @property
    def holds(self) -> bool:
        return self.worst <= self.tolerance  # False for nan

    @property
    def share(self) -> float:
        """Of the tolerance that is used up."""
        return self.worst / self.tolerance

    def fit(self) -> dict[str, float]:
        """Of a rate, by its name."""
        return {name: getattr(self, name) for name in self._fields[2:]}


class Curve(NamedTuple):
    """A sweep in numbers: the root mean squares of both sides."""

    scales: list[float]
    left: list[float]
    right: list[float]


class Claim(abc.ABC):
    kind: str

    @abc.abstractmethod
    def judge(self, measurement: Measurement, cases: int) -> Judgement:
        """The verdict on one case out of `cases` of the law."""

    @abc.abstractmethod
    def gap(self, measurement: Measurement) -> Tensor:
        """left - right, the field whose size a control predicts."""

    def curve(self, measurement: Measurement) -> Curve | None:
        """What a plot of the measurement shows, if it is a sweep."""
        del measurement
        return None


@final
@dataclass(frozen=True)
class Identity(Claim):
    tolerance: float = 1e-9
    kind: str = "identity"

    def judge(self, measurement: Measurement, cases: int) -> Judgement:
        left, right, summand = measurement
        size = torch.maximum(torch.maximum(_size(left), _size(right)), summand.abs())
        error = _size(left - right) / size.clamp_min(torch.finfo(size.dtype).tiny)
        return Judgement(_worst(error), self.tolerance)

    def gap(self, measurement: Measurement) -> Tensor:
        return _float(measurement.left - measurement.right)


@final
@dataclass(frozen=True)
class Bound(Claim):
    """left <= right, up to rounding of the largest summand."""

    tolerance: float = 1e-12
    kind: str = "bound"

    def judge(self, measurement: Measurement, cases: int) -> Judgement:
        left, right, summand = measurement
        excess = (left - right) / summand.abs().clamp_min(torch.finfo(left.dtype).tiny)
        return Judgement(_worst(excess), self.tolerance)

    def gap(self, measurement: Measurement) -> Tensor:
        return _float(measurement.left - measurement.right)


@final
@dataclass(frozen=True)
class Rate(Claim):
    """The slope of left in log-log, and its distance from right in the smallest third of scales.

    `worst` is the larger of the two deviations, each in units of its tolerance.
    """

    power: float
    slope_tolerance: float = 0.1
    constant_tolerance: float = 0.02
    kind: str = "rate"

    def judge(self, measurement: Measurement, cases: int) -> Judgement:
        scales, left, right = (_float(t) for t in measurement)
        sizes = _root_mean_square(left)  # (m,)
        if not bool(((sizes > 0) & sizes.isfinite()).all()):
            return Judgement(inf, 1.0)
        slope = fit_power(scales, sizes).slope
        small = _smallest_third(scales)
        unit = (scales[small] ** self.power).mean().item()
        error = (_root_mean_square(left - right)[small] / _root_mean_square(right)[small]).mean()
        worst = max(
            abs(slope - self.power) / self.slope_tolerance,
            error.nan_to_num(inf).item() / self.constant_tolerance,
        )
        constants = (_root_mean_square(t)[small].mean().item() / unit for t in (left, right))
        return Judgement(worst, 1.0, slope, self.power, *constants)

    def gap(self, measurement: Measurement) -> Tensor:
        """At the smallest third of the scales, in units of scale^power."""
        scales, left, right = (_float(t) for t in measurement)
        small = _smallest_third(scales)
        unit = (scales[small] ** self.power).reshape(-1, *[1] * (left.ndim - 1))
        return (left[small] - right[small]) / unit

    def curve(self, measurement: Measurement) -> Curve:
        scales, left, right = (_float(t) for t in measurement)
        sizes = (_root_mean_square(t) for t in (left, right))
        return Curve(scales.tolist(), *(t.tolist() for t in sizes))


@final
@dataclass(frozen=True)
class Statistic(Claim):
    """p-values, Bonferroni over those of a case and over the cases of the law.

    `worst` is log p / log(level): 1 at the level, 2 at its square.
    """

    level: float = FALSE_ALARM
    kind: str = "statistic"

    def judge(self, measurement: Measurement, cases: int) -> Judgement:
        if not measurement.numel():
            return Judgement(inf, 1.0)
        smallest = _float(measurement).min().item() * measurement.numel() * cases
        if not smallest >= 0:
            return Judgement(inf, 1.0)
        return Judgement(max(0.0, log(max(smallest, 1e-300)) / log(self.level)), 1.0)

    def gap(self, measurement: Measurement) -> Tensor:
        return _float(measurement)


@final
@dataclass(frozen=True)
class Slope(Claim):
    """A rate whose constant is not claimed: only the slope of left in log-log; a gap is one of slopes."""

    power: float
    tolerance: float = 0.1
    kind: str = "slope"

    def judge(self, measurement: Measurement, cases: int) -> Judgement:
        slope = self._slope(measurement)
        return Judgement(abs(slope - self.power), self.tolerance, slope, self.power)

    def gap(self, measurement: Measurement) -> Tensor:
        return torch.tensor([self._slope(measurement) - self.power], dtype=torch.float64)

    def _slope(self, measurement: Measurement) -> float:
        sizes = _root_mean_square(_float(measurement.left))  # (m,)
        if not bool(((sizes > 0) & sizes.isfinite()).all()):
            return inf
        return fit_power(_float(measurement.scales), sizes).slope


@final
@dataclass(frozen=True)
class Several(Claim):
    """Claims that make one law: a measurement has a part for each, or None where it leaves one out.

    Every part must hold, and the worst is reported; a control predicts the gap of the first part.
    """

    parts: tuple[Claim, ...]
    kind: str = "several"

    def judge(self, measurement: Measurement, cases: int) -> Judgement:
        judged = [claim.judge(part, cases) for claim, part in self._measured(measurement)]
        return next((j for j in judged if not j.holds), max(judged, key=lambda j: j.share))

    def gap(self, measurement: Measurement) -> Tensor:
        claim, part = self._measured(measurement)[0]
        return claim.gap(part)

    def _measured(self, measurement: Measurement) -> list[tuple[Claim, Measurement]]:
        pairs = zip(self.parts, measurement, strict=True)
        return [(claim, part) for claim, part in pairs if part is not None]


@final
@dataclass(frozen=True)
class Control:
    """The law's measurement with one assumption dropped; `predicted` is the gap it must show."""

    name: str
    measure: Callable[[Case], Measurement]
    predicted: Callable[[Case], Tensor] | None = None  # shaped like the claim's gap
    cases: Callable[[], Mapping[str, Any]] | None = None  # where it differs from the law's
    within: float = LEADING  # how near the gap must come to what is predicted, as a share of it


@final
@dataclass(frozen=True)
class Theorem:
    id: str
    title: str
    statement: str  # text with $formulas$
    claim: Claim
    cases: Callable[[], Mapping[str, Any]]  # family -> Hypothesis strategy of cases
    measure: Callable[[Case], Measurement]
    controls: tuple[Control, ...]
    effort: float = 1.0  # multiplies the number of cases a family

    def __post_init__(self) -> None:
        if not self.controls:
            raise ValueError(
                f"law {self.id} has no control: a check that cannot fail proves nothing"
            )


class Amount(NamedTuple):
    """How far a control's gap is from its prediction, as root mean squares."""

    measured: float
    predicted: float
    deviation: float  # |gap - predicted| / |predicted|


def amount(claim: Claim, control: Control, case: Case, measurement: Measurement) -> Amount | None:
    if control.predicted is None:
        return None
    gap, predicted = claim.gap(measurement), _float(control.predicted(case))
    if gap.shape != predicted.shape:
        raise ValueError(
            f"control {control.name!r}: gap of shape {tuple(gap.shape)}, "
            f"prediction of shape {tuple(predicted.shape)}"
        )
    size: Callable[[Tensor], float] = lambda t: t.square().mean().sqrt().item()
    return Amount(size(gap), size(predicted), size(gap - predicted) / max(size(predicted), 1e-300))


def _float(t: Tensor) -> Tensor:
    """Judged on the CPU; float32 measurements stay as inexact as they are."""
    return t.detach().to("cpu", torch.float64)


def _size(t: Tensor) -> Tensor:
    norm: Tensor = t.detach()[:, None].flatten(1).norm(dim=1)  # of no sample, too
    return norm


def _worst(t: Tensor) -> float:
    """The largest entry; anything not finite is infinitely bad, and so is no sample at all."""
    return _float(t).nan_to_num(inf, inf, inf).max().item() if t.numel() else inf


def _root_mean_square(t: Tensor) -> Tensor:
    return t.flatten(1).square().mean(1).sqrt()


def _smallest_third(scales: Tensor) -> Tensor:
    return scales.argsort()[: max(1, len(scales) // 3)]
