r"""B2. On a curved manifold with isotropic noise tau the Bayes margin leaks into the normal space:

    Q grad(l_a - l_b)(x) = (tau^2 / 2) (W_a - W_b) + O(tau^4),   x on M,
    W_y = tr(II Hess p_y) / p_y + D_{grad p_y} H / p_y
        = tr(II (Hess log p_y + grad log p_y grad log p_y')) + D_{grad log p_y} H,

II the second fundamental form, H its trace, D the normal derivative, all vectors in the normal
space; <W_y, n> is div_M(S_n grad p_y) / p_y. On a curve of curvature k it reads (k_n p')' / p.
The left side comes from quadrature of the blurred density, the right one from the derivatives of
the chart and of log p_y: they share `embed` and `log_joint` and nothing else.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial
from math import isinf, pi, sqrt
from typing import final

import torch
from torch import Tensor

from manifoldlab import calculus
from manifoldlab.densities.base import Densities
from manifoldlab.densities.smooth import Smooth
from manifoldlab.gradients import input_gradient
from manifoldlab.manifolds.base import Manifold
from manifoldlab.strategies import Case, Families, blurred, is_curved, some_points
from manifoldlab.theorem import Control, Rate, Sweep, Theorem
from manifoldlab.verification import hold, reject

SCALES = (
    3e-3,
    6e-3,
    1.2e-2,
)  # tau / reach; the next term is of relative order (tau / scale of p)^2
Points = Callable[[Case], Tensor]


def feet(case: Case) -> Tensor:
    return case.feet


def first_two(logits: Tensor, y: Tensor) -> Tensor:
    """l_0 - l_1, whatever the label."""
    del y
    return logits[:, 0] - logits[:, 1]


def leakage(case: Case, turning: float = 1.0, points: Points = feet) -> Sweep:
    """Normal part of grad(l_0 - l_1) at points of M; `turning` weighs the derivative of H."""
    manifold, z = case.problem.manifold, points(case)
    x = manifold.embed(z)
    bending, turn = _parts(case, points)
    leading = bending + turning * turn
    noises = torch.tensor(SCALES, dtype=torch.float64).to(x) * min(manifold.reach, 1.0)
    left = []
    for noise in noises.tolist():
        model = replace(case.problem, noise=noise).log_joint
        gradient = input_gradient(model, x, case.batch.y[: len(x)], first_two)
        left.append((gradient - manifold.to_tangent(x, gradient)).flatten(1))
    return Sweep(noises, torch.stack(left), noises.square()[:, None, None] / 2 * leading)


def _embed(manifold: Manifold) -> Callable[[Tensor], Tensor]:
    return lambda z: manifold.embed(z).flatten(1)


def log_density(case: Case, label: int) -> Callable[[Tensor], Tensor]:
    """With respect to volume, up to the constant prior."""
    manifold, densities = case.problem.manifold, case.problem.densities
    return lambda z: densities.log_joint(z)[:, label] - manifold.log_volume(z)


@lru_cache(maxsize=4)
def _parts(case: Case, points: Points) -> tuple[Tensor, Tensor]:
    """W_0 - W_1 without the derivative of H, and that derivative along grad log(p_0 / p_1)."""
    embed, z = _embed(case.problem.manifold), points(case)
    basis = calculus.frame(embed, z).basis
    slopes, forms = [], []
    for f in (log_density(case, 0), log_density(case, 1)):
        slopes.append(calculus.gradient(embed, f, z))
        inner = (basis.mT @ slopes[-1][:, :, None]).squeeze(2)
        forms.append(calculus.hessian(embed, f, z) + inner[:, :, None] * inner[:, None])
    second = calculus.second_fundamental_form(embed, z)
    bending = torch.einsum("nDij,nij->nD", second, forms[0] - forms[1])
    return bending, calculus.mean_curvature_derivative(embed, z, slopes[0] - slopes[1])


def turning_gap(case: Case) -> Tensor:
    """(1/2) D_{grad log(p_0 / p_1)} H: what is missing, in units of tau^2."""
    return _parts(case, feet)[1][None] / 2


@final
@dataclass(frozen=True)
class CutOff(Densities):
    """The law of `smooth` without its fall at the edges, not normalized: constants do not matter."""

    smooth: Smooth

    @property
    def dim(self) -> int:
        return self.smooth.dim

    @property
    def num_classes(self) -> int:
        return self.smooth.num_classes

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return self.smooth.sample(n, generator)

    def log_joint(self, z: Tensor) -> Tensor:
        chart = self.smooth.chart
        return self.smooth.log_weight(chart.embed(z)) + chart.log_volume(z)[:, None]


def cut_off(case: Case) -> Case:
    problem = case.problem
    return replace(case, problem=replace(problem, densities=CutOff(problem.densities)), n=1)


def ends(case: Case) -> Tensor:
    """Just inside: the end itself may by rounding be past the edge, where coordinates are nan."""
    low, high, _ = case.problem.manifold.axes[0]
    z = torch.tensor([[low + 1e-9 * (high - low)]], dtype=torch.float64)
    return z.to(case.batch.x)


def at_the_end(case: Case) -> Sweep:
    return leakage(cut_off(case), points=ends)


def end_leak(case: Case) -> Tensor:
    """(k/2) sqrt(2/pi) (log p_0/p_1)' n of a case that is cut off, (n, D), s pointing inwards.

    Half a Gaussian in s >= 0 has E s = tau sqrt(2/pi), E s^2 = tau^2, E s^3 = 2 sqrt(2/pi) tau^3, so
    the density's slope a changes E[k s^2/2] / tau^2 by (k/2) a (E s^3 - E s^2 E s) / tau^2.
    """
    embed, z = _embed(case.problem.manifold), ends(case)
    ratio = lambda z: log_density(case, 0)(z) - log_density(case, 1)(z)
    tangent = calculus.frame(embed, z)
    inwards = (tangent.basis * tangent.triangle.sign()).squeeze(2)
    slope = (calculus.gradient(embed, ratio, z) * inwards).sum(1, keepdim=True)
    return calculus.mean_curvature(embed, z) * slope * sqrt(2 / pi) / 2


def end_gap(case: Case) -> Tensor:
    """(tau end_leak - the law's right side) / tau^2"""
    case = cut_off(case)
    sweep = leakage(case, points=ends)
    return (end_leak(case) * sweep.scales[0] - sweep.right[0])[None] / sweep.scales[0].square()


def leaks(case: Case) -> bool:
    """Whether the leak of order tau is 40 times what the law says at order tau^2, or more.

    The next term is of that order, too, and log p_0/p_1 may happen to be level at the end.
    """
    case = cut_off(case)
    noise = SCALES[0] * min(case.problem.manifold.reach, 1.0)
    second = noise / 2 * torch.stack(_parts(case, ends)).sum(0)
    return bool(end_leak(case).norm() > 40 * second.norm())


def is_arc(manifold: Manifold) -> bool:
    axis = manifold.axes[0]
    return is_curved(manifold) and not axis.wraps and not isinf(axis.low)


def turns(case: Case) -> bool:
    """Whether the derivative of H matters in this case: a tenth of the law or more."""
    bending, turn = _parts(case, feet)
    return bool(turn.norm() > 0.1 * (bending + turn).norm())


@cache
def curved() -> Families:
    return blurred([0.01], fits=is_curved, n=3)


def is_turning(manifold: Manifold) -> bool:
    """Whether its mean curvature vector has a derivative: not that of circles, not of spheres."""
    embed, z = _embed(manifold), some_points(manifold)
    along = calculus.frame(embed, z).basis.sum(2)
    turn = calculus.mean_curvature_derivative(embed, z, along)
    return is_curved(manifold) and turn.norm().item() > 1e-3


def turning() -> Families:
    families = blurred([0.01], fits=is_turning, n=3).items()
    return {name: cases.filter(turns) for name, cases in families}


def arcs() -> Families:
    families = blurred([0.01], dims=(1,), fits=is_arc).items()
    return {name: cases.filter(leaks) for name, cases in families}


LAW = Theorem(
    id="B2",
    title="Isotropic noise leaks along normals at order tau squared",
    statement=r"On curved $M$, $Q\,\nabla(\ell_a - \ell_b) = \frac{\tau^2}{2}"
    r"\left(\frac{\mathrm{div}_M(S\nabla p_a)}{p_a} - \frac{\mathrm{div}_M(S\nabla p_b)}{p_b}\right)"
    r" + O(\tau^4)$.",
    claim=Rate(power=2),
    cases=curved,
    effort=0.5,
    measure=leakage,
    controls=(
        Control("without the derivative of H", partial(leakage, turning=0.0), turning_gap, turning),
        Control("at the end of an arc", at_the_end, end_gap, arcs),
    ),
)


def test_holds(family: str) -> None:
    hold(LAW, family)


def test_fails_without_its_assumption(control: Control) -> None:
    reject(LAW, control)
