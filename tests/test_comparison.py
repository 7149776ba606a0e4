"""Metrics agree where the interval over seeds meets the prediction, and only there."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from manifoldlab import comparison

VALUES = [0.9, 1.1, 1.0, 1.05, 0.95]


def test_the_interval_is_that_of_student() -> None:
    found = comparison.compared(VALUES, 1.0)
    mean, error = 1.0, stats.sem(VALUES)
    low, high = stats.t.interval(0.95, 4, mean, error)
    assert found["measured"] == pytest.approx(mean, rel=1e-14)
    assert (found["low"], found["high"]) == pytest.approx((low, high), rel=1e-12)


def test_a_number_agrees_up_to_what_it_is_known() -> None:
    assert comparison.compared(VALUES, 1.05)["agrees"] is True
    assert comparison.compared(VALUES, 1.2)["agrees"] is False
    assert comparison.compared(VALUES, 1.2, within=0.15)["agrees"] is True


def test_bounds_agree_on_their_side() -> None:
    assert (
        comparison.at_least(VALUES, 0.5)["agrees"] and comparison.at_least(VALUES, 1.05)["agrees"]
    )
    assert not comparison.at_least(VALUES, 1.5)["agrees"]
    assert (
        comparison.at_most(VALUES, 1.5)["agrees"] and not comparison.at_most(VALUES, 0.5)["agrees"]
    )


def test_a_bound_that_none_may_pass_is_held_against_the_largest() -> None:
    wide = [0.0, 0.0, 3.0]  # whose mean has an interval from below 1
    assert comparison.at_most(wide, 1.0)["agrees"]
    found = comparison.never_above(wide, 1.0)
    assert found["agrees"] is False and found["measured"] == found["high"] == 3.0
    assert comparison.never_above(wide, 3.0)["agrees"] is True


def test_what_is_not_predicted_neither_agrees_nor_not() -> None:
    assert comparison.measured(VALUES).keys() == {"measured", "low", "high"}


def test_nan_agrees_with_nothing() -> None:
    for found in (
        comparison.compared([1.0, 2.0], math.nan),
        comparison.at_least([1.0, 2.0], math.nan),
        comparison.at_most([1.0, 2.0], math.nan),
    ):
        assert found["agrees"] is False
    with pytest.raises(ValueError, match="finite"):
        comparison.compared([math.nan, 1.0], 1.0)


def test_a_metric_of_numbers_of_numpy_is_json() -> None:
    values, predicted = np.array(VALUES), np.float64(1.0)
    for found in (comparison.compared(values, predicted), comparison.at_most(values, predicted)):
        assert json.loads(json.dumps(found)) == found
