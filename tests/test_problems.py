"""The laws of a problem, over every member of the catalog, and its closed forms against mpmath.

Statistical tests: each law divides a false-alarm probability of 1e-6 among its cases.
"""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from mpmath import mpf
from scipy.special import gammainc
from torch import Tensor
from torch.func import jacfwd, vmap

from manifoldlab import catalog, linalg, panels
from manifoldlab.densities.gaussian_mixtures import random_gaussian_mixtures
from manifoldlab.densities.gaussians import Gaussians, random_gaussians
from manifoldlab.densities.von_mises_fisher import random_von_mises_fisher
from manifoldlab.densities.von_mises_product import random_von_mises_product
from manifoldlab.gradients import input_gradient, log_marginal, logit
from manifoldlab.interfaces import Batch
from manifoldlab.manifolds.base import Manifold
from manifoldlab.manifolds.clifford_torus import CliffordTorus
from manifoldlab.manifolds.ellipsoid import Ellipsoid
from manifoldlab.manifolds.flat import Flat
from manifoldlab.manifolds.helix import Helix
from manifoldlab.manifolds.paraboloid import Paraboloid
from manifoldlab.manifolds.placed import Placed
from manifoldlab.manifolds.sphere import Sphere
from manifoldlab.problems.base import BayesClassifier, Problem
from manifoldlab.problems.correlated_noise import CorrelatedNoise
from manifoldlab.problems.gaussian_subspace import GaussianSubspace
from manifoldlab.problems.quadrature import Quadrature
from manifoldlab.problems.separate_manifolds import (
    SeparateManifolds,
    crossing_flats,
    parallel_flats,
)
from manifoldlab.problems.signal_distractor import SignalDistractor
from manifoldlab.problems.tube import CutGaussian, Tube
from manifoldlab.problems.von_mises_sphere import VonMisesSphere, log_blurred
from manifoldlab.problems.von_mises_torus import VonMisesTorus
from manifoldlab.statistics import FALSE_ALARM, bonferroni, chi_square_p, kolmogorov_p, mean_p

NOISES = (1e-3, 3e-2, 1.0)
MARGIN = 1e-10  # of max(1, |margin|), promised by THEORY.md, section 1
Numbers = list[Any]  # of mpmath


def _members(seeds: tuple[int, ...]) -> dict[str, Problem]:
    return {
        f"{name}-{seed}-{number}": problem
        for name in catalog.names("problems")
        for seed in seeds
        for number, problem in enumerate(catalog.module("problems", name).examples(seed))
    }


MEMBERS = _members((1, 2))
every_member = pytest.mark.parametrize("problem", MEMBERS.values(), ids=MEMBERS.keys())
BLURRED = {name: p for name, p in MEMBERS.items() if not isinstance(p, Tube | Quadrature)}
every_closed_form = pytest.mark.parametrize("problem", BLURRED.values(), ids=BLURRED.keys())


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@cache
def batch_of(problem: Problem, n: int = 6) -> Batch:
    return problem.sample(n, generator(n))


def margins(logits: Tensor) -> Tensor:
    return logits[:, 1:] - logits[:, :1]


def assert_margins_agree(first: Tensor, second: Tensor, tolerance: float = MARGIN) -> None:
    scale = margins(second).abs().clamp_min(1)
    assert (margins(first) - margins(second)).abs().le(tolerance * scale).all()


# Laws of every problem.


@every_member
def test_shapes_and_finite_values(problem: Problem) -> None:
    x, y, index, region = batch_of(problem)
    logits = problem.log_joint(x)
    assert x.dtype == torch.float64 and y.dtype == torch.int64 and index is None and region is None
    assert x.shape == (6, *problem.shape) and y.shape == (6,)
    assert logits.shape == (6, problem.num_classes) and logits.isfinite().all()
    assert torch.equal(problem.sample(6, generator(6)).x, x)


@every_member
def test_no_sample_is_a_sample_too(problem: Problem) -> None:
    batch = problem.sample(0, generator())
    assert batch.x.shape == (0, *problem.shape) and batch.x.dtype == torch.float64
    assert batch.y.shape == (0,) and batch.y.dtype == torch.int64
    assert problem.log_joint(batch.x).shape == (0, problem.num_classes)


@every_member
def test_samples_are_not_coupled(problem: Problem) -> None:
    x = batch_of(problem).x
    logits = problem.log_joint(x)
    alone = torch.cat([problem.log_joint(one[None]) for one in x])
    scale = logits.abs().clamp_min(1)
    assert (alone - logits).abs().le(1e-10 * scale).all()


@every_member
def test_geometry_projects_on_tangent_spaces(problem: Problem) -> None:
    batch = batch_of(problem)
    geometry = problem.geometry(batch).at(batch)
    v = torch.randn(2, *batch.x.shape, generator=generator(), dtype=torch.float64)
    tangent = geometry.to_tangent(batch.x, v)
    assert tangent.shape == v.shape and tangent.isfinite().all()
    assert (geometry.to_tangent(batch.x, tangent) - tangent).abs().max() < 1e-10
    eye = torch.eye(math.prod(problem.shape), dtype=torch.float64).reshape(-1, 1, *problem.shape)
    projectors = geometry.to_tangent(batch.x, eye.expand(-1, *batch.x.shape)).flatten(2)
    traces = projectors.diagonal(dim1=0, dim2=2).sum(1)
    assert (traces - geometry.dim).abs().max() < 1e-10


@every_member
def test_repr_rebuilds(problem: Problem) -> None:
    assert eval(repr(problem), _vocabulary()) == problem


@cache
def _vocabulary() -> dict[str, Any]:
    kinds = ("manifolds", "densities", "problems")
    modules = [catalog.module(kind, name) for kind in kinds for name in catalog.names(kind)]
    return {"inf": math.inf} | {name: v for m in modules for name, v in vars(m).items()}


@every_member
def test_gradient_is_that_of_the_values(problem: Problem) -> None:
    x, y, *_ = batch_of(problem)
    v = linalg.unit(torch.randn(x.shape, generator=generator(), dtype=x.dtype))
    model, step = BayesClassifier(problem), 1e-5
    for head in (log_marginal, logit):
        slope = linalg.inner(input_gradient(model, x, y, head), v)
        rise = head(model(x + step * v), y) - head(model(x - step * v), y)
        assert (rise / (2 * step) - slope).abs().le(1e-5 * (1 + slope.abs())).all()


@every_member
def test_second_derivatives_are_finite(problem: Problem) -> None:
    x = batch_of(problem).x[:2].clone().requires_grad_()
    (score,) = torch.autograd.grad(problem.log_joint(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(score.square().sum(), x)
    assert second.isfinite().all()


def test_labels_follow_the_priors() -> None:
    p_values = []
    for problem in MEMBERS.values():
        if not _priors(problem):
            continue  # its labels follow the posterior, see below
        expected = torch.tensor(_priors(problem), dtype=torch.float64) * 2000
        found = torch.bincount(batch_of(problem, 2000).y, minlength=len(expected)).double()
        p_values.append(chi_square_p(found.numpy(), expected.numpy()))
    assert bonferroni(np.array(p_values)) > FALSE_ALARM


def _priors(problem: Any) -> tuple[float, ...]:
    """Where they are given; a problem need not."""
    owner = problem if "priors" in vars(problem) else vars(problem).get("densities")
    return owner.priors if owner else ()


def test_labels_follow_the_posterior() -> None:
    """E[(1{y = k} - p(k|x)) h(x)] = 0 for h = 1 and for h the sign of a random linear function."""
    p_values = []
    for problem in MEMBERS.values():
        x, y, *_ = batch_of(problem, 200 if isinstance(problem, Quadrature) else 2000)  # for speed
        posterior = problem.log_joint(x).softmax(1)
        error = torch.nn.functional.one_hot(y, problem.num_classes) - posterior
        flat = x.flatten(1) - x.flatten(1).mean(0)
        side = (flat @ linalg.random_frame(flat.shape[1], 1, 0)).sign()
        p_values += [mean_p(e, 0.0, low=-1, high=1) for e in (*error.mT, *(side * error).mT)]
    assert bonferroni(np.array(p_values)) > FALSE_ALARM


@every_member
def test_float32(problem: Problem) -> None:
    """1e-3 of the largest logit: noise is above 0.05, so that 1e-7 / noise^2 is below 1e-4."""
    x = batch_of(problem).x
    logits, narrow = problem.log_joint(x), problem.log_joint(x.float())
    assert narrow.dtype == torch.float32
    assert (narrow.double() - logits).abs().max() < 1e-3 * logits.abs().max().clamp_min(1)


@every_member
def test_points_of_another_shape_are_refused(problem: Problem) -> None:
    x = batch_of(problem).x
    for wrong in (x[0, ..., 0], x[..., :-1], x[None]):
        with pytest.raises(ValueError, match=r"points of shape .* for samples of shape"):
            problem.log_joint(wrong)


@every_member
def test_noise_added_twice_is_noise_added_once(problem: Problem) -> None:
    try:
        once = problem.noisier(0.5)
    except ValueError as error:
        assert "no closed form with isotropic noise 0.5" in str(error)
        return
    x = batch_of(problem).x
    twice = problem.noisier(0.3).noisier(0.4)
    assert (twice.log_joint(x) - once.log_joint(x)).abs().max() < 1e-9
    assert type(once) is type(problem) and once.sample(3, generator()).x.shape == x[:3].shape


@every_closed_form
def test_noisier_is_the_convolution(problem: Problem) -> None:
    """Gauss-Hermite quadrature of p(x - u) over u, as smooth as the noise that is there already."""
    dim = math.prod(problem.shape)
    if dim > 3:
        return
    sigma = 0.5 * smallest_noise(problem)
    points, weights = (torch.from_numpy(t) for t in np.polynomial.hermite_e.hermegauss(30))
    u = torch.cartesian_prod(*[points] * dim).reshape(-1, dim)
    log_weight = torch.cartesian_prod(*[weights] * dim).reshape(-1, dim).log().sum(1)
    log_weight = log_weight - log_weight.logsumexp(0)
    for x in batch_of(problem).x[:2]:
        mean = (problem.log_joint(x + sigma * u) + log_weight[:, None]).logsumexp(0)
        exact = problem.noisier(sigma).log_joint(x[None])[0]
        assert (mean - exact).abs().max() < 1e-9


def smallest_noise(problem: Any) -> float:
    """Every direction's deviation is at least this."""
    if isinstance(problem, SeparateManifolds):
        return min(smallest_noise(part) for part in problem.parts)
    if isinstance(problem, CorrelatedNoise):
        normal = min(problem.normal_noise or (problem.noise,))
        noise = torch.tensor([[problem.noise**2, 0.0], [0.0, normal**2]])
        noise[0, 1] = noise[1, 0] = math.hypot(*problem.covariance)
        return torch.linalg.eigvalsh(noise)[0].sqrt().item()
    if isinstance(problem, SignalDistractor):
        return float(problem.noise * (1 - abs(problem.coupling)) ** 0.5)
    if "noise" in vars(problem):
        return float(problem.noise)
    logits = lambda x: problem.log_joint(x[None])[0]
    bends = vmap(jacfwd(jacfwd(logits)))(batch_of(problem, 64).x)  # (n, K, D, D)
    return torch.linalg.eigvalsh(bends).abs().max().item() ** -0.5


def test_mass_is_one() -> None:
    """Trapezoid along the principal axes, h = 0.8 noise: its error is exp(-2 pi^2 / 0.64) = 4e-14."""
    seen = set()
    for problem in _members((0, 1)).values():
        if isinstance(problem, Tube) or len(problem.shape) > 1 or problem.shape[0] > 3:
            continue
        x = batch_of(problem, 2000).x
        variances, axes = torch.linalg.eigh(x.mT.cov().reshape(2 * problem.shape))
        half = 8 * variances.sqrt()
        step = 0.8 * smallest_noise(problem)
        counts = [math.ceil(2 * h.item() / step) for h in half]
        if math.prod(counts) > 60_000:
            continue
        ticks = [
            torch.arange(c, dtype=x.dtype) * step - h for c, h in zip(counts, half, strict=True)
        ]
        grid = torch.cartesian_prod(*ticks).reshape(-1, len(counts)) @ axes.mT + x.mean(0)
        masses = (problem.log_joint(grid).logsumexp(0) + len(counts) * math.log(step)).exp()
        expected = torch.tensor(_priors(problem) or masses.tolist(), dtype=x.dtype)
        assert (masses - expected).abs().max() < 1e-8, problem  # 8 deviations are not all
        assert (masses.sum() - 1).abs() < 1e-8, problem
        seen.add(type(problem))
    assert seen == {type(p) for p in MEMBERS.values()} - {Tube}


# Closed forms against mpmath, 40 digits.


def exact(values: Tensor) -> Any:
    """A vector or a matrix of mpmath."""
    return mpmath.matrix(values.tolist())


def log_sum(terms: Iterable[Any]) -> Any:
    terms = list(terms)
    top = max(terms)
    return top + mpmath.log(mpmath.fsum(mpmath.exp(t - top) for t in terms))


def assert_exact(problem: Problem, x: Tensor, expected: list[Numbers], scale: Tensor) -> None:
    """Logits to 1e-10 of `scale` and margins to 1e-10 of max(1, |margin|)."""
    for row, exact_row, size in zip(
        problem.log_joint(x), expected, scale.clamp_min(1), strict=True
    ):
        errors = [abs(mpf(v.item()) - e) for v, e in zip(row, exact_row, strict=True)]
        assert max(errors) <= MARGIN * size.item(), problem
        for value, e in zip(row[1:], exact_row[1:], strict=True):
            margin = e - exact_row[0]
            error = abs(mpf(value.item()) - mpf(row[0].item()) - margin)
            assert error <= MARGIN * max(1, abs(margin)), problem


def log_gaussian(x: Any, mean: Any, covariance: Any) -> Any:
    """Of mpmath, by an LU decomposition of the whole covariance."""
    n, deviation = len(x), x - mean
    quadratic = (deviation.T * mpmath.lu_solve(covariance, deviation))[0]
    return -(n * mpmath.log(2 * mpmath.pi) + mpmath.log(mpmath.det(covariance)) + quadratic) / 2


def log_mixture(x: Any, laws: list[tuple[Any, Any, Any]]) -> Any:
    return log_sum(weight + log_gaussian(x, mean, covariance) for weight, mean, covariance in laws)


def gaussian_laws(densities: Any) -> list[list[tuple[Any, Any, Any]]]:
    """(log weight, mean, covariance) of every component of every class."""
    law = densities.components()
    return [
        [
            (mpf(w.item()), exact(mean), exact(covariance))
            for w, mean, covariance in zip(*of_class, strict=True)
            if w > -math.inf
        ]
        for of_class in zip(law.log_weights, law.means, law.covariances, strict=True)
    ]


def affine(manifold: Placed | Flat) -> tuple[Any, Any]:
    if isinstance(manifold, Flat):
        return mpmath.eye(manifold.dim), mpmath.zeros(manifold.dim, 1)
    return exact(manifold.frame), exact(manifold.origin)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("dim, codim", [(1, 1), (2, 0), (2, 3), (6, 10)])
def test_gaussian_subspace_is_exact(dim: int, codim: int, noise: float) -> None:
    seed = dim + codim
    plane = Placed(Flat(dim), codim, seed, shift=1.0) if codim else Flat(dim)
    problem = GaussianSubspace(plane, random_gaussian_mixtures(dim, (2, 1, 3), seed), noise)
    x = problem.sample(3, generator()).x
    x[-1] += 3 * noise  # away from the subspace
    with mpmath.workdps(40):
        frame, origin = affine(plane)
        blur = mpf(noise) ** 2 * mpmath.eye(len(x[0]))
        expected = [
            [
                log_mixture(
                    exact(point),
                    [
                        (w, frame * mean + origin, frame * covariance * frame.T + blur)
                        for w, mean, covariance in laws
                    ],
                )
                for laws in gaussian_laws(problem.densities)
            ]
            for point in x
        ]
        assert_exact(problem, x, expected, x.square().sum(1) / (2 * noise**2))


@pytest.mark.parametrize("noise", NOISES)
def test_gaussian_subspace_is_exact_in_3000_dimensions(noise: float) -> None:
    problem = GaussianSubspace(
        Placed(Flat(3), 2997, 5, shift=2.0), random_gaussian_mixtures(3, (2, 3), 5), noise
    )
    x = problem.sample(2, generator()).x
    with mpmath.workdps(40):
        frame, origin = exact(problem.manifold.frame), exact(problem.manifold.origin)
        blur = mpf(noise) ** 2
        expected = []
        for point in x:
            offset = exact(point) - origin
            within = frame.T * offset
            rest = mpmath.fsum(v**2 for v in offset - frame * within) / blur
            normal = -(rest + 2997 * mpmath.log(2 * mpmath.pi * blur)) / 2
            expected.append(
                [
                    normal
                    + log_mixture(within, [(w, m, s + blur * mpmath.eye(3)) for w, m, s in law])
                    for law in gaussian_laws(problem.densities)
                ]
            )
        assert_exact(problem, x, expected, x.square().sum(1) / (2 * noise**2))


def log_normalizer(kappa: Any, n: int) -> Any:
    order = mpf(n) / 2 - 1
    if kappa == 0:
        return mpmath.loggamma(order + 1) - mpmath.log(2) - (order + 1) * mpmath.log(mpmath.pi)
    bessel = mpmath.log(mpmath.besseli(order, kappa, maxterms=10**6))
    return order * mpmath.log(kappa) - (order + 1) * mpmath.log(2 * mpmath.pi) - bessel


def log_blurred_fisher(x: Numbers, location: Numbers, radius: float, noise: float) -> Any:
    """THEORY.md, section 1, as it stands there."""
    n, variance, radius = len(x), mpf(noise) ** 2, mpf(radius)
    k = mpmath.norm([a + radius * b / variance for a, b in zip(location, x, strict=True)])
    prior = log_normalizer(mpmath.norm(location), n)
    square = (mpmath.fsum(v**2 for v in x) + radius**2) / (2 * variance)
    return prior - log_normalizer(k, n) - square - n * mpmath.log(2 * mpmath.pi * variance) / 2


def in_span(problem: Any, x: Tensor) -> tuple[Numbers, Any]:
    """The point in the space of the placed manifold, and the log density of its offset from that."""
    if not isinstance(problem.manifold, Placed):
        return exact(x), mpf(0)
    frame, offset = exact(problem.manifold.frame), exact(x) - exact(problem.manifold.origin)
    within, variance = frame.T * offset, mpf(problem.noise) ** 2
    rest = mpmath.fsum(v**2 for v in offset - frame * within) / variance
    codim = len(offset) - len(within)
    return list(within), -(rest + codim * mpmath.log(2 * mpmath.pi * variance)) / 2


def exact_mixture(problem: Any, x: Tensor, radii: tuple[float, ...], width: int) -> list[Numbers]:
    """Products over the spheres, each in `width` of the dimensions in turn."""
    law = problem.densities.components()
    result = []
    for point in x:
        within, normal = in_span(problem, point)
        parts = [within[i * width : (i + 1) * width] for i in range(len(radii))]
        result.append([])
        for weights, locations in zip(law.log_weights, law.locations, strict=True):
            terms = []
            for weight, location in zip(weights, locations.unflatten(-1, (-1,)), strict=True):
                pieces = zip(
                    parts, location.reshape(len(radii), width).tolist(), radii, strict=True
                )
                each = [
                    log_blurred_fisher(part, list(map(mpf, at)), r, problem.noise)
                    for part, at, r in pieces
                ]
                if weight > -math.inf:
                    terms.append(mpf(weight.item()) + mpmath.fsum(each))
            result[-1].append(normal + log_sum(terms))
    return result


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("n, codim", [(2, 0), (3, 2), (7, 1), (60, 3), (3000, 0)])
def test_von_mises_sphere_is_exact(n: int, codim: int, noise: float) -> None:
    radius = 1.5
    sphere = Sphere(n - 1, radius)
    densities = random_von_mises_fisher(n - 1, (2, 1, 3) if n < 100 else (1, 1), n)
    problem = VonMisesSphere(
        Placed(sphere, codim, n, shift=1.0) if codim else sphere, densities, noise
    )
    x = problem.sample(2, generator(n)).x
    with mpmath.workdps(40):
        expected = exact_mixture(problem, x, (radius,), n)
        assert_exact(problem, x, expected, (x.square().sum(1) + radius**2) / (2 * noise**2))


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("radii, codim", [((1.0,), 1), ((0.5, 2.0), 0), ((1.0, 0.7, 1.3), 2)])
def test_von_mises_torus_is_exact(radii: tuple[float, ...], codim: int, noise: float) -> None:
    torus = CliffordTorus(radii)
    densities = random_von_mises_product(len(radii), (2, 1, 3), len(radii))
    manifold = Placed(torus, codim, 3, shift=1.0) if codim else torus
    problem = VonMisesTorus(manifold, densities, noise)
    x = problem.sample(2, generator(codim)).x
    with mpmath.workdps(40):
        expected = exact_mixture(problem, x, radii, 2)
        assert_exact(problem, x, expected, (x.square().sum(1) + 1) / (2 * noise**2))


def test_von_mises_sphere_at_its_centre_and_far_from_it() -> None:
    """Values, gradients and Hessians; uniform densities make |k| = 0 at the centre."""
    for n, noise, location in product((2, 30), (0.05, 2.0), (0.0, 1e-9, 40.0)):
        law = random_von_mises_fisher(n - 1, (1,), n).components()
        at = law.locations[0, 0]
        at = location * at / at.norm()
        blurred = lambda x: log_blurred(x, at, torch.tensor(1.0).to(x), noise)  # noqa: B023
        for scale in (0.0, 1e-9, 1e-4, 2.0):
            x = (
                scale
                * linalg.unit(torch.randn(1, n, generator=generator(n), dtype=torch.float64))[0]
            )
            value = blurred(x)
            gradient = torch.autograd.functional.jacobian(blurred, x)
            hessian = torch.autograd.functional.hessian(blurred, x)
            with mpmath.workdps(60):
                exact_value, slope, bend = _along_first_axis(x, at, noise)
            for found, wanted in (
                (value, exact_value),
                (gradient[0], slope),
                (hessian[0, 0], bend),
            ):
                error = abs(mpf(found.item()) - wanted)
                assert error < 1e-11 * max(1, abs(wanted), 1 / noise**2), (
                    n,
                    noise,
                    location,
                    scale,
                )


def _along_first_axis(x: Tensor, location: Tensor, noise: float) -> tuple[Any, Any, Any]:
    """Value and central differences of steps of 1e-15, with 60 digits."""
    step, point, at = mpf(10) ** -15, list(map(mpf, x.tolist())), list(map(mpf, location.tolist()))
    low, middle, high = (
        log_blurred_fisher([point[0] + k * step, *point[1:]], at, 1.0, noise) for k in (-1, 0, 1)
    )
    return middle, (high - low) / (2 * step), (high - 2 * middle + low) / step**2


def log_joint_of_coupled(problem: Any, x: Tensor, model: Any) -> list[Numbers]:
    """From m | y of mean a and covariance S in the signal, and what `model` makes of them in R^D."""
    return [
        [
            log_mixture(exact(point), [(w, *model(y, mean, cov)) for w, mean, cov in laws])
            for y, laws in enumerate(gaussian_laws(problem.densities))
        ]
        for point in x
    ]


@pytest.mark.parametrize(
    "options",
    [{}, {"label_shift": 0.7}, {"coupling": -0.6}, {"regression": 0.8}]
    + [{"label_shift": -0.4, "coupling": 0.5, "regression": -0.3}],
    ids=str,
)
def test_signal_distractor_is_exact(options: dict[str, float]) -> None:
    dim, codim, noise, spread = 2, 3, 0.3, 0.9
    densities = random_gaussian_mixtures(dim, (1, 2), 4)
    problem = SignalDistractor(densities, codim, noise, spread, seed=3, **options)
    x = problem.sample(4, generator()).x
    shift, coupling, rho = (
        mpf(options.get(name, 0)) for name in ("label_shift", "coupling", "regression")
    )

    def model(y: int, mean: Any, covariance: Any) -> tuple[Any, Any]:
        """x = G (m_S, eta, xi) + shift, with eta, xi of unit variance before they are coupled."""
        signal, distractor = exact(problem.signal), exact(problem.distractor)
        e = mpmath.matrix([1] + [0] * (dim - 1))
        lift = signal + rho * distractor[:, 0] * e.T
        left = mpmath.diag([spread**2 - rho**2] + [mpf(spread) ** 2] * (codim - 1))
        cross = coupling * signal[:, 0] * distractor[:, 0].T
        blur = mpf(noise) ** 2 * (mpmath.eye(dim + codim) + cross + cross.T)
        total = lift * covariance * lift.T + distractor * left * distractor.T + blur
        return lift * mean + y * shift * distractor[:, 0], total

    with mpmath.workdps(40):
        assert_exact(problem, x, log_joint_of_coupled(problem, x, model), 0 * x[:, 0])


@pytest.mark.parametrize(
    "options",
    [{}, {"normal_noise": (0.2, 0.5)}, {"covariance": (0.05, -0.06)}]
    + [{"normal_noise": (0.4, 0.25), "covariance": (-0.03, 0.05)}],
    ids=str,
)
def test_correlated_noise_is_exact(options: dict[str, Any]) -> None:
    noise, manifold = 0.3, Placed(Flat(2), 3, 8, shift=1.0)
    problem = CorrelatedNoise(manifold, random_gaussian_mixtures(2, (2, 1), 8), noise, **options)
    x = problem.sample(4, generator()).x
    frame, u = exact(manifold.frame), exact(problem.direction)
    cross = frame * mpmath.matrix(options.get("covariance", (0, 0))) * u.T

    def model(y: int, mean: Any, covariance: Any) -> tuple[Any, Any]:
        tangent = frame * (covariance + mpf(noise) ** 2 * mpmath.eye(2)) * frame.T
        normal = mpmath.eye(5) - frame * frame.T
        variance = mpf(options.get("normal_noise", (noise, noise))[y]) ** 2
        total = tangent + variance * normal + cross + cross.T
        return frame * mean + exact(manifold.origin), total

    with mpmath.workdps(40):
        assert_exact(problem, x, log_joint_of_coupled(problem, x, model), 0 * x[:, 0])


@pytest.mark.parametrize("noise", [1e-3, 0.1, 30.0])
@pytest.mark.parametrize("dim, codim", [(1, 0), (2, 3)])
def test_tube_around_a_sphere_is_exact(dim: int, codim: int, noise: float) -> None:
    radius, n = 1.25, dim + 1
    densities = random_von_mises_fisher(dim, (1, 2), 6)
    manifold = Placed(Sphere(dim, radius), codim, 6, shift=0.5)
    problem = Tube(manifold, densities, noise)
    x = problem.sample(3, generator()).x
    law = densities.components()
    expected = []
    with mpmath.workdps(40):
        for point in x:
            within = manifold.frame.mT @ (point - manifold.origin)
            m = exact(within) / mpmath.norm(list(exact(within)))
            ball = mpf(problem.radius) ** 2 / (2 * mpf(noise) ** 2)
            order = mpf(codim + 1) / 2
            mass = mpmath.gammainc(order, 0, ball, regularized=True)
            offset = exact(point) - exact(manifold.origin) - exact(manifold.frame) * m * radius
            nu = mpmath.fsum(v**2 for v in offset) / (-2 * mpf(noise) ** 2) - mpmath.log(mass)
            nu -= order * mpmath.log(2 * mpmath.pi * mpf(noise) ** 2)
            nu -= dim * mpmath.log(mpmath.norm(list(exact(within))))  # volume at x per solid angle
            expected.append(
                [
                    nu
                    + log_sum(
                        mpf(w.item()) + log_normalizer(mpmath.norm(at), n) + (at.T * m)[0]
                        for w, at in zip(weights, map(exact, locations), strict=True)
                        if w > -math.inf
                    )
                    for weights, locations in zip(law.log_weights, law.locations, strict=True)
                ]
            )
        assert_exact(problem, x, expected, x.square().sum(1) / (2 * noise**2))


# Closed forms against quadrature, and their limits.


@pytest.mark.parametrize("noise", NOISES)
def test_closed_forms_agree_with_quadrature(noise: float) -> None:
    """At samples and on the manifold; on a plane without end quadrature takes minutes at 1e-3."""
    curved = (VonMisesSphere, VonMisesTorus)
    found: list[Any] = [p for p in _members((1,)).values() if isinstance(p, curved)]
    found += catalog.module("problems", "gaussian_subspace").examples(0)
    problems = [replace(p, noise=noise) for p in found if p.manifold.dim <= 2]
    problems = [p for p in problems if isinstance(p, curved) or p.manifold.dim == 1 or noise > 0.01]
    assert len({type(p) for p in problems}) == 3
    for problem in problems:
        x = problem.sample(3, generator()).x
        z, _ = problem.densities.sample(3, generator())
        x = torch.cat([x, problem.manifold.embed(z)])
        numeric = Quadrature(problem.manifold, problem.densities, problem.noise)
        assert_margins_agree(numeric.log_joint(x), problem.log_joint(x))


@pytest.mark.parametrize("noise", [1e-3, 0.1])
def test_pictures_of_imagenet_size(noise: float) -> None:
    """At most 2 s for 4 points and their gradients, the frame's construction included."""
    ambient = 150_528
    problems: list[Any] = [
        GaussianSubspace(
            Placed(Flat(8), ambient - 8, shift=1.0), random_gaussian_mixtures(8, (2, 1), 0), noise
        ),
        VonMisesSphere(
            Placed(Sphere(8), ambient - 9, shift=1.0), random_von_mises_fisher(8, (2, 1), 0), noise
        ),
        Tube(
            Placed(Sphere(8), ambient - 9, shift=1.0), random_von_mises_fisher(8, (2, 1), 0), noise
        ),
    ]
    for problem in problems:
        started = time.process_time()
        batch = problem.sample(4, generator())
        gradient = input_gradient(BayesClassifier(problem), batch.x, batch.y, log_marginal)
        assert time.process_time() - started < 2
        assert gradient.isfinite().all()
        if not isinstance(problem, Tube):  # |x - m|^2 / noise^2 is chi-square: within 7 deviations
            share = noise**2 * gradient.square().sum(1) / ambient
            assert (share - 1).abs().max() < 7 * (2 / ambient) ** 0.5 + 20 / ambient


# The tube.


@pytest.mark.parametrize("noise", [1e-3, 0.2, 50.0])
def test_mass_of_a_tube_is_one(noise: float) -> None:
    """Gauss-Legendre over the patches of a hypersurface and over the length of its normals."""
    mixtures = random_gaussian_mixtures(1, (1, 2), 2)
    for tube in (
        Tube(Sphere(1, 0.5), random_von_mises_fisher(1, (2, 1), 1), noise),
        Tube(Sphere(2, 1.5), random_von_mises_fisher(2, (2, 1), 1), noise),
        Tube(Paraboloid(1, 0.8), mixtures, noise, cut=0.5),
        Tube(Placed(Flat(1), 1, 3), mixtures, noise),
        Tube(Ellipsoid((1.0, 0.8)), random_von_mises_fisher(1, (2, 1), 1), noise),
    ):
        radius = min(tube.radius, 9 * noise)
        tube.sample(1, generator())  # a frame is drawn at its first use, which vmap does not allow
        mass = torch.zeros(tube.num_classes, dtype=torch.float64)
        for patch in tube.manifold.patches():
            low, high = (
                torch.tensor([*e, r]) for e, r in ((patch.low, -radius), (patch.high, radius))
            )
            low = torch.tensor([*patch.low, -radius], dtype=mass.dtype)
            high = torch.tensor([*patch.high, radius], dtype=mass.dtype)
            cells = panels.grid(low, high, (24, 3) if tube.manifold.dim == 1 else (3, 3, 3))
            s, log_weights = (t.flatten(0, 1) for t in panels.nodes(*cells, 12))

            def across(s: Tensor, tube: Tube = tube, patch: Any = patch) -> Tensor:
                return _across(tube.manifold, patch.coordinates(s[None, :-1]), s[-1])

            log_volume = torch.linalg.slogdet(vmap(jacfwd(across))(s)).logabsdet
            density = tube.log_joint(vmap(across)(s))
            mass += (density + (log_weights + log_volume)[:, None]).exp().sum(0)
        expected = torch.tensor(_priors(tube), dtype=torch.float64)
        assert (mass - expected).abs().max() < 1e-8, tube


def _across(manifold: Manifold, z: Tensor, height: Tensor) -> Tensor:
    """The point at this height above the coordinates z (1, d) of a curve or a surface in R^(d+1)."""
    tangents = jacfwd(lambda z: manifold.embed(z[None])[0])(z[0])
    if manifold.dim == 1:
        normal = torch.stack([tangents[1, 0], -tangents[0, 0]])
    else:
        normal = torch.linalg.cross(tangents[:, 0], tangents[:, 1])
    return manifold.embed(z)[0] + height * normal / normal.square().sum().sqrt()


def _tubes(noise: float | tuple[float, ...]) -> list[Tube]:
    classes = len(noise) if isinstance(noise, tuple) else 2
    fisher = random_von_mises_fisher(2, (1,) * classes, 3)
    gaussians = random_gaussians(2, classes, 3)
    return [
        Tube(Placed(Sphere(2, 1.5), 3, 4, shift=0.5), fisher, noise),
        Tube(Placed(Ellipsoid((1.0, 0.8, 1.1)), 1, 4), fisher, noise),
        Tube(Placed(Paraboloid(2, 0.7), 2, 4), gaussians, noise),
        Tube(Placed(Flat(2), 2, 4), gaussians, noise),
    ]


@pytest.mark.parametrize("noise", [1e-3, 0.3, 40.0])
def test_normal_offsets_follow_the_cut_gaussian(noise: float) -> None:
    p_values = []
    for tube in _tubes(noise):
        x = tube.sample(2000, generator(1)).x
        nearest = tube.manifold.nearest(x)
        offset = x - nearest
        assert tube.manifold.to_tangent(x, offset).abs().max() < 1e-9
        length = linalg.squared_norm(offset).sqrt()
        assert (length < tube.radius).all()
        order, height = tube.codim / 2, 0.5 * (tube.radius / noise) ** 2
        law = lambda r, order=order, height=height: (
            gammainc(order, (r / noise) ** 2 / 2) / gammainc(order, height)
        )
        p_values.append(kolmogorov_p(length, law))
        turned = linalg.unit(offset) @ linalg.random_frame(x.shape[1], 1, 0)
        p_values.append(mean_p(turned[:, 0], 0.0, low=-1, high=1))
    assert bonferroni(np.array(p_values)) > FALSE_ALARM


@pytest.mark.parametrize("codim", [1, 2, 7, 400, 150_526])
@pytest.mark.parametrize("ratio", [1e-9, 0.01, 1.0, 30.0, 300.0, 1e6, math.inf])
def test_cut_gaussian_is_exact(codim: int, ratio: float) -> None:
    """Mass and quantiles for a radius of so many deviations."""
    noise, radius = (0.5, ratio * 0.5) if ratio > 1e-3 else (0.5 / ratio, 0.5)
    law = CutGaussian(codim, radius, noise)
    uniform = torch.tensor([0.0, 1e-6, 0.1, 0.5, 0.999, 1 - 2**-53], dtype=torch.float64)
    radii = law.radii(uniform)
    assert (radii.diff() >= 0).all() and (radii <= radius).all() and radii.isfinite().all()
    with mpmath.workdps(40):
        log_full = mpf(codim) / 2 * mpmath.log(2 * mpmath.pi * mpf(noise) ** 2)
        log_inside = _log_inside(codim, radius, noise)
        found = mpf(law.log_density(torch.zeros(1, dtype=torch.float64)).item())
        assert abs(found + log_full + log_inside) < 1e-14 * max(10, abs(log_full + log_inside))
        for r, u in zip(radii[1:-1].tolist(), uniform[1:-1].tolist(), strict=True):
            share = mpmath.exp(_log_inside(codim, r, noise) - log_inside)
            assert abs(share - u) < 1e-14 + 1e-15 * codim


def _log_inside(codim: int, radius: float, noise: float) -> Any:
    """log P(codim / 2, radius^2 / 2 noise^2), the regularized incomplete gamma function."""
    order, height = mpf(codim) / 2, (mpf(radius) / mpf(noise)) ** 2 / 2
    if height > 20 * order + 200:
        return mpf(0)
    return mpmath.log(mpmath.gammainc(order, 0, height, regularized=True))


@pytest.mark.parametrize("noise", [1e-3, 0.3, 40.0])
def test_tube_posterior_is_that_of_the_nearest_point(noise: float) -> None:
    """So margins have tangent gradients, to rounding of the gradients that they are differences of."""
    for tube in _tubes(noise):
        x, y, *_ = tube.sample(20, generator(2))
        nearest = tube.manifold.coordinates(x)
        assert_margins_agree(tube.log_joint(x), tube.densities.log_joint(nearest), 1e-9)
        gradient = input_gradient(
            tube.log_joint, x, y, lambda logits, y: logits[:, 0] - logits[:, 1]
        )
        normal = gradient - tube.manifold.to_tangent(x, gradient)
        assert normal.abs().max() < 1e-9 * gradient.abs().max().clamp_min(1)


def test_tube_with_a_noise_for_each_class() -> None:
    """Margins then leak (tau_b^-2 - tau_a^-2) (x - nearest), and radii follow the labels."""
    noise, p_values = (0.1, 0.3), []
    for tube in _tubes(noise):
        x, y, *_ = tube.sample(2000, generator(2))
        offset = x - tube.manifold.nearest(x)
        few = x[:20]
        gradient = input_gradient(
            tube.log_joint, few, y[:20], lambda logits, y: logits[:, 0] - logits[:, 1]
        )
        leak = gradient - tube.manifold.to_tangent(few, gradient)
        predicted = (noise[1] ** -2 - noise[0] ** -2) * offset[:20]
        assert (leak - predicted).abs().max() < 1e-8 * predicted.abs().max()
        for label, tau in enumerate(noise):
            length = linalg.squared_norm(offset[y == label]).sqrt()
            height = 0.5 * (tube.radius / tau) ** 2
            law = lambda r, tau=tau, order=tube.codim / 2, height=height: (
                gammainc(order, (r / tau) ** 2 / 2) / gammainc(order, height)
            )
            p_values.append(kolmogorov_p(length, law))
    assert bonferroni(np.array(p_values)) > FALSE_ALARM


def test_tube_has_no_mass_outside() -> None:
    tube = Tube(Sphere(1), random_von_mises_fisher(1, (1, 1), 0), 0.2)
    radii = torch.tensor([0.0, 0.19, 0.21, 1.0, 1.79, 1.81, 2.5], dtype=torch.float64)
    x = torch.stack([radii, 0 * radii], 1)
    inside = torch.tensor([False, False, True, True, True, False, False])
    assert torch.equal(tube.log_joint(x).isfinite().all(1), inside)
    assert torch.equal(tube.log_joint(x).isneginf().all(1), ~inside)
    edge = Tube(Helix(), smooth_on(Helix()), 0.1)
    beyond = Helix().embed(torch.tensor([[99.0]], dtype=torch.float64))
    assert edge.log_joint(beyond).isneginf().all()


def smooth_on(manifold: Manifold) -> Any:
    return catalog.module("densities", "smooth").examples(manifold, 0)[0]


# Broken assumptions, and manifolds that are apart.


def margin_gradient(problem: Problem, x: Tensor) -> Tensor:
    y = torch.zeros(len(x), dtype=torch.int64)
    return input_gradient(problem.log_joint, x, y, lambda logits, y: logits[:, 0] - logits[:, 1])


def normal_part(problem: Problem, batch: Batch, v: Tensor) -> Tensor:
    return v - problem.geometry(batch).to_tangent(batch.x, v)


OPPOSITE = Gaussians(((0.7,), (-0.7,)), (((1.0,),),), (0.5, 0.5))


def test_a_distractor_apart_leaves_no_trace() -> None:
    for seed in range(3):
        for problem in catalog.module("problems", "signal_distractor").examples(seed)[:2]:
            batch = batch_of(problem, 20)
            leak = normal_part(problem, batch, margin_gradient(problem, batch.x))
            assert leak.abs().max() < 1e-12
            assert (problem.distractor.mT @ problem.signal).abs().max() < 1e-14


def test_a_distractor_that_follows_the_signal_leaks() -> None:
    """rho tau^2 (mean_a - mean_b) / ((1 + tau^2)^2 - rho^2): for means +-mu twice THEORY.md's B3 iii."""
    for noise, rho in product((0.1, 0.5, 2.0), (-0.8, 0.3)):
        problem = SignalDistractor(OPPOSITE, 3, noise, regression=rho, seed=2)
        batch = problem.sample(5, generator())
        leak = margin_gradient(problem, batch.x) @ problem.distractor
        predicted = rho * noise**2 * 1.4 / ((1 + noise**2) ** 2 - rho**2)
        assert (leak - predicted * torch.eye(3, dtype=leak.dtype)[0]).abs().max() < 1e-12


@pytest.mark.parametrize("broken", ["label_shift", "coupling", "regression"])
def test_predicted_leak_of_a_distractor(broken: str) -> None:
    for seed in range(3):
        options = {broken: 0.5}
        problem = SignalDistractor(random_gaussians(2, 2, seed), 2, 0.4, seed=seed, **options)
        batch = problem.sample(10, generator())
        leak = normal_part(problem, batch, margin_gradient(problem, batch.x))
        of_class = [
            problem.distractor_gradient(batch.x, torch.full_like(batch.y, k)) for k in (0, 1)
        ]
        assert (leak - (of_class[0] - of_class[1])).abs().max() < 1e-11
        assert leak.abs().max() > 1e-3


def test_a_coupled_distractor_tells_nothing_alone() -> None:
    """The law of x_N is the same for all classes, though the margin depends on it."""
    problem = SignalDistractor(OPPOSITE, 2, 0.5, spread=0.3, coupling=0.8)
    x, y, *_ = problem.sample(4000, generator())
    alone = (x @ problem.distractor[:, 0]) / math.hypot(0.3, 0.5)
    for label in (0, 1):
        assert kolmogorov_p(
            alone[y == label], lambda t: torch.special.ndtr(torch.tensor(t)).numpy()
        ) > (FALSE_ALARM / 2)
    assert (margin_gradient(problem, x[:1]) @ problem.distractor[:, 0]).abs() > 0.1


@pytest.mark.parametrize("seed", range(3))
def test_neutral_noise_is_a_gaussian_subspace(seed: int) -> None:
    plane = Placed(Flat(2), 3, seed, shift=0.5)
    densities = random_gaussian_mixtures(2, (1, 2), seed)
    plain = GaussianSubspace(plane, densities, 0.3)
    x = plain.sample(20, generator()).x
    neutral = CorrelatedNoise(plane, densities, 0.3)
    assert (neutral.log_joint(x) - plain.log_joint(x)).abs().max() < 1e-11
    plain = replace(plain, manifold=Placed(Flat(2), 3, seed))
    neutral_distractor = SignalDistractor(densities, 3, 0.3, spread=0.0, seed=seed)
    assert (neutral_distractor.log_joint(x) - plain.log_joint(x)).abs().max() < 1e-11


def test_noise_of_the_class_leaks() -> None:
    """-(tau_a^-2 - tau_b^-2) Qx"""
    plane, noise = Placed(Flat(2), 3, 1), (0.2, 0.5)
    problem = CorrelatedNoise(plane, random_gaussians(2, 2, 1), 0.3, normal_noise=noise)
    batch = problem.sample(10, generator())
    leak = normal_part(problem, batch, margin_gradient(problem, batch.x))
    predicted = -(noise[0] ** -2 - noise[1] ** -2) * normal_part(problem, batch, batch.x)
    assert (leak - predicted).abs().max() < 1e-11
    zero, one = (problem.normal_gradient(batch.x, torch.full_like(batch.y, k)) for k in (0, 1))
    assert (zero - one - predicted).abs().max() < 1e-11


def test_noise_correlated_with_the_tangent_leaks() -> None:
    """The normal block of Sigma^-1 (mean_a - mean_b), Sigma written out in R^D."""
    plane, covariance = Placed(Flat(2), 2, 1, shift=0.5), (0.05, 0.03)
    densities = random_gaussians(2, 2, 1, shared=True)
    problem = CorrelatedNoise(plane, densities, 0.3, covariance=covariance)
    batch, law, eye = problem.sample(10, generator()), densities.components(), torch.eye(4).double()
    cross = plane.frame @ torch.tensor(covariance, dtype=torch.float64)[:, None] * problem.direction
    sigma = plane.frame @ law.covariances[0, 0] @ plane.frame.mT + 0.09 * eye + cross + cross.mT
    whole = torch.linalg.solve(sigma, plane.frame @ (law.means[0, 0] - law.means[1, 0]))
    predicted = normal_part(problem, batch, whole.expand(10, 4))
    leak = normal_part(problem, batch, margin_gradient(problem, batch.x))
    assert (leak - predicted).abs().max() < 1e-11 and predicted.abs().max() > 0.1
    zero, one = (problem.normal_gradient(batch.x, torch.full_like(batch.y, k)) for k in (0, 1))
    assert (zero - one - predicted).abs().max() < 1e-11


@pytest.mark.parametrize("noise", [1e-3, 0.2])
def test_margins_of_parallel_flats(noise: float) -> None:
    """B4: with equal densities along them the gradient is (x - nearest on the other) / tau^2 exactly."""
    problem = parallel_flats(2, 2, noise, gap=0.5, seed=3)
    batch = problem.sample(6, generator())
    m = problem.parts[0].geometry(batch).nearest(batch.x)
    across = m - problem.parts[1].geometry(batch).nearest(m)
    assert (linalg.squared_norm(across).sqrt() - 0.5).abs().max() < 1e-12
    gradient = margin_gradient(problem, m)
    assert (gradient * noise**2 - across).abs().max() < 1e-9
    moved = parallel_flats(2, 2, noise, gap=0.5, displacement=0.3, seed=3)
    tangent = moved.geometry(batch).to_tangent(m, margin_gradient(moved, m))
    law = moved.parts[0].densities.components()
    blurred = law.covariances[0, 0] + noise**2 * torch.eye(2, dtype=torch.float64)
    step = torch.tensor([-0.3, 0.0], dtype=torch.float64)
    along = moved.parts[0].geometry(batch).frame @ torch.linalg.solve(blurred, step)
    assert (tangent - along).abs().max() < 1e-9 / noise**2


def test_margins_of_crossing_lines() -> None:
    """B4: omega -> cos^2 of the angle between them."""
    problem = crossing_flats(1, 1, 1e-3, seed=5)
    batch = Batch(problem.parts[0].manifold.embed(torch.ones(1, 1).double()), torch.zeros(1).long())
    gradient = margin_gradient(problem, batch.x)
    omega = linalg.squared_norm(normal_part(problem, batch, gradient)) / linalg.squared_norm(
        gradient
    )
    first, second = (part.manifold.frame for part in problem.parts)
    assert (omega - (first.mT @ second)[0] ** 2).abs().max() < 1e-5  # O(noise^2)


def test_geometry_follows_the_labels_of_the_batch() -> None:
    problem = crossing_flats(2, 2, 0.3, priors=(0.5, 0.3, 0.2))
    batch, other = problem.sample(30, generator(0)), problem.sample(30, generator(1))
    v = torch.randn(2, 30, 4, generator=generator(), dtype=torch.float64)
    found = problem.geometry(batch).at(other).to_tangent(other.x, v)
    for i, label in enumerate(other.y.tolist()):
        frame = problem.parts[label].manifold.frame
        assert (found[:, i] - v[:, i] @ frame @ frame.mT).abs().max() < 1e-12
    assert set(batch.y.tolist()) == {0, 1, 2}


def test_priors_of_separate_manifolds_add_their_logarithms() -> None:
    uneven, even = crossing_flats(2, 2, 0.3, priors=(0.8, 0.2)), crossing_flats(2, 2, 0.3)
    x = uneven.sample(20, generator(0)).x
    added = uneven.log_joint(x) - even.log_joint(x)
    expected = torch.tensor([1.6, 0.4], dtype=torch.float64).log()
    assert (added - expected).abs().max() < 1e-12


# Bad input.


def test_refusals() -> None:
    plane, torus = Placed(Flat(2), 1), CliffordTorus((1.0, 1.0))
    gaussians, fisher = random_gaussians(2, 2, 0), random_von_mises_fisher(2, (1, 1), 0)
    angles = random_von_mises_product(2, (1, 1), 0)
    one = GaussianSubspace(plane, random_gaussians(2, 1, 0), 0.1)
    two = replace(one, densities=gaussians)
    thick = replace(one, manifold=Placed(Flat(2), 2))
    cases: list[tuple[Callable[[], Problem], str]] = [
        (lambda: GaussianSubspace(plane, gaussians, -0.1), "positive and finite, not -0.1"),
        (lambda: VonMisesSphere(Sphere(2), fisher, 0.0), "positive and finite, not 0.0"),
        (lambda: VonMisesTorus(torus, angles, math.inf), "positive and finite, not inf"),
        (lambda: Tube(Sphere(2), fisher, (0.1, math.nan)), "positive and finite, not nan"),
        (
            lambda: GaussianSubspace(Placed(Flat(1)), gaussians, 0.1),
            "dimension 2 on .* dimension 1",
        ),
        (lambda: VonMisesSphere(Sphere(3), fisher, 0.1), "dimension 2 on .* dimension 3"),
        (lambda: Tube(Sphere(3), fisher, 0.1), "dimension 2 on .* dimension 3"),
        (lambda: GaussianSubspace(Paraboloid(2), gaussians, 0.1), r"Placed\(Flat\), not on Parab"),
        (lambda: VonMisesSphere(torus, fisher, 0.1), r"Placed\(Sphere\), not on CliffordTorus"),
        (
            lambda: VonMisesTorus(Placed(Sphere(2)), angles, 0.1),
            r"\(CliffordTorus\), not on Placed",
        ),
        (lambda: Tube(Sphere(2), fisher, (0.1, 0.2, 0.3)), "3 noises for 2 classes"),
        (lambda: Tube(Sphere(2), fisher, 0.1, cut=1.0), "cut strictly between 0 and 1"),
        (lambda: Tube(Flat(2), gaussians, 0.1), "codimension 0"),
        (lambda: SignalDistractor(gaussians, 0, 0.1), "codim >= 1"),
        (lambda: SignalDistractor(gaussians, 1, 0.1, spread=-1.0), "spread >= 0"),
        (lambda: SignalDistractor(gaussians, 1, 0.1, coupling=1.0), r"\|coupling\| < 1"),
        (lambda: SignalDistractor(gaussians, 1, 0.1, regression=1.5), "no variance of spread 1.0"),
        (lambda: CorrelatedNoise(plane, gaussians, 0.1, (0.1,)), "1 normal noises for 2 classes"),
        (lambda: CorrelatedNoise(plane, gaussians, 0.1, (0.1, -1.0)), "finite, not -1.0"),
        (lambda: CorrelatedNoise(plane, gaussians, 0.1, (), (0.1,)), "with 1 coordinates"),
        (lambda: CorrelatedNoise(plane, gaussians, 0.1, (), (0.1, 0.1)), "covariance of norm 0.14"),
        (lambda: CorrelatedNoise(Placed(Flat(2), 0), gaussians, 0.1), "codimension 0"),
        (lambda: SeparateManifolds((one, one), (0.5, 0.6)), "sum to 1"),
        (lambda: SeparateManifolds((one,), (0.5, 0.5)), "1 parts for 2 priors"),
        (lambda: SeparateManifolds((two,), (1.0,)), r"one class each, not of \[2\]"),
        (lambda: SeparateManifolds((one, thick), (0.5, 0.5)), "different shapes"),
    ]
    for build, message in cases:
        with pytest.raises(ValueError, match=message):
            build()


def test_an_estimated_reach_is_refused() -> None:
    members = (
        manifold
        for name, dim in product(catalog.names("manifolds"), (1, 2))
        for manifold in catalog.module("manifolds", name).examples(dim, 0)
    )
    estimated = [manifold for manifold in members if not manifold.reach_certified]
    assert estimated
    for manifold in estimated:
        with pytest.raises(ValueError, match="an estimated reach"):
            Tube(manifold, random_gaussians(manifold.dim, 2, 0), 0.01)


@pytest.mark.parametrize("noise", [0.2, 0.7])
def test_offsets_from_a_plane_have_the_noise_of_the_problem(noise: float) -> None:
    """Deviation tau, not its square, in every normal direction; within 5 standard errors."""
    plane = Placed(Flat(2), 3, 0, shift=0.5)
    problem = GaussianSubspace(plane, random_gaussians(2, 2, 0), noise)
    x = problem.sample(4000, torch.Generator().manual_seed(0)).x
    offset = x - plane.nearest(x)
    variance = offset.square().sum(1).mean() / 3
    assert abs(variance / noise**2 - 1) < 5 * (2 / 12000) ** 0.5
