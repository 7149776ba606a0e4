"""Products of von Mises laws (and their mixtures) on a Clifford torus, blurred by isotropic noise.

The plane of each circle has its own noise, so a component is the product over the circles of what
`von_mises_sphere` gives for n = 2; dimensions beside these planes add flat Gaussian factors.
"""

from dataclasses import dataclass
from typing import final

from torch import Tensor

from manifoldlab.densities.von_mises_product import VonMisesProduct, random_von_mises_product
from manifoldlab.manifolds.clifford_torus import CliffordTorus
from manifoldlab.manifolds.placed import Placed
from manifoldlab.problems.base import Isotropic, Problem, check_chart, check_noise, check_points
from manifoldlab.problems.gaussian_subspace import base_of, in_span, log_normal
from manifoldlab.problems.von_mises_sphere import log_blurred


@final
@dataclass(frozen=True)
class VonMisesTorus(Isotropic):
    manifold: CliffordTorus | Placed
    densities: VonMisesProduct
    noise: float

    def __post_init__(self) -> None:
        check_noise(self.noise, self)
        check_chart(self.densities, self.manifold, self)
        base_of(self.manifold, CliffordTorus, self)

    def log_joint(self, x: Tensor) -> Tensor:
        check_points(x, self)
        within, offset = in_span(self.manifold, x)
        planes = within.reshape(len(x), 1, 1, self.manifold.dim, 2)
        law = self.densities.components()
        radii = x.new_tensor(base_of(self.manifold, CliffordTorus, self).radii)
        circles = log_blurred(planes, law.locations.to(x), radii, self.noise)
        mixed = (law.log_weights.to(x) + circles.sum(3)).logsumexp(2)
        codim = self.manifold.ambient - 2 * self.manifold.dim
        return mixed + log_normal(offset, codim, self.noise)[:, None]


def examples(seed: int) -> list[Problem]:
    """With noise below a fifth of the reach, as in `von_mises_sphere`."""
    radii = (0.75 + seed % 2 / 2, 1.0, 1.25)[: 1 + seed % 3]
    placed = Placed(CliffordTorus(radii), codim=1 + seed % 2, seed=seed, shift=0.5)
    return [
        VonMisesTorus(CliffordTorus((1.0,)), random_von_mises_product(1, (1, 2), seed), 0.15),
        VonMisesTorus(placed, random_von_mises_product(len(radii), (2, 1, 1), seed), 0.1),
        VonMisesTorus(CliffordTorus((1.0, 0.8)), random_von_mises_product(2, (1, 1), seed), 0.14),
    ]
