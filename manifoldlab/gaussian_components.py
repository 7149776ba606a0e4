"""Gaussian mixtures, one a class, as tensors: what both Gaussian laws of `densities` have in common.

log p(z, y) = log sum_j exp(log_weights_yj) N(z; means_yj, covariances_yj)
"""

from dataclasses import dataclass
from functools import cached_property
from math import log, pi, sqrt
from typing import final

import torch
from torch import Tensor

from manifoldlab import mixtures


@final
@dataclass(frozen=True, eq=False)
class GaussianComponents:
    log_weights: Tensor  # (K, J), log(prior_y w_yj), -inf where a class has fewer components
    means: Tensor  # (K, J, d)
    covariances: Tensor  # (K, J, d, d)

    @cached_property
    def factors(self) -> Tensor:
        """Lower triangular L with L L' the covariance."""
        lower: Tensor = torch.linalg.cholesky_ex(self.covariances).L
        return lower

    def noisier(self, sigma: float) -> "GaussianComponents":
        """The components of the sum with isotropic noise of deviation sigma."""
        eye = torch.eye(self.means.shape[2], dtype=self.covariances.dtype)
        return GaussianComponents(self.log_weights, self.means, self.covariances + sigma**2 * eye)

    def log_joint(self, z: Tensor) -> Tensor:
        """(n, d) -> (n, K)"""
        half_log_det = self.factors.diagonal(dim1=2, dim2=3).log().sum(2)
        constant = self.log_weights - half_log_det - self.means.shape[2] / 2 * log(2 * pi)
        offset = z.mT - self.means.to(z)[..., None]  # (K, J, d, n)
        white: Tensor = torch.linalg.solve_triangular(self.factors.to(z), offset, upper=False)
        return (constant.to(z)[..., None] - white.square().sum(2) / 2).logsumexp(1).mT

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        component, y = mixtures.draw(self.log_weights, n, generator)
        noise = torch.randn(n, self.means.shape[2], generator=generator, dtype=torch.float64)
        z = self.means.flatten(0, 1)[component]
        for j, factor in enumerate(self.factors.flatten(0, 1)):
            z[component == j] += noise[component == j] @ factor.mT
        return z, y


def build(
    log_weights: Tensor, means: Tensor, covariances: Tensor, owner: object
) -> GaussianComponents:
    """Refuses means that are not vectors and covariances that do not fit them or are not SPD."""
    if means.ndim != 3 or covariances.shape != (*means.shape, means.shape[-1]):
        raise ValueError(
            f"covariances of shape {tuple(covariances.shape[2:])} "
            f"for means of shape {tuple(means.shape[2:])}: {owner!r}"
        )
    transposed = covariances.mT
    scale = covariances.abs().amax((2, 3), keepdim=True)
    if ((covariances - transposed).abs() > 1e-12 * scale).any():
        raise ValueError(f"covariances must be symmetric: {owner!r}")
    lowest = torch.linalg.eigvalsh(covariances).amin().item()
    if not lowest > 0 or torch.linalg.cholesky_ex(covariances).info.any():
        raise ValueError(
            f"covariances must be positive definite, not of eigenvalue {lowest}: {owner!r}"
        )
    return GaussianComponents(log_weights, means, covariances)


def random_covariances(
    count: int, dim: int, scale: float, anisotropy: float, generator: torch.Generator
) -> Tensor:
    """(count, d, d): axes turned at random, deviations within scale * anisotropy^(-1..1)."""
    gaussian = torch.randn(count, dim, dim, generator=generator, dtype=torch.float64)
    axes = torch.linalg.qr(gaussian).Q
    uniform = 2 * torch.rand(count, 1, dim, generator=generator, dtype=torch.float64) - 1
    columns = axes * scale * anisotropy**uniform
    covariances: Tensor = columns @ columns.mT
    return (covariances + covariances.mT) / 2


def random_means(count: int, dim: int, spread: float, generator: torch.Generator) -> Tensor:
    """(count, d): Gaussian, at a distance of about `spread` from zero in every dimension."""
    normal = torch.randn(count, dim, generator=generator, dtype=torch.float64)
    return normal * (spread / sqrt(dim))
