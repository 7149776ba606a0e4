"""Calculus on manifolds against closed forms, and on every member against slow differences."""

from collections.abc import Callable
from math import isfinite, pi

import pytest
import torch
from torch import Tensor

from manifoldlab import calculus, catalog
from manifoldlab.manifolds.base import Manifold
from manifoldlab.manifolds.helix import Helix
from manifoldlab.manifolds.paraboloid import Paraboloid
from manifoldlab.manifolds.placed import Placed
from manifoldlab.manifolds.sphere import Sphere
from manifoldlab.manifolds.torus_of_revolution import TorusOfRevolution
from manifoldlab.nearest_point import jacobian

EXACT = 1e-12


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def uniform(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def flat(manifold: Manifold) -> Callable[[Tensor], Tensor]:
    return lambda z: manifold.embed(z).flatten(1)


def outer(u: Tensor, v: Tensor) -> Tensor:
    return u[:, :, None] * v[:, None]


def in_frame(form: Tensor, basis: Tensor) -> Tensor:
    """A bilinear form (n, D, D) of ambient vectors, in the columns of a basis."""
    return basis.mT @ form @ basis


def assert_close(found: Tensor, expected: Tensor, tolerance: float = EXACT) -> None:
    assert found.shape == expected.shape
    error = (found - expected).abs().max().item()
    assert error <= tolerance * (1 + expected.abs().max().item()), error


@pytest.mark.parametrize(("dim", "radius"), [(1, 2.0), (2, 0.5), (3, 1.0)])
def test_sphere(dim: int, radius: float) -> None:
    """Of f = a.m: grad f = Pa, Hess f = -f / r^2; II = -m / r^2 on the diagonal, H does not turn."""
    embed, z = flat(Sphere(dim, radius)), normal(5, dim)
    a, m = normal(dim + 1, seed=1), embed(z)
    f = lambda z: embed(z) @ a
    along = outer(m, m) @ a / radius**2
    eye = torch.eye(dim).double().expand(5, -1, -1)
    assert_close(calculus.gradient(embed, f, z), a - along)
    assert_close(calculus.hessian(embed, f, z), -f(z)[:, None, None] / radius**2 * eye)
    form = -m[:, :, None, None] / radius**2 * eye[:, None]
    assert_close(calculus.second_fundamental_form(embed, z), form)
    assert_close(calculus.mean_curvature(embed, z), -dim * m / radius**2)
    turning = calculus.mean_curvature_derivative(embed, z, normal(5, dim + 1, seed=2))
    assert_close(turning, torch.zeros_like(m))


def test_torus_of_revolution() -> None:
    """By u around the axis and v around the tube, with unit tangents e_u, e_v and outward normal n."""
    major, minor = 2.0, 0.75
    embed, z = flat(TorusOfRevolution(major, minor)), 2 * pi * uniform(6, 2)
    cos_u, sin_u, cos_v, sin_v = (t for angle in z.unbind(1) for t in (angle.cos(), angle.sin()))
    e_u = torch.stack([-sin_u, cos_u, 0 * sin_u], 1)
    e_v = torch.stack([-sin_v * cos_u, -sin_v * sin_u, cos_v], 1)
    n = torch.stack([cos_v * cos_u, cos_v * sin_u, sin_v], 1)
    width = major + minor * cos_v
    basis = calculus.frame(embed, z).basis
    assert_close(in_frame(outer(n, n), basis), torch.zeros(6, 2, 2).double())
    around, across = -cos_v / width, torch.full_like(width, -1 / minor)
    form = around[:, None, None] * outer(e_u, e_u) + across[:, None, None] * outer(e_v, e_v)
    expected = torch.einsum("nD,nij->nDij", n, in_frame(form, basis))
    assert_close(calculus.second_fundamental_form(embed, z), expected)
    assert_close(calculus.mean_curvature(embed, z), (around + across)[:, None] * n)
    turning = major * sin_v / (minor * width.square())  # d(-cos v / width) / (minor dv)
    found = calculus.mean_curvature_derivative(embed, z, e_v + 3 * e_u + 5 * n)
    assert_close(found, turning[:, None] * n)
    angle = lambda z: z[:, 1]
    assert_close(calculus.gradient(embed, angle, z), e_v / minor)
    bend = -sin_v / (minor * width)  # of v along e_u; e_v is along a geodesic
    assert_close(
        calculus.hessian(embed, angle, z), in_frame(bend[:, None, None] * outer(e_u, e_u), basis)
    )


def test_helix() -> None:
    """Frenet: H = kappa N, and its normal derivative along T is kappa tau B."""
    helix = Helix(1.5, 4.0, 1.0)
    rise = helix.pitch / (2 * pi)
    t = torch.linspace(0.1, 6, 5).double()
    zero, one = torch.zeros_like(t), torch.ones_like(t)
    tangent = torch.stack([-1.5 * t.sin(), 1.5 * t.cos(), rise * one], 1) / helix.speed
    inwards = torch.stack([-t.cos(), -t.sin(), zero], 1)
    binormal = torch.linalg.cross(tangent, inwards)
    kappa, tau = 1.5 / helix.speed**2, rise / helix.speed**2
    assert_close(calculus.mean_curvature(flat(helix), t[:, None]), kappa * inwards)
    found = calculus.mean_curvature_derivative(flat(helix), t[:, None], tangent)
    assert_close(found, kappa * tau * binormal)
    assert_close(
        calculus.mean_curvature_derivative(flat(helix), t[:, None], binormal), 0 * binormal
    )


def test_parabola() -> None:
    """H' = kappa' N with kappa = a / w^3, w^2 = 1 + a^2 z^2, in arc length; also placed in R^5."""
    a, z = 0.8, torch.linspace(-2, 2, 5).double()[:, None]
    w = (1 + (a * z).square()).sqrt()
    tangent, up = torch.cat([1 / w, a * z / w], 1), torch.cat([-a * z / w, 1 / w], 1)
    placed = Placed(Paraboloid(1, a), codim=3, seed=1, shift=0.5)
    for embed, frame in (
        (flat(Paraboloid(1, a)), torch.eye(2).double()),
        (flat(placed), placed.frame),
    ):
        found = calculus.mean_curvature_derivative(embed, z, -2 * tangent @ frame.T)
        assert_close(found, 6 * a**3 * z / w**6 * up @ frame.T)


STENCIL = ((-2, 1 / 12), (-1, -2 / 3), (1, 2 / 3), (2, -1 / 12))  # error h^4 f^(5) / 30


def slope(f: Callable[[Tensor], Tensor], z: Tensor, i: int, step: float) -> Tensor:
    """df / dz_i by differences."""
    e = torch.zeros_like(z)
    e[:, i] = step
    return sum((weight / step * f(z + k * e) for k, weight in STENCIL), torch.zeros(()).double())


class Differences:
    """The textbook formulas in coordinates, with a Christoffel symbol where there is one."""

    def __init__(self, embed: Callable[[Tensor], Tensor], dim: int, step: float):
        self.embed, self.axes, self.step = embed, range(dim), step

    def d(self, f: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
        """(n, ..., d)"""
        return torch.stack([slope(f, z, i, self.step) for i in self.axes], -1)

    def jacobian(self, z: Tensor) -> Tensor:
        return self.d(self.embed, z)

    def metric(self, z: Tensor) -> Tensor:
        return self.jacobian(z).mT @ self.jacobian(z)

    def gradient(self, f: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
        raised = torch.linalg.solve(self.metric(z), self.d(f, z)[:, :, None])
        return (self.jacobian(z) @ raised).squeeze(2)

    def hessian(self, f: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
        """d_ij f - Gamma^k_ij d_k f, Gamma^k_ij = g^kl (d_i g_lj + d_j g_li - d_l g_ij) / 2."""
        change = self.d(self.metric, z)  # (n, i, j, l), d_l g_ij
        lowered = change.permute(0, 3, 2, 1) + change.permute(0, 2, 3, 1) - change
        raised = torch.linalg.solve(self.metric(z), self.d(f, z)[:, :, None]).squeeze(2)
        second = self.d(lambda z: self.d(f, z), z)
        return second - torch.einsum("nijl,nl->nij", lowered / 2, raised)

    def normal(self, z: Tensor, v: Tensor) -> Tensor:
        tangents = self.jacobian(z)
        inner = torch.linalg.solve(self.metric(z), (tangents.mT @ v.flatten(2)))
        return (v.flatten(2) - tangents @ inner).reshape(v.shape)

    def form(self, z: Tensor) -> Tensor:
        """(n, D, d, d), of the chart's columns."""
        return self.normal(z, self.d(self.jacobian, z))

    def mean_curvature(self, z: Tensor) -> Tensor:
        return torch.einsum("nDij,nij->nD", self.form(z), torch.linalg.inv(self.metric(z)))


def _members() -> dict[str, Manifold]:
    modules = {name: catalog.module("manifolds", name) for name in catalog.names("manifolds")}
    found = {
        f"{name}-{dim}": (module.examples(dim, 1) or [None])[0]
        for name, module in modules.items()
        for dim in (1, 2)
    }
    return {name: manifold for name, manifold in found.items() if manifold}


MEMBERS = _members()


@pytest.mark.parametrize("manifold", MEMBERS.values(), ids=MEMBERS.keys())
def test_every_member_against_differences(manifold: Manifold) -> None:
    """With steps of 0.01 reaches: rounding leaves 1e-12 of a second difference and 1e-10 of a third,
    the next terms 1e-9 of a first one, and more where derivatives grow."""
    embed = flat(manifold)
    ends = [(a.low, a.high) if isfinite(a.low) else (-1.0, 1.0) for a in manifold.axes]
    low, high = torch.tensor(ends, dtype=torch.float64).unbind(1)
    z = low + (high - low) * (0.2 + 0.6 * uniform(4, manifold.dim))
    longest = jacobian(embed, z).norm(dim=1).max().item()
    slow = Differences(
        embed, manifold.dim, 0.01 * min(1.0, manifold.reach, manifold.reach / longest)
    )
    weights = normal(manifold.dim, seed=1)
    f = lambda z: (z * weights).sin().sum(1) + embed(z)[:, 0].square()
    triangle = calculus.frame(embed, z).triangle
    assert_close(calculus.gradient(embed, f, z), slow.gradient(f, z), 1e-8)
    expected = calculus.congruence(slow.hessian(f, z), triangle)
    assert_close(calculus.hessian(embed, f, z), expected, 1e-6)
    expected = calculus.congruence(slow.form(z), triangle[:, None])
    assert_close(calculus.second_fundamental_form(embed, z), expected, 1e-6)
    assert_close(calculus.mean_curvature(embed, z), slow.mean_curvature(z), 1e-6)
    step = normal(manifold.dim, seed=2)
    turning = slow.normal(z, (slow.d(slow.mean_curvature, z) @ step)[:, :, None]).squeeze(2)
    v = slow.jacobian(z) @ step
    assert_close(calculus.mean_curvature_derivative(embed, z, v), turning, 1e-4)
