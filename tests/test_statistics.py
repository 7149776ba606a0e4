"""Statistics against closed forms, scipy, and the exact law of small experiments.

That a p-value or an interval keeps its promise is checked without chance where a sample space can
be summed. Where a test draws, each comparison fails with probability at most 1e-6 if the statement
is true; seeds are fixed, so that controls and powers are the same in every run.
"""

import math
from collections import defaultdict
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from manifoldlab import statistics
from manifoldlab.statistics import FALSE_ALARM

ROUNDING = 1e-12  # of sums and quantiles in float64, relative
PROBABILITIES = st.floats(1e-9, 1 - 1e-9)


def counts(total, cells):
    """All ways to put `total` in `cells`."""
    return (c for c in product(range(total + 1), repeat=cells) if sum(c) == total)


def worst_excess(p_values, masses):
    """max over alpha of P(p <= alpha) / alpha: at most 1 for a valid p-value."""
    p, mass = np.asarray(p_values), np.asarray(masses)
    order = np.argsort(p)
    order = order[mass[order] > 1e-250]  # below, float64 loses digits
    p, mass = p[order], np.cumsum(mass[order])
    last = np.append(np.diff(p) > ROUNDING * p[1:], True)  # ties: all of their mass counts
    return (mass[last] / p[last]).max()


# ---- powers


@given(
    slope=st.floats(-4, 4), constant=st.floats(1e-6, 1e6), n=st.integers(3, 12), seed=st.integers(0)
)
def test_a_power_is_recovered(slope, constant, n, seed):
    scales = np.random.default_rng(seed).permutation(np.geomspace(3e-3, 3e-2, n))
    fit = statistics.fit_power(torch.tensor(scales), constant * scales**slope)
    assert fit.slope == pytest.approx(slope, abs=1e-11)
    assert fit.constant == pytest.approx(constant, rel=1e-10)
    assert fit.slope_error < 1e-11


def test_the_slope_and_its_error_are_those_of_linregress():
    rng = np.random.default_rng(0)
    scales, values = rng.uniform(1, 5, 20), rng.uniform(1, 5, 20)
    fit = statistics.fit_power(scales, values)
    oracle = stats.linregress(np.log(scales), np.log(values))
    expected = (oracle.slope, math.exp(oracle.intercept), oracle.stderr)
    assert fit == pytest.approx(expected, rel=ROUNDING)


def test_errors_of_slopes_in_units_of_their_standard_error_follow_students_t():
    rng, scales = np.random.default_rng(1), np.geomspace(0.01, 1, 5)
    fits = [
        statistics.fit_power(scales, 2 * scales**1.5 * np.exp(rng.normal(0, 0.1, 5)))
        for _ in range(2000)
    ]
    pivots = [(f.slope - 1.5) / f.slope_error for f in fits]
    assert statistics.kolmogorov_p(pivots, stats.t(3).cdf) > FALSE_ALARM
    assert statistics.kolmogorov_p(pivots, stats.norm.cdf) < FALSE_ALARM  # control


@given(n=st.integers(4, 20), seed=st.integers(0), sign=st.sampled_from([-1, 1]))
def test_the_constant_comes_from_the_smallest_third(n, seed, sign):
    scales = np.geomspace(1e-3, 1, n)
    values = sign * 3 * scales**2 * (1 + 0.5 * scales)
    order = np.random.default_rng(seed).permutation(n)
    found = statistics.constant_at_small_scales(scales[order], values[order], 2)
    third = scales <= 0.01 * (1 + ROUNDING)  # of the window 1e-3..1 in log s
    ratios = sign * 3 * (1 + 0.5 * scales[third])
    assert found.constant == pytest.approx(np.median(ratios), rel=ROUNDING)
    assert found.spread == pytest.approx(np.abs(ratios - np.median(ratios)).max(), rel=1e-9)


# ---- intervals


def test_mean_interval_is_students_and_covers_as_often_as_it_says():
    x = np.random.default_rng(2).normal(5, 3, (2000, 6))
    oracle = stats.t.interval(0.9, 5, x[0].mean(), stats.sem(x[0]))
    assert statistics.mean_interval(x[0], 0.9) == pytest.approx(oracle, rel=ROUNDING)
    intervals = [statistics.mean_interval(row, 0.9) for row in x]
    covered = sum(low <= 5 <= high for low, high in intervals)
    assert statistics.binomial_p(covered, len(x), 0.9) > FALSE_ALARM
    assert statistics.binomial_p(covered, len(x), 0.95) < FALSE_ALARM  # control


@given(n=st.integers(1, 200), share=st.floats(0, 1), level=st.sampled_from([0.5, 0.95, 1 - 1e-6]))
def test_proportion_interval_is_clopper_pearson_and_dual_to_binomial_p(n, share, level):
    k = round(share * n)
    low, high = statistics.proportion_interval(k, n, level)
    oracle = stats.binomtest(k, n).proportion_ci(level, method="exact")
    # 1 - level has lost ten digits of its own at 1 - 1e-6, alike on both sides.
    assert (low, high) == pytest.approx((oracle.low, oracle.high), rel=1e-8, abs=1e-12)
    for end, outward in ((low, -1), (high, 1)):
        if 0 < end < 1:
            assert statistics.binomial_p(k, n, end) == pytest.approx(1 - level, rel=1e-6)
            beyond = min(max(end + outward * 1e-3 * min(end, 1 - end), 0), 1)
            assert statistics.binomial_p(k, n, beyond) < 1 - level


@pytest.mark.parametrize("n", [1, 7, 40])
def test_proportion_interval_covers_at_least_the_level_for_every_probability(n):
    intervals = np.array([statistics.proportion_interval(k, n, 0.9) for k in range(n + 1)])
    q = np.linspace(0, 1, 301)
    covered = (intervals[:, :1] <= q) & (q <= intervals[:, 1:])
    mass = stats.binom.pmf(np.arange(n + 1)[:, None], n, q)
    assert (covered * mass).sum(0).min() >= 0.9 - ROUNDING


@given(n=st.integers(1, 10**6), width=st.floats(1e-3, 1e3), alpha=PROBABILITIES)
def test_radii_invert_their_bounds(n, width, alpha):
    radius = statistics.hoeffding_radius(n, width, alpha)
    assert 2 * math.exp(-2 * n * (radius / width) ** 2) == pytest.approx(alpha, rel=1e-10)
    assert statistics.dkw_radius(n, alpha) == statistics.hoeffding_radius(n, 1.0, alpha)


@pytest.mark.parametrize("alpha", [0.5, 0.05, FALSE_ALARM])
@pytest.mark.parametrize("n", [1, 10, 1000])
def test_radii_bound_exact_laws(n, alpha):
    """The exact laws of the mean of coins and of the Kolmogorov distance."""
    radius = statistics.hoeffding_radius(n, 1.0, alpha)
    for q in (0.5, 0.1, 0.001):
        far = np.abs(np.arange(n + 1) / n - q) >= radius
        assert stats.binom.pmf(np.arange(n + 1), n, q)[far].sum() <= alpha * (1 + ROUNDING)
    kolmogorov = stats.kstwo.sf(statistics.dkw_radius(n, alpha), n)
    assert kolmogorov <= alpha * (1 + ROUNDING)
    if n == 1000 and alpha < 0.5:
        assert kolmogorov > 0.7 * alpha  # Massart's constant is sharp in the limit


def ever_missed(interval, masses, horizon):
    """P(some interval up to the horizon misses the mean), x of the given masses on 0, 1/2, 1.

    interval(n, h) from the sum h/2 of n samples; exact, by the law of h on the paths not yet
    stopped.
    """
    mean = masses[1] / 2 + masses[2]
    alive, missed = {0: 1.0}, 0.0
    for n in range(1, horizon + 1):
        step = defaultdict(float)
        for (h, mass), (add, share) in product(alive.items(), enumerate(masses)):
            step[h + add] += mass * share
        alive = {}
        for h, mass in step.items():
            low, high = interval(n, h) if mass else (0, 1)
            if low <= mean <= high:
                alive[h] = mass
            else:
                missed += mass
    return missed


def halves(n, h):
    """n samples in {0, 1/2, 1} with the sum h/2."""
    return np.minimum(np.maximum(h - 2 * np.arange(n), 0), 2) / 2


@pytest.mark.parametrize(
    "masses", [(0.5, 0, 0.5), (0.9, 0, 0.1), (0.3, 0.4, 0.3), (0.8, 0.2, 0)], ids=str
)
def test_sequential_interval_may_be_looked_at_after_every_sample(masses):
    missed = ever_missed(
        lambda n, h: statistics.sequential_interval(halves(n, h), alpha=0.3), masses, 25
    )
    assert missed <= 0.3
    if masses[1] == 0:
        assert missed > 0.02  # and it can miss, so the bound is not empty


def test_control_an_interval_for_one_n_fails_if_looked_at_after_every_sample():
    missed = ever_missed(
        lambda n, h: statistics.proportion_interval(h // 2, n, 0.9), (0.5, 0, 0.5), 100
    )
    assert missed > 2 * 0.1


@given(n=st.integers(1, 500), alpha=PROBABILITIES)
def test_sequential_interval_without_successes_has_a_closed_form(n, alpha):
    low, high = statistics.sequential_interval(np.zeros(n), alpha=alpha)
    log_mass = (math.log(alpha / math.pi) + special.betaln(0.5, n + 0.5)) / n
    assert low == 0
    assert high == pytest.approx(-math.expm1(log_mass), rel=1e-10)


@given(n=st.integers(1, 300), seed=st.integers(0), shift=st.floats(-5, 5), scale=st.floats(0.1, 10))
def test_sequential_interval_moves_with_the_range_and_contains_the_mean(n, seed, shift, scale):
    x = np.random.default_rng(seed).beta(0.5, 1, n)
    low, high = statistics.sequential_interval(x)
    wide = statistics.sequential_interval(x, alpha=1e-9)
    assert 0 <= wide.low <= low <= x.mean() <= high <= wide.high <= 1
    samples = np.clip(shift + scale * x, shift, shift + scale)
    moved = statistics.sequential_interval(samples, low=shift, high=shift + scale)
    assert moved == pytest.approx((shift + scale * low, shift + scale * high), abs=1e-9)


def test_sequential_interval_shrinks_to_the_mean():
    """By Stirling its radius for coins is sqrt((log 1/alpha + log(pi n / 2) / 2) / 2n)."""
    x = np.random.default_rng(3).integers(0, 2, 40_000)
    for n in (400, 4_000, 40_000):
        low, high = statistics.sequential_interval(x[:n])
        assert low <= 0.5 <= high
        radius = math.sqrt((-math.log(FALSE_ALARM) + math.log(math.pi * n / 2) / 2) / (2 * n))
        # Next terms: kl = 2 t^2 + 4/3 t^4 at t = radius, and variance 1/4 - (mean - 1/2)^2.
        assert (high - low) / 2 == pytest.approx(
            radius, rel=radius**2 + 4 * (x[:n].mean() - 0.5) ** 2
        )


# ---- p-values


@given(u=st.floats(0, 1))
def test_kolmogorov_of_one_sample_is_twice_the_nearer_tail(u):
    assert statistics.kolmogorov_p([u], lambda x: x) == pytest.approx(2 * min(u, 1 - u), abs=1e-12)


@given(n=st.integers(2, 300), seed=st.integers(0))
def test_kolmogorov_is_scipys_exact_test(n, seed):
    x = torch.randn(n, generator=torch.Generator().manual_seed(seed % 2**63), dtype=torch.float64)
    oracle = stats.ks_1samp(x.numpy(), stats.norm.cdf, method="exact").pvalue
    assert statistics.kolmogorov_p(x, stats.norm.cdf) == pytest.approx(oracle, rel=1e-9)


def test_kolmogorov_p_is_uniform_under_its_hypothesis_and_small_beside_it():
    x = np.random.default_rng(4).exponential(size=(1500, 20))
    p_values = [statistics.kolmogorov_p(row, stats.expon.cdf) for row in x]
    assert statistics.kolmogorov_p(p_values, lambda p: p) > FALSE_ALARM
    assert statistics.kolmogorov_p(x.ravel(), stats.expon(scale=1.1).cdf) < FALSE_ALARM


@given(n=st.integers(1, 30), m=st.integers(1, 30))
def test_two_separate_samples_have_the_least_p(n, m):
    """Of the C(n+m, n) equally likely orders two separate the samples."""
    p = statistics.two_sample_p(range(n), range(100, 100 + m))
    assert p == pytest.approx(min(1, 2 / math.comb(n + m, n)), rel=1e-9)


def test_two_sample_p_is_valid_over_all_orders():
    n, m = 4, 5
    ranks = np.arange(n + m)
    orders = [np.isin(ranks, c) for c in product(ranks, repeat=n) if list(c) == sorted(set(c))]
    p_values = [statistics.two_sample_p(ranks[o], ranks[~o]) for o in orders]
    assert len(orders) == math.comb(n + m, n)
    assert worst_excess(p_values, np.full(len(orders), 1 / len(orders))) == pytest.approx(1)


def test_two_sample_bound_beyond_the_sizes_that_can_be_counted():
    n, m = 50_021, 50_023  # primes: no common factor
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=n), rng.normal(size=m)
    assert statistics.two_sample_p(x, y) > FALSE_ALARM
    for shift in (0.03, 0.1):
        p = statistics.two_sample_p(x, y + shift)
        assert p >= stats.ks_2samp(x, y + shift, method="asymp").pvalue
    assert p < FALSE_ALARM
    # Coins: D is the difference of the shares of heads.
    heads = np.arange(n) < 26_000, np.arange(m) < 25_000
    scaled = (26_000 / n - 25_000 / m) / (n**-0.5 + m**-0.5)
    assert statistics.two_sample_p(*heads) == pytest.approx(4 * math.exp(-2 * scaled**2), rel=1e-9)


LAWS = [(0.5, 0.5), (0.9, 0.1), (1 / 3, 1 / 3, 1 / 3), (0.98, 0.01, 0.01), (0.6, 0.3, 0.05, 0.05)]


@pytest.mark.parametrize("n", [1, 5, 12])
@pytest.mark.parametrize("law", LAWS, ids=str)
def test_chi_square_p_is_valid_for_every_multinomial(law, n):
    outcomes = list(counts(n, len(law)))
    masses = stats.multinomial(n, law).pmf(outcomes)
    p_values = [statistics.chi_square_p(o, np.multiply(n, law)) for o in outcomes]
    assert worst_excess(p_values, masses) <= 1 + ROUNDING


def test_control_pearsons_limit_is_not_valid():
    law, n = (0.98, 0.01, 0.01), 12
    outcomes = list(counts(n, len(law)))
    masses = stats.multinomial(n, law).pmf(outcomes)
    p_values = [stats.chisquare(o, np.multiply(n, law)).pvalue for o in outcomes if sum(o[1:]) < 5]
    masses = [mass for o, mass in zip(outcomes, masses, strict=True) if sum(o[1:]) < 5]
    assert worst_excess(p_values, masses) > 1e3


def test_chi_square_p_has_power_and_closed_form():
    # Two equal cells, 30 : 10 of 40: g = 30 log(3/2) + 10 log(1/2), k = 1.
    g = 30 * math.log(1.5) + 10 * math.log(0.5)
    assert statistics.chi_square_p([30, 10], [20, 20]) == pytest.approx(g * math.exp(1 - g))
    assert statistics.chi_square_p([20, 20], [20, 20]) == 1
    assert statistics.chi_square_p([40], [40]) == 1
    assert statistics.chi_square_p([39, 1, 0], [40, 0, 0]) == 0
    rolls = np.random.default_rng(6).multinomial(6000, [1 / 6] * 6)
    assert statistics.chi_square_p(rolls, [1000] * 6) > FALSE_ALARM
    assert statistics.chi_square_p([1150, 850, 1000, 1150, 850, 1000], [1000] * 6) < FALSE_ALARM


@given(n=st.integers(1, 60), q=PROBABILITIES)
def test_binomial_and_mean_p_are_valid_for_every_coin(n, q):
    successes = np.arange(n + 1)
    masses = stats.binom.pmf(successes, n, q)
    exact = [statistics.binomial_p(int(k), n, q) for k in successes]
    bound = [statistics.mean_p(np.arange(n) < k, q, low=0.0, high=1.0) for k in successes.tolist()]
    # scipy's mass function and its beta function agree to about 1e-11 here.
    assert worst_excess(exact, masses) <= 1 + 1e-9
    assert worst_excess(bound, masses) <= 1 + 1e-9
    assert all(e <= b * (1 + 1e-9) for e, b in zip(exact, bound, strict=True))


@given(n=st.integers(1, 10**6), share=st.floats(0, 1))
def test_binomial_p_of_a_fair_coin_is_scipys(n, share):
    k = round(n * share)
    oracle = stats.binomtest(k, n, 0.5).pvalue
    assert statistics.binomial_p(k, n, 0.5) == pytest.approx(oracle, rel=1e-8, abs=1e-300)
    assert statistics.binomial_p(k, n, 0.0) == (k == 0)
    assert statistics.binomial_p(k, n, 1.0) == (k == n)


@given(n=st.integers(1, 300), seed=st.integers(0), mean=st.floats(-1, 3))
def test_mean_p_is_below_hoeffdings(n, seed, mean):
    x = np.random.default_rng(seed).uniform(-1, 3, n)
    p = statistics.mean_p(x, mean, low=-1.0, high=3.0)
    hoeffding = 2 * math.exp(-2 * n * ((x.mean() - mean) / 4) ** 2)
    assert 0 <= p <= min(1, hoeffding * (1 + 1e-9))


def test_mean_p_has_power():
    x = np.random.default_rng(7).uniform(size=2000)
    assert statistics.mean_p(x, 0.5, low=0.0, high=1.0) > FALSE_ALARM
    assert statistics.mean_p(x, 0.6, low=0.0, high=1.0) < FALSE_ALARM
    assert statistics.mean_p([0.0, 0.5], 0.0, low=0.0, high=1.0) == 0  # a positive sample, mean 0


@given(n=st.integers(1, 100), p=st.floats(0, 1))
def test_bonferroni(n, p):
    assert statistics.bonferroni([1.0] * (n - 1) + [p]) == pytest.approx(min(1, n * p))


# ---- the null laws of A3


@pytest.mark.parametrize(("D", "d"), [(2, 1), (12, 9), (3072, 128)])
def test_the_two_null_laws_are_one(D, d):
    """omega = r^2 (D-d) / (r^2 (D-d) + d), and E omega = (D-d)/D."""
    share, ratio = statistics.isotropic_omega_law(D, d), statistics.isotropic_r2_law(D, d)
    assert share.mean() == pytest.approx((D - d) / D, rel=ROUNDING)
    for omega, r2 in zip(statistics.band(share), statistics.band(ratio), strict=True):
        assert omega == pytest.approx(r2 * (D - d) / (r2 * (D - d) + d), rel=1e-9)


def test_the_null_laws_are_those_of_isotropic_gradients():
    D, d = 20, 6
    g = torch.randn(4000, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    off, on = g[:, d:].square().sum(1), g[:, :d].square().sum(1)
    omega, r2 = off / (off + on), (off / (D - d)) / (on / d)
    for samples, law in (
        (omega, statistics.isotropic_omega_law),
        (r2, statistics.isotropic_r2_law),
    ):
        assert statistics.kolmogorov_p(samples, law(D, d).cdf) > FALSE_ALARM
        assert statistics.kolmogorov_p(samples, law(D, d // 2).cdf) < FALSE_ALARM  # control
    # control of A3: d/D in place of d/(D-d)
    wrong = (off / D) / (on / d)
    assert statistics.kolmogorov_p(wrong, statistics.isotropic_r2_law(D, d).cdf) < FALSE_ALARM


def test_band_of_a_uniform_law():
    uniform = statistics.isotropic_omega_law(4, 2)
    assert statistics.band(uniform, 0.9) == pytest.approx((0.05, 0.95), rel=ROUNDING)
    low, high = statistics.band(uniform, 1 - 1e-6)
    assert (low, 1 - high) == pytest.approx((5e-7, 5e-7), rel=1e-8)


# ---- inputs


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: statistics.fit_power([1, 2, 3], [1, 2]), "3 scales for 2 values"),
        (lambda: statistics.fit_power([1, 2, 2], [1, 2, 3]), "3 different positive scales"),
        (lambda: statistics.fit_power([0, 1, 2], [1, 2, 3]), "positive scales"),
        (lambda: statistics.fit_power([1, 2, 3], [1, 0, 3]), "positive values"),
        (lambda: statistics.fit_power([1, 2, 3], [1, math.nan, 3]), "values must be .* finite"),
        (lambda: statistics.fit_power([[1, 2, 3]], [1, 2, 3]), r"scales must be .*\(1, 3\)"),
        (lambda: statistics.constant_at_small_scales([1, 2, 3], [1, 2, 3], 1), "4 different"),
        (lambda: statistics.mean_interval([1.0]), "n >= 2"),
        (lambda: statistics.mean_interval([1.0, 2.0], 1.0), "level .* got 1.0"),
        (lambda: statistics.proportion_interval(3, 2), "3 successes in 2 trials"),
        (lambda: statistics.proportion_interval(0, 0), "0 successes in 0 trials"),
        (lambda: statistics.hoeffding_radius(0, 1.0, 0.1), "n = 0"),
        (lambda: statistics.hoeffding_radius(1, -1.0, 0.1), "width .* got -1.0"),
        (lambda: statistics.dkw_radius(1, math.nan), "alpha .* got nan"),
        (lambda: statistics.sequential_interval([]), "n >= 1"),
        (lambda: statistics.sequential_interval([0.5, 1.5]), r"in \[0.0, 1.0\]"),
        (lambda: statistics.sequential_interval([0.5], alpha=0.0), "alpha .* got 0.0"),
        (lambda: statistics.kolmogorov_p([0.5, 2.0], lambda x: x), r"in \[0.0, 1.0\]"),
        (lambda: statistics.kolmogorov_p([0.5, 1.0], lambda x: x[:1]), "2 samples for 1 values"),
        (lambda: statistics.two_sample_p([1.0], [math.inf]), "second must be"),
        (lambda: statistics.chi_square_p([1, 2], [1, 1]), "one total, got 3.0.* 2.0"),
        (lambda: statistics.chi_square_p([0.5, 0.5], [0.4, 0.6]), "counts"),
        (lambda: statistics.chi_square_p([2, -1], [0.5, 0.5]), "counts"),
        (lambda: statistics.chi_square_p([0, 0], [0, 0]), "counts"),
        (lambda: statistics.binomial_p(1, 2, 1.5), r"in \[0.0, 1.0\]"),
        (lambda: statistics.mean_p([0.5], 2.0, low=0.0, high=1.0), r"in \[0.0, 1.0\]"),
        (lambda: statistics.mean_p([0.5], 0.5, low=1.0, high=0.0), r"in \[1.0, 0.0\]"),
        (lambda: statistics.bonferroni([]), "p_values must be"),
        (lambda: statistics.bonferroni([0.1, math.nan]), "p_values must be"),
        (lambda: statistics.bonferroni([-0.1]), r"in \[0.0, 1.0\]"),
        (lambda: statistics.isotropic_omega_law(3, 3), "d = 3 in D = 3"),
        (lambda: statistics.isotropic_r2_law(3, 0), "d = 0 in D = 3"),
        (lambda: statistics.band(statistics.isotropic_r2_law(3, 1), 0.0), "level .* got 0.0"),
    ],
)
def test_bad_input_is_refused_with_both_sides(call, message):
    with pytest.raises(ValueError, match=message):
        call()
