"""What was predicted beside what was measured, as a metric of a record: do they agree?

The measured value is the mean over independent runs (seeds) with its 95 % interval of Student's t,
which is exact for normal values. They agree where the interval meets what is predicted.
"""

import math

import numpy as np

from manifoldlab.statistics import Values, mean_interval

Metric = dict[str, float | bool | None]


def compared(values: Values, predicted: float, *, within: float = 0.0) -> Metric:
    """With a number, known up to `within`: of a next order left out, say, or of its own sampling."""
    return _metric(values, predicted, predicted - within, predicted + within)


def at_least(values: Values, predicted: float) -> Metric:
    """With a lower bound."""
    return _metric(values, predicted, predicted, math.inf)


def at_most(values: Values, predicted: float) -> Metric:
    """With an upper bound."""
    return _metric(values, predicted, -math.inf, predicted)


def never_above(values: Values, predicted: float) -> Metric:
    """With an upper bound that no value may pass, as one of rounding: the largest stands for all."""
    largest = float(np.asarray(values, dtype=np.float64).max())
    return _metric([largest, largest], predicted, -math.inf, predicted)


def measured(values: Values) -> Metric:
    """With nothing: there is no prediction."""
    metric = _metric(values, math.nan, -math.inf, math.inf)
    return {name: metric[name] for name in ("measured", "low", "high")}


def _metric(values: Values, predicted: float, least: float, most: float) -> Metric:
    low, high = mean_interval(values)
    return {
        "predicted": predicted,
        "measured": float(np.asarray(values, dtype=np.float64).mean()),
        "low": low,
        "high": high,
        "agrees": bool(low <= most and high >= least),  # never where the interval is nan
    }
