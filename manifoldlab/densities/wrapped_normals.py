"""A product over d angles of wrapped normal laws a class: a Gaussian of independent angles mod 2 pi.

A theta function, by the sum over the windings or by its Fourier series, whichever converges at once:

    p(z) = prod_i sum_k N(z_i - mu_i + 2 pi k; sigma_i^2)
         = prod_i (1 + 2 sum_k e^{-k^2 sigma_i^2 / 2} cos k (z_i - mu_i)) / 2 pi.
"""

from dataclasses import dataclass
from functools import cached_property
from math import isclose, log, pi, sqrt
from typing import final

import torch
from torch import Tensor

from manifoldlab import mixtures
from manifoldlab.densities.base import Densities, check_priors, draw_labels
from manifoldlab.interfaces import Chart
from manifoldlab.mixtures import Vector

SWITCH = 2.5  # the sigma from which on the Fourier series is used
WINDINGS = 5  # what is left out at sigma = 2.5 is e^-78 of what is kept
HARMONICS = 4  # e^-78 too


@final
@dataclass(frozen=True)
class WrappedNormals(Densities):
    means: tuple[Vector, ...]
    deviations: tuple[Vector, ...]  # sigma of each angle
    priors: Vector

    def __post_init__(self) -> None:
        check_priors(self.priors, self)
        means, deviations = self._tables
        if means.ndim != 2 or means.shape != deviations.shape:
            raise ValueError(
                f"deviations of {deviations.shape[-1]} angles "
                f"for means of {means.shape[-1]}: {self!r}"
            )
        if not (deviations > 0).all():
            raise ValueError(f"deviations must be positive: {self!r}")

    @property
    def num_classes(self) -> int:
        return len(self.priors)

    @property
    def dim(self) -> int:
        return len(self.means[0])

    @cached_property
    def _tables(self) -> tuple[Tensor, Tensor]:
        """Means and deviations, (K, d)."""
        ones = ((1.0,),) * len(self.priors)
        rows = [tuple((row,) for row in values) for values in (self.means, self.deviations)]
        names = ("means", "deviations")
        means, deviations = map(mixtures.table, rows, names, (ones, ones), (self, self))
        return means.squeeze(1), deviations.squeeze(1)

    def log_joint(self, z: Tensor) -> Tensor:
        means, sigma = (t.to(z) for t in self._tables)
        log_priors = torch.tensor(self.priors, dtype=torch.float64).log()
        away = z[:, None] - means  # (n, K, d)
        narrow, wide = _by_windings(away, sigma.clamp_max(SWITCH)), _by_harmonics(away, sigma)
        product: Tensor = narrow.where(sigma < SWITCH, wide).sum(2)
        return product + log_priors.to(z)

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Angles in [-pi, pi)."""
        y = draw_labels(self.priors, n, generator)
        means, sigma = self._tables
        noise = torch.randn(n, self.dim, generator=generator, dtype=torch.float64)
        return torch.remainder(means[y] + sigma[y] * noise + pi, 2 * pi) - pi, y


def _by_windings(away: Tensor, sigma: Tensor) -> Tensor:
    nearest = away - 2 * pi * (away.detach() / (2 * pi)).round()
    windings = torch.arange(-WINDINGS, WINDINGS + 1, dtype=away.dtype, device=away.device)
    standard = (nearest[..., None] + 2 * pi * windings) / sigma[..., None]
    return (-standard.square() / 2).logsumexp(-1) - (sigma * sqrt(2 * pi)).log()


def _by_harmonics(away: Tensor, sigma: Tensor) -> Tensor:
    k = torch.arange(1, HARMONICS + 1, dtype=away.dtype, device=away.device)
    height = (-(k * sigma.clamp_min(SWITCH)[..., None]).square() / 2).exp()
    return (2 * (height * (k * away[..., None]).cos()).sum(-1)).log1p() - log(2 * pi)


def random_wrapped_normals(
    dim: int, num_classes: int, seed: int, *, deviation: float = 0.8, priors: Vector | None = None
) -> WrappedNormals:
    """Random means, deviations within deviation * (1/2, 3/2)."""
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(2, num_classes, dim, generator=generator, dtype=torch.float64)
    means, deviations = 2 * pi * uniform[0], deviation * (0.5 + uniform[1])
    return WrappedNormals(
        mixtures.as_tuples(means),
        mixtures.as_tuples(deviations),
        priors or mixtures.uneven(num_classes),
    )


def examples(chart: Chart, seed: int) -> list[Densities]:
    if not all(axis.wraps and isclose(axis.high - axis.low, 2 * pi) for axis in chart.axes):
        return []
    return [random_wrapped_normals(chart.dim, 2 + seed % 2, seed)]
