"""Batched linear algebra against the same for one sample, written out."""

from math import pi

import pytest
import torch
from torch import Tensor

from manifoldlab import linalg

SHAPES = [(5,), (2, 3, 4)]
EXACT = 1e-14


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("leading", [(), (2,), (3, 2)])
def test_project_is_that_of_each_sample(shape: tuple[int, ...], leading: tuple[int, ...]) -> None:
    size, n, k = torch.Size(shape).numel(), 4, 2
    basis = torch.linalg.qr(normal(n, size, k)).Q
    v = normal(*leading, n, *shape, seed=1)
    found = linalg.project(basis, v)
    assert found.shape == v.shape
    rows = v.reshape(-1, n, size)
    for i in range(n):
        expected = rows[:, i] @ (basis[i] @ basis[i].T)
        assert (found.reshape(-1, n, size)[:, i] - expected).abs().max() < EXACT
    assert (linalg.project(basis, found) - found).abs().max() < EXACT


@pytest.mark.parametrize("shape", SHAPES)
def test_norms_products_and_units(shape: tuple[int, ...]) -> None:
    u, v = normal(3, *shape), normal(3, *shape, seed=1)
    for i in range(3):
        assert linalg.squared_norm(v)[i] == pytest.approx(float((v[i] ** 2).sum()), rel=EXACT)
        assert linalg.inner(u, v)[i] == pytest.approx(float((u[i] * v[i]).sum()), rel=1e-13)
    assert linalg.unit(v).shape == v.shape
    assert (linalg.squared_norm(linalg.unit(v)) - 1).abs().max() < EXACT
    assert (linalg.unit(1e-140 * v) - linalg.unit(v)).abs().max() < EXACT


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_unit_of_zero_is_zero(dtype: torch.dtype) -> None:
    v = torch.zeros(2, 3, dtype=dtype)
    assert torch.equal(linalg.unit(v), v) and linalg.unit(v).dtype == dtype


def test_random_frames_are_orthonormal_and_belong_to_their_seed() -> None:
    frame = linalg.random_frame(7, 3, seed=5)
    assert frame.shape == (7, 3) and frame.dtype == torch.float64
    assert (frame.T @ frame - torch.eye(3)).abs().max() < EXACT
    state = torch.random.get_rng_state()
    assert torch.equal(frame, linalg.random_frame(7, 3, seed=5))
    assert torch.equal(state, torch.random.get_rng_state())
    assert not torch.equal(frame, linalg.random_frame(7, 3, seed=6))
    with pytest.raises(ValueError, match="no 4 orthonormal columns in dimension 3"):
        linalg.random_frame(3, 4, seed=0)


@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-7, 0.3, pi / 4, 1.2, pi / 2 - 1e-9, pi / 2])
def test_principal_angles_keep_small_ones(angle: float) -> None:
    """Two planes in R^5 that share a line and are turned by the angle about it."""
    e = torch.eye(5, dtype=torch.float64)
    turned = torch.tensor(angle, dtype=torch.float64)
    a = torch.stack([e[0], e[1]], 1)
    b = torch.stack([e[0], turned.cos() * e[1] + turned.sin() * e[2]], 1)
    motion, mix = linalg.random_frame(5, 5, seed=1), linalg.random_frame(2, 2, seed=2)
    found = linalg.principal_angles((motion @ a)[None], (motion @ b @ mix)[None])[0]
    expected = torch.tensor([0.0, angle], dtype=torch.float64)
    assert (found - expected).abs().max() < 4e-15  # rounding of the columns, 1e-16 each


def test_principal_angles_of_different_sizes_are_those_of_the_smaller() -> None:
    line = torch.tensor([[1.0], [0.0], [0.0]], dtype=torch.float64)[None]
    angle = torch.tensor(0.4, dtype=torch.float64)
    tilted = torch.stack([angle.cos(), torch.zeros_like(angle), angle.sin()])
    plane = torch.stack([tilted, torch.tensor([0.0, 1.0, 0.0])], 1)[None]
    for pair in ((line, plane), (plane, line)):
        assert linalg.principal_angles(*pair)[0].tolist() == pytest.approx([0.4], rel=1e-14)
