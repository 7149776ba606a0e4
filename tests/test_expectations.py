"""Gauss-Hermite expectations against closed forms, and limits against known expansions."""

from math import prod

import pytest
import torch
from torch import Tensor

from manifoldlab import expectations, linalg
from manifoldlab.expectations import ORDER, gauss_hermite, limit, mean_squared_change


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_nodes_have_the_moments_of_the_normal_law(dim: int) -> None:
    nodes = gauss_hermite(dim)
    assert len(nodes.points) == len(nodes.weights) == ORDER**dim
    for power in range(2 * ORDER):
        exact = 0.0 if power % 2 else float(prod(range(1, power, 2)))
        for points in nodes.points.T:
            moment = (nodes.weights * points**power).sum().item()
            assert moment == pytest.approx(exact, rel=1e-12, abs=1e-11)
    mixed = (nodes.weights * (nodes.points.square() + 1).prod(1)).sum().item()
    assert mixed == pytest.approx(2.0**dim, rel=1e-13)


@pytest.mark.parametrize("scale", [1e-2, 3.0])
@pytest.mark.parametrize("codim", [None, 1, 3])
def test_law_a2_has_no_remainder_for_quadratic_functions(scale: float, codim: int | None) -> None:
    """E (f(x + sigma Lu) - f(x))^2 = sigma^2 |L'g|^2 + sigma^4 (tr(HGHG) / 2 + (tr HG)^2 / 4)."""
    n, size, few = 5, 9, 3
    x = gaussian(n, 1, 3, 3, seed=1)
    columns = linalg.random_frame(size, few, 2)
    a, b = gaussian(few, seed=3), gaussian(few, few, seed=4)

    def f(x: Tensor) -> Tensor:
        s = x.flatten(-3) @ columns
        return s @ a + (s @ (b + b.T) * s).sum(-1) / 2

    if codim is None:  # uneven in every direction
        noise = gaussian(size, seed=5).exp().diag()
    else:  # where fewer directions matter than the columns are, too
        normals = linalg.random_frame(size, codim, 6)
        noise = normals @ normals.T
    directions = expectations.directions(
        lambda c: noise @ c, lambda c: noise.T @ c, columns.expand(n, -1, -1)
    )
    hessian = columns @ (b + b.T) @ columns.T
    gradient = x.flatten(1) @ hessian + columns @ a
    bent = hessian @ noise @ noise.T
    first = (gradient @ noise).square().sum(1)
    second = (bent @ bent).trace() / 2 + bent.trace().square() / 4
    exact = scale**2 * first + scale**4 * second
    found = mean_squared_change(f, x, directions, scale)
    torch.testing.assert_close(found, exact, rtol=1e-11, atol=0)


def test_a_wave_loses_its_height_as_it_should() -> None:
    """E sin(s + w)^2 = (1 - cos(2 s) e^(-2 v)) / 2 and E sin(s + w) = sin(s) e^(-v / 2), w ~ N(0, v)."""
    size, scale = 40, 0.8
    x, wave = gaussian(6, size, seed=1), linalg.random_frame(size, 1, 2)
    directions = expectations.directions(lambda c: c, lambda c: c, wave.expand(6, -1, -1))
    found = mean_squared_change(lambda x: (x @ wave)[..., 0].sin(), x, directions, scale, order=20)
    s, v = x @ wave[:, 0], torch.tensor(scale**2, dtype=torch.float64)
    square = (1 - (2 * s).cos() * (-2 * v).exp()) / 2
    exact = square - 2 * s.sin().square() * (-v / 2).exp() + s.sin().square()
    torch.testing.assert_close(found, exact, rtol=1e-12, atol=0)


def test_limits_drop_as_many_even_powers_as_there_are_steps() -> None:
    scales = 0.1 * 2.0 ** torch.arange(4, dtype=torch.float64)
    rows = torch.stack([scales ** (2 * power) for power in range(4)], 1)  # (scales, powers)
    values = rows * torch.tensor([2.5, -7.0, 11.0, 3.0], dtype=torch.float64)
    torch.testing.assert_close(limit(values.sum(1)).item(), 2.5, rtol=1e-14, atol=0)
    assert abs(limit(values.sum(1)[:3]).item() - 2.5) > 1e-6  # the power h^6 is left
    assert limit(values[:1]).equal(values[0])
