"""Problems of any dimensions: a manifold of dimension d in R^D, and noise.

Two Gaussians N(-+m, (1 - noise^2) I) on a d-flat, which with the noise are N(-+m, I) there and hence of one
difficulty whatever d and D are; the law of what logistic training finds is known. Or mixtures of von
Mises-Fisher laws on a d-sphere, of one difficulty in every D only.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch

from manifoldlab.densities.gaussians import Gaussians
from manifoldlab.densities.von_mises_fisher import random_von_mises_fisher
from manifoldlab.linalg import random_frame
from manifoldlab.manifolds.flat import Flat
from manifoldlab.manifolds.placed import Placed
from manifoldlab.manifolds.sphere import Sphere
from manifoldlab.mixtures import as_tuples
from manifoldlab.problems.base import Isotropic
from manifoldlab.problems.gaussian_subspace import GaussianSubspace
from manifoldlab.problems.von_mises_sphere import VonMisesSphere
from manifoldlab.studies.logistic_samples import LogisticSamples, Misfit

DISTANCE = 1.25  # |m|
RADIUS, CONCENTRATION = 2.0, 2.0  # of the sphere and of the classes on it


class Point(NamedTuple):
    """A choice of dimensions, and so many samples."""

    dim: int
    ambient: int
    size: int

    @property
    def codim(self) -> int:
        return self.ambient - self.dim

    def scale(self, scan: str) -> int:
        """What varies in a scan, by its name."""
        return {"n": self.size, "D - d": self.codim, "d": self.dim}[scan]


class Law(NamedTuple):
    leading: Misfit
    all_orders: Misfit


def gaussian(dim: int, codim: int, noise: float) -> GaussianSubspace:
    """Of deviation 1 along the flat, noise and all."""
    directions = torch.eye(dim, dtype=torch.float64)
    means = as_tuples(DISTANCE * torch.stack([-directions[0], directions[0]]))
    classes = Gaussians(means, as_tuples((1 - noise**2) * directions[None]), (0.5, 0.5))
    return GaussianSubspace(Placed(Flat(dim), codim), classes, noise)


def sphere(dim: int, codim: int, noise: float) -> VonMisesSphere:
    """Two modes a class, so that margins are not linear."""
    classes = random_von_mises_fisher(
        dim, (2, 2), 1, concentration=CONCENTRATION, priors=(0.5, 0.5)
    )
    return VonMisesSphere(Placed(Sphere(dim, RADIUS), codim - 1), classes, noise)


PROBLEMS: Mapping[str, Callable[[int, int, float], Isotropic]] = {
    "gaussian": gaussian,
    "sphere": sphere,
}


def gaussian_law(point: Point, noise: float) -> Law:
    """Of linear rules trained on the samples: terms of order 1 / n, and all orders in D / n."""
    frame = random_frame(point.ambient, point.dim, 0)  # alike for every one
    flat = (1 - noise**2) * frame @ frame.mT
    across = noise**2 * torch.eye(point.ambient, dtype=torch.float64)
    rules = LogisticSamples(DISTANCE * frame[:, 0], flat + across)
    return Law(rules.leading(point.size, frame), rules.all_orders(point.size, frame))
