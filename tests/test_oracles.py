"""Closed forms against slow oracles of another kind, on cases drawn by Hypothesis.

Quadrature in mpmath, brute force over a grid, and Monte Carlo, whose error is that of a mean: ERRORS
standard errors are passed by chance with probability 2e-9 where it is normal. docs/oracles.md lists all
closed forms with their oracles, here and in the other files.
"""

import re
from math import asin, pi
from pathlib import Path
from typing import NamedTuple

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mpf
from torch import Tensor

from manifoldlab import energies, linalg, special
from manifoldlab.expectations import mean_squared_change
from manifoldlab.gaussian_components import random_covariances, random_means
from manifoldlab.gaussian_regimes import GaussianRegimes, omega
from manifoldlab.logistic_ridge import LogisticRidge
from manifoldlab.models.denoiser import preconditioning
from manifoldlab.statistics import FALSE_ALARM, binomial_p, kolmogorov_p
from theory_checks.check_f1_attacks_are_tangent_or_normal_nearby import Caps, Cones
from theory_checks.gaussian_pairs import pairs
from theory_checks.landscapes import Ripples
from theory_checks.smoothed_classifiers import Hard, Soft
from theory_checks.trained_on_flats import chi_square_chances

ERRORS = 6.0
SEEDS = st.integers(0, 2**16)
ROOT = Path(__file__).parents[1]
few = settings(max_examples=8)


def real(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def source(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed + 2**24)  # of no case with this seed


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=source(seed), dtype=torch.float64)


def errors(samples: Tensor, expected: Tensor | float) -> float:
    """How far the mean over samples (m, ...) is off, in standard errors."""
    apart = (samples.mean(0) - expected).abs()
    return float((apart / (samples.std(0) / len(samples) ** 0.5).clamp_min(1e-15)).max())


# Special functions.


class Shells(NamedTuple):
    """Of e^{kappa cos a} sin(a)^{n - 2}, 0 < a < pi, by panels of Gauss and Legendre about its peak."""

    log_mass: float  # less kappa
    versine: float  # the mean of v = 1 - cos a
    variance: float  # of v


def shells(n: int, kappa: float) -> Shells:
    peak, width = np.arctan2((n - 2) ** 0.5, kappa**0.5), (n + kappa) ** -0.5
    ends = np.linspace(max(0, peak - 20 * width), min(pi, peak + 20 * width), 81)
    nodes, weights = np.polynomial.legendre.leggauss(20)
    half = np.diff(ends)[:, None] / 2
    a, share = ends[:-1, None] + half * (1 + nodes), half * weights
    v = 2 * np.sin(a / 2) ** 2
    heights = (n - 2) * np.log(np.sin(a)) - kappa * v
    density = share * np.exp(heights - heights.max())
    mass = density.sum()
    mean = (density * v).sum() / mass
    variance = (density * (v - mean) ** 2).sum() / mass
    return Shells(float(np.log(mass) + heights.max()), float(mean), float(variance))


@given(n=st.integers(3, 4000))
def test_a_sphere_is_made_of_smaller_ones(n: int) -> None:
    expected = special.log_sphere_area(n - 1) + shells(n, 0.0).log_mass
    assert special.log_sphere_area(n) == pytest.approx(expected, rel=1e-13, abs=1e-13)


@given(n=st.integers(2, 400), exponent=st.floats(-2, 5))
def test_a_von_mises_fisher_law_has_mass_one_and_its_moments(n: int, exponent: float) -> None:
    """log C, the mean A of the cosine and its variance A'; and log I of order n / 2 - 1 from the mass."""
    kappa, order = 10.0**exponent, n / 2 - 1
    found, k = shells(n, kappa), real(kappa)
    log_mass = special.log_sphere_area(n - 1) + found.log_mass
    assert special.log_vmf_normalizer(n, k).item() == pytest.approx(-log_mass - kappa, rel=1e-12)
    scaled = special.scaled_log_vmf_normalizer(n, k).item()
    assert scaled == pytest.approx(-log_mass, rel=1e-11, abs=1e-11)
    assert special.bessel_ratio(order, k).item() == pytest.approx(
        1 - found.versine, rel=1e-11, abs=1e-14
    )
    slope = special.bessel_ratio_derivative(order, k).item()
    assert slope == pytest.approx(found.variance, rel=1e-10, abs=0)
    power = order * np.log(kappa) - n / 2 * np.log(2 * pi)
    expected = pytest.approx(log_mass + power, rel=1e-12, abs=1e-11)
    assert special.log_bessel(order, k).item() == expected


# Energies and the denoiser's coefficients.


@given(logits=st.lists(st.floats(-1e4, 1e4), min_size=2, max_size=6), energy=st.floats(-1e6, 1e6))
def test_energies_and_the_weat_weight(logits: list[float], energy: float) -> None:
    with mpmath.workdps(40):
        total = -mpmath.log(mpmath.fsum(mpmath.exp(mpf(v)) for v in logits))
        size = abs(mpf(energy))
        weight = 1 / (size + mpmath.log1p(mpmath.exp(-size)))
    rows = real(*logits)[None]
    assert energies.marginal_energy(rows).item() == pytest.approx(
        float(total), rel=1e-14, abs=1e-14
    )
    label = int(np.argmin(logits))
    assert energies.joint_energy(rows, torch.tensor([label])).item() == -min(logits)
    assert energies.weat_weight(real(energy)).item() == pytest.approx(
        float(weight), rel=1e-15, abs=0
    )


@few
@given(noise=st.floats(-2, 2), deviation=st.floats(-1, 1), seed=SEEDS)
def test_preconditioning_gives_the_network_unit_variances(
    noise: float, deviation: float, seed: int
) -> None:
    """Of what goes in and of what it is to give, whose correlation vanishes (Karras et al. 2022, B.6)."""
    sigma, data = 10.0**noise, 10.0**deviation
    found = preconditioning(real(sigma), data)
    clean, added = normal(seed, 2, 100_000)
    x = data * clean + sigma * added
    into, target = found.into * x, (data * clean - found.skip * x) / found.out
    assert errors(into.square(), 1.0) < ERRORS
    assert errors(target.square(), 1.0) < ERRORS
    assert errors(into * target, 0.0) < ERRORS
    assert found.noise.item() == pytest.approx(noise * np.log(10) / 4)


# Two Gaussians: risks, moments of the loss, and what is read off a problem.


def drawn(dim: int, seed: int) -> GaussianRegimes:
    generator = source(seed)
    mean = random_means(1, dim, 1.5, generator)[0]
    return GaussianRegimes(mean, random_covariances(1, dim, 0.8, 2.0, generator)[0])


@few
@given(dim=st.integers(1, 6), seed=SEEDS, share=st.floats(0, 1.5))
def test_risks_of_drawn_rules_are_those_of_samples_at_their_worst_step(
    dim: int, seed: int, share: float
) -> None:
    pair, n = drawn(dim, seed), 50_000
    radius, w = share * float(pair.mean.norm()), normal(seed + 1, dim)
    points = pair.mean + normal(seed + 2, n, dim) @ torch.linalg.cholesky(pair.covariance).mT
    steps = radius * linalg.unit(torch.cat([-w[None], normal(seed + 3, 50, dim)]))
    margins = (points @ w)[:, None] + (steps @ w)[None, :]
    assert (margins.amin(1) == margins[:, 0]).all()  # no step is worse than the one along -w
    for size, risk in ((0, pair.clean_risk(w)), (1, pair.robust_risk(w, radius))):
        wrong = int(((points + size * steps[0]) @ w < 0).sum())
        assert binomial_p(wrong, n, risk.item()) > FALSE_ALARM


@few
@given(dim=st.integers(1, 4), seed=SEEDS, size=st.floats(-2, 0.7), strength=st.floats(-4, 2))
def test_moments_of_the_logistic_loss_by_quadrature(
    dim: int, seed: int, size: float, strength: float
) -> None:
    values, mean = normal(seed, dim).abs() + 0.1, normal(seed + 1, dim)
    w, ridge = (
        10.0**size * normal(seed + 2, dim),
        LogisticRidge(mean, values, real(10.0**strength)[0]),
    )
    centre, deviation = float(w @ mean), float((w.square() * values).sum().sqrt())
    with mpmath.workdps(20):
        loss = lambda m: mpmath.log1p(mpmath.exp(-m))
        slope = lambda m: 1 / (1 + mpmath.exp(m))
        bend = lambda m: slope(m) * (1 - slope(m))
        skew = lambda m: -bend(m) * (1 - 2 * slope(m))
        last = lambda m: bend(m) * (1 - 2 * slope(m)) ** 2 - 2 * bend(m) ** 2
        ends = sorted({-13.0, 13.0, *range(-12, 13, 2), min(max(-centre / deviation, -13.0), 13.0)})
        means = [
            mpmath.quad(lambda z, f=f: f(centre + deviation * z) * mpmath.npdf(z), ends)
            for f in (slope, bend, skew, last, loss)
        ]
    found = [*ridge.moments(w), ridge.value(w) - ridge.strength * w.square().sum()]
    for moment, expected in zip(found, means, strict=True):
        assert moment.item() == pytest.approx(float(expected), rel=1e-11, abs=1e-13)


@few
@given(name=st.sampled_from(sorted(pairs())), data=st.data())
def test_a_pair_is_read_off_its_problem_as_its_samples_say(name: str, data: st.DataObject) -> None:
    """Half the difference of the class means, and the covariance about them."""
    case = data.draw(pairs()[name])
    x, y = case.problem.sample(60_000, source(case.seed))[:2]
    classes = [x[y == label].flatten(1) for label in (0, 1)]
    first, second = (points.mean(0) for points in classes)
    error = sum(points.var(0) / len(points) for points in classes).sqrt()  # type: ignore[union-attr]
    assert ((second - first - 2 * case.mean).abs() / error).max() < ERRORS
    for points in classes:
        away = points - points.mean(0)
        products = (away[:, :, None] * away[:, None]).flatten(1)
        assert errors(products, case.covariance.flatten()) < ERRORS
    vectors = normal(case.seed, 50, len(case.mean))
    inside = vectors @ case.frame @ case.frame.mT
    exact = (vectors - inside).square().sum(1) / vectors.square().sum(1)
    assert torch.allclose(omega(vectors, case.frame), exact, rtol=1e-12)


# Smoothing, and means over Gaussian noise.


@few
@given(wave=st.sampled_from([None, 0.0, 0.3, 1.0]), noise=st.floats(0.2, 1.2), seed=SEEDS)
def test_smoothed_sets_are_means_over_noise(wave: float | None, noise: float, seed: int) -> None:
    """None: a half-space under uniform noise, which is bounded, as is its formula."""
    uniform, wave, n = wave is None, wave or 0.0, 100_000
    case = Hard(wave, noise, uniform, seed, n=3)
    t, u = 0.3 * normal(seed, 3, 2), normal(seed + 1, n, 3, 2)
    if uniform:
        u[:, :, 1] = (2 * torch.rand(n, 3, generator=source(seed + 2)).double() - 1) * 3**0.5
        t[:, 1] = 0
    found = case.at(t)
    phase = 2 * pi * torch.special.ndtr(case.normal(3, stream=6))
    at = t + u
    height = wave * ((phase + noise * at[..., 0]).sin() - phase.sin()) / noise - case.far
    inside = (at[..., 1] > height).double()
    both = torch.stack([inside, 1 - inside], 2)  # (n, 3, 2)
    assert errors(both, found.probabilities) < ERRORS
    assert errors(both[..., None] * u[:, :, None], found.moments) < ERRORS


@few
@given(name=st.sampled_from(["gaussian_subspace", "von_mises_sphere"]), data=st.data())
def test_smoothed_models_are_means_over_noise(name: str, data: st.DataObject) -> None:
    from manifoldlab.strategies import problems

    case = Soft(data.draw(problems()[name]), 0.5)
    t, u = 0.3 * case.normal(*case.origin.shape), normal(case.case.seed, 4000, *case.origin.shape)
    x, s = case.case.batch.x, case.noise
    moved = x.flatten(1) + s * (t + u) @ case.columns.mT  # (m, n, D)
    logits = case.case.problem.log_joint(moved.reshape(-1, *x.shape[1:])) / case._temperature
    values = logits.softmax(1).reshape(len(u), len(x), -1)
    found = case.at(t)
    assert errors(values, found.probabilities) < ERRORS
    assert errors(values[..., None] * u[:, :, None], found.moments) < ERRORS


@few
@given(size=st.integers(2, 40), scale=st.floats(0.1, 1.0), seed=SEEDS)
def test_mean_squared_changes_are_means_over_noise(size: int, scale: float, seed: int) -> None:
    ripples, x = Ripples(size, seed), normal(seed, 2, size)
    f = lambda x: ripples.log_joint(x.reshape(-1, size))[:, 0].reshape(x.shape[:2])
    columns = ripples.columns.expand(2, -1, -1)
    found = mean_squared_change(f, x, columns, scale, order=40)
    u = normal(seed + 1, 40_000, 1, size)
    assert errors((f(x + scale * u) - f(x[None])).square(), found) < ERRORS


@few
@given(seed=SEEDS)
def test_ripples_are_nowhere_flat(seed: int) -> None:
    """0.7 is what the laws A1 to A4 rely on; by central differences on a grid of a few wavelengths."""
    ripples, h = Ripples(2, seed), 1e-5
    grid = torch.cartesian_prod(*[torch.linspace(-12, 12, 200, dtype=torch.float64)] * 2)
    margin = lambda s: (ripples.log_joint(s @ ripples.columns.mT) @ real(1, -1)[:, None])[:, 0]
    ways = h * torch.eye(2, dtype=torch.float64)
    slopes = torch.stack([(margin(grid + way) - margin(grid - way)) / (2 * h) for way in ways], 1)
    assert slopes.norm(dim=1).min() > 0.7


@few
@given(degrees=st.integers(1, 300), count=st.integers(1, 40), seed=SEEDS)
def test_chances_of_chi_squares_are_uniform(degrees: int, count: int, seed: int) -> None:
    squares = normal(seed, 60, count, degrees).square().sum(2)
    found = torch.stack([chi_square_chances(row, degrees) for row in squares])
    for p_values in found.unbind(1):
        assert kolmogorov_p(p_values, lambda p: p.clip(0, 1)) > FALSE_ALARM


# Calibration, and risks of attacks on spheres.


@few
@given(ambient=st.integers(4, 40), true=st.floats(0, 1), share=st.floats(0, 1), seed=SEEDS)
def test_estimated_shares_of_isotropic_gradients(
    ambient: int, true: float, share: float, seed: int
) -> None:
    """leak + (capture - leak) A of the docstring of studies.calibration, for any P^."""
    dim = 1 + seed % (ambient - 1)
    rank = 1 + int(true * (ambient - 2))
    basis, wrong = (
        linalg.random_frame(ambient, dim, seed),
        linalg.random_frame(ambient, rank, seed + 1),
    )
    estimated = torch.linalg.qr(wrong + basis @ normal(seed, dim, rank)).Q
    capture = (basis.mT @ estimated).square().sum().item() / dim
    leak = (rank - capture * dim) / (ambient - dim)
    tangent = linalg.unit(normal(seed + 1, 20_000, dim)) @ basis.mT
    away = normal(seed + 2, 20_000, ambient)
    across = linalg.unit(away - away @ basis @ basis.mT)
    seen = (share**0.5 * tangent + (1 - share) ** 0.5 * across) @ estimated
    assert errors(seen.square().sum(1), leak + (capture - leak) * share) < ERRORS


GRID = 2000


def apart(first: Tensor, second: Tensor, edge: Tensor) -> None:
    """Equal but where the answer hangs on less than the spacing of a grid."""
    assert not ((first != second) & (edge > 20 / GRID)).any()


@few
@given(plane=st.floats(-0.9, 0.9), share=st.floats(0.05, 0.95))
def test_risks_of_caps_by_brute_force(plane: float, share: float) -> None:
    """On a circle: the steps that lower a point most lie in the plane of its normal and the axis."""
    found = Caps(plane, share, n=100).risks
    angle = (torch.arange(100, dtype=torch.float64) + 0.5) * pi / 100
    side = (angle.cos() > plane).double() * 2 - 1
    turn = torch.linspace(-pi, pi, GRID + 1, dtype=torch.float64)
    length = 2 * (turn / 2).sin().abs()
    heights = (angle[:, None] + turn).cos() * side[:, None]  # of all points of the circle
    own, b = angle.cos() * side, side * plane
    lowest = lambda size: heights.where(length <= size, torch.inf).amin(1)
    scale = torch.linspace(1 - share, 1 + share, GRID + 1, dtype=torch.float64)
    apart(found.on, lowest(share) <= b, (lowest(share) - b).abs())
    apart(found.farther, lowest(2 * share) <= b, (lowest(2 * share) - b).abs())
    across = (own[:, None] * scale).amin(1)
    apart(found.normal, across <= b, (across - b).abs())
    anywhere = own - share
    apart(found.any, anywhere <= b, (anywhere - b).abs())
    falls = heights - share * heights.abs() <= b[:, None]  # by a normal step
    nearby = ((length <= 2 * share) & (heights > b[:, None]) & falls).any(1)
    rim = (lowest(2 * share) - b / (1 - share * b.sign())).abs()
    apart(found.nearby, nearby, rim.minimum((b / (1 - share * b.sign()) - b).abs()))


@few
@given(opening=st.floats(0.1, 1.5), share=st.floats(0.05, 0.95))
def test_risks_of_cones_by_brute_force(opening: float, share: float) -> None:
    found = Cones(opening, share, n=100).risks
    angle = (torch.arange(100, dtype=torch.float64) + 0.5) * pi / 100
    left = (angle - opening).abs()
    radii = torch.linspace(0, 2, GRID + 1, dtype=torch.float64)  # points of the cone
    nearest = (1 + radii.square() - 2 * radii * left.cos()[:, None]).clamp_min(0).sqrt().amin(1)
    on = 2 * (left / 2).sin()
    apart(found.on, on <= share, (on - share).abs())
    apart(found.farther, on <= 2 * share, (on - 2 * share).abs())
    apart(found.any, nearest <= share, (left - asin(share)).abs())
    assert not found.normal.any() and not found.nearby.any()


# The list.

ROW = re.compile(r"`(tests/[\w/]+\.py|theory_checks/\w+\.py)::(\w+)`")


def named() -> list[tuple[str, str]]:
    return ROW.findall((ROOT / "docs" / "oracles.md").read_text(encoding="utf-8"))


def test_the_list_names_tests_that_exist() -> None:
    assert len(named()) > 60
    text = {
        name: (ROOT / name).read_text(encoding="utf-8") for name in {file for file, _ in named()}
    }
    missing = [pair for pair in named() if f"def {pair[1]}(" not in text[pair[0]]]
    assert not missing
