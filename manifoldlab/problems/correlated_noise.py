"""Gaussian classes on an affine subspace with noise that breaks what makes its margins tangent.

In coordinates (w, u, rest) along the subspace, along one normal direction and along the others,

    x | y, j ~ N(mean_yj, S_yj + tau^2 I) in w, of variance tau_y^2 in u and rest, cov(w, u) = c:

normal noise may differ between the classes, and may be correlated with the tangent coordinates.
Neither given, it is `gaussian_subspace`. No matrix is larger than d + 1.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from math import hypot
from typing import final

import torch
from torch import Tensor

from manifoldlab import linalg
from manifoldlab.densities.gaussian_mixtures import GaussianMixtures
from manifoldlab.densities.gaussians import Gaussians, random_gaussians
from manifoldlab.gaussian_components import GaussianComponents
from manifoldlab.interfaces import Batch
from manifoldlab.manifolds.base import Manifold
from manifoldlab.manifolds.flat import Flat
from manifoldlab.manifolds.placed import Placed
from manifoldlab.problems.base import Problem, check_chart, check_noise, check_points
from manifoldlab.problems.gaussian_subspace import base_of, in_span, log_normal


@final
@dataclass(frozen=True)
class CorrelatedNoise(Problem):
    manifold: Placed
    densities: Gaussians | GaussianMixtures
    noise: float
    normal_noise: tuple[float, ...] = ()  # tau_y, one a class; tau if not given
    covariance: tuple[float, ...] = ()  # c (d,) of the noisy w with the noise along u

    def __post_init__(self) -> None:
        for noise in (self.noise, *self.normal_noise):
            check_noise(noise, self)
        check_chart(self.densities, self.manifold, self)
        base_of(self.manifold, Flat, self)
        if self.manifold.ambient == self.manifold.dim:
            raise ValueError(f"no normal noise in codimension 0: {self!r}")
        if len(self.normal_noise) not in (0, self.num_classes):
            raise ValueError(
                f"{len(self.normal_noise)} normal noises for {self.num_classes} classes: {self!r}"
            )
        if len(self.covariance) not in (0, self.manifold.dim):
            raise ValueError(
                f"covariances with {len(self.covariance)} coordinates on a manifold of dimension "
                f"{self.manifold.dim}: {self!r}"
            )
        if not hypot(*self.covariance) < (limit := self.noise * min(self._normal_noises)):
            raise ValueError(
                f"covariance of norm {hypot(*self.covariance)} for noises whose product is {limit}: "
                f"{self!r}"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        return self.manifold.shape

    @property
    def num_classes(self) -> int:
        return self.densities.num_classes

    def sample(self, n: int, generator: torch.Generator) -> Batch:
        w, y = self._joint.sample(n, generator)
        rest = torch.randn(n, *self.shape, generator=generator, dtype=w.dtype)
        rest = rest - rest @ self._frame @ self._frame.mT
        noise = torch.tensor(self._normal_noises, dtype=w.dtype)[y]
        normal = w[:, -1:] * self.direction + noise[:, None] * rest
        return Batch(self.manifold.embed(w[:, :-1]) + normal, y)

    def log_joint(self, x: Tensor) -> Tensor:
        check_points(x, self)
        w, rest = self._split(x)
        codim = self.manifold.ambient - self.manifold.dim - 1
        normal = [log_normal(rest, codim, noise) for noise in self._normal_noises]
        return self._joint.log_joint(w) + torch.stack(normal, 1)

    def geometry(self, batch: Batch) -> Manifold:
        del batch
        return self.manifold

    def noisier(self, sigma: float) -> "CorrelatedNoise":
        normal = tuple(hypot(noise, sigma) for noise in self.normal_noise)
        return replace(self, noise=hypot(self.noise, sigma), normal_noise=normal)

    @cached_property
    def direction(self) -> Tensor:
        """(D,), the normal direction u that noise in the subspace is correlated with."""
        return direction_beside(self.manifold.frame, self.manifold.seed + 2)

    def normal_gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """Q grad log p(x, y) (n, D), from the law of Qx given Px; for one Gaussian a class.

        The predicted leak of a margin is the difference of two: -(tau_a^-2 - tau_b^-2) Qx where c
        is 0, and the normal block of Sigma^-1 (mean_a - mean_b) where Sigma is common.
        """
        w, rest = self._split(x)
        noise = torch.tensor(self._normal_noises, dtype=torch.float64).to(x)[y]
        along = conditional_score(self._joint, w, y)
        return along[:, None] * self.direction.to(x) - rest / noise.square()[:, None]

    @property
    def _normal_noises(self) -> tuple[float, ...]:
        return self.normal_noise or (self.noise,) * self.num_classes

    @cached_property
    def _frame(self) -> Tensor:
        return torch.cat([self.manifold.frame, self.direction[:, None]], 1)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(w, u) together (n, d + 1), and the rest (n, D)."""
        within, offset = in_span(self.manifold, x)
        direction = self.direction.to(x)
        along = offset @ direction
        return torch.cat([within, along[:, None]], 1), offset - along[:, None] * direction

    @cached_property
    def _joint(self) -> GaussianComponents:
        blurred = self.densities.components().noisier(self.noise)
        variance = torch.tensor(self._normal_noises, dtype=torch.float64).square()[:, None]
        cross = torch.tensor(self.covariance or (0.0,) * self.manifold.dim, dtype=torch.float64)
        return widen(blurred, torch.zeros_like(variance), cross, variance)


def direction_beside(frame: Tensor, seed: int) -> Tensor:
    """A random unit vector (D,) orthogonal to the columns (D, k)."""
    drawn = linalg.random_frame(len(frame), 1, seed)
    basis: Tensor = torch.linalg.qr(torch.cat([frame, drawn], 1)).Q
    return basis[:, -1]


def widen(
    components: GaussianComponents, mean: Tensor, cross: Tensor, variance: Tensor
) -> GaussianComponents:
    """One coordinate more, of mean and variance (K, J), of covariance (K, J, d) with the others."""
    rows = components.means
    mean, variance = (t.expand(rows.shape[:2]) for t in (mean, variance))
    cross = cross.expand_as(rows)[..., None]
    upper = torch.cat([components.covariances, cross], 3)
    lower = torch.cat([cross.mT, variance[..., None, None]], 3)
    return GaussianComponents(
        components.log_weights, torch.cat([rows, mean[..., None]], 2), torch.cat([upper, lower], 2)
    )


def conditional_score(joint: GaussianComponents, w: Tensor, y: Tensor) -> Tensor:
    """Derivative (n,) of log p(w, y) in the last coordinate of w (n, k), from its conditional law."""
    if joint.means.shape[1] != 1:
        raise ValueError(f"{joint.means.shape[1]} Gaussians a class, where one is needed")
    covariance = joint.covariances[:, 0].to(w)
    cross = covariance[:, :-1, -1]
    slope: Tensor = torch.linalg.solve(covariance[:, :-1, :-1], cross)  # (K, k - 1)
    variance = covariance[:, -1, -1] - (slope * cross).sum(1)
    deviation = w - joint.means[:, 0].to(w)[y]
    return -(deviation[:, -1] - (slope[y] * deviation[:, :-1]).sum(1)) / variance[y]


def examples(seed: int) -> list[Problem]:
    dim = 1 + seed % 2
    plane = Placed(Flat(dim), codim=1 + seed % 3, seed=seed, shift=0.5)
    own, shared = random_gaussians(dim, 2, seed), random_gaussians(dim, 3, seed, shared=True)
    return [
        CorrelatedNoise(plane, own, 0.4, normal_noise=(0.3, 0.5)),
        CorrelatedNoise(plane, shared, 0.4, covariance=(0.1, -0.05)[:dim]),
        CorrelatedNoise(plane, shared, 0.3, (0.4, 0.6, 0.5), (-0.06, 0.08)[:dim]),
    ]
