"""Von Mises-Fisher (mixture) classes on a sphere of radius r in R^n, blurred by isotropic noise tau.

For one component of location l = kappa mu and x in R^n, with k = l + r x / tau^2,

    log p(x) = log C_n(|l|) - log C_n(|k|) - (|x|^2 + r^2) / 2 tau^2 - (n/2) log 2 pi tau^2;

dimensions beside these n add flat Gaussian factors. As tau -> 0, log C_n(|k|) and the next term grow
like 1/tau^2 and cancel. With R = sqrt(1 + (r |x| / tau^2)^2), which is smooth at x = 0 too,

    |k| - R = (|l|^2 - 1 + 2 r l.x / tau^2) / (|k| + R),
    R - (|x|^2 + r^2) / 2 tau^2 = -((|x|^2 - r^2)^2 / 4 - tau^4) / (tau^2 ((|x|^2 + r^2) / 2 + tau^2 R))

hold no large term that cancels.
"""

from dataclasses import dataclass
from math import log, pi
from typing import final

import torch
from torch import Tensor

from manifoldlab.densities.von_mises_fisher import VonMisesFisher, random_von_mises_fisher
from manifoldlab.manifolds.placed import Placed
from manifoldlab.manifolds.sphere import Sphere
from manifoldlab.problems.base import Isotropic, Problem, check_chart, check_noise, check_points
from manifoldlab.problems.gaussian_subspace import base_of, in_span, log_normal
from manifoldlab.special import (
    log_sphere_area,
    log_vmf_normalizer,
    scaled_log_vmf_normalizer,
)


@final
@dataclass(frozen=True)
class VonMisesSphere(Isotropic):
    manifold: Sphere | Placed
    densities: VonMisesFisher
    noise: float

    def __post_init__(self) -> None:
        check_noise(self.noise, self)
        check_chart(self.densities, self.manifold, self)
        base_of(self.manifold, Sphere, self)

    def log_joint(self, x: Tensor) -> Tensor:
        check_points(x, self)
        within, offset = in_span(self.manifold, x)
        law = self.densities.components()
        radius = x.new_tensor(base_of(self.manifold, Sphere, self).radius)
        components = log_blurred(within[:, None, None], law.locations.to(x), radius, self.noise)
        mixed = (law.log_weights.to(x) + components).logsumexp(2)
        codim = self.manifold.ambient - self.manifold.dim - 1
        return mixed + log_normal(offset, codim, self.noise)[:, None]


def log_blurred(x: Tensor, location: Tensor, radius: Tensor, noise: float) -> Tensor:
    """log density at x (..., n) of one component of location (..., n); all broadcast -> (...)."""
    n, variance = x.shape[-1], noise**2
    pull = radius / variance
    outside = x.square().sum(-1) - radius**2
    reference = (1 + pull**2 * x.square().sum(-1)).sqrt()
    gained = location.square().sum(-1) - 1 + 2 * pull * (location * x).sum(-1)  # |k|^2 - R^2
    posterior = _log_growth(gained, reference, location + pull[..., None] * x)
    far = (outside.square() / 4 - variance**2) / (outside / 2 + radius**2 + variance * reference)
    prior = log_vmf_normalizer(n, torch.linalg.vector_norm(location, dim=-1))
    return prior + posterior - far / variance - 0.5 * n * log(2 * pi * variance)


def _log_growth(gained: Tensor, reference: Tensor, k: Tensor) -> Tensor:
    """-log C_n(|k|) - R from k (..., n); at k = 0, where |k| has no derivative, by the series in |k|^2."""
    n, square = k.shape[-1], k.square().sum(-1)
    near = square < torch.finfo(k.dtype).eps ** 0.5
    length = square.where(~near, 1).sqrt()
    far = gained / (length + reference) - scaled_log_vmf_normalizer(n, length)
    series = square / (2 * n) - square.square() / (4 * n**2 * (n + 2))
    return (series + log_sphere_area(n) - reference).where(near, far)


def examples(seed: int) -> list[Problem]:
    """With noise below a fifth of the reach, which samples then leave with probability 1e-5 at most."""
    dim = 1 + seed % 3
    ball = Placed(Sphere(dim, 0.75 + seed % 3 / 4), codim=1 + seed % 2, seed=seed, shift=0.5)
    return [
        VonMisesSphere(Sphere(1), random_von_mises_fisher(1, (1, 2), seed), 0.15),
        VonMisesSphere(ball, random_von_mises_fisher(dim, (1, 1, 1)[: 2 + seed % 2], seed), 0.1),
        VonMisesSphere(ball, random_von_mises_fisher(dim, (2, 1, 3), seed), 0.04 + seed % 4 / 40),
        VonMisesSphere(Sphere(dim, 1.5), random_von_mises_fisher(dim, (1, 2), seed), 0.25),
    ]
