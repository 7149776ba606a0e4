"""Ranges of decoders' Jacobians: projections without a basis against QR, and exact decoders."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import pytest
import torch
from torch import Tensor, nn

from manifoldlab import jacobian_range, linalg
from manifoldlab.interfaces import Batch
from manifoldlab.jacobian_range import JacobianRange
from manifoldlab.manifolds.base import Manifold
from manifoldlab.manifolds.flat import Flat
from manifoldlab.manifolds.placed import Placed
from manifoldlab.manifolds.sphere import Sphere
from manifoldlab.manifolds.swiss_roll import SwissRoll
from manifoldlab.models.autoencoder import autoencoder
from manifoldlab.tangents.autoencoder import Autoencoder
from manifoldlab.tangents.base import leading, residual, unlabelled

SHAPES = ((12,), (2, 9, 8))


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def network(shape: tuple[int, ...], latent: int, dtype: torch.dtype = torch.float64) -> nn.Module:
    model = autoencoder(shape, latent=latent, width=6, depth=1)
    for i, parameter in enumerate(model.parameters()):
        parameter.data = 0.4 * gaussian(*parameter.shape, seed=i)
    return model.to(dtype).eval()


def by_qr(model: nn.Module, x: Tensor, v: Tensor) -> Tensor:
    """v (m, n, *shape)"""
    with torch.no_grad():
        jacobian = jacobian_range.columns(model.decode, model.encode(x), prod(x.shape[1:]), 2**20)
    return linalg.project(torch.linalg.qr(jacobian).Q, v)


@pytest.mark.parametrize("shape", SHAPES)
def test_columns_are_the_jacobian(shape: tuple[int, ...]) -> None:
    model, z = network(shape, 3), gaussian(4, 3)
    expected = torch.stack(
        [torch.func.jacrev(lambda z: model.decode(z[None])[0])(row) for row in z]
    )
    for chunk in (1, 2**20):
        found = jacobian_range.columns(model.decode, z, prod(shape), chunk)
        torch.testing.assert_close(found, expected.detach().flatten(1, -2))
        torch.testing.assert_close(jacobian_range.gram(found, chunk), found.mT @ found)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("explicit", [0, 2**20], ids=["factor", "basis"])
@pytest.mark.parametrize("chunk", [1, 2**18])
def test_projects_as_qr_does(shape: tuple[int, ...], explicit: int, chunk: int) -> None:
    model, x, v = network(shape, 4), gaussian(5, *shape), gaussian(3, 5, *shape, seed=1)
    expected = by_qr(model, x, v)
    estimator = Autoencoder(model, 4, explicit=explicit, chunk=chunk)
    batch = unlabelled(x)
    prepared = estimator.at(batch)
    assert isinstance(prepared, JacobianRange) == (explicit == 0) and prepared.dim == 4
    for found in (prepared.to_tangent(x, v), estimator.to_tangent(x, v)):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(prepared.to_tangent(x, v[1]), expected[1], rtol=0, atol=1e-10)
    nested = prepared.to_tangent(x, v[:, None].expand(-1, 2, *v.shape[1:]))
    torch.testing.assert_close(nested, expected[:, None].expand_as(nested), rtol=0, atol=1e-10)
    assert estimator.diagnostics(batch).residual.max() < 1e-12


@pytest.mark.parametrize("condition", [1.0, 1e2, 1e4])
def test_float32_loses_what_the_condition_says(condition: float) -> None:
    """A map whose Jacobian at 0 has singular values from 1 to 1 / condition."""
    ambient, k = 300, 16
    frame, turn = linalg.random_frame(ambient, k, 0), linalg.random_frame(k, k, 1)
    values = condition ** -torch.linspace(0, 1, k, dtype=torch.float64)
    matrix = ((frame * values) @ turn.T).float()
    decode = lambda z: torch.sin(z @ matrix.T)
    z, v = torch.zeros(1, k), gaussian(20, 1, ambient).float()
    found = leading(
        jacobian_range.gram(jacobian_range.columns(decode, z, ambient, 999), 999), k, 0, "J"
    )
    assert found.condition.item() == pytest.approx(condition, rel=1e-3)
    projected = JacobianRange(decode, z, found.factor.float()).to_tangent(v[0], v)
    error = (projected - linalg.project(frame[None], v.double())).norm() / projected.norm()
    eps = torch.finfo(torch.float32).eps
    assert error < 3 * eps * (1 + condition / 3), error
    assert residual(JacobianRange(decode, z, found.factor.float()), v[0]) < 10 * eps * condition
    # what a Gram product in float32 would be refused for: its square is no digit's
    if condition == 1e4:
        small = (matrix.T @ matrix)[None]
        with pytest.raises(ValueError, match="independent directions, not 16, in 1 of 1 samples"):
            leading(small, k, k * eps, "a Gram product in float32")


@pytest.mark.parametrize("explicit", [0, 2**20])
def test_symmetric_and_differentiable_in_v(explicit: int) -> None:
    model, x = network((12,), 3), gaussian(4, 12)
    prepared = Autoencoder(model, 3, explicit=explicit).at(unlabelled(x))
    u, v = gaussian(4, 12, seed=1), gaussian(4, 12, seed=2).requires_grad_()
    torch.testing.assert_close(
        (prepared.to_tangent(x, u) * v).sum(1), (u * prepared.to_tangent(x, v)).sum(1)
    )
    energy = prepared.to_tangent(x, v).square().sum()
    (gradient,) = torch.autograd.grad(energy, v, create_graph=True)
    torch.testing.assert_close(gradient, 2 * prepared.to_tangent(x, v))
    (second,) = torch.autograd.grad((gradient * u).sum(), v)
    torch.testing.assert_close(second, 2 * prepared.to_tangent(x, u))
    assert all(parameter.grad is None for parameter in model.parameters())


@dataclass(frozen=True)
class Exact:
    """The autoencoder that knows a manifold; its encoder may err."""

    manifold: Manifold
    error: float = 0.0

    def encode(self, x: Tensor) -> Tensor:
        z = self.manifold.coordinates(x)
        return z + self.error * torch.ones_like(z)

    def decode(self, z: Tensor) -> Tensor:
        return self.manifold.embed(z)


MANIFOLDS = [Placed(Flat(3), 4, 0, 0.5), Sphere(1), Placed(Sphere(2), 3, 1, 0.5), SwissRoll()]


@pytest.mark.parametrize("manifold", MANIFOLDS, ids=lambda m: type(m).__name__)
def test_exact_decoders_give_exact_spaces(manifold: Manifold) -> None:
    z = gaussian(6, manifold.dim) * 0.3
    if isinstance(manifold, SwissRoll):
        z = torch.tensor([8.0, 1.0]) + z
    noise = gaussian(6, *manifold.shape, seed=1)
    nearest = manifold.embed(z)
    x = nearest + 0.1 * min(manifold.reach, 1.0) * linalg.unit(
        noise - manifold.to_tangent(nearest, noise)
    )
    truth = manifold.tangent_basis(x)
    tilt = lambda **options: linalg.principal_angles(
        Autoencoder(Exact(manifold, options.pop("error", 0.0)), manifold.dim, **options)
        .spaces(unlabelled(x))
        .columns,
        truth,
    ).max()
    assert tilt() < 1e-9
    angles = [tilt(error=0.05, steps=steps) for steps in (0, 1, 2, 4, 8)]
    if isinstance(manifold, Placed) and isinstance(manifold.base, Flat):
        assert max(angles) < 1e-9
    else:  # Gauss-Newton converges linearly, by the offset times the curvature, at least twofold here
        assert angles[0] > 1e-2 and angles[4] < 1e-4
        assert all(b < a / 2 for a, b in zip(angles, angles[1:], strict=False))


def test_a_step_that_leads_away_is_not_taken() -> None:
    """From the other side of a circle the linear step is far too long."""
    model = Exact(Sphere(1), error=40.0)
    x = Sphere(1).embed(gaussian(20, 1))
    near = lambda steps: Autoencoder(model, 1, steps=steps, explicit=0).spaces(unlabelled(x)).points
    distance = [linalg.squared_norm(model.decode(near(steps)) - x) for steps in range(4)]
    assert all((b <= a).all() for a, b in zip(distance, distance[1:], strict=False))


def test_fewer_directions_are_the_leading_ones() -> None:
    model, x = network((12,), 5), gaussian(4, 12)
    with torch.no_grad():
        jacobian = jacobian_range.columns(model.decode, model.encode(x), 12, 2**20)
    left, values, _ = torch.linalg.svd(jacobian, full_matrices=False)
    for explicit in (0, 2**20):
        estimator = Autoencoder(model, 2, explicit=explicit)
        spaces, v = estimator.spaces(unlabelled(x)), gaussian(4, 12, seed=1)
        expected = linalg.project(left[:, :, :2], v)
        torch.testing.assert_close(estimator.to_tangent(x, v), expected)
        torch.testing.assert_close(spaces.condition, values[:, 0] / values[:, 1])
        torch.testing.assert_close(spaces.gap, values[:, 2] / values[:, 1])


def test_bad_input_is_refused() -> None:
    model, x = network((12,), 3), gaussian(4, 12)
    with pytest.raises(
        ValueError, match="4 tangent directions of an autoencoder with 3 latent numbers"
    ):
        Autoencoder(model, 4).at(unlabelled(x))
    with pytest.raises(
        ValueError, match="dim is >= 1 and its steps >= 0: Autoencoder.dim=0, "
    ) as one:
        Autoencoder(model, 0)
    assert "\n" not in str(one.value)
    flat = network((12,), 3)
    flat.decoder[0].weight.data[:, 2] = flat.decoder[0].weight.data[:, 1]
    with pytest.raises(
        ValueError, match="the decoder's Jacobian has 2 independent directions, not 3, in 4"
    ):
        Autoencoder(flat, 3).at(unlabelled(x))
    assert Autoencoder(flat, 2).diagnostics(unlabelled(x)).residual.max() < 1e-12
    bad = x.clone()
    bad[1, 2] = torch.nan
    with pytest.raises(ValueError, match="points not finite: 1 of 4, the first is 1"):
        Autoencoder(model, 3).at(unlabelled(bad))
    broken = network((12,), 3)
    broken.decoder[0].weight.data[0, 0] = torch.nan
    with pytest.raises(
        ValueError, match="the decoder's Jacobian is not finite in 4 samples, first 0"
    ):
        Autoencoder(broken, 3).at(Batch(x, torch.zeros(4)))

    @dataclass
    class Crossed:
        encode: Callable[[Tensor], Tensor] = model.encode
        decode: Callable[[Tensor], Tensor] = network((10,), 3).decode

    with pytest.raises(
        ValueError, match=r"a decoder to samples of shape \(10,\), and samples of shape \(12,"
    ):
        Autoencoder(Crossed(), 3).at(unlabelled(x))
    coupled = nn.Sequential(nn.BatchNorm1d(12))
    with pytest.raises(ValueError, match="training mode couples samples at 0: call eval"):
        Autoencoder(coupled, 1)
