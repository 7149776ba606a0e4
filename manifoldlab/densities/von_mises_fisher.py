"""A von Mises-Fisher law, or a mixture of them, a class, in stereographic coordinates of a sphere.

With u(z) = (2z, 1 - |z|^2) / (1 + |z|^2) in S^d, n = d + 1 and locations l = kappa mu in R^n,

    p(z) = C_n(|l|) e^{l.u(z)} (2 / (1 + |z|^2))^d,

whatever the radius of the sphere; l = 0 is the uniform law. The exponent is taken from the mode,
l.u - |l| = -|l| |u - mu|^2 / 2, so that it keeps its digits at large |l|.
"""

from dataclasses import dataclass
from functools import cached_property
from math import isinf, log, sqrt
from typing import final

import torch
from torch import Tensor

from manifoldlab import mixtures
from manifoldlab.densities.base import Densities, check_priors
from manifoldlab.directions import DirectionComponents, draw_about
from manifoldlab.interfaces import Chart
from manifoldlab.linalg import unit
from manifoldlab.mixtures import Matrix, Vector
from manifoldlab.special import scaled_log_vmf_normalizer


@final
@dataclass(frozen=True)
class VonMisesFisher(Densities):
    weights: tuple[Vector, ...]  # of the components of each class
    locations: tuple[Matrix, ...]  # kappa mu in R^n of each component
    priors: Vector

    def __post_init__(self) -> None:
        check_priors(self.priors, self)
        mixtures.check_weights(self.weights, self.priors, self)
        shape = self._components.locations.shape
        if len(shape) != 3 or shape[2] < 2:
            raise ValueError(f"locations must be vectors of R^n, n >= 2: {self!r}")

    @property
    def num_classes(self) -> int:
        return len(self.priors)

    @property
    def dim(self) -> int:
        return len(self.locations[0][0]) - 1

    def components(self) -> DirectionComponents:
        """log weights (K, J), locations (K, J, n)"""
        return self._components

    @cached_property
    def _components(self) -> DirectionComponents:
        log_weights = mixtures.log_weights(self.weights, self.priors)
        table = mixtures.table(self.locations, "locations", self.weights, self)
        return DirectionComponents(log_weights, table)

    @cached_property
    def _at_modes(self) -> Tensor:
        """log of weight times density at the mode, (K, J)."""
        kappa = self._components.locations.norm(dim=2)
        return self._components.log_weights + scaled_log_vmf_normalizer(self.dim + 1, kappa)

    def log_joint(self, z: Tensor) -> Tensor:
        locations = self._components.locations
        kappa, modes = locations.norm(dim=2), unit(locations.flatten(0, 1)).view_as(locations)
        versine = (_direction(z)[:, None, None] - modes.to(z)).square().sum(3) / 2
        mixed: Tensor = (self._at_modes.to(z) - kappa.to(z) * versine).logsumexp(2)
        return mixed + self.dim * (log(2) - z.square().sum(1, keepdim=True).log1p())

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        component, y = mixtures.draw(self._components.log_weights, n, generator)
        z = torch.empty(n, self.dim, dtype=torch.float64)
        for j, location in enumerate(self._components.locations.flatten(0, 1)):
            chosen = component == j
            kappa = location.norm().expand(int(chosen.sum()))
            z[chosen] = _stereographic(draw_about(unit(location[None])[0], kappa, generator))
        return z, y


def _direction(z: Tensor) -> Tensor:
    square = z.square().sum(1, keepdim=True)
    return torch.cat([2 * z, 1 - square], 1) / (1 + square)


def _stereographic(u: Tensor) -> Tensor:
    """Its inverse; below the equator 1 + u_n = |head|^2 / (1 - u_n) cancels nothing."""
    head, last = u[:, :-1], u[:, -1:]
    return head * torch.where(
        last < 0, (1 - last) / head.square().sum(1, keepdim=True), 1 / (1 + last)
    )


def random_von_mises_fisher(
    dim: int,
    counts: tuple[int, ...],
    seed: int,
    *,
    concentration: float = 1.5,
    priors: Vector | None = None,
) -> VonMisesFisher:
    """`counts` components a class, |l| within sqrt(n) * concentration * (1/2, 3/2).

    So the margins between classes are of the same size in every dimension.
    """
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(sum(counts), dim + 1, generator=generator, dtype=torch.float64)
    factor = 0.5 + torch.rand(sum(counts), 1, generator=generator, dtype=torch.float64)
    locations = unit(normal) * factor * concentration * sqrt(dim + 1)
    return VonMisesFisher(
        tuple(mixtures.uneven(count) for count in counts),
        tuple(map(mixtures.as_tuples, torch.split(locations, list(counts)))),
        priors or mixtures.uneven(len(counts)),
    )


def _is_sphere(chart: Chart) -> bool:
    """Whether points lie as far from each other as those of a sphere, up to its radius."""
    if not all(isinf(axis.low) and isinf(axis.high) for axis in chart.axes):
        return False
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(8, chart.dim, generator=generator, dtype=torch.float64)
    z = z / sqrt(chart.dim)
    distance, expected = (
        torch.linalg.vector_norm(points[1:] - points[:-1], dim=1)
        for points in (chart.embed(z).flatten(1), _direction(z))
    )
    ratio = distance / expected
    return bool((ratio / ratio[0] - 1).abs().max() < 1e-9)


def examples(chart: Chart, seed: int) -> list[Densities]:
    if not _is_sphere(chart):
        return []
    return [
        random_von_mises_fisher(chart.dim, (1,) * (2 + seed % 2), seed),
        random_von_mises_fisher(chart.dim, (1, 2, 3)[: 2 + seed % 2], seed + 1),
    ]
