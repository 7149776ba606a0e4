"""Every class on a manifold of its own: one problem of one class for each, log p(x, y) = log pi_y + its.

The tangent space that counts at a sample is that of its label's manifold.
"""

from dataclasses import dataclass, replace
from math import log
from typing import Self, final

import torch
from torch import Tensor

from manifoldlab.densities.base import check_priors, draw_labels
from manifoldlab.densities.gaussians import Gaussians, random_gaussians
from manifoldlab.densities.von_mises_fisher import random_von_mises_fisher
from manifoldlab.interfaces import Batch, Geometry
from manifoldlab.manifolds.flat import Flat
from manifoldlab.manifolds.placed import Placed
from manifoldlab.manifolds.sphere import Sphere
from manifoldlab.problems.base import Problem, check_points
from manifoldlab.problems.gaussian_subspace import GaussianSubspace
from manifoldlab.problems.von_mises_sphere import VonMisesSphere


@final
@dataclass(frozen=True)
class SeparateManifolds(Problem):
    parts: tuple[Problem, ...]
    priors: tuple[float, ...]

    def __post_init__(self) -> None:
        check_priors(self.priors, self)
        if len(self.parts) != len(self.priors):
            raise ValueError(f"{len(self.parts)} parts for {len(self.priors)} priors: {self!r}")
        classes = [part.num_classes for part in self.parts]
        if set(classes) != {1}:
            raise ValueError(f"parts of one class each, not of {classes}: {self!r}")
        if len(shapes := {part.shape for part in self.parts}) > 1:
            raise ValueError(f"parts with samples of different shapes {sorted(shapes)}: {self!r}")

    @property
    def shape(self) -> tuple[int, ...]:
        return self.parts[0].shape

    @property
    def num_classes(self) -> int:
        return len(self.parts)

    def sample(self, n: int, generator: torch.Generator) -> Batch:
        y = draw_labels(self.priors, n, generator)
        x = torch.empty(n, *self.shape, dtype=torch.float64)
        for label, part in enumerate(self.parts):
            if (chosen := y == label).any():
                x[chosen] = part.sample(int(chosen.sum()), generator).x
        return Batch(x, y)

    def log_joint(self, x: Tensor) -> Tensor:
        check_points(x, self)
        priors = [log(prior) for prior in self.priors]
        parts = zip(self.parts, priors, strict=True)
        return torch.cat([part.log_joint(x) + prior for part, prior in parts], 1)

    def geometry(self, batch: Batch) -> "OfLabels":
        return OfLabels(tuple(part.geometry(batch) for part in self.parts), batch.y)

    def noisier(self, sigma: float) -> "SeparateManifolds":
        return replace(self, parts=tuple(part.noisier(sigma) for part in self.parts))


@final
@dataclass(frozen=True, eq=False)
class OfLabels(Geometry):
    """For each sample the geometry of its label; `at` takes the labels of another batch."""

    geometries: tuple[Geometry, ...]
    labels: Tensor  # (n,)

    def __post_init__(self) -> None:
        if len(dims := {geometry.dim for geometry in self.geometries}) > 1:
            raise ValueError(f"geometries of different dimensions {sorted(dims)}: {self!r}")

    @property
    def dim(self) -> int:
        return self.geometries[0].dim

    def to_tangent(self, x: Tensor, v: Tensor) -> Tensor:
        labels = self.labels.reshape(-1, *[1] * (x.ndim - 1))
        result = torch.full_like(v, torch.nan)
        for label, geometry in enumerate(self.geometries):
            result = geometry.to_tangent(x, v).where(labels == label, result)
        return result

    def at(self, batch: Batch) -> Self:
        return replace(self, geometries=tuple(g.at(batch) for g in self.geometries), labels=batch.y)


def parallel_flats(
    dim: int, codim: int, noise: float, *, gap: float, displacement: float = 0.0, seed: int = 0
) -> SeparateManifolds:
    """Two flats `gap` apart, with one covariance; densities equal along them but for `displacement`.

    The displacement of the second class's mean is along the first tangent column.
    """
    unit = Placed(Flat(dim), codim, seed, shift=1.0)
    along = unit.frame.mT @ unit.origin  # an origin is not normal to its flat
    shift = gap / (1 - along.square().sum().item()) ** 0.5
    law = random_gaussians(dim, 1, seed)
    mean = torch.tensor(law.means[0], dtype=torch.float64) - shift * along
    mean[0] += displacement
    moved = Gaussians((tuple(mean.tolist()),), law.covariances, law.priors)
    first, second = (Placed(Flat(dim), codim, seed, s) for s in (0.0, shift))
    parts = (GaussianSubspace(first, law, noise), GaussianSubspace(second, moved, noise))
    return SeparateManifolds(parts, (0.5, 0.5))


def crossing_flats(
    dim: int, codim: int, noise: float, *, seed: int = 0, priors: tuple[float, ...] = (0.5, 0.5)
) -> SeparateManifolds:
    """Linear subspaces at random angles, one a prior."""
    parts = [
        GaussianSubspace(
            Placed(Flat(dim), codim, seed + k), random_gaussians(dim, 1, seed + k), noise
        )
        for k in range(len(priors))
    ]
    return SeparateManifolds(tuple(parts), priors)


def examples(seed: int) -> list[Problem]:
    dim = 1 + seed % 2
    spheres = tuple(
        VonMisesSphere(
            Placed(Sphere(dim, radius), codim=1, seed=seed + k, shift=0.5),
            random_von_mises_fisher(dim, (1,), seed + k),
            0.12,
        )
        for k, radius in enumerate((0.75, 1.25))
    )
    return [
        parallel_flats(dim, 1 + seed % 2, 0.3, gap=0.7, seed=seed),
        parallel_flats(dim, 1, 0.2, gap=0.5, displacement=0.8, seed=seed),
        crossing_flats(dim, 2, 0.3, seed=seed, priors=(0.5, 0.3, 0.2)),
        SeparateManifolds(spheres, (0.6, 0.4)),
    ]
