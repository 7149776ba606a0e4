"""Known grounds: problems by name, in R^12 with noise 0.05, on which trained networks are held to truth.

    subspace     two Gaussians of one covariance in a 3-dimensional subspace
    distractor   the same, and a thin direction across the subspace that tells of the label, too,
                 with noise 0.15
    sphere       three von Mises-Fisher classes on a 2-sphere
    torus        two classes of two products of von Mises laws each on a flat torus
    circle       two classes of three arcs each, in turn around a circle: noise beyond 1/2 joins them
    helix        two smooth densities on a helix, by quadrature

The first two have closed forms for linear rules, and `pair` finds them.
"""

from collections.abc import Callable, Mapping
from math import cos, pi, sin

import torch
from torch import Tensor
from torch.autograd.functional import hessian

from manifoldlab.densities.gaussians import Gaussians
from manifoldlab.densities.smooth import Smooth, Tilt
from manifoldlab.densities.von_mises_fisher import VonMisesFisher
from manifoldlab.densities.von_mises_product import VonMisesProduct
from manifoldlab.gaussian_regimes import GaussianRegimes
from manifoldlab.manifolds.base import Manifold
from manifoldlab.manifolds.clifford_torus import CliffordTorus
from manifoldlab.manifolds.flat import Flat
from manifoldlab.manifolds.helix import Helix
from manifoldlab.manifolds.placed import Placed
from manifoldlab.manifolds.sphere import Sphere
from manifoldlab.problems.base import Problem
from manifoldlab.problems.gaussian_subspace import GaussianSubspace
from manifoldlab.problems.quadrature import Quadrature
from manifoldlab.problems.signal_distractor import SignalDistractor
from manifoldlab.problems.von_mises_sphere import VonMisesSphere
from manifoldlab.problems.von_mises_torus import VonMisesTorus

AMBIENT, NOISE = 12, 0.05
THIN, SHIFT = 0.15, 0.4  # deviation across the subspace, and how far the classes differ there
HALVES = (0.5, 0.5)


def placed(base: Manifold) -> Placed:
    return Placed(base, AMBIENT - base.ambient)


def gaussians() -> Gaussians:
    """Along the widest direction the means differ most, so that robust rules turn towards it."""
    covariance = ((1.0, 0.0, 0.0), (0.0, 0.36, 0.0), (0.0, 0.0, 0.09))
    return Gaussians(((-1.0, -0.4, -0.2), (1.0, 0.4, 0.2)), (covariance,), HALVES)


def subspace() -> GaussianSubspace:
    return GaussianSubspace(placed(Flat(3)), gaussians(), NOISE)


def distractor() -> SignalDistractor:
    return SignalDistractor(gaussians(), AMBIENT - 3, THIN, spread=0.0, label_shift=SHIFT)


def fisher() -> VonMisesFisher:
    axes = tuple((tuple(6.0 * (i == j) for i in range(3)),) for j in range(3))
    return VonMisesFisher(((1.0,),) * 3, axes, (1 / 3,) * 3)


def sphere() -> VonMisesSphere:
    return VonMisesSphere(placed(Sphere(2)), fisher(), NOISE)


def torus() -> VonMisesTorus:
    """One class about (0, 0) and (pi, pi), the other about (0, pi) and (pi, 0)."""
    pairs = (((3.0, 0.0), (3.0, 0.0)), ((-3.0, 0.0), (-3.0, 0.0)))
    crossed = (((3.0, 0.0), (-3.0, 0.0)), ((-3.0, 0.0), (3.0, 0.0)))
    law = VonMisesProduct((HALVES, HALVES), (pairs, crossed), HALVES)
    return VonMisesTorus(placed(CliffordTorus((1.0, 1.0))), law, NOISE)


def circle() -> VonMisesSphere:
    turns = [2 * pi * k / 6 for k in range(6)]
    arcs = [(12 * cos(turn), 12 * sin(turn)) for turn in turns]
    law = VonMisesFisher(((1 / 3,) * 3,) * 2, (tuple(arcs[::2]), tuple(arcs[1::2])), HALVES)
    return VonMisesSphere(placed(Sphere(1)), law, NOISE)


def helix() -> Quadrature:
    manifold = placed(Helix(1.0, 4.0, 1.5))
    return Quadrature(manifold, Smooth(manifold, Tilt(2, strength=3.0), HALVES), NOISE)


GROUNDS: Mapping[str, Callable[[], Problem]] = {
    ground.__name__: ground for ground in (subspace, distractor, sphere, torus, circle, helix)
}


def pair(problem: Problem) -> GaussianRegimes | None:
    """The two Gaussians N(c +- mu, Sigma) of a problem, read off its densities; None of another one.

    The Hessian of log p(x, y) is -Sigma^{-1} everywhere, and the slopes at 0 differ by 2 Sigma^{-1} mu.
    """
    if not isinstance(problem, GaussianSubspace | SignalDistractor):
        return None
    zero = torch.zeros(problem.shape, dtype=torch.float64)
    own: Callable[[int], Callable[[Tensor], Tensor]] = lambda y: (
        lambda x: problem.log_joint(x[None])[0, y]
    )
    covariance = torch.linalg.inv(-hessian(own(0), zero))  # type: ignore[no-untyped-call]
    covariance = (covariance + covariance.mT) / 2
    first, second = (torch.func.grad(own(y))(zero) for y in (0, 1))
    return GaussianRegimes(covariance @ (second - first) / 2, covariance)
