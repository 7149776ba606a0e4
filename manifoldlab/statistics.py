"""Fitted powers, intervals, and p-values with P(p <= alpha) <= alpha at every sample size."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import scipy  # loads scipy.special and scipy.stats (0.6 s) at their first use
from torch import Tensor

Array: TypeAlias = npt.NDArray[np.float64]
Values: TypeAlias = Tensor | npt.ArrayLike  # (n,)
Law: TypeAlias = Any  # a frozen distribution of scipy, which has no types: cdf, ppf, isf, rvs

# The probability with which one law, all its cases together, may fail though it is true:
# a thousand runs of a hundred such laws raise a false alarm with probability at most 0.1.
FALSE_ALARM = 1e-6


class PowerFit(NamedTuple):
    slope: float
    constant: float
    slope_error: float


class SmallScaleConstant(NamedTuple):
    constant: float
    spread: float  # largest distance from the constant, in the constant's unit


class Interval(NamedTuple):
    low: float
    high: float


def fit_power(scales: Values, values: Values) -> PowerFit:
    """Least squares of log v = slope log s + log constant.

    slope_error = sqrt(sum residual^2 / (n-2) / sum (log s - mean)^2): the standard error for
    independent errors; the bend that a next term in s gives to the line is no such error.
    """
    s, v = _window(scales, values, least=3)
    if not v.min() > 0:
        raise ValueError(f"a power needs positive values, got {v} at {s}")
    x, y = np.log(s), np.log(v)
    dx, dy = x - x.mean(), y - y.mean()
    slope = float(dx @ dy / (dx @ dx))
    error = math.sqrt(np.square(dy - slope * dx).sum() / (len(x) - 2) / (dx @ dx))
    return PowerFit(slope, math.exp(y.mean() - slope * x.mean()), error)


def constant_at_small_scales(scales: Values, values: Values, power: float) -> SmallScaleConstant:
    """Median of c = v / s^power over the smallest third of the scales (on a geometric grid the
    lower third of the window in log s), and spread = max |c - median|. Any sign of v will do."""
    s, v = _window(scales, values, least=4)  # of which 2 or more are in the third
    small = s <= np.sort(s)[math.ceil(len(s) / 3) - 1]
    ratio = v[small] / s[small] ** power
    constant = np.median(ratio)
    return SmallScaleConstant(float(constant), float(np.abs(ratio - constant).max()))


def mean_interval(samples: Values, level: float = 0.95) -> Interval:
    """mean -+ t_{n-1}((1+level)/2) std / sqrt(n), for error bars: exact for normal samples only."""
    x = _vector("samples", samples, least=2)
    radius = -scipy.special.stdtrit(len(x) - 1, _tail(level)) * x.std(ddof=1) / math.sqrt(len(x))
    return Interval(float(x.mean() - radius), float(x.mean() + radius))


def proportion_interval(successes: int, trials: int, level: float = 0.95) -> Interval:
    """Clopper and Pearson (1934): all q with binomial_p(successes, trials, q) >= 1 - level."""
    k, rest = successes, _failures(successes, trials)
    low = scipy.special.betaincinv(k, rest + 1, _tail(level)) if k else 0.0
    high = 1 - scipy.special.betaincinv(rest, k + 1, _tail(level)) if rest else 1.0
    return Interval(float(low), float(high))


def hoeffding_radius(n: int, width: float, alpha: float) -> float:
    """width sqrt(log(2/alpha) / 2n): P(|mean of n - its expectation| >= radius) <= alpha for
    independent samples, each in an interval of that width (Hoeffding 1963, Theorem 2)."""
    if not 0 < width < math.inf:
        raise ValueError(f"width must be positive and finite, got {width}")
    return width * dkw_radius(n, alpha)


def dkw_radius(n: int, alpha: float) -> float:
    """sqrt(log(2/alpha) / 2n): P(sup |empirical cdf - cdf| > radius) <= alpha (Massart 1990)."""
    if n < 1:
        raise ValueError(f"needs at least 1 sample, got n = {n}")
    return math.sqrt(math.log(2 / _probability("alpha", alpha)) / (2 * n))


def sequential_interval(
    samples: Values, *, low: float = 0.0, high: float = 1.0, alpha: float = FALSE_ALARM
) -> Interval:
    """Confidence interval for the mean of samples in [low, high], valid at all n at once.

    P(for some n the interval of the first n samples misses the mean) <= alpha, so one may look
    after each sample and stop at will; needed is only E[x_i | earlier ones] = mean. It holds the
    q with B(s + 1/2, n - s + 1/2) / pi < q^s (1-q)^(n-s) / alpha, s the sum in units of the range:
    the ratio of the powers is a martingale for 0/1 samples and, its factors being convex in x, a
    supermartingale for all others, so Ville's inequality applies (Robbins 1970).
    """
    x = _in_units_of_range(_vector("samples", samples), low, high)
    n, s = len(x), float(x.sum())
    mixed = scipy.special.betaln(s + 0.5, n - s + 0.5) - math.log(math.pi)
    least = mixed + math.log(_probability("alpha", alpha))

    def covered(q: float) -> bool:
        return bool(scipy.special.xlogy(s, q) + scipy.special.xlogy(n - s, 1 - q) > least)

    ends = (_last_outside(covered, end, s / n) for end in (0.0, 1.0))
    return Interval(*(low + (high - low) * q for q in ends))


def kolmogorov_p(samples: Values, cdf: Callable[[Array], Array]) -> float:
    """Exact two-sided p of D = sup |empirical cdf - cdf|; conservative where the cdf jumps."""
    x = np.sort(_vector("samples", samples))
    u = _in_units_of_range(_paired("samples", x, "values of the cdf", cdf(x))[1], 0.0, 1.0)
    rank = np.arange(len(x) + 1) / len(x)
    distance = max((rank[1:] - u).max(), (u - rank[:-1]).max())
    return float(np.clip(scipy.stats.kstwo.sf(distance, len(x)), 0, 1))


def two_sample_p(first: Values, second: Values) -> float:
    """Exact two-sided p of D = sup |difference of empirical cdfs|, conservative with ties; for
    sizes that scipy does not count the bound 4 exp(-2 D^2 / (n^-1/2 + m^-1/2)^2), by DKW twice."""
    a, b = np.sort(_vector("first", first)), np.sort(_vector("second", second))
    if math.lcm(len(a), len(b)) < 2**31 - 1:
        return float(scipy.stats.ks_2samp(a, b, method="exact").pvalue)
    x = np.concatenate([a, b])
    cdf_a, cdf_b = (np.searchsorted(c, x, side="right") / len(c) for c in (a, b))
    scaled = np.abs(cdf_a - cdf_b).max() / (len(a) ** -0.5 + len(b) ** -0.5)
    return float(min(1.0, 4 * math.exp(-2 * scaled**2)))


def chi_square_p(observed: Values, expected: Values) -> float:
    """Bound on the p of the likelihood-ratio chi-square G = 2 sum O log(O/E), E known.

    (eg/k)^k e^-g for g = G/2 > k = cells - 1, else 1 (Agrawal 2020, arXiv 1904.02291). It is true
    at every n; the chi-square law, of G as of Pearson's statistic, is only a limit.
    """
    o, e = _paired("observed", observed, "expected", expected)
    whole = not (o % 1).any() and o.sum() > 0 and min(o.min(), e.min()) >= 0
    if not (whole and math.isclose(o.sum(), e.sum(), rel_tol=1e-9)):
        raise ValueError(f"needs counts of one total, got {o.sum()}: {o} and {e.sum()}: {e}")
    if np.any(o[e == 0] > 0):
        return 0.0
    k = np.count_nonzero(e) - 1
    g = float(scipy.special.rel_entr(o, e * (o.sum() / e.sum())).sum())
    return math.exp(k - g + k * math.log(g / k)) if g > k > 0 else 1.0


def binomial_p(successes: int, trials: int, probability: float) -> float:
    """min(1, 2 min(P(S <= successes), P(S >= successes))) for binomial S."""
    k, rest = successes, _failures(successes, trials)
    (q,) = _in_units_of_range(np.array([probability]), 0.0, 1.0)
    upper = scipy.special.betainc(k, rest + 1, q) if k else 1.0
    lower = scipy.special.betainc(rest, k + 1, 1 - q) if rest else 1.0
    return float(min(1.0, 2 * min(lower, upper)))


def mean_p(samples: Values, mean: float, *, low: float, high: float) -> float:
    """2 exp(-n kl(x, q)), a bound for independent samples in [low, high]; x, q the sample mean and
    mean in units of the range, kl of Bernoulli laws, >= 2 (x - q)^2 (Hoeffding 1963, Theorem 1)."""
    x = _in_units_of_range(_vector("samples", samples), low, high)
    (q,) = _in_units_of_range(np.array([float(mean)]), low, high)
    outcome, law = np.array([x.mean(), 1 - x.mean()]), np.array([q, 1 - q])
    return min(1.0, 2 * math.exp(-len(x) * scipy.special.rel_entr(outcome, law).sum()))


def bonferroni(p_values: Values) -> float:
    """min(1, count * smallest p): one p for all cases, whatever their dependence."""
    p = _in_units_of_range(_vector("p_values", p_values), 0.0, 1.0)
    return min(1.0, len(p) * float(p.min()))


def isotropic_omega_law(D: int, d: int) -> Law:
    """Beta((D-d)/2, d/2): off-manifold share of a gradient of isotropic direction (A3)."""
    return scipy.stats.beta(_codimension(D, d) / 2, d / 2)


def isotropic_r2_law(D: int, d: int) -> Law:
    """F(D-d, d): r^2 = (|Qg|^2 / (D-d)) / (|Pg|^2 / d) of such a gradient (A3)."""
    return scipy.stats.f(_codimension(D, d), d)


def band(law: Law, level: float = 0.95) -> Interval:
    """The quantiles at (1-level)/2 and (1+level)/2."""
    return Interval(float(law.ppf(_tail(level))), float(law.isf(_tail(level))))


def _vector(name: str, values: Values, least: int = 1) -> Array:
    array = values.detach().cpu().double().numpy() if isinstance(values, Tensor) else values
    x = np.asarray(array, dtype=np.float64)
    if x.ndim != 1 or len(x) < least or not np.isfinite(x).all():
        raise ValueError(f"{name} must be (n,), n >= {least}, finite, got {x.shape}: {x}")
    return x


def _paired(name: str, first: Values, other: str, second: Values) -> tuple[Array, Array]:
    a, b = _vector(name, first), _vector(other, second)
    if len(a) != len(b):
        raise ValueError(f"{len(a)} {name} for {len(b)} {other}: {a}, {b}")
    return a, b


def _window(scales: Values, values: Values, least: int) -> tuple[Array, Array]:
    s, v = _paired("scales", scales, "values", values)
    if not s.min() > 0 or len(np.unique(s)) < least:
        raise ValueError(f"needs {least} different positive scales, got {s}")
    return s, v


def _in_units_of_range(x: Array, low: float, high: float) -> Array:
    if not (math.isfinite(high - low) and low < high and low <= x.min() and x.max() <= high):
        raise ValueError(f"expected values in [{low}, {high}], got {x}")
    return (x - low) / (high - low)


def _probability(name: str, value: float) -> float:
    if not 0 < value < 1:
        raise ValueError(f"{name} must be between 0 and 1, got {value}")
    return value


def _tail(level: float) -> float:
    return (1 - _probability("level", level)) / 2


def _failures(successes: int, trials: int) -> int:
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"{successes} successes in {trials} trials")
    return trials - successes


def _codimension(D: int, d: int) -> int:
    if not 0 < d < D:
        raise ValueError(f"no tangent and normal space for d = {d} in D = {D}")
    return D - d


def _last_outside(covered: Callable[[float], bool], outside: float, inside: float) -> float:
    """Bisects to rounding for the edge of a covered interval; errs on the wide side."""
    if covered(outside):
        return outside
    for _ in range(64):
        middle = (outside + inside) / 2
        outside, inside = (outside, middle) if covered(middle) else (middle, inside)
    return outside
