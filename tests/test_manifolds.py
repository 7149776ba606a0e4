"""The laws of a manifold, over every member of the catalog, and facts that have a closed form."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import NamedTuple, final

import pytest
import torch
from scipy.special import ellipe, elliprg
from torch import Tensor

from manifoldlab import catalog, linalg, panels
from manifoldlab.densities.gaussians import random_gaussians
from manifoldlab.densities.smooth import Smooth, Tilt
from manifoldlab.interfaces import Axis, Patch
from manifoldlab.manifolds.base import Manifold
from manifoldlab.manifolds.clifford_torus import CliffordTorus
from manifoldlab.manifolds.ellipsoid import Ellipsoid
from manifoldlab.manifolds.flat import Flat
from manifoldlab.manifolds.paraboloid import Paraboloid
from manifoldlab.manifolds.placed import Placed
from manifoldlab.manifolds.product import Product
from manifoldlab.manifolds.sphere import Sphere
from manifoldlab.manifolds.torus_of_revolution import TorusOfRevolution
from manifoldlab.nearest_point import jacobian
from manifoldlab.problems.quadrature import Quadrature
from manifoldlab.problems.tube import Tube

DIMS, SEEDS = (1, 2, 3, 4), (0, 1)
STENCIL = (
    (-2, 1 / 12),
    (-1, -2 / 3),
    (1, 2 / 3),
    (2, -1 / 12),
)  # f' with an error of h^4 f^(5) / 30


def _members() -> dict[str, Manifold]:
    """Every member's examples; what other dimensions or seeds repeat is left out."""
    found: dict[Manifold, str] = {}
    for name in catalog.names("manifolds"):
        for dim, seed in ((dim, seed) for dim in DIMS for seed in SEEDS):
            for number, manifold in enumerate(
                catalog.module("manifolds", name).examples(dim, seed)
            ):
                found.setdefault(manifold, f"{name}-{dim}-{seed}-{number}")
    return {name: manifold for manifold, name in found.items()}


MEMBERS = _members()
every_member = pytest.mark.parametrize("manifold", MEMBERS.values(), ids=MEMBERS.keys())


class Sample(NamedTuple):
    z: Tensor
    m: Tensor  # on the manifold
    normal: Tensor  # unit normals there; zeros where the codimension is 0
    x: Tensor  # m + offset, up to 0.9 of the reach
    near: Tensor  # m + offset, half as far: where the high derivatives are moderate


def cap(manifold: Manifold) -> float:
    """The unit of length of offsets."""
    return min(manifold.reach, 1.0)


def gaussian(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def draw(manifold: Manifold, n: int, seed: int) -> Tensor:
    """Coordinates inside the chart, normal on infinite axes and uniform on finite ones."""
    z = gaussian(n, manifold.dim, seed=seed)
    uniform = 0.01 + 0.98 * (1 + torch.erf(z / 2**0.5)) / 2
    columns = [
        axis.low + (axis.high - axis.low) * uniform[:, i] if math.isfinite(axis.low) else z[:, i]
        for i, axis in enumerate(manifold.axes)
    ]
    return torch.stack(columns, 1)


def along(offset: Tensor, like: Tensor) -> Tensor:
    """(n,) shaped to multiply points."""
    return offset.reshape(-1, *[1] * (like.ndim - 1))


@cache
def sample(manifold: Manifold, n: int = 8) -> Sample:
    z = draw(manifold, n, seed=1)
    m = manifold.embed(z)
    columns = torch.linalg.qr(jacobian(manifold.embed, z)).Q
    v = gaussian(*m.shape, seed=2)
    normal = linalg.unit(v - linalg.project(columns, v)) * (manifold.ambient > manifold.dim)
    offset = along(cap(manifold) * torch.linspace(0.9, 0.1, n, dtype=m.dtype), m) * normal
    return Sample(z, m, normal, m + offset, m + offset / 2)


def gives(manifold: Manifold, name: str) -> bool:
    """Whether the member has its own version of what the base derives."""
    return name in vars(type(manifold))


def size(x: Tensor) -> float:
    return 1 + x.abs().max().item()


def assert_close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    assert actual.shape == expected.shape
    error = (actual - expected).abs().max().item()
    assert error <= tolerance * size(expected), f"{error:.3g} > {tolerance:.3g} * {size(expected)}"


# Rounding of x, eps |x|, is magnified by (1 - 0.9)^{-1} at 0.9 of the reach, and by the chart
EXACT = 1e-12


@every_member
def test_coordinates_are_of_the_nearest_point(manifold: Manifold) -> None:
    s = sample(manifold)
    assert s.m.shape == (len(s.z), *manifold.shape)
    z = manifold.coordinates(torch.cat([s.m, s.x]))
    assert z.shape == (2 * len(s.z), manifold.dim)
    assert_close(manifold.embed(z), torch.cat([s.m, s.m]), EXACT)


@every_member
def test_offsets_are_normal(manifold: Manifold) -> None:
    s = sample(manifold)
    offset = torch.stack([s.x - manifold.nearest(s.x), s.normal])
    assert_close(manifold.to_tangent(s.x, offset), torch.zeros_like(offset), EXACT)


@every_member
def test_to_tangent_is_the_orthogonal_projection(manifold: Manifold) -> None:
    s = sample(manifold)
    x, n = s.x[:3], 3
    directions = torch.eye(manifold.ambient, dtype=x.dtype)[:, None].expand(-1, n, -1)
    projected = manifold.to_tangent(x, directions.reshape(-1, n, *manifold.shape))
    projector = projected.flatten(2).transpose(0, 1)  # (n, D, D)
    assert_close(projector, projector.mT, EXACT)
    assert_close(projector @ projector, projector, EXACT)
    rank = projector.diagonal(dim1=1, dim2=2).sum(1)
    assert_close(rank, torch.full_like(rank, manifold.dim), EXACT)
    tangents = jacobian(manifold.embed, s.z[:n])
    assert_close(projector @ tangents, tangents, 10 * EXACT)
    v = gaussian(2, 4, *x.shape, seed=3)  # several leading directions
    expected = torch.einsum("nij,abnj->abni", projector, v.flatten(3))
    assert_close(manifold.to_tangent(x, v).flatten(3), expected, EXACT)


@every_member
def test_tangent_basis_and_normals_are_orthonormal_and_complete(manifold: Manifold) -> None:
    s = sample(manifold)
    columns, normals = manifold.tangent_basis(s.x), manifold.normals(s.x)
    assert columns.shape == (len(s.x), manifold.ambient, manifold.dim)
    if normals is not None:
        columns = torch.cat([columns, normals], 2)
        assert columns.shape[2] == manifold.ambient
    eye = torch.eye(columns.shape[2], dtype=columns.dtype).expand(len(s.x), -1, -1)
    assert_close(columns.mT @ columns, eye, EXACT)


def _wild(manifold: Manifold) -> Tensor:
    """Points just beyond the reach, at about its distance in any direction, and far away."""
    s = sample(manifold)
    unit = cap(manifold)
    wild = [gaussian(*s.m.shape, seed=seed) for seed in (4, 5, 6)]
    beyond = s.m + 1.05 * unit * s.normal
    around = [s.m + k * unit * linalg.unit(v) for k, v in zip((0.8, 2.5), wild, strict=False)]
    return torch.cat([beyond, *around, s.m + 20 * size(s.m) * wild[2]])


@every_member
def test_a_point_is_nearest_and_within_reach_or_nan(manifold: Manifold) -> None:
    x = _wild(manifold)
    z = manifold.coordinates(x)
    bad = z.isnan().any(1)
    assert torch.equal(bad, z.isnan().all(1))
    distance = linalg.squared_norm(x - manifold.embed(z)).sqrt()
    assert (distance[~bad] < manifold.reach).all()
    others = manifold.embed(draw(manifold, 500, seed=7)).flatten(1)
    least = torch.cat([torch.cdist(p[None], others) for p in x.flatten(1)]).amin(1)
    assert (distance <= least * (1 + 1e-12))[~bad].all()
    assert bad.any() or manifold.reach == math.inf


def _edges(manifold: Manifold) -> list[tuple[int, int]]:
    """Axis and side (-1 or 1) of each."""
    finite = [k for k, a in enumerate(manifold.axes) if not a.wraps and math.isfinite(a.low)]
    return [(k, side) for k in finite for side in (-1, 1)]


WITH_EDGE = {name: manifold for name, manifold in MEMBERS.items() if _edges(manifold)}


@pytest.mark.parametrize("manifold", WITH_EDGE.values(), ids=WITH_EDGE.keys())
def test_past_an_edge_is_nan(manifold: Manifold) -> None:
    inside, outside = [], []
    for k, side in _edges(manifold):
        low, high, _ = manifold.axes[k]
        z = draw(manifold, 4, seed=8)
        z[:, k] = high if side > 0 else low
        assert (manifold.interior(z) == 0).all()
        m, outward = manifold.embed(z), side * cap(manifold) * _across_edge(manifold, z, k)
        inside.append(m - 1e-6 * outward)
        outside += [m + 1e-6 * outward, m + 0.05 * outward]
        z[:, k] += side * 1e-3 * (high - low)
        assert (manifold.interior(z) == 0).all()
    bad = manifold.coordinates(torch.cat(inside + outside)).isnan().any(1)
    assert bad.tolist() == [False] * 4 * len(inside) + [True] * 4 * len(outside)


def _across_edge(manifold: Manifold, z: Tensor, k: int) -> Tensor:
    """Unit tangents (n, *shape), normal to the edge, along which coordinate k grows."""
    tangents = jacobian(manifold.embed, z).roll(-1 - k, 2)  # column k is the last
    q, r = torch.linalg.qr(tangents)
    return (q[:, :, -1] * r[:, -1:, -1].sign()).reshape(-1, *manifold.shape)


@every_member
def test_interior_is_one_in_the_middle_and_positive_inside(manifold: Manifold) -> None:
    middle = [(a.low + a.high) / 2 if math.isfinite(a.low) else 0.0 for a in manifold.axes]
    value = manifold.interior(torch.tensor([middle], dtype=torch.float64))
    assert_close(value, torch.ones_like(value), EXACT)
    value = manifold.interior(draw(manifold, 100, seed=9))
    assert ((value > 0) & (value <= 1)).all()


def _quotients(manifold: Manifold, z: Tensor, w: Tensor) -> Tensor:
    """|q - p|^2 / 2 dist(q - p, T_p) (Federer 1959, 4.18); inf of pairs too near to tell."""
    p, q = manifold.embed(z).flatten(1), manifold.embed(w).flatten(1)
    columns = torch.linalg.qr(jacobian(manifold.embed, z)).Q
    chord = q - p
    normal = chord - linalg.project(columns, chord)
    square = linalg.squared_norm(chord)
    quotient = square / (2 * linalg.squared_norm(normal).sqrt())
    return quotient.where(square.sqrt() > 0.03 * cap(manifold), math.inf)


def _least_quotient(manifold: Manifold, kept: int, children: int = 8) -> float:
    """A random search that keeps the best pairs and moves them less and less."""
    n = kept * children
    axes = manifold.axes
    low, high = (torch.tensor([a[i] for a in axes], dtype=torch.float64) for i in (0, 1))
    wraps = torch.tensor([a.wraps for a in axes])
    scale = ((high - low) / 4).where(low.isfinite(), 1)
    into = lambda z: z.where(wraps, torch.minimum(torch.maximum(z, low), high))
    z, w = draw(manifold, 2 * n, seed=10), draw(manifold, 2 * n, seed=11)
    w[n:] = into(z[n:] + 0.2 * scale * w[n:].clamp(-2, 2))
    best = math.inf
    for step in range(20):
        quotient = _quotients(manifold, z, w)
        best = min(best, quotient.min().item())
        order = quotient.argsort()[:kept].repeat(children)
        spread = scale / 2 * 0.8**step * (torch.arange(n) >= kept)[:, None]
        z = into(z[order] + spread * gaussian(n, manifold.dim, seed=12 + step))
        w = into(w[order] + spread * gaussian(n, manifold.dim, seed=1012 + step))
    return best


@every_member
def test_reach_is_honest(manifold: Manifold) -> None:
    assert manifold.reach > 0
    exact = str(type(manifold).__dict__["reach"].__doc__).startswith("Exact")
    least = _least_quotient(manifold, kept=128 if exact else 32)
    s = sample(manifold)
    bend = torch.einsum("nijk->nij", manifold.second_fundamental_form(s.m).flatten(3).square())
    bend = bend.diagonal(dim1=1, dim2=2).sqrt().max().item()  # |II(e_i, e_i)| <= 1 / reach
    if manifold.reach == math.inf:
        assert least > 1e9 and bend < 1e-9
        return
    assert bend <= (1 + 1e-9) / manifold.reach
    assert least >= manifold.reach * (1 - 1e-9)
    if exact:
        assert least <= 1.05 * manifold.reach  # pairs nearer than 0.03 are left out; a short search


def _critical(manifold: Manifold, n: int = 900) -> tuple[float, Tensor]:
    """The least quotient of all pairs of a dense sample, and the centre of its ball, scaled by 0.99.

    The ball touches M at p and holds q: where the two are a double normal it is the focal point.
    """
    p = manifold.embed(draw(manifold, n, seed=20))
    columns = torch.linalg.qr(jacobian(manifold.embed, draw(manifold, n, seed=20))).Q
    chord = p.flatten(1)[None] - p.flatten(1)[:, None]  # (p, q, D)
    square = chord.square().sum(2)
    normal = chord - (chord @ columns) @ columns.mT
    quotient = square / (2 * normal.norm(dim=2))
    quotient = quotient.where(square.sqrt() > 0.1 * cap(manifold), math.inf)
    i = int(quotient.amin(1).argmin())
    j = int(quotient[i].argmin())
    offset = 0.99 * min(quotient[i, j].item(), manifold.reach) * linalg.unit(normal[i, j][None])
    return quotient[i, j].item(), p[i : i + 1] + offset.reshape(1, *manifold.shape)


CERTAIN = {
    name: manifold
    for name, manifold in MEMBERS.items()
    if manifold.reach_certified and manifold.dim <= 2 and manifold.reach < math.inf
}
each_certain = pytest.mark.parametrize("manifold", CERTAIN.values(), ids=CERTAIN.keys())


@each_certain
def test_nothing_is_nearer_up_to_the_reach_towards_the_nearest_sheet(manifold: Manifold) -> None:
    quotient, x = _critical(manifold)
    assert quotient >= manifold.reach * (1 - 1e-9)
    others = manifold.embed(draw(manifold, 5000, seed=21)).flatten(1)
    distance = linalg.squared_norm(x - manifold.nearest(x)).sqrt().item()
    assert distance <= torch.cdist(x.flatten(1), others).min().item() * (1 + 1e-9)


@final
@dataclass(frozen=True)
class Boastful(Manifold):
    """A manifold that says it has a tenth more reach than it has."""

    base: Manifold

    @property
    def dim(self) -> int:
        return self.base.dim

    @property
    def shape(self) -> tuple[int, ...]:
        return self.base.shape

    @property
    def axes(self) -> tuple[Axis, ...]:
        return self.base.axes

    @cached_property
    def reach(self) -> float:
        return 1.1 * _critical(self.base)[0]

    def embed(self, z: Tensor) -> Tensor:
        return self.base.embed(z)

    def coordinates(self, x: Tensor) -> Tensor:
        return self.base.coordinates(x)


@each_certain
def test_a_declared_reach_that_is_too_large_is_caught(manifold: Manifold) -> None:
    boastful = Boastful(manifold)
    for check in (
        test_reach_is_honest,
        test_nothing_is_nearer_up_to_the_reach_towards_the_nearest_sheet,
    ):
        with pytest.raises(AssertionError):
            check(boastful)


@every_member
def test_log_volume(manifold: Manifold) -> None:
    z = sample(manifold).z
    if gives(manifold, "log_volume"):
        assert_close(manifold.log_volume(z), Manifold.log_volume(manifold, z), EXACT)
    step = 1e-3
    columns = [
        sum(weight / step * manifold.embed(z + k * step * e).flatten(1) for k, weight in STENCIL)
        for e in torch.eye(manifold.dim, dtype=z.dtype)
    ]
    metric = torch.stack(columns, 1) @ torch.stack(columns, 2)
    # h^4 = 1e-12, times fifth derivatives; rounding is 1e-16 / h
    assert_close(manifold.log_volume(z), torch.logdet(metric) / 2, 1e-8)


def _rows(z: Tensor, x: Tensor) -> Tensor:
    """dz / dx, (n, d, D), by one backward pass a row."""
    rows = [torch.autograd.grad(column.sum(), x, retain_graph=True)[0] for column in z.unbind(1)]
    return torch.stack([row.flatten(1) for row in rows], 1)


@every_member
def test_log_compression_is_that_of_the_jacobian_of_coordinates(manifold: Manifold) -> None:
    x = sample(manifold).x.clone().requires_grad_()
    compression = manifold.log_compression(x.detach())
    rows = _rows(manifold.coordinates(x), x)
    assert_close(compression, torch.logdet(rows @ rows.mT) / 2, 100 * EXACT)
    if gives(manifold, "log_compression"):
        default = Manifold.log_compression(manifold, x.detach())
        assert_close(compression, default, 100 * EXACT)


@every_member
def test_three_derivatives_of_coordinates(manifold: Manifold) -> None:
    """Each derivative along a line against differences of the one before.

    The line's parameter has the reach as its unit; half way to the focal set the k-th derivative is
    about k! 2^k, so h^4 = 1e-12 leaves 1e-7 of the third; rounding leaves 1e-12 of it.
    """
    s = sample(manifold, 4)
    unit, mix = cap(manifold), gaussian(manifold.dim, seed=20)
    direction = unit * linalg.unit(gaussian(*s.m.shape, seed=21))
    step = 1e-3
    steps = torch.tensor([0, *(k for k, _ in STENCIL)], dtype=s.m.dtype) * step
    t = steps.repeat_interleave(len(s.m)).requires_grad_()
    x = s.near.repeat(len(steps), *[1] * len(manifold.shape))
    x = x + along(t, x) * direction.repeat(len(steps), *[1] * len(manifold.shape))
    value = manifold.coordinates(x) @ mix + 0 * t**4  # t**4: a linear function has a graph, too
    for _ in (1, 2, 3):
        (derivative,) = torch.autograd.grad(value.sum(), t, create_graph=True)
        around = value.detach().unflatten(0, (len(steps), -1))[1:]
        weights = torch.tensor([weight for _, weight in STENCIL], dtype=s.m.dtype) / step
        assert_close(derivative.detach()[: len(s.m)], weights @ around, 1e-6)
        value = derivative


@every_member
def test_forward_and_reverse_derivatives_agree_and_hessians_are_symmetric(
    manifold: Manifold,
) -> None:
    s = sample(manifold, 4)
    u, v = (linalg.unit(gaussian(*s.m.shape, seed=seed)) for seed in (22, 23))
    mix = gaussian(manifold.dim, seed=24)
    function = lambda x: (manifold.coordinates(x).square() @ mix).sum()
    reverse = torch.func.grad_and_value(function)
    x, moves = torch.cat([s.near, s.near]), torch.cat([u, v])
    (gradient, _), (bent, forward) = torch.func.jvp(reverse, (x,), (moves,))
    assert_close(forward, linalg.inner(gradient, moves).sum(), 100 * EXACT)
    assert_close(linalg.inner(bent[:4], v), linalg.inner(bent[4:], u), 1000 * EXACT)


@every_member
def test_bad_samples_leave_the_derivatives_of_good_ones_alone(manifold: Manifold) -> None:
    s = sample(manifold)
    bad = [torch.full_like(s.m[:1], value) for value in (math.nan, math.inf, 0.0)]
    mixed = torch.cat([s.x, *bad, _wild(manifold)])

    def gradient(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        value = function(x)[: len(s.x)].sum() + 0 * x[: len(s.x)].sum()  # it may be constant
        return torch.autograd.grad(value, x)[0][: len(s.x)]

    # the default of log_compression differentiates the coordinates
    functions = [manifold.log_compression]
    functions += [manifold.coordinates] * gives(manifold, "log_compression")
    for function in functions:
        assert_close(gradient(function, mixed), gradient(function, s.x), 1e-9)


@every_member
def test_shape_operator_is_the_derivative_of_the_normal(manifold: Manifold) -> None:
    s = sample(manifold, 4)
    tangents, basis = jacobian(manifold.embed, s.z), manifold.tangent_basis(s.m)
    moves = torch.linalg.lstsq(tangents, basis).solution  # (n, d, d): dz of each column
    step = 1e-3 * cap(manifold)
    z = torch.stack([s.z[:, None] + k * step * moves.mT for k, _ in STENCIL]).flatten(0, 2)
    v = s.normal.flatten(1).repeat_interleave(manifold.dim, 0).repeat(len(STENCIL), 1)
    columns = torch.linalg.qr(jacobian(manifold.embed, z)).Q
    field = (v - linalg.project(columns, v)).unflatten(0, (len(STENCIL), 4, manifold.dim))
    weights = torch.tensor([weight for _, weight in STENCIL], dtype=v.dtype) / step
    turned = torch.einsum("k,knij->nij", weights, field)  # derivative i of the normal field
    shape = manifold.shape_operator(s.m, s.normal)
    assert_close(shape, -turned @ basis, 1e-7)
    form = manifold.second_fundamental_form(s.m)
    assert form.shape == (4, manifold.dim, manifold.dim, *manifold.shape)
    assert_close(torch.einsum("nijk,nk->nij", form.flatten(3), s.normal.flatten(1)), shape, EXACT)
    assert_close(form, form.transpose(1, 2), EXACT)
    vectors = form.movedim(0, 2)  # (d, d, n, *shape)
    assert_close(vectors - manifold.to_tangent(s.m, vectors), vectors, EXACT)


@every_member
def test_embed_under_transforms(manifold: Manifold) -> None:
    z, m = sample(manifold).z, sample(manifold).m
    stacked = torch.func.vmap(manifold.embed)(torch.stack([z, z.flip(0)]))
    assert_close(stacked, torch.stack([m, m.flip(0)]), EXACT)
    dz, v = gaussian(*z.shape, seed=25), gaussian(*m.shape, seed=26)
    forward = torch.func.jvp(manifold.embed, (z,), (dz,))[1]
    back = torch.func.vjp(manifold.embed, z)[1](v)[0]
    assert_close(linalg.inner(forward, v), linalg.inner(dz, back), EXACT)


@every_member
@pytest.mark.parametrize(("dtype", "n"), [(torch.float64, 0), (torch.float32, 4)])
def test_empty_batches_and_float32(manifold: Manifold, dtype: torch.dtype, n: int) -> None:
    s = sample(manifold, 4)
    z, x, normal = (t[:n].to(dtype) for t in (s.z, s.near, s.normal))
    points = manifold.embed(manifold.coordinates(x))
    scalars = [manifold.log_volume(z), manifold.interior(z), manifold.log_compression(x)]
    for result in scalars:
        assert result.shape == (n,) and result.dtype == dtype and not result.isnan().any()
    for result in (points, manifold.embed(z), manifold.to_tangent(x, normal)):
        assert result.shape == (n, *manifold.shape) and result.dtype == dtype
    # 1e-7 of the size of points, magnified by 2 half way to the focal set, and some operations
    assert n == 0 or (points - s.m).abs().max() <= 1e-5 * size(s.m)


@pytest.mark.parametrize(
    "axis",
    [Axis(0.0), Axis(high=1.0), Axis(1.0, 1.0), Axis(0.0, math.nan), Axis(wraps=True)],
    ids=repr,
)
def test_an_axis_with_one_end_is_refused(axis: Axis) -> None:
    """Where a density, a quadrature or a problem meets the chart, and not taken for all of R."""

    @final
    @dataclass(frozen=True)
    class HalfLine(Manifold):
        dim: int = 1
        shape: tuple[int, ...] = (2,)
        reach: float = math.inf
        axes: tuple[Axis, ...] = (axis,)

        def embed(self, z: Tensor) -> Tensor:
            return torch.cat([z, torch.zeros_like(z)], 1)

        def coordinates(self, x: Tensor) -> Tensor:
            return x[:, :1]

    line, gaussians = HalfLine(), random_gaussians(1, 2, 0)
    for meet in (
        line.patches,
        lambda: line.interior(torch.ones(1, 1)),
        lambda: Smooth(line, Tilt(2), (0.5, 0.5)),
        lambda: Quadrature(line, gaussians, 0.1),
        lambda: Tube(line, gaussians, 0.1),
    ):
        with pytest.raises(
            ValueError, match="an axis is all of R or has ends low < high, not Axis"
        ):
            meet()


@every_member
def test_axes_and_patches_are_boxes_of_the_chart(manifold: Manifold) -> None:
    assert len(manifold.axes) == manifold.dim
    for patch in manifold.patches():
        assert len(patch.low) == len(patch.high) == manifold.dim
        low, high = torch.tensor([patch.low, patch.high], dtype=torch.float64)
        assert (low < high).all()
        z = patch.coordinates(low + (high - low) * torch.rand(9, manifold.dim, dtype=low.dtype))
        assert z.shape == (9, manifold.dim) and z.isfinite().all()
        for axis, value in zip(manifold.axes, z.unbind(1), strict=True):
            assert axis.wraps or ((value >= axis.low) & (value <= axis.high)).all()


@every_member
def test_repr_rebuilds_it(manifold: Manifold) -> None:
    modules = [catalog.module("manifolds", name) for name in catalog.names("manifolds")]
    scope = {name: value for module in modules for name, value in vars(module).items()}
    again = eval(repr(manifold), scope)
    assert again == manifold and hash(again) == hash(manifold)
    z, m = sample(manifold).z, sample(manifold).m
    # the first use of a new one: constants that it keeps must not be a transform's
    assert_close(torch.func.vmap(again.embed)(z[None]).squeeze(0), m, EXACT)
    again = eval(repr(manifold), scope)
    with torch.inference_mode():
        again.embed(z)
    again.embed(z.clone().requires_grad_()).sum().backward()


def _integral(
    manifold: Manifold, patches: tuple[Patch, ...], f: Callable[[Tensor], Tensor], counts: int
) -> Tensor:
    """Integral over the manifold of f(x), by 10 nodes a panel and axis."""
    total = torch.zeros((), dtype=torch.float64)
    for patch in patches:
        low, high = torch.tensor([patch.low, patch.high], dtype=torch.float64)
        nodes, log_weight = panels.nodes(*panels.grid(low, high, (counts,) * manifold.dim), 10)
        s = nodes.flatten(0, 1)
        z = patch.coordinates(s)
        change = torch.linalg.slogdet(jacobian(patch.coordinates, s)).logabsdet
        weight = (log_weight.flatten() + change + manifold.log_volume(z)).exp()
        total = total + (weight * f(manifold.embed(z))).sum(-1)
    return total


OWN_PATCHES = {
    name: manifold
    for name, manifold in MEMBERS.items()
    if gives(manifold, "patches") and manifold.dim <= 2
}


@pytest.mark.parametrize("manifold", OWN_PATCHES.values(), ids=OWN_PATCHES.keys())
def test_own_patches_tile_as_the_default_does(manifold: Manifold) -> None:
    """Integrals of bumps in the middle of the chart; the far end is left to the known volumes."""
    centres = manifold.embed(draw(manifold, 4, seed=30).clamp(-1, 1)).flatten(1)
    narrow = 8 / cap(manifold) ** 2  # exp(-32) where a sphere has its other pole
    bumps = lambda x: (-narrow * torch.cdist(centres, x.flatten(1)).square()).exp()
    own = _integral(manifold, manifold.patches(), bumps, 12)
    default = _integral(manifold, Manifold.patches(manifold), bumps, 16)
    assert_close(own, default, 1e-7)  # a bump is three panels wide


a, b, c = 1.0, 1.3, 0.8
ELLIPSE = 4 * b * ellipe(1 - a**2 / b**2)
ELLIPSOID = 4 * math.pi * elliprg((a * b) ** 2, (a * c) ** 2, (b * c) ** 2)
VOLUMES = [
    (Sphere(1, 0.7), 2 * math.pi * 0.7),
    (Sphere(2, 0.7), 4 * math.pi * 0.7**2),
    (Sphere(3, 0.7), 2 * math.pi**2 * 0.7**3),
    (CliffordTorus((0.5, 2.0)), 4 * math.pi**2),
    (TorusOfRevolution(2.0, 0.75), 4 * math.pi**2 * 1.5),
    (Ellipsoid((a, b)), ELLIPSE),
    (Ellipsoid((a, b, c)), ELLIPSOID),
    (Product(Ellipsoid((a, b)), Sphere(1, 0.7)), ELLIPSE * 2 * math.pi * 0.7),
    (Placed(Ellipsoid((a, b, c)), codim=2, seed=3, shift=1.0), ELLIPSOID),
]


@pytest.mark.parametrize(("manifold", "volume"), VOLUMES, ids=lambda value: str(value)[:40])
def test_patches_have_the_volume_of_the_manifold(manifold: Manifold, volume: float) -> None:
    counts = 2 if manifold.dim == 3 else 3
    whole = _integral(manifold, manifold.patches(), lambda x: torch.ones_like(x[:, 0]), counts)
    # 10 nodes on a third of a turn, or on a part of a cube's face
    assert whole.item() == pytest.approx(volume, rel=1e-10)


def test_placed_in_the_dimension_of_imagenet() -> None:
    base = Sphere(2, 0.7)
    Placed(base).to_tangent(
        *[Placed(base).embed(torch.zeros(1, 2, dtype=torch.float64))] * 2
    )  # warm
    start = time.process_time()  # not the clock on the wall: the machine may be busy
    manifold = Placed(base, codim=150_528 - 3, seed=1, shift=2.0)
    z = gaussian(4, 2, seed=40)
    m = manifold.embed(z)
    v = gaussian(*m.shape, seed=41)
    normal = linalg.unit(v - manifold.to_tangent(m, v))
    x = m + 0.5 * normal
    tangent = manifold.to_tangent(x, v)
    compression = manifold.log_compression(x)
    assert time.process_time() - start < 1
    assert manifold.shape == (150_528,)
    assert_close(manifold.coordinates(x), z, EXACT)
    assert_close(linalg.inner(tangent, normal), torch.zeros(4, dtype=z.dtype), EXACT)
    # II has no part across the base's space, so that only the offset's part inside it counts
    inner = (x - manifold.origin) @ manifold.frame
    assert_close(compression, base.log_compression(inner), EXACT)
    assert manifold.coordinates(m + 0.71 * normal).isnan().all()


def test_images_are_flattened_in_compositions() -> None:
    image = next(m for m in MEMBERS.values() if len(m.shape) == 3 and m.dim == 2)
    circle = Sphere(1, cap(image))
    s, t = sample(image), sample(circle)
    placed, product = Placed(image, codim=2, seed=1, shift=1.0), Product(image, circle)
    assert_close(placed.nearest(placed.embed(s.z)), placed.embed(s.z), EXACT)
    flat = torch.cat([s.near.flatten(1), t.near], 1)
    assert_close(product.nearest(flat), torch.cat([s.m.flatten(1), t.m], 1), EXACT)
    assert_close(product.to_tangent(flat, flat - product.nearest(flat)), 0 * flat, EXACT)
    assert placed.reach_certified == product.reach_certified == image.reach_certified
    assert (placed.shape, product.shape) == ((image.ambient + 2,), (image.ambient + 2,))


def test_a_product_tests_the_whole_offset() -> None:
    manifold = Product(Sphere(1, 1.0), Sphere(1, 2.0))  # reach 1
    for first, second, inside in ((0.7, 0.7, True), (0.8, 0.8, False), (0.1, 1.5, False)):
        x = torch.tensor([[1.0 + first, 0.0, 2.0 + second, 0.0]], dtype=torch.float64)
        results = (manifold.coordinates(x), manifold.log_compression(x), manifold.normals(x))
        assert all(bool(result.isfinite().all()) == inside for result in results)


def test_a_sphere_of_dimension_3000_projects_along_its_normal() -> None:
    manifold = Sphere(3000, 2.0)
    x = 2.0 * linalg.unit(gaussian(4, 3001, seed=42))
    v = gaussian(3, 4, 3001, seed=43)
    start = time.process_time()
    tangent = manifold.to_tangent(x, v)
    assert time.process_time() - start < 0.2
    assert_close(tangent, v - (v * x).sum(2, keepdim=True) * x / 4, EXACT)


def test_an_ellipsoid_of_dimension_3000() -> None:
    manifold = Ellipsoid(tuple(1 + i / 3000 for i in range(3001)))
    u = linalg.unit(gaussian(4, 3001, seed=44))
    axes = torch.tensor(manifold.semiaxes, dtype=torch.float64)
    m, normal = axes * u, linalg.unit(u / axes)
    for offset in (0.9 * manifold.reach, -0.9 * manifold.reach):
        x = m + offset * normal
        assert_close(manifold.nearest(x), m, EXACT)
        assert_close(manifold.normals(x).squeeze(2), normal, EXACT)
        assert manifold.log_compression(x).isfinite().all()


@pytest.mark.parametrize("semiaxes", [(1.0, 1e-3, 30.0), (5.0, 5.0, 5.0), (1e-6, 1.0), (1.0, 1e4)])
def test_extreme_ellipsoids(semiaxes: tuple[float, ...]) -> None:
    """Points on the planes of symmetry and next to them included, where terms of the equation vanish."""
    manifold = Ellipsoid(semiaxes)
    axes = torch.tensor(semiaxes, dtype=torch.float64)
    u = gaussian(300, len(axes), seed=45)
    u[:100] = u[:100].where(torch.arange(len(axes)) != 0, 1e-9)
    u[100:200] = u[100:200].where(torch.arange(len(axes)) != 1, 0.0)
    u = linalg.unit(u)
    for share in (-0.9, -0.1, 0.9, 0.0):
        x = axes * u + share * manifold.reach * linalg.unit(u / axes)
        # relative to the axis' own length: x is rounded to eps |x|, an axis may be shorter
        assert_close(manifold.nearest(x), axes * u, EXACT)
    far = axes * u * 1e3
    assert manifold.coordinates(far).isnan().all()


WRONG: list[partial[Manifold]] = [
    partial(Flat, 0),
    partial(Sphere, 2, -1.0),
    partial(Sphere, 0),
    partial(CliffordTorus, ()),
    partial(CliffordTorus, (1.0, -2.0)),
    partial(Ellipsoid, (1.0,)),
    partial(Ellipsoid, (1.0, math.nan)),
    partial(TorusOfRevolution, 1.0, 1.5),
    partial(Paraboloid, 2, 0.0),
    partial(Paraboloid, 2, math.inf),
    partial(Placed, Flat(2), -1),
    partial(Placed, Flat(2), 1, 0, math.nan),
]


@pytest.mark.parametrize("build", WRONG, ids=lambda build: f"{build.func.__name__}{build.args}")
def test_wrong_parameters_are_named(build: partial[Manifold]) -> None:
    with pytest.raises(ValueError, match=build.func.__name__ + r"\("):
        build()
