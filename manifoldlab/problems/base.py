"""Problem: a classification problem whose joint density is known; its Bayes classifier is a model.

A module of this package also gives `examples(seed)`: a few small problems of its family, which
strategies and contract tests draw from.
"""

import abc
from dataclasses import dataclass, replace
from math import hypot
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from manifoldlab.densities.base import Densities
from manifoldlab.interfaces import Batch, Geometry
from manifoldlab.manifolds.base import Manifold, has_ends


class Problem(abc.ABC):
    if TYPE_CHECKING:  # fields or properties

        @property
        def shape(self) -> tuple[int, ...]: ...  # of a sample
        @property
        def num_classes(self) -> int: ...

    @abc.abstractmethod
    def sample(self, n: int, generator: torch.Generator) -> Batch:
        """n labelled points, float64 on the CPU."""

    @abc.abstractmethod
    def log_joint(self, x: Tensor) -> Tensor:
        """log p(x, y) for every y: (n, *shape) -> (n, K)."""

    @abc.abstractmethod
    def geometry(self, batch: Batch) -> Geometry:
        """The manifold of each sample of the batch."""

    def noisier(self, sigma: float) -> "Problem":
        """The same problem with isotropic noise of deviation sigma added, where it stays closed."""
        raise ValueError(f"no closed form with isotropic noise {sigma} added to {self!r}")


@dataclass(frozen=True)
class Isotropic(Problem):
    """X = m + noise * xi: m of the densities on one manifold, xi ~ N(0, I) in R^D.

    A subclass is final, a frozen dataclass too, and gives `log_joint`.
    """

    manifold: Manifold
    densities: Densities
    noise: float

    @property
    def shape(self) -> tuple[int, ...]:
        return self.manifold.shape

    @property
    def num_classes(self) -> int:
        return self.densities.num_classes

    def sample(self, n: int, generator: torch.Generator) -> Batch:
        z, y = self.densities.sample(n, generator)
        noise = torch.randn(n, *self.shape, generator=generator, dtype=z.dtype)
        return Batch(self.manifold.embed(z) + self.noise * noise, y)

    def geometry(self, batch: Batch) -> Manifold:
        del batch
        return self.manifold

    def noisier(self, sigma: float) -> Self:
        return replace(self, noise=hypot(self.noise, sigma))


class BayesClassifier(nn.Module):
    """The optimal classifier of a problem; its logits are log p(x, y)."""

    def __init__(self, problem: Problem):
        super().__init__()
        self.problem = problem

    def forward(self, x: Tensor) -> Tensor:
        return self.problem.log_joint(x)


def check_points(x: Tensor, problem: Problem) -> None:
    """Refuses points of another shape than the problem's; every `log_joint` begins with it."""
    if x.shape[1:] != problem.shape or x.ndim == 0:
        raise ValueError(
            f"points of shape {tuple(x.shape)} for samples of shape (n, {_sizes(problem.shape)}): "
            f"{problem!r}"
        )


def check_noise(noise: float, problem: object) -> None:
    if not 0 < noise < torch.inf:
        raise ValueError(f"noise must be positive and finite, not {noise}: {problem!r}")


def check_chart(densities: Densities, manifold: Manifold, problem: object) -> None:
    """Refuses densities of another dimension than the manifold, and axes on which none can live."""
    if densities.dim != manifold.dim:
        raise ValueError(
            f"densities of dimension {densities.dim} on a manifold of dimension {manifold.dim}: "
            f"{problem!r}"
        )
    for axis in manifold.axes:
        has_ends(axis, problem)


def _sizes(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))
