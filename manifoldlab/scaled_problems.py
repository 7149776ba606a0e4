r"""Problems of one difficulty in every dimension: a manifold of dimension d, codimension D - d, some noise.

Two Gaussians N(-+m, (1 - noise^2) I) on a d-flat, which with the noise are N(-+m, I) there, or mixtures of
von Mises-Fisher laws on a d-sphere. For the first the law of what logistic training finds is known.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch

from manifoldlab.densities.gaussians import Gaussians
from manifoldlab.densities.von_mises_fisher import random_von_mises_fisher
from manifoldlab.linalg import random_frame
from manifoldlab.logistic_samples import LogisticSamples, Misfit
from manifoldlab.manifolds.flat import Flat
from manifoldlab.manifolds.placed import Placed
from manifoldlab.manifolds.sphere import Sphere
from manifoldlab.mixtures import as_tuples
from manifoldlab.problems.base import Isotropic
from manifoldlab.problems.gaussian_subspace import GaussianSubspace
from manifoldlab.problems.von_mises_sphere import VonMisesSphere

DISTANCE = 1.25  # |m|
RADIUS, CONCENTRATION = 2.0, 2.0  # of the sphere and of the classes on it


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


def gaussian_law(dim: int, ambient: int, n: int, noise: float) -> Law:
    """Of linear rules trained on n samples: terms of order 1 / n, and all orders; alike for every frame."""
    frame = random_frame(ambient, dim, 0)
    flat = (1 - noise**2) * frame @ frame.mT
    across = noise**2 * torch.eye(ambient, dtype=torch.float64)
    rules = LogisticSamples(DISTANCE * frame[:, 0], flat + across)
    return Law(rules.leading(n, frame), rules.all_orders(n, frame))
