"""One Gaussian a class on R^d, with its own mean and covariance, or one covariance for all."""

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
class Gaussians(Densities):
    means: tuple[Vector, ...]
    covariances: tuple[Matrix, ...]  # one a class, or a single one that all classes share
    priors: Vector

    def __post_init__(self) -> None:
        check_priors(self.priors, self)
        _ = self._components

    @property
    def num_classes(self) -> int:
        return len(self.priors)

    @property
    def dim(self) -> int:
        return len(self.means[0])

    def components(self) -> GaussianComponents:
        """J = 1 component a class."""
        return self._components

    @cached_property
    def _components(self) -> GaussianComponents:
        ones = ((1.0,),) * len(self.priors)
        shared = len(self.covariances) == 1
        covariances = self.covariances * len(self.priors) if shared else self.covariances
        return gaussian_components.build(
            mixtures.log_weights(ones, self.priors),
            mixtures.table(tuple((m,) for m in self.means), "means", ones, self),
            mixtures.table(tuple((c,) for c in covariances), "covariances", ones, self),
            self,
        )

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return self.components().sample(n, generator)

    def log_joint(self, z: Tensor) -> Tensor:
        return self.components().log_joint(z)


def random_gaussians(
    dim: int,
    num_classes: int,
    seed: int,
    *,
    spread: float = 1.5,
    scale: float = 0.7,
    anisotropy: float = 1.5,
    shared: bool = False,
    priors: Vector | None = None,
) -> Gaussians:
    """Means about `spread` away from zero, deviations within scale * anisotropy^(-1..1)."""
    generator = torch.Generator().manual_seed(seed)
    means = gaussian_components.random_means(num_classes, dim, spread, generator)
    count = 1 if shared else num_classes
    covariances = gaussian_components.random_covariances(count, dim, scale, anisotropy, generator)
    priors = priors or (1 / num_classes,) * num_classes
    return Gaussians(mixtures.as_tuples(means), mixtures.as_tuples(covariances), priors)


def examples(chart: Chart, seed: int) -> list[Densities]:
    if not all(isinf(axis.low) and isinf(axis.high) for axis in chart.axes):
        return []
    return [
        random_gaussians(chart.dim, 2, seed, shared=True),
        random_gaussians(chart.dim, 3, seed, priors=(0.5, 0.3, 0.2)),
    ]
