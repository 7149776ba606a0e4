"""Gaussian (mixture) classes on an affine subspace, blurred by isotropic noise tau.

With w the coordinates of x in the subspace, Qx its offset from it and S_yj the covariances there,

    p(x, y) = sum_j weight_yj N(w; mean_yj, S_yj + tau^2 I_d) N(Qx; 0, tau^2 I_{D-d}),

so no matrix is larger than d x d, and the last factor is the same for all classes.
"""

from dataclasses import dataclass
from functools import cached_property
from math import log, pi
from typing import TypeVar, final

import torch
from torch import Tensor

from manifoldlab import linalg
from manifoldlab.densities.gaussian_mixtures import GaussianMixtures, random_gaussian_mixtures
from manifoldlab.densities.gaussians import Gaussians, random_gaussians
from manifoldlab.gaussian_components import GaussianComponents
from manifoldlab.manifolds.base import Manifold
from manifoldlab.manifolds.flat import Flat
from manifoldlab.manifolds.placed import Placed
from manifoldlab.problems.base import Isotropic, Problem, check_chart, check_noise, check_points

M = TypeVar("M", bound=Manifold)


@final
@dataclass(frozen=True)
class GaussianSubspace(Isotropic):
    manifold: Flat | Placed
    densities: Gaussians | GaussianMixtures
    noise: float

    def __post_init__(self) -> None:
        check_noise(self.noise, self)
        check_chart(self.densities, self.manifold, self)
        base_of(self.manifold, Flat, self)

    def log_joint(self, x: Tensor) -> Tensor:
        check_points(x, self)
        within, offset = in_span(self.manifold, x)
        codim = self.manifold.ambient - self.manifold.dim
        return self._blurred.log_joint(within) + log_normal(offset, codim, self.noise)[:, None]

    @cached_property
    def _blurred(self) -> GaussianComponents:
        return self.densities.components().noisier(self.noise)


def in_span(manifold: Manifold, x: Tensor) -> tuple[Tensor, Tensor]:
    """x in the space of the manifold that was placed (n, k), and its offset (n, D) from that space.

    The offset is a difference of vectors: |x|^2 - |Px|^2 would keep few of its digits.
    """
    if not isinstance(manifold, Placed):
        return x, torch.zeros_like(x)
    frame = manifold.frame.to(x)
    centred = x - manifold.origin.to(x)
    within = centred @ frame
    return within, centred - within @ frame.mT


def log_normal(offset: Tensor, codim: int, noise: float) -> Tensor:
    """log N(offset; 0, noise^2 I) in `codim` of the D dimensions of offset (n, D) -> (n,)."""
    square = linalg.squared_norm(offset) / noise**2
    return -0.5 * square - 0.5 * codim * log(2 * pi * noise**2)


def base_of(manifold: Manifold, family: type[M], problem: object) -> M:
    """The member of the family that the manifold is, or that it places; any other is refused."""
    base = manifold.base if isinstance(manifold, Placed) else manifold
    if not isinstance(base, family):
        raise ValueError(
            f"{type(problem).__name__} has its closed form on {family.__name__} and "
            f"Placed({family.__name__}), not on {manifold!r}: {problem!r}"
        )
    return base


def examples(seed: int) -> list[Problem]:
    dim = 1 + seed % 3
    placed = Placed(Flat(dim), codim=1 + seed % 2, seed=seed, shift=0.5)
    plane = Placed(Flat(2), codim=1, seed=seed + 1, shift=1.0)
    mixtures = random_gaussian_mixtures(dim, (2, 1, 3)[: 2 + seed % 2], seed)
    return [
        GaussianSubspace(placed, random_gaussians(dim, 2 + seed % 2, seed), 0.2 + seed % 4 / 10),
        GaussianSubspace(placed, mixtures, 0.1 + seed % 3 / 5),
        GaussianSubspace(plane, random_gaussians(2, 3, seed, priors=(0.5, 0.3, 0.2)), 0.3),
        GaussianSubspace(Flat(dim), random_gaussians(dim, 2, seed, shared=True), 0.5),
    ]
