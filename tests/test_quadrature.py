"""Quadrature against closed forms and against mpmath, never against its own refinement."""

from functools import partial

import mpmath as mp
import pytest
import torch

from manifoldlab.densities.gaussians import random_gaussians
from manifoldlab.densities.smooth import Smooth, Tilt
from manifoldlab.densities.von_mises_fisher import random_von_mises_fisher
from manifoldlab.densities.von_mises_product import random_von_mises_product
from manifoldlab.gradients import input_gradient, log_marginal
from manifoldlab.manifolds.clifford_torus import CliffordTorus
from manifoldlab.manifolds.ellipsoid import Ellipsoid
from manifoldlab.manifolds.flat import Flat
from manifoldlab.manifolds.helix import Helix
from manifoldlab.manifolds.placed import Placed
from manifoldlab.manifolds.sphere import Sphere
from manifoldlab.nearest_point import jacobian
from manifoldlab.problems.gaussian_subspace import GaussianSubspace
from manifoldlab.problems.quadrature import Quadrature
from manifoldlab.problems.von_mises_sphere import VonMisesSphere
from manifoldlab.problems.von_mises_torus import VonMisesTorus

NOISES = (1e-3, 1e-2, 0.1, 1.0)
CLOSED = {
    "circle": partial(VonMisesSphere, Sphere(1), random_von_mises_fisher(1, (1, 2), 0)),
    "sphere": partial(VonMisesSphere, Sphere(2, 1.5), random_von_mises_fisher(2, (1, 1, 2), 1)),
    "placed": partial(
        VonMisesSphere,
        Placed(Sphere(2), codim=3, seed=2, shift=0.5),
        random_von_mises_fisher(2, (1, 1), 3),
    ),
    "torus": partial(
        VonMisesTorus, CliffordTorus((1.0, 0.7)), random_von_mises_product(2, (1, 2), 4)
    ),
    "line": partial(GaussianSubspace, Placed(Flat(1), codim=2, seed=5), random_gaussians(1, 2, 5)),
    "plane": partial(GaussianSubspace, Placed(Flat(2), codim=1, seed=6), random_gaussians(2, 3, 6)),
}


def points(problem, distance):
    """On the manifold (0), or so far from it along a random direction."""
    z, _ = problem.densities.sample(4, torch.Generator().manual_seed(0))
    m = problem.manifold.embed(z)
    generator = torch.Generator().manual_seed(1)
    away = torch.randn(m.shape, generator=generator, dtype=m.dtype)
    return m + distance * away / away.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("distance", [0.0, 0.4, 2.0])
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("name", CLOSED)
def test_agrees_with_closed_forms(name, noise, distance):
    closed = CLOSED[name](noise=noise)
    problem = Quadrature(closed.manifold, closed.densities, noise)
    x = points(closed, distance)
    ours, theirs = problem.log_joint(x), closed.log_joint(x)
    margins, expected = ours[:, 1:] - ours[:, :1], theirs[:, 1:] - theirs[:, :1]
    # THEORY section 1; a margin is a difference of logits, each rounded at its own size
    rounding = 4 * torch.finfo(x.dtype).eps * theirs.abs().amax(1, keepdim=True)
    assert ((margins - expected).abs() <= 1e-10 * expected.abs().clamp_min(1) + rounding).all()
    scale = ((x.square().sum(1) + 4) / (2 * noise**2)).clamp_min(1)[:, None]
    assert ((ours - theirs).abs() <= 1e-10 * scale).all()
    labels = torch.zeros(len(x), dtype=torch.long)
    scores = [input_gradient(p.log_joint, x, labels, log_marginal) for p in (problem, closed)]
    size = torch.maximum(scores[1].norm(dim=1), 1 / torch.tensor(noise, dtype=x.dtype))
    assert ((scores[0] - scores[1]).norm(dim=1) <= 1e-9 * size).all()


def ellipse_truth(a, b, weight, x, noise):
    """log int w N dA over the ellipse (a cos t, b sin t), at 30 digits around the nearest point."""
    with mp.workdps(30):
        tau, px, py = mp.mpf(noise), mp.mpf(x[0]), mp.mpf(x[1])
        square = lambda t: (px - a * mp.cos(t)) ** 2 + (py - b * mp.sin(t)) ** 2
        grid = [2 * mp.pi * k / 4000 for k in range(4000)]
        best = min(grid, key=square)
        least = square(best)
        speed = lambda t: mp.sqrt((a * mp.sin(t)) ** 2 + (b * mp.cos(t)) ** 2)
        f = lambda t: weight(t) * speed(t) * mp.exp(-(square(t) - least) / (2 * tau**2))
        width = min(mp.pi, 40 * tau)
        ends = [best + width * k / 24 for k in range(-24, 25)]
        total = mp.quad(f, ends)
        return float(mp.log(total) - least / (2 * tau**2) - mp.log(2 * mp.pi * tau**2))


@pytest.mark.parametrize("noise", [1e-3, 0.05, 0.7])
def test_an_ellipse_against_mpmath(noise):
    """The uniform density with respect to volume, off the axes, on M and beyond the reach."""
    manifold = Ellipsoid((1.0, 1.25))
    densities = Smooth(manifold, Tilt(1, strength=0.0), (1.0,))
    problem = Quadrature(manifold, densities, noise)
    angle = torch.tensor([0.3, 2.0, 4.0], dtype=torch.float64)
    m = torch.stack([angle.cos(), 1.25 * angle.sin()], 1)
    x = m * torch.tensor([[1.0], [0.4], [2.5]], dtype=torch.float64)
    perimeter = float(4 * mp.mpf(1.25) * mp.ellipe(1 - 1 / mp.mpf(1.25) ** 2))
    for row, value in zip(x.tolist(), problem.log_joint(x)[:, 0].tolist(), strict=True):
        truth = ellipse_truth(1, mp.mpf(1.25), lambda t: 1, row, noise) - float(mp.log(perimeter))
        assert abs(value - truth) <= 1e-10 * max(1.0, 4 / noise**2)


def helix_truth(helix, x, noise):
    """log int p N dt for p ~ interior^6, at 30 digits on 40 pieces where the weight is."""
    with mp.workdps(30):
        tau, point = mp.mpf(noise), [mp.mpf(v) for v in x]
        end, r, rise = (mp.mpf(v) for v in (helix.axes[0].high, helix.radius, helix.pitch))
        at = lambda t: (r * mp.cos(t), r * mp.sin(t), rise * t / (2 * mp.pi))
        square = lambda t: mp.fsum((a - b) ** 2 for a, b in zip(point, at(t), strict=True))
        best = min((end * k / 4000 for k in range(4001)), key=square)
        least = square(best)
        density = lambda t: (4 * t * (end - t) / end**2) ** 6  # a polynomial
        f = lambda t: density(t) * mp.exp(-(square(t) - least) / (2 * tau**2))
        inside = lambda width: [t for t in (best - width, best + width) if 0 <= t <= end]
        width = end
        while all(square(t) - least > 500 * tau**2 for t in inside(width)):
            width /= 2  # so that beyond twice this a point has at most exp(-250) of the weight
        low, high = max(best - 2 * width, 0), min(best + 2 * width, end)
        marks = [low + (high - low) * k / 40 for k in range(41)]
        size = max(map(f, marks))  # mp.quad stops at an absolute error, so of 1
        total = mp.quad(lambda k: f(low + (high - low) * k / 40) / size, range(41))
        total *= size * (high - low) / 40
        normal = least / (2 * tau**2) + 3 * mp.log(2 * mp.pi * tau**2) / 2
        return float(mp.log(total) - mp.log(mp.quad(density, [0, end])) - normal)


@pytest.mark.parametrize("noise", [1e-3, 0.05])
def test_points_past_an_edge_against_mpmath(noise):
    """There the exponent falls to its least with a slope of dist / tau^2: it is not flat there."""
    helix = Helix(1.0, 3.0, 1.25)
    problem = Quadrature(helix, Smooth(helix, Tilt(1, strength=0.0), (1.0,)), noise)
    edges = torch.tensor([[0.0], [helix.axes[0].high]], dtype=torch.float64)
    outwards = jacobian(helix.embed, edges)[:, :, 0] * torch.tensor([[-1.0], [1.0]])
    aside = torch.tensor([0.1, 0.2, -0.1], dtype=torch.float64)
    x = helix.embed(edges) + 0.3 * outwards + aside
    assert helix.coordinates(x).isnan().all()
    truth = x.new_tensor([helix_truth(helix, row, noise) for row in x.tolist()])
    # an absolute error, as of a margin; a rule as long as in the middle of M is off by up to 1e-4
    rounding = 4 * torch.finfo(x.dtype).eps * truth.abs()
    assert ((problem.log_joint(x)[:, 0] - truth).abs() <= 1e-10 + rounding).all()


def test_the_posterior_mean_is_that_of_the_weights():
    """On a circle with one von Mises class: E[m|x] = A(|k|) k / |k|, k = kappa mu + x / tau^2."""
    from manifoldlab.special import bessel_ratio

    closed = VonMisesSphere(Sphere(1), random_von_mises_fisher(1, (1,), 0), 0.3)
    problem = Quadrature(closed.manifold, closed.densities, 0.3)
    x = points(closed, 0.2)
    k = closed.densities.components().locations[0, 0] + x / 0.3**2
    size = k.norm(dim=1, keepdim=True)
    torch.testing.assert_close(
        problem.denoise(x), bessel_ratio(0, size) * k / size, rtol=0, atol=1e-13
    )


def test_third_derivatives_and_a_small_budget_change_nothing():
    manifold = Helix(1.0, 3.0, 1.25)
    densities = Smooth(manifold, Tilt(2, seed=1), (0.5, 0.5))
    whole = Quadrature(manifold, densities, 0.2)
    chunked = Quadrature(manifold, densities, 0.2, budget=2**10)
    x = points(whole, 0.2)

    def third(problem):
        at = x.clone().requires_grad_()
        value = problem.log_joint(at)[:, 0].sum()
        for _ in range(3):
            value = torch.autograd.grad(value, at, create_graph=True)[0].sum()
        return value.detach()

    torch.testing.assert_close(chunked.log_joint(x), whole.log_joint(x), rtol=1e-13, atol=0)
    torch.testing.assert_close(third(chunked), third(whole), rtol=1e-9, atol=0)


def test_a_rule_that_is_too_coarse_is_refused():
    manifold = Sphere(1)
    densities = Smooth(manifold, Tilt(2), (0.5, 0.5))
    coarse = Quadrature(manifold, densities, 0.01, order=4, edge=8.0)
    with pytest.raises(
        ValueError, match=r"changes by .* when its nodes are doubled|do not resolve"
    ):
        coarse.log_joint(manifold.embed(torch.zeros(1, 1, dtype=torch.float64)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise": -0.1}, "noise must be positive and finite, not -0.1"),
        ({"manifold": Flat(4), "densities": random_gaussians(4, 2, 0)}, "dimensions 1 to 3, not 4"),
        ({"manifold": Sphere(2)}, "densities of dimension 1 on a manifold of dimension 2"),
        ({"order": 1}, "order >= 2"),
    ],
)
def test_wrong_input_is_named(change, message):
    fine = {"manifold": Flat(1), "densities": random_gaussians(1, 2, 0), "noise": 0.1}
    with pytest.raises(ValueError, match=message):
        Quadrature(**(fine | change))


def test_points_that_are_not_finite_are_named():
    problem = Quadrature(Flat(1), random_gaussians(1, 2, 0), 0.1)
    with pytest.raises(ValueError, match="points that are not finite"):
        problem.log_joint(torch.tensor([[float("nan")]], dtype=torch.float64))


def test_float32_follows_float64():
    closed = CLOSED["sphere"](noise=0.2)
    problem = Quadrature(closed.manifold, closed.densities, 0.2)
    x = points(closed, 0.2)
    single = problem.log_joint(x.float())
    assert single.dtype == torch.float32
    # squares of differences over 2 tau^2: some 16 float32 roundings of them, each of size 1
    torch.testing.assert_close(single.double(), problem.log_joint(x), rtol=1e-4, atol=1e-4)
