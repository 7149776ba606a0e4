"""Signal and distractor: R^D = S + N, orthogonal; only the part of x in S tells of the label.

    x = m_S + m_N + tau xi,    m_S ~ the class's Gaussians in S,    m_N ~ N(0, spread^2 I) in N.

Three ways to break it, along one direction u of N and the first direction e of S: the mean of
m_N.u may be label_shift * y; the noises along u and e may have a correlation, `coupling`: given the
label x_S and x_N are then dependent, though x_N alone tells nothing of it; and m_N.u may be
regression * m_S.e plus what is left of its variance: y is independent of m_N given m_S, yet not of
the noisy x_N given the noisy x_S. For means a and b with unit variances (s = 1, spread 1, regression
rho) the last gives the margin the component rho tau^2 (a - b) / ((1 + tau^2)^2 - rho^2) along u.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from math import hypot
from typing import final

import torch
from torch import Tensor

from manifoldlab.densities.gaussian_mixtures import GaussianMixtures, random_gaussian_mixtures
from manifoldlab.densities.gaussians import Gaussians, random_gaussians
from manifoldlab.gaussian_components import GaussianComponents
from manifoldlab.interfaces import Batch
from manifoldlab.manifolds.flat import Flat
from manifoldlab.manifolds.placed import Placed
from manifoldlab.problems.base import Problem, check_noise, check_points
from manifoldlab.problems.correlated_noise import conditional_score, direction_beside, widen
from manifoldlab.problems.gaussian_subspace import log_normal


@final
@dataclass(frozen=True)
class SignalDistractor(Problem):
    densities: Gaussians | GaussianMixtures  # of m_S
    codim: int  # dimension of N
    noise: float
    spread: float = 1.0
    seed: int = 0
    label_shift: float = 0.0
    coupling: float = 0.0
    regression: float = 0.0

    def __post_init__(self) -> None:
        check_noise(self.noise, self)
        if self.codim < 1 or not 0 <= self.spread < torch.inf:
            raise ValueError(f"a distractor has codim >= 1 and a finite spread >= 0, not {self!r}")
        if not abs(self.coupling) < 1:
            raise ValueError(f"a coupling is a correlation, |coupling| < 1: {self!r}")
        if self.regression and not abs(self.regression) < self.spread:
            raise ValueError(
                f"regression {self.regression} leaves no variance of spread {self.spread}: {self!r}"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.densities.dim + self.codim,)

    @property
    def num_classes(self) -> int:
        return self.densities.num_classes

    def sample(self, n: int, generator: torch.Generator) -> Batch:
        w, y = self._joint.sample(n, generator)
        rest = torch.randn(n, *self.shape, generator=generator, dtype=w.dtype)
        rest = rest - rest @ self._frame @ self._frame.mT
        return Batch(w @ self._frame.mT + self._deviation * rest, y)

    def log_joint(self, x: Tensor) -> Tensor:
        check_points(x, self)
        w, rest = self._split(x)
        return self._joint.log_joint(w) + log_normal(rest, self.codim - 1, self._deviation)[:, None]

    def geometry(self, batch: Batch) -> Placed:
        """S."""
        del batch
        return self._plane

    def noisier(self, sigma: float) -> "SignalDistractor":
        noise = hypot(self.noise, sigma)
        return replace(self, noise=noise, coupling=self.coupling * (self.noise / noise) ** 2)

    @property
    def signal(self) -> Tensor:
        """Orthonormal columns (D, s) that span S; the first is e."""
        return self._plane.frame

    @cached_property
    def distractor(self) -> Tensor:
        """Orthonormal columns (D, D - s) that span N; the first is u."""
        others = torch.linalg.qr(self._frame, mode="complete").Q[:, self._frame.shape[1] :]
        return torch.cat([self._frame[:, -1:], others], 1)

    def distractor_gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """The N part of grad log p(x, y) (n, D), from the law of x_N given x_S; one Gaussian a class.

        The predicted leak of a margin is the difference of two.
        """
        w, rest = self._split(x)
        along = conditional_score(self._joint, w, y)
        return along[:, None] * self._frame[:, -1].to(x) - rest / self._deviation**2

    @cached_property
    def _plane(self) -> Placed:
        return Placed(Flat(self.densities.dim), self.codim, self.seed)

    @cached_property
    def _frame(self) -> Tensor:
        """(D, s + 1): S, then u."""
        beside = direction_beside(self.signal, self.seed + 2)
        return torch.cat([self.signal, beside[:, None]], 1)

    @property
    def _deviation(self) -> float:
        return hypot(self.spread, self.noise)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates in S and along u (n, s + 1), and the rest (n, D)."""
        frame = self._frame.to(x)
        w = x @ frame
        return w, x - w @ frame.mT

    @cached_property
    def _joint(self) -> GaussianComponents:
        signal = self.densities.components()
        cross = self.regression * signal.covariances[..., 0]  # (K, J, s)
        first = torch.eye(self.densities.dim, dtype=cross.dtype)[0]
        labels = torch.arange(self.num_classes, dtype=cross.dtype)[:, None]
        return widen(
            signal.noisier(self.noise),
            self.label_shift * labels + self.regression * signal.means[..., 0],
            cross + self.coupling * self.noise**2 * first,
            self._deviation**2 + self.regression**2 * (signal.covariances[..., 0, 0] - 1),
        )


def examples(seed: int) -> list[Problem]:
    dim, codim = 1 + seed % 2, 1 + seed % 3
    own = random_gaussians(dim, 2 + seed % 2, seed)
    shared = random_gaussians(dim, 2, seed, shared=True)
    mixtures = random_gaussian_mixtures(dim, (2, 1), seed)
    return [
        SignalDistractor(own, codim, 0.3, seed=seed),
        SignalDistractor(mixtures, codim, 0.4, spread=0.7, seed=seed),
        SignalDistractor(shared, codim, 0.4, seed=seed, label_shift=0.6),
        SignalDistractor(shared, codim, 0.5, spread=0.2, seed=seed, coupling=0.7),
        SignalDistractor(shared, codim, 0.6, seed=seed, regression=0.8),
    ]
