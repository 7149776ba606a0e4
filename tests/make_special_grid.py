"""Writes special_grid.json, the references of test_special.py: python tests/make_special_grid.py.

Two expansions in which nothing but the number of digits can go wrong: the power series for
k <= 2500, the large-argument expansion of Hankel (DLMF 10.40.1, terms down to e^{-2k}) above.
"""

import json
import math
from pathlib import Path

from mpmath import log, loggamma, mp, mpf, pi, sqrt, workdps

ORDERS = [0, 0.5, 1, 3.5, 10, 14.5, 15, 31, 100, 499, 1000, 2000]
ARGUMENTS = [
    *(1e-8, 1e-4, 0.01, 0.3, 1, 3, 10, 20, 29.9, 30.1, 50, 200, 1e3, 4e3),
    *(3e4, 1e6, 1e8, 1e10, 1e12),
]
DIMENSIONS = [2, 3, 4, 10, 50, 101, 1000, 4000]
CONCENTRATIONS = [1e-8, 1e-3, 0.5, 4, 28, 100, 2e3, 1e6, 1e9, 1e12]
FIELDS = [
    *("log_bessel", "log_bessel_slope", "log_bessel_curvature", "ratio_less_one"),
    *("ratio", "ratio_derivative", "ratio_second_derivative"),
]
SWITCH = 30.0


def _scaled_bessel(order: mpf, k: mpf) -> mpf:
    """log(I_nu(k) e^-k)."""
    term, total, j = mpf(1), mpf(0), 0
    smallest = mpf(10) ** -mp.dps
    series = k <= 2500
    while abs(term) > smallest * abs(total):
        total, j = total + term, j + 1
        if series:
            term *= k * k / (4 * j * (order + j))
        else:
            term *= ((2 * j - 1) ** 2 - 4 * order**2) / (8 * j * k)
    if series:
        return log(total) + order * log(k / 2) - loggamma(order + 1) - k
    return log(total) - log(2 * pi * k) / 2


def reference(order: float, k: float | mpf) -> dict[str, mpf]:
    """The FIELDS, to 80 digits: the equations of the ratio lose twice the digits of k."""
    lost = order**2 / k if k > 2500 else -2 * min(0.0, math.log10(k))  # Hankel's alternating sums
    with workdps(150 + int(lost)):
        nu, kk = mpf(order), mpf(k)
        value = _scaled_bessel(nu, kk)
        a = mp.exp(_scaled_bessel(nu + 1, kk) - value)
        da = 1 - a * a - (2 * nu + 1) * a / kk
        dda = -2 * a * da - (2 * nu + 1) * (da - a / kk) / kk
        found = (value, a + nu / kk - 1, da - nu / kk**2, a - 1, a, da, dda)
    return dict(zip(FIELDS, found, strict=True))


def log_normalizer(n: int, kappa: mpf, *, scaled: bool = False) -> mpf:
    """log C_n(kappa), or log C_n(kappa) + kappa; the limit at kappa = 0."""
    nu = mpf(n) / 2 - 1
    if kappa == 0:
        return loggamma(nu + 1) - log(2) - (nu + 1) * log(pi)
    with workdps(150 + int(nu**2 / kappa if kappa > 2500 else 0)):
        value = nu * log(kappa) - (nu + 1) * log(2 * pi) - _scaled_bessel(nu, kappa)
        return value if scaled else value - kappa


def margin_and_gradient(
    x: list[float], a: list[float], b: list[float], *, radius: float, noise: float
) -> tuple[mpf, list[mpf]]:
    """vmf_margin from the normalizers themselves; its gradient r/tau^2 (A u_a - A u_b)."""
    with workdps(120):
        pull = mpf(radius) / mpf(noise) ** 2
        margin, gradient = mpf(0), [mpf(0)] * len(x)
        for sign, location in ((1, a), (-1, b)):
            moved = [c + pull * mpf(y) for c, y in zip(location, x, strict=True)]
            kappa, k = (sqrt(mp.fdot(v, v)) for v in (list(map(mpf, location)), moved))
            margin += sign * (log_normalizer(len(x), kappa) - log_normalizer(len(x), k))
            length = sign * pull * reference(len(x) / 2 - 1, k)["ratio"] / k
            gradient = [g + length * c for g, c in zip(gradient, moved, strict=True)]
        return margin, gradient


def _arguments(order: float) -> list[float]:
    """The common ones, and both sides of R = 30."""
    if order >= SWITCH:
        return ARGUMENTS
    switch = math.sqrt(SWITCH**2 - order**2)
    return sorted([*ARGUMENTS, switch * (1 - 1e-9), switch * (1 + 1e-9)])


def grid() -> dict[str, list[list[float | str]]]:
    bessel: list[list[float | str]] = []
    for order in ORDERS:
        for k in _arguments(order):
            values = reference(order, k).values()
            bessel.append([order, k, *(mp.nstr(v, 20) for v in values)])
    normalizer: list[list[float | str]] = []
    for n in DIMENSIONS:
        for kappa in CONCENTRATIONS:
            pair = (log_normalizer(n, mpf(kappa), scaled=scaled) for scaled in (False, True))
            normalizer.append([n, kappa, *(mp.nstr(v, 20) for v in pair)])
    return {"bessel": bessel, "normalizer": normalizer}


if __name__ == "__main__":
    tables = (
        f'"{name}": [\n' + ",\n".join(map(json.dumps, rows)) + "\n]"
        for name, rows in grid().items()
    )
    Path(__file__).with_name("special_grid.json").write_text("{" + ",\n".join(tables) + "}\n")
