"""A product over d angles of von Mises laws, or a mixture of such products, a class.

With locations l = kappa (cos mu, sin mu) of each angle, p(z) = prod_i C_2(|l_i|) e^{|l_i| cos(z_i - mu_i)},
its exponent taken from the mode: cos - 1 = -2 sin^2(half).
"""

from dataclasses import dataclass
from functools import cached_property
from math import isclose
from typing import final

import torch
from torch import Tensor

from manifoldlab import mixtures
from manifoldlab.densities.base import Densities, check_priors
from manifoldlab.directions import DirectionComponents, draw_versine
from manifoldlab.interfaces import Chart
from manifoldlab.mixtures import Matrix, Vector
from manifoldlab.special import scaled_log_vmf_normalizer


@final
@dataclass(frozen=True)
class VonMisesProduct(Densities):
    weights: tuple[Vector, ...]  # of the components of each class
    locations: tuple[tuple[Matrix, ...], ...]  # kappa (cos mu, sin mu) of each angle of each
    priors: Vector

    def __post_init__(self) -> None:
        check_priors(self.priors, self)
        mixtures.check_weights(self.weights, self.priors, self)
        shape = self._components.locations.shape
        if len(shape) != 4 or shape[2] < 1 or shape[3] != 2:
            raise ValueError(f"locations must be d vectors of R^2 a component: {self!r}")

    @property
    def num_classes(self) -> int:
        return len(self.priors)

    @property
    def dim(self) -> int:
        return len(self.locations[0][0])

    def components(self) -> DirectionComponents:
        """log weights (K, J), locations (K, J, d, 2)"""
        return self._components

    @cached_property
    def _components(self) -> DirectionComponents:
        log_weights = mixtures.log_weights(self.weights, self.priors)
        table = mixtures.table(self.locations, "locations", self.weights, self)
        return DirectionComponents(log_weights, table)

    @cached_property
    def _polar(self) -> tuple[Tensor, Tensor, Tensor]:
        """Angles and concentrations, (K, J, d), and log of weight times density at the mode."""
        log_weights, locations = self._components
        kappa, angles = locations.norm(dim=3), torch.atan2(locations[..., 1], locations[..., 0])
        return angles, kappa, log_weights + scaled_log_vmf_normalizer(2, kappa).sum(2)

    def log_joint(self, z: Tensor) -> Tensor:
        angles, kappa, at_modes = (t.to(z) for t in self._polar)
        versine = 2 * ((z[:, None, None] - angles) / 2).sin().square()
        return (at_modes - (kappa * versine).sum(3)).logsumexp(2)

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Angles in [-pi, pi)."""
        component, y = mixtures.draw(self._components.log_weights, n, generator)
        angles, kappa = (t.flatten(0, 1)[component] for t in self._polar[:2])
        versine = draw_versine(2, kappa.flatten(), generator).view_as(kappa)
        side = 2 * torch.randint(2, kappa.shape, generator=generator) - 1
        away = 2 * side * (versine / 2).sqrt().asin()
        return torch.remainder(angles + away + torch.pi, 2 * torch.pi) - torch.pi, y


def random_von_mises_product(
    dim: int,
    counts: tuple[int, ...],
    seed: int,
    *,
    concentration: float = 2.0,
    priors: Vector | None = None,
) -> VonMisesProduct:
    """`counts` components a class, |l| within concentration * (1/2, 3/2), at random angles."""
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(2, sum(counts), dim, generator=generator, dtype=torch.float64)
    kappa, angles = concentration * (0.5 + uniform[0]), 2 * torch.pi * uniform[1]
    locations = torch.stack([kappa * angles.cos(), kappa * angles.sin()], 2)
    return VonMisesProduct(
        tuple(mixtures.uneven(count) for count in counts),
        tuple(map(mixtures.as_tuples, torch.split(locations, list(counts)))),
        priors or mixtures.uneven(len(counts)),
    )


def examples(chart: Chart, seed: int) -> list[Densities]:
    if not all(axis.wraps and isclose(axis.high - axis.low, 2 * torch.pi) for axis in chart.axes):
        return []
    return [
        random_von_mises_product(chart.dim, (1,) * (2 + seed % 2), seed),
        random_von_mises_product(chart.dim, (2, 1, 3)[: 2 + seed % 2], seed + 1),
    ]
