"""A mixture of Gaussians a class on R^d; classes may differ in the number of components."""

from dataclasses import dataclass
from functools import cached_property
from math import isinf
from typing import final

import torch
from torch import Tensor

from manifoldlab import gaussian_components, mixtures
from manifoldlab.densities.base import Densities, check_priors
from manifoldlab.gaussian_components import GaussianComponents
from manifoldlab.interfaces import Chart
from manifoldlab.mixtures import Matrix, Vector


@final
@dataclass(frozen=True)
class GaussianMixtures(Densities):
    weights: tuple[Vector, ...]  # of the components of each class
    means: tuple[tuple[Vector, ...], ...]
    covariances: tuple[tuple[Matrix, ...], ...]
    priors: Vector

    def __post_init__(self) -> None:
        check_priors(self.priors, self)
        mixtures.check_weights(self.weights, self.priors, self)
        _ = self._components

    @property
    def num_classes(self) -> int:
        return len(self.priors)

    @property
    def dim(self) -> int:
        return len(self.means[0][0])

    def components(self) -> GaussianComponents:
        return self._components

    @cached_property
    def _components(self) -> GaussianComponents:
        return gaussian_components.build(
            mixtures.log_weights(self.weights, self.priors),
            mixtures.table(self.means, "means", self.weights, self),
            mixtures.table(self.covariances, "covariances", self.weights, self),
            self,
        )

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return self.components().sample(n, generator)

    def log_joint(self, z: Tensor) -> Tensor:
        return self.components().log_joint(z)


def random_gaussian_mixtures(
    dim: int,
    counts: tuple[int, ...],
    seed: int,
    *,
    spread: float = 1.5,
    scale: float = 0.6,
    anisotropy: float = 1.5,
    priors: Vector | None = None,
) -> GaussianMixtures:
    """`counts` components a class, drawn as those of `random_gaussians`; uneven weights."""
    generator = torch.Generator().manual_seed(seed)
    means = gaussian_components.random_means(sum(counts), dim, spread, generator)
    covariances = gaussian_components.random_covariances(
        sum(counts), dim, scale, anisotropy, generator
    )
    return GaussianMixtures(
        tuple(mixtures.uneven(count) for count in counts),
        tuple(map(mixtures.as_tuples, torch.split(means, list(counts)))),
        tuple(map(mixtures.as_tuples, torch.split(covariances, list(counts)))),
        priors or mixtures.uneven(len(counts)),
    )


def examples(chart: Chart, seed: int) -> list[Densities]:
    if not all(isinf(axis.low) and isinf(axis.high) for axis in chart.axes):
        return []
    return [random_gaussian_mixtures(chart.dim, (2, 1, 3)[: 2 + seed % 2], seed)]
