"""Densities: class-conditional laws of the coordinates z of a manifold, with priors.

`log_joint` is with respect to dz; minus the manifold's `log_volume(z)` it is with respect to volume.
A module of this package also gives `examples(chart, seed)`: the laws of its family that live on
that chart, an empty list where none does.
"""

import abc
from math import isclose
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from manifoldlab.mixtures import draw_indices


class Densities(abc.ABC):
    if TYPE_CHECKING:  # fields or properties

        @property
        def dim(self) -> int: ...
        @property
        def num_classes(self) -> int: ...

    @abc.abstractmethod
    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Coordinates (n, d) float64 and labels (n,) int64, exactly distributed (no Markov chain)."""

    @abc.abstractmethod
    def log_joint(self, z: Tensor) -> Tensor:
        """log p(z, y) for every y: (n, d) -> (n, K)."""


def check_priors(priors: tuple[float, ...], owner: object) -> None:
    """Refuses priors that are not positive or do not sum to one."""
    if any(not p > 0 for p in priors) or not isclose(sum(priors), 1, abs_tol=1e-12):
        raise ValueError(
            f"priors must be positive and sum to 1, not {priors} with sum {sum(priors)}: {owner!r}"
        )


def draw_labels(priors: tuple[float, ...], n: int, generator: torch.Generator) -> Tensor:
    weights = torch.tensor(priors, dtype=torch.float64)
    return draw_indices(weights, n, generator)
