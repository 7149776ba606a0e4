"""Gaussian mixtures on R^D, one a class, of a few factors and isotropic noise a component, as tensors.

    log p(x, y) = log sum_j exp(log_weights_yj) N(x; m, U' diag(a^2) U + s^2 I)

with d orthonormal rows U, so that U' diag(a) are the factor loadings (mixtures of probabilistic principal
component analysers, Tipping and Bishop 1999). With w = U (x - m), nothing is larger than D x d:

    (x - m)' S^-1 (x - m) = (|x - m|^2 - sum_i w_i^2 a_i^2 / (a_i^2 + s^2)) / s^2,
    log det S = sum_i log(a_i^2 + s^2) + (D - d) log s^2.

One product of x with all rows and means gives both terms for every component. The first is a difference:
in float64, and centred, it is right to about 1e-15 |x - m|^2 / s^2, and so it is computed for float32, too.
"""

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from math import inf, log, pi
from typing import final

import torch
from torch import Tensor

from manifoldlab import mixtures


@final
@dataclass(frozen=True, eq=False)
class FactorComponents:
    log_weights: Tensor  # (K, J), log(prior_y w_yj), -inf where a class has fewer components
    means: Tensor  # (K, J, D)
    frames: Tensor  # (K, J, d, D), orthonormal rows
    deviations: Tensor  # (K, J, d), a >= 0: of the factors
    noises: Tensor  # (K, J), s > 0

    @property
    def num_classes(self) -> int:
        return len(self.log_weights)

    @property
    def dim(self) -> int:
        return self.frames.shape[2]

    @property
    def ambient(self) -> int:
        return self.frames.shape[3]

    def noisier(self, sigma: float) -> "FactorComponents":
        """The components of the sum with isotropic noise of deviation sigma."""
        return replace(self, noises=(self.noises.square() + sigma**2).sqrt())

    def parts(self, x: Tensor) -> Tensor:
        """log(weight N(x)) of every component, (n, D) -> (n, K, J), in float64."""
        law = moved(self, x.device)
        x = x.double() - law._centre
        along = (
            torch.unflatten(x @ law.frames.flatten(0, 2).mT, 1, law.deviations.shape) - law._feet
        )
        cross = torch.unflatten(x @ law._means.flatten(0, 1).mT, 1, law.noises.shape)
        square = x.square().sum(1)[:, None, None] - 2 * cross + law._means.square().sum(2)
        variance = law.noises.square()
        total = law.deviations.square() + variance[..., None]
        inside = (along.square() * (law.deviations.square() / total)).sum(3)
        log_det = total.log().sum(2) + (law.ambient - law.dim) * variance.log()
        constant = law.log_weights - (log_det + law.ambient * log(2 * pi)) / 2
        value: Tensor = constant - (square - inside) / (2 * variance)
        return value

    def log_joint(self, x: Tensor) -> Tensor:
        """(n, D) -> (n, K)"""
        return self.parts(x).logsumexp(2).to(x.dtype)

    def frames_at(self, x: Tensor, y: Tensor) -> Tensor:
        """Orthonormal columns (n, D, d) of the component of class y that most likely made x."""
        law = moved(self, x.device)
        component = law.parts(x)[torch.arange(len(x), device=x.device), y].argmax(1)
        return law.frames[y, component].mT.to(x.dtype)

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        component, y = mixtures.draw(self.log_weights, n, generator)
        factor = torch.randn(n, self.dim, generator=generator, dtype=torch.float64)
        noise = torch.randn(n, self.ambient, generator=generator, dtype=torch.float64)
        factor = factor * self.deviations.flatten(0, 1)[component]
        x = noise.mul_(self.noises.flatten()[component, None])
        x += self.means.flatten(0, 1)[component]
        frames = self.frames.flatten(0, 1)
        for j in torch.unique(component).tolist():
            x[component == j] += factor[component == j] @ frames[j]
        return x, y

    @cached_property
    def _centre(self) -> Tensor:
        """Mean of x: the less |x|, the fewer digits does |x - m|^2 lose."""
        weights: Tensor = self.log_weights.flatten().softmax(0)
        return weights @ self.means.flatten(0, 1)

    @cached_property
    def _means(self) -> Tensor:
        return self.means - self._centre

    @cached_property
    def _feet(self) -> Tensor:
        """U (m - centre), (K, J, d)"""
        return (self.frames @ self._means[..., None]).squeeze(3)


@lru_cache(maxsize=16)
def moved(law: FactorComponents, device: torch.device) -> FactorComponents:
    """The law on a device, to which it goes once."""
    if law.means.device == device:
        return law
    parts = (law.log_weights, law.means, law.frames, law.deviations, law.noises)
    return FactorComponents(*(part.to(device) for part in parts))


def joined(classes: list[FactorComponents], priors: Tensor) -> FactorComponents:
    """Mixtures of one class each, as classes with these priors (K,)."""
    longest = max(law.log_weights.shape[1] for law in classes)

    def filled(part: Tensor, value: Tensor) -> Tensor:
        return torch.cat([part, value.expand(1, longest - part.shape[1], *value.shape[2:])], 1)

    names = ("means", "frames", "deviations", "noises")
    parts = [
        torch.cat([filled(part, part[:, -1:]) for part in (getattr(law, name) for law in classes)])
        for name in names
    ]
    nothing = torch.full((1, 1), -inf, dtype=torch.float64)
    log_weights = torch.cat([filled(law.log_weights, nothing) for law in classes])
    return FactorComponents(log_weights + priors.log()[:, None], *parts)
