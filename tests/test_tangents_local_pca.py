"""Local PCA: exact on flats, at the rate of curvature on curved manifolds, and wrong in noise as known."""

from math import isfinite

import pytest
import torch
from torch import Tensor

from manifoldlab import linalg
from manifoldlab.data.in_memory import in_memory
from manifoldlab.densities.gaussians import random_gaussians
from manifoldlab.interfaces import Batch
from manifoldlab.manifolds.base import Manifold
from manifoldlab.manifolds.flat import Flat
from manifoldlab.manifolds.placed import Placed
from manifoldlab.manifolds.sphere import Sphere
from manifoldlab.manifolds.swiss_roll import SwissRoll
from manifoldlab.probes.tangent_alignment import tangent_alignment
from manifoldlab.problems.base import BayesClassifier
from manifoldlab.problems.tube import Tube
from manifoldlab.statistics import fit_power
from manifoldlab.tangents.base import unlabelled
from manifoldlab.tangents.local_pca import LocalPca


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def largest_angle(estimator: LocalPca, manifold: Manifold, x: Tensor) -> Tensor:
    found = estimator.spaces(unlabelled(x)).columns
    return linalg.principal_angles(found, manifold.tangent_basis(x))[:, -1]


@pytest.mark.parametrize("options", [{}, {"at_point": True}, {"leave_out": True}])
def test_exact_on_flats(options: dict[str, bool]) -> None:
    plane = Placed(Flat(3), codim=5, seed=1, shift=0.5)
    reference = plane.embed(gaussian(300, 3))
    estimator = LocalPca(reference, 3, 8, **options)
    assert largest_angle(estimator, plane, reference[:20]).max() < 1e-11
    found = estimator.diagnostics(unlabelled(reference[:20]))
    assert found.residual.max() < 1e-14 and found.gap.max() < 1e-7 and (found.condition < 100).all()


@pytest.mark.parametrize(
    "manifold", [Sphere(1), Sphere(2), SwissRoll()], ids=["circle", "sphere", "swiss_roll"]
)
def test_curvature_tilts_by_the_size_of_the_neighbourhood(manifold: Manifold) -> None:
    """m of N points reach (m / N)^(1/d) far, and the angle is so much times curvature / sqrt(m)."""
    sizes, angles = [500, 2000, 8000, 32000], []
    ends = [(a.low, a.high) if isfinite(a.low) else (-2.0, 2.0) for a in manifold.axes]
    low, high = torch.tensor(ends, dtype=torch.float64).T
    for size in sizes:
        share = torch.rand(
            size, manifold.dim, generator=torch.Generator().manual_seed(size)
        ).double()
        reference = manifold.embed(low + (high - low) * share)
        middle = 0.5 + 0.5 * (share[:400] - 0.5)
        x = manifold.embed(low + (high - low) * middle)
        angles.append(largest_angle(LocalPca(reference, manifold.dim, 16), manifold, x).median())
    fitted = fit_power(sizes, torch.stack(angles))
    # a median of 400 angles errs by 4 %, the slope by 0.014
    assert abs(fitted.slope + 1 / manifold.dim) < 0.08, angles
    assert angles[-1] < 0.02


def test_noise_tilts_as_design_says() -> None:
    """A Bayes gradient, tangent to 1e-9, on a 2-sphere in R^10 with noise 0.05 and 20,000 points."""
    sphere = Placed(Sphere(2), codim=7, seed=0)
    problem = Tube(sphere, random_gaussians(2, 2, 0), 0.05)
    reference = problem.sample(20_000, torch.Generator().manual_seed(0)).x
    batch, model = problem.sample(500, torch.Generator().manual_seed(100)), BayesClassifier(problem)
    assert tangent_alignment(model, batch, sphere).alignment.min() > 1 - 1e-9
    for count, published in ((32, 0.56), (64, 0.74), (256, 0.96), (1024, 0.99)):
        found = tangent_alignment(model, batch, LocalPca(reference, 2, count).at(batch)).alignment
        # another draw of classes and points: 500 samples tell the mean to 0.013
        assert abs(found.mean() - published) < 0.04, (count, found.mean())


def test_moves_scales_and_turns_with_the_data() -> None:
    reference, x, v = gaussian(200, 6), gaussian(9, 6, seed=1), gaussian(2, 9, 6, seed=2)
    turn = linalg.random_frame(6, 6, 0)
    expected = LocalPca(reference, 2, 12).to_tangent(x, v)
    move = lambda points: 3 * points @ turn.T + 5
    found = LocalPca(move(reference), 2, 12).to_tangent(move(x), v @ turn.T)
    torch.testing.assert_close(found, expected @ turn.T, rtol=0, atol=1e-11)


@pytest.mark.parametrize("at_point", [False, True])
@pytest.mark.parametrize("leave_out", [False, True])
@pytest.mark.parametrize(("ambient", "count"), [(50, 12), (6, 30)])
def test_both_ways_are_the_singular_vectors(
    ambient: int, count: int, leave_out: bool, at_point: bool
) -> None:
    """By products of neighbours, or by the covariance where coordinates are fewer."""
    reference = gaussian(200, ambient)
    x = reference[:5] if leave_out else gaussian(5, ambient, seed=1)
    estimator = LocalPca(reference, 3, count, leave_out=leave_out, at_point=at_point)
    found = estimator.spaces(unlabelled(x))
    order = torch.cdist(x, reference).argsort(1)[:, leave_out:]  # the point itself comes first
    near = reference[order[:, :count]]
    centre = x[:, None] if at_point else near.mean(1, keepdim=True)
    _, values, vectors = torch.linalg.svd(near - centre, full_matrices=False)
    assert linalg.principal_angles(found.columns, vectors[:, :3].mT).max() < 1e-9
    torch.testing.assert_close(found.condition, values[:, 0] / values[:, 2])
    torch.testing.assert_close(found.gap, values[:, 3] / values[:, 2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_projects_pictures_whatever_the_chunk(dtype: torch.dtype) -> None:
    reference = torch.rand(80, 3, 5, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    x, v = reference[:7] + 0.1, gaussian(2, 3, 7, 3, 5, 5).to(dtype)
    estimator = LocalPca(reference, 4, 16)
    once = estimator.to_tangent(x, v)
    eps = 20 * torch.finfo(dtype).eps
    assert once.shape == v.shape and once.dtype == dtype
    assert (estimator.to_tangent(x, once) - once).abs().max() < eps * v.abs().max() * 4
    left, right = (once * v.flip(0)).sum((3, 4, 5)), (v * once.flip(0)).sum((3, 4, 5))
    torch.testing.assert_close(left, right, rtol=1e3 * eps, atol=1e3 * eps)
    one_by_one = LocalPca(reference, 4, 16, chunk=1).at(unlabelled(x)).to_tangent(x, v)
    torch.testing.assert_close(one_by_one, once, rtol=0, atol=1e3 * eps)
    torch.testing.assert_close(estimator.to_tangent(x, v[0, 1]), once[0, 1], rtol=0, atol=eps)


def test_streams_give_what_memory_gives() -> None:
    reference = gaussian(90, 4)
    stream = in_memory(reference, torch.zeros(90, dtype=torch.int64), 1)
    x, v = gaussian(6, 4, seed=1), gaussian(6, 4, seed=2)
    expected = LocalPca(reference, 2, 9).to_tangent(x, v)
    assert LocalPca(stream, 2, 9).to_tangent(x, v).equal(expected)
    assert LocalPca(reference.numpy(), 2, 9).to_tangent(x, v).equal(expected)
    assert LocalPca(stream, 2, 9).facts()["reference"] == stream.fingerprint


def test_gradients_go_through_v() -> None:
    estimator = LocalPca(gaussian(50, 4), 2, 9)
    x, v = gaussian(3, 4, seed=1), gaussian(3, 4, seed=2).requires_grad_()
    estimator.to_tangent(x, v).square().sum().backward()
    torch.testing.assert_close(v.grad, 2 * estimator.to_tangent(x, v.detach()))


def test_bad_input_is_refused() -> None:
    reference = gaussian(40, 3)
    with pytest.raises(ValueError, match=r"4 tangent directions of points of shape \(3,\): 1 to 3"):
        LocalPca(reference, 4, 9)
    with pytest.raises(ValueError, match="3 tangent directions of 3 neighbours: 1 to 2 can be had"):
        LocalPca(reference, 3, 3)
    assert LocalPca(reference, 3, 3, at_point=True).dim == 3
    with pytest.raises(
        ValueError, match=r"points of shape \(2,\) and a reference set of points of shape"
    ):
        LocalPca(reference, 2, 9).at(Batch(gaussian(2, 2), torch.zeros(2)))
    with pytest.raises(ValueError, match="41 neighbours of a reference set of 40 points"):
        LocalPca(reference, 2, 41).at(unlabelled(gaussian(2, 3)))
    line = reference[:, :1] * torch.ones(3, dtype=torch.float64)
    with pytest.raises(
        ValueError, match="9 neighbours has 1 independent directions, not 2, in 2 of 2"
    ):
        LocalPca(line, 2, 9).at(unlabelled(gaussian(2, 3)))
