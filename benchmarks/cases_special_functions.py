"""Special functions of 10,000 numbers, beside scipy where it has them; mpmath, with 50 digits, is right."""

from collections.abc import Callable
from functools import partial

import mpmath
import numpy as np
import torch
from scipy.special import ive
from torch import Tensor

from benchmarks import inputs
from manifoldlab import special
from manifoldlab.benchmarking.case import Case, Contest, Contestant, Floor, Setting

FEW = 20  # that mpmath evaluates
ULPS = 1e-13


def _checked(found: Tensor) -> Tensor:
    """All over the range."""
    return found[:: max(1, len(found) // FEW)]


def _by_mpmath(function: Callable[[mpmath.mpf], mpmath.mpf], k: Tensor) -> Tensor:
    with mpmath.workdps(50):
        return torch.tensor(
            [float(function(mpmath.mpf(float(one)))) for one in _checked(k)], dtype=torch.float64
        )


def _log_bessel(nu: float, k: mpmath.mpf) -> mpmath.mpf:
    return mpmath.log(mpmath.besseli(nu, k))


def _scaled_log_bessel(nu: float, k: mpmath.mpf) -> mpmath.mpf:
    return _log_bessel(nu, k) - k


def _log_normalizer(n: int, k: mpmath.mpf) -> mpmath.mpf:
    nu = mpmath.mpf(n) / 2 - 1
    return nu * mpmath.log(k) - (nu + 1) * mpmath.log(2 * mpmath.pi) - _log_bessel(nu, k)


def _scipy_log_bessel(nu: float, k: Tensor) -> Tensor:
    with np.errstate(divide="ignore"):
        return torch.from_numpy(np.log(ive(nu, k.numpy())))


def _scipy_ratio(nu: float, k: Tensor) -> Tensor:
    with np.errstate(invalid="ignore"):
        return torch.from_numpy(ive(nu + 1, k.numpy()) / ive(nu, k.numpy()))


def _scipy_log_normalizer(n: int, k: Tensor) -> Tensor:
    nu = n / 2 - 1
    return nu * k.log() - (nu + 1) * np.log(2 * np.pi) - _scipy_log_bessel(nu, k) - k


def _of(
    own: Callable[[Tensor], Tensor],
    truth: Callable[[mpmath.mpf], mpmath.mpf],
    scipy: Callable[[Tensor], Tensor] | None,
    n: int,
    setting: Setting,
) -> Contest:
    count = setting.pick(10_000, 20)
    k = (6 * inputs.uniform(count).double() - 2).exp().sort().values * max(1, n / 10)
    given = k.to(setting.device)
    peers = {} if scipy is None else {"scipy": Contestant(partial(scipy, k), _checked)}
    return Contest(
        own=Contestant(partial(own, given), _checked),
        floor=Floor("4 logarithms", lambda: [given.log() for _ in range(4)]),
        peers=peers,
        exact=lambda: _by_mpmath(truth, k),
        within=ULPS,
        reason="float64: some hundred units in the last place, relative",
        sizes={"n": count, "D": n},
        dtype=torch.float64,
    )


def _margin(setting: Setting) -> Contest:
    """Two von Mises-Fisher laws on a sphere, blurred: by mpmath, sample by sample."""
    count, n, noise = setting.pick(2_000, 20), 3, 0.1
    x = torch.nn.functional.normalize(inputs.normal(count, n).double())
    a, b = torch.tensor([[3.0, 0.0, 0.0], [0.0, 2.0, 1.0]], dtype=torch.float64)

    def exact() -> Tensor:
        """L(k) = log(sinh k / k) on the sphere of R^3."""
        growth = lambda v: mpmath.log(mpmath.sinh(v) / v)
        norm = lambda v: mpmath.sqrt(sum(c * c for c in v))
        found = []
        with mpmath.workdps(50):
            for point in _checked(x):
                p = [mpmath.mpf(float(c)) / mpmath.mpf(noise) ** 2 for c in point]
                each = []
                for location in (a, b):
                    own = [mpmath.mpf(float(c)) for c in location]
                    each.append(
                        growth(norm([s + t for s, t in zip(own, p, strict=True)]))
                        - growth(norm(own))
                    )
                found.append(float(each[0] - each[1]))
        return torch.tensor(found, dtype=torch.float64)

    given = [t.to(setting.device) for t in (x, a, b)]
    return Contest(
        own=Contestant(lambda: special.vmf_margin(*given, radius=1.0, noise=noise), _checked),
        floor=Floor("4 logarithms of each coordinate", lambda: [given[0].log() for _ in range(4)]),
        exact=exact,
        within=1e-10,
        reason="float64; a margin near zero has lost the digits of its terms",
        sizes={"n": count, "D": n},
        dtype=torch.float64,
    )


def _cases() -> tuple[Case, ...]:
    found = [Case("special_functions/vmf_margin/3", "a margin of two blurred laws", _margin)]
    for n in (10, 3072):
        nu = n / 2 - 1
        table: tuple[
            tuple[
                str, Callable[..., Tensor], Callable[..., mpmath.mpf], Callable[..., Tensor] | None
            ],
            ...,
        ] = (
            (
                "log_bessel",
                partial(special.log_bessel, nu),
                partial(_scaled_log_bessel, nu),
                partial(_scipy_log_bessel, nu),
            ),
            (
                "bessel_ratio",
                partial(special.bessel_ratio, nu),
                lambda k, nu=nu: mpmath.besseli(nu + 1, k) / mpmath.besseli(nu, k),
                partial(_scipy_ratio, nu),
            ),
            (
                "bessel_ratio_derivative",
                partial(special.bessel_ratio_derivative, nu),
                partial(_ratio_derivative, nu),
                None,
            ),
            (
                "log_vmf_normalizer",
                partial(special.log_vmf_normalizer, n),
                partial(_log_normalizer, n),
                partial(_scipy_log_normalizer, n),
            ),
            (
                "scaled_log_vmf_normalizer",
                partial(special.scaled_log_vmf_normalizer, n),
                lambda k, n=n: _log_normalizer(n, k) + k,
                None,
            ),
        )
        found += [
            Case(
                f"special_functions/{name}/{n}",
                f"in dimension {n}",
                partial(_of, own, truth, scipy, n),
            )
            for name, own, truth, scipy in table
        ]
    return tuple(found)


def _ratio_derivative(nu: float, k: mpmath.mpf) -> mpmath.mpf:
    """A' = 1 - (2 nu + 1) A / k - A^2."""
    a = mpmath.besseli(nu + 1, k) / mpmath.besseli(nu, k)
    return 1 - (2 * nu + 1) * a / k - a * a


CASES = _cases()
