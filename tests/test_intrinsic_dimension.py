"""Estimated dimensions of balls, cubes and spheres, and the exact law of the estimate on flats."""

import pytest
import torch
from torch import Tensor

from manifoldlab import linalg
from manifoldlab.intrinsic_dimension import local_pca_gap, maximum_likelihood, two_nearest

ERRORS = 5  # standard errors: a false alarm in 2e6


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def placed(points: Tensor, ambient: int) -> Tensor:
    frame = linalg.random_frame(ambient, points.shape[1], 7)
    return points @ frame.T + 0.3


@pytest.mark.parametrize("dim", [1, 2, 5, 12])
@pytest.mark.parametrize("count", [2, 10])
def test_unbiased_with_the_stated_error_on_flats(dim: int, count: int) -> None:
    """Around the middle of independent balls, where no edge is near: 600 estimates of 3 points each."""
    estimates, errors = [], []
    for seed in range(300):
        ball = (
            uniform(3, 64, dim, seed=seed) * 2 - 1 if dim == 1 else gaussian(3, 64, dim, seed=seed)
        )
        if dim > 1:
            radius = uniform(3, 64, 1, seed=seed + 1000) ** (1 / dim)
            ball = linalg.unit(ball.flatten(0, 1)).reshape(3, 64, dim) * radius
        far = 10.0 * torch.arange(3, dtype=torch.float64)[:, None, None]  # no shared neighbours
        x = placed((far[:, 0] * torch.ones(dim, dtype=torch.float64)), 15)
        found = maximum_likelihood(
            x, placed((ball + far).flatten(0, 1), 15), neighbours=count, leave_out=False
        )
        estimates.append(found.dimension)
        errors.append(found.model_error / found.dimension)
    values = torch.tensor(estimates, dtype=torch.float64)
    samples = 3 * (count - 1)
    if samples > 4:  # else the estimate has no variance, or none that a test can rely on
        assert abs(values.mean() - dim) < ERRORS * dim / (samples - 2) ** 0.5 / len(values) ** 0.5
        assert abs(values.std() / dim * (samples - 2) ** 0.5 - 1) < 0.3
    inverse = (samples - 1) / samples / values  # S / N, which is Gamma of shape N and mean 1 / d
    assert abs(inverse.mean() * dim - 1) < ERRORS / (samples * len(values)) ** 0.5
    assert errors[0] == pytest.approx((samples - 2) ** -0.5 if samples > 2 else torch.nan)


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_spheres_and_cubes(dim: int) -> None:
    points = linalg.unit(gaussian(8000, dim + 1))
    cube = uniform(8000, dim, seed=1)
    inside = ((cube - 0.5).abs().amax(1) < 0.25).nonzero().flatten()[:200]
    cases = {"sphere": (points[:200], points), "cube": (cube[inside], cube)}
    for name, (x, reference) in cases.items():
        given = placed(x, 12), placed(reference, 12)
        for estimate in (maximum_likelihood, two_nearest):
            found = estimate(*given)
            # curvature and edges bias by a few per cent at this size; neighbours are hardly shared
            assert abs(found.dimension - dim) < ERRORS * found.error + 0.05 * dim, (name, found)
            assert 0.5 < found.error / found.model_error < 2
            assert found.of_point.shape == (len(x),)
        gap = local_pca_gap(*given)
        assert gap.dimension == pytest.approx(dim, abs=0.05), name


def test_noise_fills_all_dimensions() -> None:
    """Neighbours nearer than the noise see a solid, those that are farther the manifold."""
    circle = placed(linalg.unit(gaussian(20_000, 2)), 4)
    noisy = circle + 0.02 * gaussian(20_000, 4, seed=1)
    near = maximum_likelihood(noisy[:100], noisy, neighbours=10)
    assert near.dimension > 2.5
    assert maximum_likelihood(noisy[:100], noisy, neighbours=2000).dimension < 1.4


def test_duplicates_and_bad_input_are_refused() -> None:
    x = gaussian(50, 3)
    twice = torch.cat([x, x[:4]])
    with pytest.raises(
        ValueError, match="4 of 6 points have neighbours equal to them, .* first is 0"
    ):
        maximum_likelihood(x[:6], twice, neighbours=5)
    with pytest.raises(ValueError, match="need 2 neighbours or more, not 1"):
        maximum_likelihood(x, x, neighbours=1)
    with pytest.raises(
        ValueError, match="gaps up to dimension 3 from 9 neighbours in 3 dimensions: 1 to 2"
    ):
        local_pca_gap(x, x, neighbours=9, most=3)
    with pytest.raises(ValueError, match="from 1e-6 to 1, not 0"):
        local_pca_gap(x, x, neighbours=9, floor=0)
    with pytest.raises(
        ValueError, match=r"shape \(3,\) and a reference set of points of shape \(2,\)"
    ):
        two_nearest(x, x[:, :2])
