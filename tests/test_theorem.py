"""Each kind of claim holds where it is true, is refuted where it is not, and by nan and nothing too."""

from collections.abc import Callable
from math import inf, nan

import pytest
import torch
from torch import Tensor

from manifoldlab.theorem import (
    Bound,
    Claim,
    Control,
    Identity,
    Rate,
    Several,
    Sides,
    Slope,
    Statistic,
    Sweep,
    Theorem,
    amount,
)

SCALES = torch.tensor([3e-3, 6e-3, 1.2e-2, 2.4e-2], dtype=torch.float64)
LEVEL = 1e-6


def field(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def sides(left: Tensor, right: Tensor, summand: float = 0.0) -> Sides:
    return Sides(left, right, torch.full((len(left),), summand, dtype=left.dtype))


def sweep(power: float = 2, measured: float = 1.0, next_term: float = 0.0, n: int = 5) -> Sweep:
    """left = measured * right + next_term * scale^(power + 2), right = field * scale^power."""
    scales = SCALES[:, None, None]
    right = field(n, 3) * scales**2
    return Sweep(SCALES, measured * right * scales ** (power - 2) + next_term * scales**4, right)


def test_an_identity_holds_up_to_rounding_of_the_largest_summand() -> None:
    left = field(4, 3)
    assert Identity().judge(sides(left, left * (1 + 1e-12)), 1).holds
    assert not Identity().judge(sides(left, left * (1 + 1e-8)), 1).holds
    assert Identity().judge(sides(left, left + 1e-8, summand=100.0), 1).holds
    zero = torch.zeros_like(left)
    assert not Identity().judge(sides(1e-13 * left, zero), 1).holds  # nothing to be small against
    assert Identity().judge(sides(1e-13 * left, zero, summand=1.0), 1).holds


def test_an_identity_is_judged_by_its_worst_sample() -> None:
    left = field(4, 3)
    right = left.clone()
    right[2] *= 1 + 1e-6
    found = Identity().judge(sides(left, right), 1)
    assert found.worst == pytest.approx(1e-6, rel=1e-5) and found.tolerance == 1e-9
    assert torch.equal(Identity().gap(sides(left, right)), left - right)


def test_a_measurement_in_single_precision_does_not_pass_for_double() -> None:
    left = field(4, 3)
    assert not Identity().judge(sides(left.float().double(), left), 1).holds
    assert Identity(1e-6).judge(sides(left.float(), left.float() * (1 + 1e-7)), 1).holds


def test_a_bound_holds_with_equality_and_below() -> None:
    size = field(6).abs() + 1
    assert Bound().judge(sides(size, size * (1 + 1e-14), summand=1.0), 1).holds
    assert Bound().judge(sides(size * (1 + 1e-14), size, summand=1.0), 1).holds
    assert Bound().judge(sides(-size, size, summand=1.0), 1).holds
    over = size.clone()
    over[3] += 1e-6
    found = Bound().judge(sides(over, size, summand=1.0), 1)
    assert not found.holds and found.worst == pytest.approx(1e-6, rel=1e-6)


def test_a_rate_holds_with_its_slope_and_constant() -> None:
    found = Rate(power=2).judge(sweep(next_term=3.0), 1)
    assert found.holds and found.slope == pytest.approx(2, abs=0.01)
    assert found.slope_predicted == 2
    assert found.constant == pytest.approx(found.constant_predicted, rel=1e-3)
    expected = field(5, 3).square().mean().sqrt().item()
    assert found.constant_predicted == pytest.approx(expected, rel=1e-12)


def test_the_constant_of_a_rate_is_that_of_small_scales() -> None:
    """Where a next order is half of the leading one at the largest scale, and nothing at the smallest."""
    scales = 0.5 ** torch.arange(12, dtype=torch.float64)
    leading = (scales**2)[:, None, None].expand(-1, 2, 3)
    bent = Sweep(scales, leading * (1 + scales**2 / 2)[:, None, None], leading)
    assert Rate(power=2).judge(bent, 1).holds
    assert not Rate(power=2).judge(bent._replace(left=0.97 * bent.left), 1).holds


@pytest.mark.parametrize(
    ("false", "worst"),
    [
        (sweep(measured=1.03), 1.5),  # in units of 2 %
        (sweep(measured=0.97), 1.5),
        (sweep(measured=-1.0), 100.0),  # as large, the other way
        (sweep()._replace(right=sweep().right.flip(2)), 10.0),  # as large, another direction
    ],
)
def test_a_rate_with_a_wrong_constant_is_refuted(false: Sweep, worst: float) -> None:
    found = Rate(power=2).judge(false, 1)
    assert not found.holds and found.worst >= worst * (1 - 1e-9)
    assert found.slope == pytest.approx(2)


@pytest.mark.parametrize("power", [1, 1.85, 2.15, 3, 4])
def test_a_rate_with_a_wrong_slope_is_refuted(power: float) -> None:
    false = sweep(power)
    at_first = false._replace(right=false.right * (false.left[0] / false.right[0]))
    found = Rate(power=2).judge(at_first, 1)  # of the right constant at the smallest scale
    assert not found.holds and found.slope == pytest.approx(power)


def test_the_order_of_scales_does_not_matter() -> None:
    given = sweep(next_term=3.0)
    turned = Sweep(*(t.flip(0) for t in given))
    assert Rate(2).judge(turned, 1).worst == pytest.approx(Rate(2).judge(given, 1).worst)
    assert (Rate(2).gap(turned) - Rate(2).gap(given)).abs().max() < 1e-12


def test_the_gap_of_a_rate_is_in_units_of_the_power() -> None:
    gap = Rate(power=2).gap(sweep(measured=1.5))
    assert gap.shape == (1, 5, 3)  # the smallest third of four scales
    assert (gap[0] - field(5, 3) / 2).abs().max() < 1e-12


def test_a_statistic_counts_its_p_values_and_the_cases_of_the_law() -> None:
    at = lambda p, count=1: torch.tensor([p] + [1.0] * (count - 1), dtype=torch.float64)
    claim = Statistic(LEVEL)
    assert claim.judge(at(0.5), 1).worst < 0.1 and claim.judge(at(1.0), 1).worst == 0
    assert claim.judge(at(LEVEL * 1.01), 1).holds and not claim.judge(at(LEVEL * 0.99), 1).holds
    assert claim.judge(at(LEVEL / 9, 10), 1).holds and not claim.judge(at(LEVEL / 11, 10), 1).holds
    assert claim.judge(at(LEVEL / 9), 10).holds and not claim.judge(at(LEVEL / 11), 10).holds
    assert claim.judge(at(LEVEL**2), 1).worst == pytest.approx(2)
    assert not claim.judge(at(0.0), 1).holds


@pytest.mark.parametrize("power", [1.8, 2, 2.2])
def test_a_slope_claims_no_constant(power: float) -> None:
    found = Slope(power=2).judge(sweep(power, measured=7.0), 1)
    assert found.holds == (power == 2)
    assert found.worst == pytest.approx(abs(power - 2)) and found.slope_predicted == 2
    assert Slope(power=2).gap(sweep(power, measured=7.0)).tolist() == [pytest.approx(power - 2)]


def test_of_several_claims_every_one_must_hold() -> None:
    left, p = field(4, 3), torch.tensor([0.5], dtype=torch.float64)
    both = Several((Identity(), Statistic(LEVEL)))
    good, bad = sides(left, left * (1 + 1e-12)), sides(left, left * (1 + 1e-8))
    assert both.judge((good, p), 1).holds and both.judge((good, None), 1).holds
    assert (
        both.judge((good, p), 1).tolerance == 1
    )  # log p is nearer to its level than 1e-12 to 1e-9
    assert both.judge((bad, p), 1).tolerance == 1e-9 and not both.judge((bad, p), 1).holds
    assert not both.judge((good, p * LEVEL), 1).holds and not both.judge((None, p * LEVEL), 1).holds
    assert torch.equal(both.gap((bad, p)), bad.left - bad.right)
    with pytest.raises(ValueError):
        both.judge((good,), 1)
    with pytest.raises(ValueError):
        both.judge((None, None), 1)


ONES = torch.ones(3, 2, dtype=torch.float64)
EMPTY = ONES[:0]
MEASUREMENTS: list[tuple[Claim, Callable[[Tensor], object]]] = [
    (Identity(), lambda t: sides(t, t, summand=1.0)),
    (Bound(), lambda t: sides(t[:, 0], t[:, 0], summand=1.0)),
    (Rate(0), lambda t: Sweep(SCALES, t.expand(4, *t.shape), t.expand(4, *t.shape))),
    (Statistic(), lambda t: t),
    (Slope(0), lambda t: Sweep(SCALES, t.expand(4, *t.shape), t.expand(4, *t.shape))),
    (Several((Identity(),)), lambda t: (sides(t, t, summand=1.0),)),
]
each_claim = pytest.mark.parametrize(
    ("claim", "of"), MEASUREMENTS, ids=lambda m: getattr(m, "kind", "")
)


@each_claim
def test_the_same_is_true_without_the_fault(claim: Claim, of: Callable[[Tensor], object]) -> None:
    assert claim.judge(of(ONES), 1).holds


@each_claim
def test_no_sample_is_no_proof(claim: Claim, of: Callable[[Tensor], object]) -> None:
    assert not claim.judge(of(EMPTY), 1).holds


@each_claim
@pytest.mark.parametrize("value", [nan, inf, -inf])
def test_numbers_that_are_not_finite_refute(
    claim: Claim, of: Callable[[Tensor], object], value: float
) -> None:
    bad = ONES.clone()
    bad[1, 0] = value
    if claim.kind == "statistic" and value == inf:
        bad[1, 0] = -1  # no p-value either
    assert not claim.judge(of(bad), 1).holds


def theorem(*controls: Control) -> Theorem:
    return Theorem("X", "x", "x", Identity(), dict, lambda case: case, controls)


def test_a_theorem_without_a_control_is_none() -> None:
    with pytest.raises(ValueError, match="law X has no control"):
        theorem()


def test_the_amount_of_a_control() -> None:
    left, right = field(4, 3), field(4, 3, seed=1)
    gap = left - right
    control = Control("broken", lambda case: case, lambda case: gap * 1.01)
    found = amount(Identity(), control, None, sides(left, right))
    assert found is not None
    assert found.measured == pytest.approx(gap.square().mean().sqrt().item())
    assert found.predicted == pytest.approx(1.01 * found.measured)
    assert found.deviation == pytest.approx(0.01 / 1.01)
    turned = Control("as large, another direction", lambda case: case, lambda case: -gap)
    assert amount(Identity(), turned, None, sides(left, right)).deviation == pytest.approx(2)
    assert amount(Identity(), Control("x", lambda case: case), None, sides(left, right)) is None


def test_a_prediction_of_another_shape_is_refused_with_both_shapes() -> None:
    control = Control("broken", lambda case: case, lambda case: field(4))
    with pytest.raises(ValueError, match=r"'broken': gap of shape \(4, 3\), .* of shape \(4,\)"):
        amount(Identity(), control, None, sides(field(4, 3), field(4, 3, seed=1)))
