"""Points of a manifold pushed off it along normals, by Gaussian noise tau that is cut inside the reach.

With m the nearest point of the manifold to x, z its coordinates and J_z their Jacobian,

    log p(x, y) = log q_y(z) + log sqrt(det J_z J_z') + log nu(|x - m|),   |x - m| < R = cut * reach,

and p = 0 elsewhere: log_joint is -inf there and its gradient means nothing. If nu is the same for
all classes, p(y | x) = p(y | m) exactly; a tuple of noises, one a class, breaks just that.
"""

from dataclasses import dataclass
from functools import cached_property
from math import isinf, lgamma, log, log1p, pi
from typing import final

import torch
from scipy.special import gammainc, gammaincc, gammaincinv
from torch import Tensor

from manifoldlab import linalg
from manifoldlab.densities.base import Densities
from manifoldlab.densities.gaussians import random_gaussians
from manifoldlab.densities.von_mises_fisher import random_von_mises_fisher
from manifoldlab.interfaces import Batch
from manifoldlab.manifolds.base import Manifold
from manifoldlab.manifolds.paraboloid import Paraboloid
from manifoldlab.manifolds.placed import Placed
from manifoldlab.manifolds.sphere import Sphere
from manifoldlab.problems.base import Problem, check_chart, check_noise, check_points


@final
@dataclass(frozen=True)
class Tube(Problem):
    manifold: Manifold
    densities: Densities
    noise: float | tuple[float, ...]  # the same for all classes, or one a class
    cut: float = 0.8  # radius of the tube, in units of the reach

    def __post_init__(self) -> None:
        for noise in self._noises:
            check_noise(noise, self)
        check_chart(self.densities, self.manifold, self)
        if len(self._noises) not in (1, self.num_classes):
            raise ValueError(f"{len(self._noises)} noises for {self.num_classes} classes: {self!r}")
        if not 0 < self.cut < 1:
            raise ValueError(f"a tube is cut strictly between 0 and 1 of the reach: {self!r}")
        if self.codim == 0:
            raise ValueError(
                f"no normal directions for a tube: {self.manifold!r} has codimension 0"
            )
        if not self.manifold.reach_certified:
            raise ValueError(f"an estimated reach is no ground for a tube: {self.manifold!r}")

    @property
    def shape(self) -> tuple[int, ...]:
        return self.manifold.shape

    @property
    def num_classes(self) -> int:
        return self.densities.num_classes

    @property
    def codim(self) -> int:
        return self.manifold.ambient - self.manifold.dim

    @property
    def radius(self) -> float:
        return self.cut * self.manifold.reach

    def sample(self, n: int, generator: torch.Generator) -> Batch:
        z, y = self.densities.sample(n, generator)
        nearest = self.manifold.embed(z)
        uniform = torch.rand(n, generator=generator, dtype=z.dtype)
        radii = torch.stack([law.radii(uniform) for law in self._laws], 1)  # (n, 1) or (n, K)
        radius = radii[:, 0] if len(self._laws) == 1 else radii.gather(1, y[:, None])[:, 0]
        noise = torch.randn(n, *self.shape, generator=generator, dtype=z.dtype)
        direction = linalg.unit(noise - self.manifold.to_tangent(nearest, noise))
        return Batch(nearest + radius.reshape(-1, *[1] * len(self.shape)) * direction, y)

    def log_joint(self, x: Tensor) -> Tensor:
        check_points(x, self)
        z = self.manifold.coordinates(x)
        square = linalg.squared_norm(x - self.manifold.embed(z))
        radial = torch.stack([law.log_density(square) for law in self._laws], 1)  # (n, 1) or (n, K)
        value = self.densities.log_joint(z) + self.manifold.log_compression(x)[:, None] + radial
        return value.where((square < self.radius**2)[:, None], -torch.inf)  # not so where it is nan

    def geometry(self, batch: Batch) -> Manifold:
        del batch
        return self.manifold

    @property
    def _noises(self) -> tuple[float, ...]:
        return self.noise if isinstance(self.noise, tuple) else (self.noise,)

    @cached_property
    def _laws(self) -> tuple["CutGaussian", ...]:
        return tuple(CutGaussian(self.codim, self.radius, noise) for noise in self._noises)


@final
@dataclass(frozen=True)
class CutGaussian:
    """N(0, noise^2 I) in R^codim, conditional on |v| < radius; s = |v|^2 / 2 noise^2 is a cut Gamma.

    With a = codim / 2 and h = radius^2 / 2 noise^2, the incomplete gamma function is

        int_0^h s^(a-1) e^-s ds = h^a e^-h / a sum_k h^k / (a+1)_k,

    of which a large codim or a large noise leave nothing but the logarithm.
    """

    codim: int
    radius: float
    noise: float

    def log_density(self, square: Tensor) -> Tensor:
        """log nu, per volume of R^codim, from |v|^2 (n,) -> (n,); not cut."""
        return -0.5 * square / self.noise / self.noise - self._log_mass

    def radii(self, uniform: Tensor) -> Tensor:
        """The quantiles of |v|: uniform (n,) on [0, 1) -> (n,)."""
        inside = gammainc(self._order, self._height)
        if inside > 1e-280:
            quantile = torch.from_numpy(gammaincinv(self._order, inside * uniform.numpy()))
            return (self.noise * (2 * quantile).sqrt()).clamp_max(self.radius)
        return self.radius * (self._log_quantiles(uniform) / 2).exp()

    @property
    def _order(self) -> float:
        return self.codim / 2

    @property
    def _height(self) -> float:
        ratio = self.radius / self.noise
        return ratio * ratio / 2  # inf where ratio**2 would raise

    @cached_property
    def _log_mass(self) -> float:
        """log of int exp(-|v|^2 / 2 noise^2) over the ball."""
        order, height = self._order, self._height
        if height > order + 1:
            outside = 0.0 if isinf(height) else float(gammaincc(order, height))
            return order * (log(2 * pi) + 2 * log(self.noise)) + log1p(-outside)
        series = _series(order, torch.tensor([height], dtype=torch.float64)).item()
        log_ball = order * (log(pi) + 2 * log(self.radius)) - lgamma(order + 1)
        return log_ball - height + log(series)

    def _log_quantiles(self, uniform: Tensor) -> Tensor:
        """log(s / h), where the incomplete gamma function has no float64 value.

        The logarithm of the distribution function is concave in t = log(s / h), so that Newton's
        iteration falls short of the solution at most once and then climbs to it.
        """
        order, height = self._order, self._height
        top = _series(order, torch.tensor([height], dtype=torch.float64))
        target = uniform.clamp_min(2.0**-54).log()
        t = target * top / order
        for _ in range(8):
            series = _series(order, height * t.exp())
            value = order * t - height * t.expm1() + (series / top).log()
            t = t - (value - target) * series / order
        return t.clamp_max(0)


def _series(order: float, s: Tensor) -> Tensor:
    """sum_k s^k / (a+1)_k, positive terms; for s < a + 1."""
    term = total = torch.ones_like(s)
    k = 0
    while bool((term > 1e-17 * total).any()):
        k += 1
        term = term * s / (order + k)
        total = total + term
    return total


def examples(seed: int) -> list[Problem]:
    dim, codim = 1 + seed % 2, 1 + seed % 3
    sphere = Placed(Sphere(dim, 0.75 + seed % 3 / 4), codim, seed, shift=0.5)
    bowl = Placed(Paraboloid(dim, 0.5 + seed % 2 / 2), codim - 1, seed, shift=0.5)
    fisher = random_von_mises_fisher(dim, (1, 2, 1)[: 2 + seed % 2], seed)
    return [
        Tube(sphere, fisher, 0.1 + seed % 3 / 10),
        Tube(Sphere(dim), fisher, 0.5, cut=0.6),
        Tube(bowl, random_gaussians(dim, 2 + seed % 2, seed), 0.2),
    ]
