"""Modified Bessel functions and von Mises-Fisher normalizers, to rounding, from k = 0 to 1e12.

With R = sqrt(nu^2 + k^2), q = (nu/R)^2 and S = sum_m (k^2/4)^m / (m! (nu+1)_m), so that
I_nu(k) = (k/2)^nu S / Gamma(nu+1), the functions are

    F = log(I_nu(k) e^-k),    L = log S,    A = I_{nu+1}/I_nu = L',    A' and A'',

each with the next as its derivative by hand, because no formula for one of them is accurate
enough to be differentiated into the next: at nu = 0, k = 1e8, A' = 1 - A^2 - (2 nu + 1) A/k is
off by 121 % and F' = A + nu/k - 1 by 1e-8.  For R < 30 they are quotients of positive series;
with c_N > 0 of `_wronskian_ratios`,

    A' S^2 = sum_N c_N (k^2/4)^N,    (nu + 1/2) (A/k - A') S^2 = sum_N N c_N (k^2/4)^N.

For R >= 30 they are the uniform expansion (DLMF 10.41.3) of log I_nu rather than of I_nu,

    F = nu^2/(R+k) - nu asinh(nu/k) - log(2 pi R)/2 + sum_{j=1}^{14} d_j(q) / R^j,

because its derivatives are sums again: A = k/(R+nu) - k/R^2 (1/2 + sum e_j/R^j) with
e_j = j d_j + 2 q d_j'.  Orders nu >= 0 are numbers, arguments k >= 0 tensors (k < 0 gives nan);
derivatives are in k only.
"""

import functools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import zip_longest
from typing import Any, TypeVar, cast, final

import torch
from torch import Tensor
from torch.autograd import forward_ad

Elementwise = Callable[[float, Tensor], Tensor]  # (order, k) -> a tensor shaped like k
Same = TypeVar("Same", bound=Elementwise)
Polynomial = list[Fraction]  # in q, ascending
Table = tuple[tuple[float, ...], ...]  # row j: the polynomial in q that multiplies R^-j

SWITCH = 30.0  # the R from which on the expansion is used
EXPANSION_TERMS = 14  # what is left out at R = 30 is 1e-16 in F, 4e-14 of A' and 4e-13 of A''
SERIES_TERMS = 50  # what is left out at k = 30 is below 1e-20 of S,
WRONSKIAN_TERMS = 75  # and of the sums that go with S^2


@final
class _Chain(torch.autograd.Function):
    """A function of k whose derivative is another one."""

    generate_vmap_rule = True

    @staticmethod
    def forward(k: Tensor, order: float, value: Elementwise, slope: Elementwise) -> Tensor:
        return value(order, k)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        k, ctx.order, _, ctx.slope = inputs
        ctx.save_for_backward(k)
        ctx.save_for_forward(k)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        return gradients[0] * ctx.slope(ctx.order, *ctx.saved_tensors), None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        # torch switches forward derivatives off in here, by which a jvp of a jvp would silently be
        # zero; with them on, k must be rid of the tangent of this jvp (those outside it stay).
        with forward_ad._set_fwd_grad_enabled(True):
            unpack: Callable[..., Any] = forward_ad.unpack_dual  # torch leaves it untyped
            k = unpack(*ctx.saved_tensors).primal
            tangent: Tensor = tangents[0] * ctx.slope(ctx.order, k)
        return tangent


def _with_slope(slope: Elementwise) -> Callable[[Same], Same]:
    """Give a formula its derivative, and float64 to compute in."""

    def decorate(value: Same) -> Same:
        @functools.wraps(value)
        def evaluate(order: float, k: Tensor) -> Tensor:
            if not 0 <= order < math.inf:
                raise ValueError(f"Bessel order {order!r}: a finite number >= 0 is needed")
            if not k.is_floating_point():
                raise ValueError(f"Bessel argument of {k.dtype}: a floating dtype is needed")
            # Also for float32: inside, terms of size nu log(k) cancel and k^14 must not overflow.
            apply: Callable[..., Tensor] = _Chain.apply  # torch leaves it untyped
            return apply(k.double(), float(order), value, slope).to(k.dtype)

        return cast(Same, evaluate)

    return decorate


# The uniform expansion, R >= 30.


def _sum(*polynomials: Polynomial) -> Polynomial:
    return [sum(c, Fraction(0)) for c in zip_longest(*polynomials, fillvalue=Fraction(0))]


def _product(a: Sequence[Fraction | int], b: Polynomial) -> Polynomial:
    return _sum(*([Fraction(0)] * i + [c * x for x in b] for i, c in enumerate(a)))


def _fall(power: int, f: Polynomial) -> Polynomial:
    """power f + 2 q f', the polynomial of -R d/dR (f(q) R^-power), as q = nu^2/R^2."""
    return [(power + 2 * i) * c for i, c in enumerate(f)]


@functools.cache
def _tables() -> tuple[Table, ...]:
    """What multiplies R^-j in F, -A/k, A' and A'' R^2/k; exact until the last line.

    The recursion DLMF 10.41.9 for the terms of I_nu, differentiated and divided by their sum, is
    e_{j+1} = (1-q)/2 ((j-1) e_j + 2 q e_j' + sum_{0<i<j} e_i e_{j-i}) + (1-2q) e_j.
    """
    e = [[Fraction(1, 2)], [Fraction(1, 8), Fraction(-5, 8)]]  # e_0 is that of log(R)/2
    for j in range(1, EXPANSION_TERMS):
        squares = (_product(e[i], e[j - i]) for i in range(1, j))
        bracket = _sum(_fall(j - 1, e[j]), *squares)
        e.append(_sum(_product([1, -1], [c / 2 for c in bracket]), _product([1, -2], e[j])))
    zero = [Fraction(0)]
    value = [zero, *([c / (j + 2 * i) for i, c in enumerate(e[j])] for j in range(1, len(e)))]
    slope = [zero, zero, *e]
    second = [_sum(_product([1, -1], _fall(j, f)), [-c for c in f]) for j, f in enumerate(slope)]
    third = [[-c for c in _fall(j, f)] for j, f in enumerate(second)]
    return tuple(tuple(tuple(map(float, f)) for f in t) for t in (value, slope, second, third))


def _expansion(derivative: int, order: float, radius: Tensor) -> Tensor:
    """sum_j table_j(q) R^-j by two nested Horner schemes."""
    inverse = 1 / radius
    q = (order * inverse).square()
    total = torch.zeros_like(q)
    for row in reversed(_tables()[derivative]):
        polynomial = torch.full_like(q, row[-1])
        for coefficient in reversed(row[:-1]):
            polynomial = polynomial * q + coefficient
        total = total * inverse + polynomial
    return total


def _growth_expansion(order: float, k: Tensor, radius: Tensor) -> Tensor:
    """L - (R - nu): the expansion of F less nu log(k/2) - log Gamma(nu+1)."""
    if order >= SWITCH:  # relative to its value 0 at k = 0: log Gamma = 1e4 is not there to cancel
        reference = order
        constant = -math.fsum(sum(row) * order**-j for j, row in enumerate(_tables()[0]))
    else:
        reference = 1.0
        constant = order + math.lgamma(order + 1) - math.log(2 * math.pi) / 2
    rise = k.square() / (radius + order) + (order - reference)  # R - reference
    logarithm = order * torch.log1p((rise + (order - reference)) / (2 * reference))
    return constant - logarithm - torch.log1p(rise / reference) / 2 + _expansion(0, order, radius)


def _deficit(order: float, k: Tensor, radius: Tensor) -> Tensor:
    """1 - k/(R + nu), by R + nu - k = nu + nu^2/(R + k)."""
    return order * (radius + k + order) / ((radius + k) * (radius + order))


# The power series, R < 30.


def _series(k: Tensor, ratios: list[float]) -> Tensor:
    """sum_{m>=1} (k^2/4)^m ratios[0] ... ratios[m-1], nested: all positive, nothing overflows."""
    x = k.square() / 4
    total = torch.zeros_like(x)
    for ratio in reversed(ratios):
        total = (total + 1) * (x * ratio)
    return total


def _growth_series(order: float, k: Tensor) -> Tensor:
    """S - 1."""
    return _series(k, [1 / ((m + 1) * (order + m + 1)) for m in range(SERIES_TERMS)])


def _ratio_series(order: float, k: Tensor) -> Tensor:
    upper, lower = _growth_series(order + 1, k), _growth_series(order, k)
    return k / (2 * order + 2) * (1 + upper) / (1 + lower)


def _wronskian_ratios(order: float) -> list[float]:
    """c_{N+1}/c_N of the coefficients c_0 = 1/(2 nu + 2), ... of A' S^2.

    From A' I_nu^2 = (I_nu^2 - I_{nu-1} I_{nu+1}) - I_nu I_{nu+1}/k and the series of the products,
    DLMF 10.31.3: c_N ~ (nu + 1/2) (2 nu + N + 2)_{N-1} / (N! Gamma(nu+N+1) Gamma(nu+N+2)).
    """
    return [
        2 * (2 * order + 2 * m + 1) / ((2 * order + m + 2) * (m + 1) * (order + m + 2))
        for m in range(WRONSKIAN_TERMS)
    ]


def _derivative_series(order: float, k: Tensor) -> Tensor:
    total = (1 + _series(k, _wronskian_ratios(order))) / (2 * order + 2)
    return total / (1 + _growth_series(order, k)).square()


def _second_derivative_series(order: float, k: Tensor) -> Tensor:
    """A'' = (2 nu + 1)(A/k - A')/k - 2 A A', which cancel at most 60-fold here."""
    first, *others = _wronskian_ratios(order)
    ratios = [(m + 1) / m * ratio for m, ratio in enumerate(others, 1)]  # of N c_N, from N = 1
    total = first / (2 * order + 2) * (1 + _series(k, ratios))
    excess = k / 2 * total / (1 + _growth_series(order, k)).square()
    return excess - 2 * _ratio_series(order, k) * _derivative_series(order, k)


# The functions, from the last derivative up.


def _split(order: float, k: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where R < 30; arguments that the series and the expansion can take everywhere; R of these.

    Where no argument can be near, the series gets a single element to spend its time on.
    """
    is_near = (k >= 0) & (k.square() + order**2 < SWITCH**2)
    near = k.new_zeros(()) if order >= SWITCH else torch.where(is_near, k, 0.0)
    far = torch.where(is_near, SWITCH, torch.where(k >= 0, k, math.nan))
    return is_near, near, far, torch.sqrt(far.square() + order**2)


def _third_derivative(order: float, k: Tensor) -> Tensor:
    raise NotImplementedError("no derivative of a Bessel ratio beyond its second is provided")


@_with_slope(_third_derivative)
def _second_derivative(order: float, k: Tensor) -> Tensor:
    is_near, near, far, radius = _split(order, k)
    leading = order * (order + 2 * radius) / (radius * (radius + order).square())
    expansion = far * (_expansion(3, order, radius) - leading) / radius.square()
    return torch.where(is_near, _second_derivative_series(order, near), expansion)


@_with_slope(_second_derivative)
def bessel_ratio_derivative(order: float, k: Tensor) -> Tensor:
    """A'(k) > 0, elementwise; 1/(2 nu + 2) at k = 0; differentiable once."""
    is_near, near, _, radius = _split(order, k)
    expansion = order / (radius * (radius + order)) + _expansion(2, order, radius)
    return torch.where(is_near, _derivative_series(order, near), expansion)


@_with_slope(bessel_ratio_derivative)
def bessel_ratio(order: float, k: Tensor) -> Tensor:
    """A(k) = I_{nu+1}(k)/I_nu(k) in [0, 1), elementwise; differentiable twice."""
    is_near, near, far, radius = _split(order, k)
    expansion = far * (1 / (radius + order) - _expansion(1, order, radius))
    return torch.where(is_near, _ratio_series(order, near), expansion)


def _log_bessel_curvature(order: float, k: Tensor) -> Tensor:
    curvature = bessel_ratio_derivative(order, k)
    return curvature - order / k.square() if order > 0 else curvature


@_with_slope(_log_bessel_curvature)
def _log_bessel_slope(order: float, k: Tensor) -> Tensor:
    """F' = A + nu/k - 1, about -1/(2k) at large k."""
    is_near, near, far, radius = _split(order, k)
    series = _ratio_series(order, near) - 1
    expansion = -far * _expansion(1, order, radius)
    if order > 0:
        series = series + order / near
        expansion = expansion + order**2 / (far * (radius + far))  # (R - k)/k
    return torch.where(is_near, series, expansion)


@_with_slope(_log_bessel_slope)
def log_bessel(order: float, k: Tensor) -> Tensor:
    """F(k) = log(I_nu(k) e^-k), elementwise; differentiable three times.

    At k = 0 it is 0 if nu = 0, otherwise -inf.
    """
    is_near, near, far, radius = _split(order, k)
    series = torch.log1p(_growth_series(order, near)) - near
    expansion = _expansion(0, order, radius) - torch.log(2 * math.pi * radius) / 2
    if order > 0:  # no 0 log(0)
        series = series + (order * torch.log(near / 2) - math.lgamma(order + 1))
        # asinh(nu/k) is log((nu+R)/k) without its cancellation at k >> nu
        expansion = expansion + (order**2 / (radius + far) - order * torch.asinh(order / far))
    return torch.where(is_near, series, expansion)


@_with_slope(bessel_ratio)
def _log_growth(order: float, k: Tensor) -> Tensor:
    """L(k) = log(I_nu(k) (2/k)^nu Gamma(nu+1)), smooth and 0 at k = 0."""
    is_near, near, far, radius = _split(order, k)
    expansion = far.square() / (radius + order) + _growth_expansion(order, far, radius)
    return torch.where(is_near, torch.log1p(_growth_series(order, near)), expansion)


@_with_slope(bessel_ratio_derivative)
def _scaled_slope(order: float, k: Tensor) -> Tensor:
    """A - 1, about -(nu + 1/2)/k at large k."""
    is_near, near, far, radius = _split(order, k)
    expansion = -_deficit(order, far, radius) - far * _expansion(1, order, radius)
    return torch.where(is_near, _ratio_series(order, near) - 1, expansion)


@_with_slope(_scaled_slope)
def _scaled_log_growth(order: float, k: Tensor) -> Tensor:
    """L - k, of the size nu log(k) where L is of the size k."""
    is_near, near, far, radius = _split(order, k)
    expansion = _growth_expansion(order, far, radius) - far * _deficit(order, far, radius)
    return torch.where(is_near, torch.log1p(_growth_series(order, near)) - near, expansion)


# The von Mises-Fisher law: density C_n(kappa) exp(kappa mu.m) on the unit sphere of R^n.


def log_sphere_area(n: int) -> float:
    """log of the area 2 pi^{n/2} / Gamma(n/2) of the unit sphere S^{n-1} in R^n."""
    if n < 1:
        raise ValueError(f"sphere in R^{n}: n >= 1 is needed")
    return math.log(2) + n / 2 * math.log(math.pi) - math.lgamma(n / 2)


def _vmf_order(n: int) -> float:
    if n < 2:
        raise ValueError(f"von Mises-Fisher law in R^{n}: n >= 2 is needed")
    return n / 2 - 1


def log_vmf_normalizer(n: int, kappa: Tensor) -> Tensor:
    """log C_n = log(kappa^{n/2-1} / ((2 pi)^{n/2} I_{n/2-1}(kappa))) = -log area - L(kappa)."""
    return -log_sphere_area(n) - _log_growth(_vmf_order(n), kappa)


def scaled_log_vmf_normalizer(n: int, kappa: Tensor) -> Tensor:
    """log C_n(kappa) + kappa, accurate to its own size, (n-1)/2 log(kappa/2 pi) at the end."""
    return -log_sphere_area(n) - _scaled_log_growth(_vmf_order(n), kappa)


def vmf_margin(
    x: Tensor, location_a: Tensor, location_b: Tensor, *, radius: float, noise: float
) -> Tensor:
    """log p(x|a) - log p(x|b) of two von Mises-Fisher laws on r S^{n-1}, blurred by N(0, tau^2 I).

    With l = location = kappa mu, p(m) = C_n(|l|) e^{l.m/r} / r^{n-1} and k = l + r x/tau^2, it is
    L(|k_a|) - L(|k_b|) - L(|l_a|) + L(|l_b|).  At tau = 1e-4 norms of 1e8 differ by 1, so that
    |k_a| - |k_b| = (l_a - l_b).(l_a + l_b + 2 r x/tau^2) / (|k_a| + |k_b|) is taken out of L.
    x, l: (..., n) -> (...).
    """
    n = x.shape[-1]
    if not location_a.shape[-1] == location_b.shape[-1] == n:
        shapes = f"{tuple(location_a.shape)} and {tuple(location_b.shape)}"
        raise ValueError(f"locations of shapes {shapes} for points of shape {tuple(x.shape)}")
    if not (radius > 0 and noise > 0):
        raise ValueError(f"radius {radius!r} and noise {noise!r}: both must be positive")
    order, a, b = _vmf_order(n), location_a.double(), location_b.double()
    pull = radius / noise**2 * x.double()
    squares = ((a - b) * (a + b)).sum(-1)
    prior = _growth_difference(order, squares, _norm(a), _norm(b))
    squares = squares + 2 * ((a - b) * pull).sum(-1)
    posterior = _growth_difference(order, squares, _norm(a + pull), _norm(b + pull))
    return (posterior - prior).to(x.dtype)


def _growth_difference(order: float, squares: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """L(a) - L(b), given a^2 - b^2."""
    both = torch.where(a + b > 0, a + b, 1.0)  # where it is 0, so is a^2 - b^2
    return squares / both + (_scaled_log_growth(order, a) - _scaled_log_growth(order, b))


def _norm(v: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(v, dim=-1)
    return norm
