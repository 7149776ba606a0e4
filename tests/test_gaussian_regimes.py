"""Closed forms for two Gaussians against direct optimization by scipy, and exact limits."""

from collections.abc import Callable
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import ndtr
from torch import Tensor

from manifoldlab import gaussian_components, linalg
from manifoldlab.gaussian_regimes import GaussianRegimes, omega
from manifoldlab.logistic_ridge import normal_nodes
from manifoldlab.statistics import FALSE_ALARM, binomial_p

Array = npt.NDArray[np.float64]
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(180)
WEIGHTS = WEIGHTS / WEIGHTS.sum()
NUMBERS = (0.02, 0.3, 1.2)  # of noise, radius or ridge


def drawn(dim: int, seed: int = 0) -> GaussianRegimes:
    generator = torch.Generator().manual_seed(seed)
    mean = gaussian_components.random_means(1, dim, 1.5, generator)[0]
    covariance = gaussian_components.random_covariances(1, dim, 0.8, 2.0, generator)[0]
    return GaussianRegimes(mean, covariance)


def population_risk(
    pair: GaussianRegimes, w: Array, *, radius: float = 0.0, noise: float = 0.0
) -> float:
    """E log(1 + e^{-m})"""
    mean, covariance = pair.mean.numpy(), pair.covariance.numpy()
    deviation = np.sqrt(w @ covariance @ w + noise**2 * (w @ w))
    margin = w @ mean - radius * np.linalg.norm(w) + deviation * NODES
    return float(WEIGHTS @ np.logaddexp(0, -margin))


def least(function: Callable[[Array], float], start: Tensor) -> Array:
    """To about 1e-7: differences of values know the minimum no better than the root of rounding."""
    options = {"xatol": 1e-9, "fatol": 0, "maxiter": 4000, "maxfev": 8000}
    found = minimize(function, start.numpy() / 3, method="Nelder-Mead", options=options)
    minimum: Array = found.x
    return minimum


@pytest.mark.parametrize(("dim", "seed"), [(1, 0), (2, 1), (3, 2)])
@pytest.mark.parametrize("number", NUMBERS)
def test_trainings_find_what_direct_optimization_finds(dim: int, seed: int, number: float) -> None:
    pair = drawn(dim, seed)
    mean, covariance = pair.mean.numpy(), pair.covariance.numpy()
    radius = 0.7 * number * float(pair.mean.norm())
    ridge = lambda w: number * float(w @ w)
    risks: dict[str, tuple[Callable[[Array], float], Tensor]] = {
        "noise": (lambda w: population_risk(pair, w, noise=number), pair.noise(number).rule),
        "adversarial": (
            lambda w: population_risk(pair, w, radius=radius),
            pair.adversarial(radius).rule,
        ),
        "squared ridge": (
            lambda w: float((1 - w @ mean) ** 2 + w @ covariance @ w + ridge(w)),
            pair.squared_ridge(number).rule,
        ),
        "logistic ridge": (
            lambda w: population_risk(pair, w) + ridge(w),
            pair.logistic_ridge(number).rule,
        ),
    }
    for name, (risk, rule) in risks.items():
        assert rule.numpy() == pytest.approx(least(risk, pair.mean), rel=1e-5, abs=1e-6), name


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [0.1, 0.6, 0.95])
def test_no_rule_has_less_robust_risk(seed: int, share: float) -> None:
    pair = drawn(2, seed)
    radius = share * float(pair.mean.norm())
    best = pair.robust_risk(pair.rule(pair.gamma_of_radius(radius)), radius)
    angle = torch.linspace(0, 2 * torch.pi, 20001, dtype=torch.float64)
    around = torch.stack([angle.cos(), angle.sin()], 1)
    risks = pair.robust_risk(around, radius)
    assert best <= risks.min() * (1 + 1e-14)
    assert best == pytest.approx(risks.min().item(), rel=1e-5)  # the angles are 3e-4 apart


def test_risks_are_those_of_samples() -> None:
    pair, radius, n = drawn(3, 5), 0.4, 200_000
    w = pair.adversarial(radius).rule
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    margin = (pair.mean + noise @ torch.linalg.cholesky(pair.covariance).mT) @ w
    for size, risk in ((0.0, pair.clean_risk(w)), (radius, pair.robust_risk(w, radius))):
        wrong = int((margin - size * w.norm() < 0).sum())
        assert binomial_p(wrong, n, risk.item()) > FALSE_ALARM / 2


@pytest.mark.parametrize("condition", [1.0, 1e4, 1e12])
def test_rules_of_ill_conditioned_covariances(condition: float) -> None:
    """Against the diagonal, where each coordinate is a quotient."""
    values = torch.logspace(0, -float(np.log10(condition)), 7, dtype=torch.float64)
    mean = torch.linspace(-1, 2, 7, dtype=torch.float64)
    gammas = torch.tensor([0.0, 1e-9, 1e-3, 1.0, 1e6], dtype=torch.float64)
    expected = mean / (values + gammas[:, None])
    pair = GaussianRegimes(mean, torch.diag(values))
    assert torch.allclose(pair.rule(gammas), expected, rtol=1e-14, atol=0)
    assert torch.allclose(pair.direction(gammas), linalg.unit(expected), rtol=1e-13, atol=0)
    radii = gammas * expected.norm(dim=1)
    assert torch.allclose(pair.radius(gammas), radii, rtol=1e-14, atol=0)
    share = (gammas[:, None] * expected).square()
    slope = (share * values / (values + gammas[:, None])).sum(1) / share.sum(1)
    error = (pair.gamma_of_radius(radii) - gammas).abs() / gammas
    assert (error[1:-1] < 1e-15 / slope[1:-1]).all()  # the rounding of a radius is worth as much
    turn = linalg.random_frame(7, 7, 0)
    turned = turn @ torch.diag(values) @ turn.mT
    rotated = GaussianRegimes(turn @ mean, (turned + turned.mT) / 2)
    distance = (rotated.rule(1e-3) - turn @ pair.rule(1e-3)).norm()
    assert (
        distance < 1e-12 * pair.rule(1e-3).norm()
    )  # gamma keeps the inverse from having the condition of the covariance


def test_the_ends_of_the_family() -> None:
    pair = drawn(4)
    size = pair.mean.norm()
    assert pair.gamma_of_radius(0.0) == 0
    assert pair.gamma_of_radius(torch.stack([2 * size, 3 * size])).isinf().all()
    assert pair.adversarial(1.5 * size).rule.eq(0).all()
    assert pair.radius(torch.inf) == pytest.approx(size.item(), rel=1e-15)
    assert torch.allclose(pair.direction(torch.inf), pair.mean / size, rtol=1e-14)
    bayes = torch.linalg.solve(pair.covariance, pair.mean)
    for found in (pair.noise(0.0), pair.adversarial(0.0), pair.logistic_ridge(0.0)):
        assert found.gamma == 0
        assert torch.allclose(found.rule, 2 * bayes, rtol=1e-12)
    nothing = torch.zeros(4, dtype=torch.float64)
    assert pair.clean_risk(nothing) == pair.robust_risk(nothing, 1.0) == 0.5
    assert pair.clean_risk(bayes).item() == pytest.approx(
        ndtr(-((bayes @ pair.mean) ** 0.5).item())
    )


def test_a_logistic_ridge_solves_its_equations() -> None:
    """E l' mu + E l'' Sigma w + 2 lambda w = 0 over twelve orders of magnitude, by Gauss and Hermite."""
    pair, strength = drawn(3, 1), torch.logspace(-6, 6, 13, dtype=torch.float64)
    gamma, w = pair.logistic_ridge(strength)
    deviation = ((w @ pair.covariance) * w).sum(1).sqrt()
    nodes, weights = torch.from_numpy(NODES), torch.from_numpy(WEIGHTS)
    margin = (w @ pair.mean)[:, None] + deviation[:, None] * nodes
    wrong = (-margin).sigmoid() @ weights
    curvature = (margin.sigmoid() * (-margin).sigmoid()) @ weights
    left = wrong[:, None] * pair.mean
    right = curvature[:, None] * w @ pair.covariance + 2 * strength[:, None] * w
    assert torch.allclose(left, right, rtol=1e-9, atol=1e-9)
    assert torch.allclose(gamma, 2 * strength / curvature, rtol=1e-9)
    assert gamma[-1].item() == pytest.approx(8 * strength[-1].item(), rel=1e-5)  # margins near 0


def test_omega_of_the_control_of_law_d6() -> None:
    pair = GaussianRegimes(torch.ones(2).double(), torch.diag(torch.tensor([1.0, 4.0])).double())
    frame = torch.eye(2, dtype=torch.float64)[:, :1]
    ends = pair.direction(torch.tensor([0.0, torch.inf]))
    assert omega(ends, frame).tolist() == pytest.approx([1 / 17, 1 / 2])
    rules = pair.rule(torch.tensor([[0.0, 1.0]]))
    assert omega(rules, frame).flatten().tolist() == pytest.approx([1 / 17, 4 / 29])


@pytest.mark.parametrize("shape", [(), (5,), (2, 3)])
def test_any_number_of_them_at_once(shape: tuple[int, ...]) -> None:
    pair = drawn(3)
    numbers = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for training in (pair.noise, pair.squared_ridge, pair.adversarial, pair.logistic_ridge):
        gamma, rule = training(numbers)
        assert gamma.shape == shape
        assert rule.shape == (*shape, 3)
        for place in product(*map(range, shape)):
            alone = training(numbers[place])
            assert gamma[place].item() == pytest.approx(alone.gamma.item(), rel=1e-12)
            assert torch.allclose(rule[place], alone.rule, rtol=1e-12)
        assert pair.robust_risk(rule, numbers).shape == shape
        assert omega(rule, torch.eye(3, dtype=torch.float64)[:, :2]).shape == shape


def test_nodes_have_the_moments_of_a_normal_number() -> None:
    nodes, weights = normal_nodes()
    for power in range(0, 20, 2):
        exact = float(np.prod(np.arange(1, power, 2)))
        assert (weights * nodes**power).sum().item() == pytest.approx(exact, rel=1e-13)
    wave = (weights * (20 * nodes).cos()).sum().item()  # e^{-200}
    assert abs(wave) < 1e-14


EYE = torch.eye(2, dtype=torch.float64)
MEAN = torch.tensor([1.0, 2.0], dtype=torch.float64)


@pytest.mark.parametrize(
    ("mean", "covariance", "message"),
    [
        (MEAN[:1], EYE, r"a mean of shape \(1,\) with a covariance of shape \(2, 2\)"),
        (MEAN, EYE[0], r"a mean of shape \(2,\) with a covariance of shape \(2,\)"),
        (MEAN.float(), EYE, "mean of torch.float32, covariance of torch.float64: not float64"),
        (0 * MEAN, EYE, r"finite and not zero, not \[0.0, 0.0\]"),
        (MEAN * torch.inf, EYE, r"finite and not zero, not \[inf, inf\]"),
        (MEAN, EYE + torch.triu(EYE.new_ones(2, 2), 1), "symmetric, not by 1.0 apart"),
        (MEAN, EYE * torch.nan, "finite and symmetric, not by nan apart"),
        (MEAN, torch.diag(MEAN - 1), "positive definite, not of eigenvalue 0.0"),
    ],
)
def test_bad_pairs_are_refused_in_one_line(mean: Tensor, covariance: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        GaussianRegimes(mean, covariance)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("number", [-0.1, torch.nan])
def test_bad_numbers_are_refused_in_one_line(number: float) -> None:
    pair = GaussianRegimes(MEAN, EYE)
    given: dict[str, list[Callable[[float], object]]] = {
        "gamma": [pair.rule, pair.direction, pair.radius],
        "radius": [pair.gamma_of_radius, pair.adversarial],
        "sigma": [pair.noise],
        "strength": [pair.squared_ridge, pair.logistic_ridge],
    }
    for name, functions in given.items():
        for function in functions:
            with pytest.raises(ValueError, match=f"^{name} must be 0 or more, not {number}$"):
                function(number)
    with pytest.raises(ValueError, match="^strength must be finite, not inf$"):
        pair.logistic_ridge(torch.inf)
