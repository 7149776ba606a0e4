r"""C3. The denoiser D(x) = E[m|x] has the Jacobian J_D = Cov[m|x] / tau^2, symmetric and positive
semidefinite, and on M it is the tangent projector up to O(tau^2):

    J_D = P + tau^2 C + O(tau^4),  x on M,
    tangent block   C(v, w) = Hess log p (v, w) - <II(v, w), H> / 2
    mixed block     C(v, n) = <II(v, grad log p), n> + <D_v H, n> / 2
    normal block    C(n, n') = tr(S_n S_n') / 2

Derivation: in the graph coordinates t = P(m - x) = tau s the offset is t + II(t, t)/2 + ...; the
weight is exp(-|s|^2/2) times exp of tau s.grad log p + (tau^2/2) s.Hess log p.s + (tau^2/2)
sum_k |II(e_k, s)|^2 (volume) - (tau^2/8) |II(s, s)|^2 (distance). By Wick's rule Cov(s_i, s_j) gains
tau^2 times the Hessian, plus M_ij = sum_k <II(e_i,e_k), II(e_j,e_k)> of the volume, minus
<II_ij, H>/2 + M_ij of the distance. THEORY.md gives the other two blocks; the tangent one makes the
expansion complete, and the unit sphere's A(1/tau^2) = 1 - d tau^2/2 + ... agrees with it.
Off M, at x = m + N, the tangent block tends to (I - S_N)^{-1} instead of I.
"""

from functools import cache

import torch
from torch import Tensor

from manifoldlab import calculus
from manifoldlab.problems.quadrature import Quadrature
from manifoldlab.strategies import Case, Families, blurred, is_curved
from manifoldlab.theorem import Control, Rate, Sweep, Theorem
from manifoldlab.verification import hold, reject

SCALES = (
    3e-3,
    6e-3,
    1.2e-2,
)  # tau / reach; the next term is of relative order (tau / scale of p)^2
OFFSET = 0.3  # of the control, in units of the reach
DIRECTIONS = 6  # the Jacobian is probed along so many: all of them where D is as small


def jacobian_change(case: Case, offset: float = 0.0) -> Sweep:
    """(J_D - P) V against tau^2 C V at m + offset * n, V orthonormal columns that begin with T_mM."""
    problem, m = case.problem, case.problem.manifold.embed(case.feet)
    directions = _directions(case)  # (n, D, k)
    x = m + offset * _unit_normal(case) if offset else m  # a flat in itself has no normal
    noises = torch.tensor(SCALES, dtype=torch.float64).to(x) * min(problem.manifold.reach, 1.0)
    left = []
    for noise in noises.tolist():
        blurry = Quadrature(problem.manifold, problem.densities, noise)
        left.append(_transposed_product(blurry, x, directions) - _projected(case, directions))
    leading = _second_order(case, directions)
    return Sweep(noises, torch.stack(left), noises.square()[:, None, None, None] * leading)


def _embed(case: Case) -> calculus.Function:
    return lambda z: case.problem.manifold.embed(z).flatten(1)


def _directions(case: Case) -> Tensor:
    basis = calculus.frame(_embed(case), case.feet).basis
    n, ambient, dim = basis.shape
    more = case.normal(n, ambient, max(0, min(ambient, DIRECTIONS) - dim))
    columns: Tensor = torch.linalg.qr(torch.cat([basis, more], 2)).Q
    return columns


def _unit_normal(case: Case) -> Tensor:
    """Normal to M, shaped like a point."""
    here = calculus.frame(_embed(case), case.feet)
    normal = here.normal(case.normal(len(case.feet), here.basis.shape[1], stream=2))
    unit: Tensor = normal / normal.norm(dim=1, keepdim=True)
    return unit.reshape(-1, *case.problem.manifold.shape)


def _transposed_product(problem: Quadrature, x: Tensor, directions: Tensor) -> Tensor:
    """J_D' V by one backward pass a column; J_D is symmetric, which the comparison tests."""
    x = x.detach().requires_grad_()
    denoised = problem.denoise(x).flatten(1)
    columns = [
        torch.autograd.grad((denoised * v).sum(), x, retain_graph=True)[0].flatten(1)
        for v in directions.unbind(2)
    ]
    return torch.stack(columns, 2)


def _projected(case: Case, directions: Tensor) -> Tensor:
    basis = calculus.frame(_embed(case), case.feet).basis
    return basis @ (basis.mT @ directions)


def _second_order(case: Case, directions: Tensor) -> Tensor:
    """C V, (n, D, k)"""
    embed, z = _embed(case), case.feet
    manifold, densities = case.problem.manifold, case.problem.densities
    log_density = lambda z: densities.log_joint(z).logsumexp(1) - manifold.log_volume(z)
    basis = calculus.frame(embed, z).basis
    second = calculus.second_fundamental_form(embed, z)  # (n, D, i, j)
    mean = calculus.mean_curvature(embed, z)
    slope = (basis.mT @ calculus.gradient(embed, log_density, z)[:, :, None]).squeeze(2)
    turning = [calculus.mean_curvature_derivative(embed, z, e) for e in basis.unbind(2)]
    tangent = calculus.hessian(embed, log_density, z)
    tangent = tangent - torch.einsum("nDij,nD->nij", second, mean) / 2
    mixed = torch.einsum("nDij,nj->nDi", second, slope) + torch.stack(turning, 2) / 2
    along, flat = basis.mT @ directions, second.flatten(2)
    return (
        basis @ (tangent @ along)
        + mixed @ along
        + basis @ (mixed.mT @ directions)
        + flat @ (flat.mT @ directions) / 2
    )


def _offset(case: Case) -> float:
    reach: float = case.problem.manifold.reach
    return OFFSET * min(reach, 1.0)


def off_the_manifold(case: Case) -> Sweep:
    return jacobian_change(case, _offset(case))


def off_gap(case: Case) -> Tensor:
    """(E (I - S_N)^{-1} E' - P) V - tau^2 C V, in units of tau^2."""
    manifold, z = case.problem.manifold, case.feet
    directions, basis = _directions(case), calculus.frame(_embed(case), z).basis
    normal = _unit_normal(case).flatten(1) * _offset(case)
    second = calculus.second_fundamental_form(_embed(case), z)
    shape = torch.einsum("nDij,nD->nij", second, normal)
    eye = torch.eye(manifold.dim).to(shape)
    stretched: Tensor = basis @ torch.linalg.solve(eye - shape, basis.mT @ directions)
    sweep_unit: float = (SCALES[0] * min(manifold.reach, 1.0)) ** 2
    leading = _second_order(case, directions)
    return ((stretched - _projected(case, directions)) / sweep_unit - leading)[None]


@cache
def cases() -> Families:
    return blurred([0.01], n=3)


@cache
def curved() -> Families:
    return blurred([0.01], fits=is_curved, n=3)


LAW = Theorem(
    id="C3",
    title="The denoiser's Jacobian projects on the tangent space",
    statement=r"$J_D = \mathrm{Cov}[m|x]/\tau^2 = P_x + \tau^2 C + O(\tau^4)$ on $M$, with the blocks"
    r" of $C$ given by $\nabla^2\log p$, $\mathrm{II}$, $H$ and $\nabla^\perp H$.",
    claim=Rate(power=2),
    cases=cases,
    effort=0.5,
    measure=jacobian_change,
    controls=(Control("off the manifold", off_the_manifold, off_gap, curved),),
)


def test_holds(family: str) -> None:
    hold(LAW, family)


def test_fails_without_its_assumption(control: Control) -> None:
    reject(LAW, control)
