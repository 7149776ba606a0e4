"""Fits of mixtures of factor analyzers against closed forms, another program, and laws of points."""

from pathlib import Path

import pytest
import torch
from scipy.stats import chi2
from torch import Tensor

from manifoldlab import linalg
from manifoldlab.data.in_memory import in_memory
from manifoldlab.factor_components import FactorComponents
from manifoldlab.factor_mixtures import fit
from manifoldlab.interfaces import Data
from manifoldlab.problems.factor_mixture import RandomFactors
from manifoldlab.statistics import FALSE_ALARM
from manifoldlab.studies.factor_twins import factor_twin

EXACT = {"tolerance": 1e-13, "rounds": 3000}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def law_of(
    seed: int, dim: int = 2, ambient: int = 8, counts: tuple[int, ...] = (3,)
) -> FactorComponents:
    return RandomFactors((ambient,), counts, dim, seed, spread=6.0, scale=2.0).law()


def crooked(n: int, ambient: int, seed: int) -> Tensor:
    """Points of no mixture at all."""
    x = torch.randn(n, ambient, generator=generator(seed), dtype=torch.float64)
    return x.abs() ** 1.5 @ linalg.random_frame(ambient, ambient, seed) + x.roll(1, 1).sin()


@pytest.mark.parametrize("seed", range(6))
def test_no_round_lowers_the_likelihood(seed: int) -> None:
    """But one that took a component away; to the rounding of a mean of n D numbers."""
    x = crooked(120, 20, seed) if seed % 2 else law_of(seed, ambient=20).sample(120, generator())[0]
    found = fit(x, 2 + seed % 3, 1 + seed % 4, seed=seed, tolerance=1e-9, floor=1e-4)
    gains = found.log_likelihood.diff()
    for round_ in found.dropped:
        gains[round_ - 1] = 0
    assert found.converged and gains.min() > -1e-12 * found.log_likelihood.abs().max()
    value = found.law.log_joint(x).mean()
    assert (value - found.log_likelihood[-1]).abs() < 1e-12 * value.abs()


@pytest.mark.parametrize("n, ambient, dim", [(60, 12, 3), (30, 50, 4), (200, 5, 4)])
def test_one_component_is_the_closed_form(n: int, ambient: int, dim: int) -> None:
    """Tipping and Bishop 1999, Probabilistic principal component analysis, equations 7 and 8."""
    x = crooked(n, ambient, n)
    values, vectors = torch.linalg.eigh(x.mT.cov(correction=0))
    variance = values[:-dim].mean()
    covariance = vectors[:, -dim:] * (values[-dim:] - variance) @ vectors[:, -dim:].mT
    covariance = covariance + variance * torch.eye(ambient, dtype=x.dtype)
    exact = torch.distributions.MultivariateNormal(x.mean(0), covariance).log_prob(x).mean()
    found = fit(x, 1, dim, **EXACT)
    assert (found.log_likelihood[-1] - exact).abs() < 1e-10 * exact.abs()
    assert (found.law.means[0, 0] - x.mean(0)).abs().max() < 1e-12
    assert (found.law.noises.square() / variance - 1).abs().max() < 1e-6
    assert (
        found.law.deviations[0, 0].square() / (values[-dim:].flip(0) - variance) - 1
    ).abs().max() < 1e-5
    angles = linalg.principal_angles(found.law.frames[0].mT, vectors[None, :, -dim:])
    assert angles.max() < 1e-4  # squared, it is what the likelihood stands still at


@pytest.mark.parametrize("seed", range(3))
def test_the_law_that_points_are_drawn_from_is_found(seed: int) -> None:
    """Wilks: 2 n (log-likelihood found - that of the truth) is chi-square of as many unknown as there are."""
    dim, ambient, components, n = 2, 8, 3, 4000
    truth = law_of(seed, dim, ambient, (components,))
    x, _ = truth.sample(n, generator(seed + 10))
    found = fit(x, components, dim, seed=seed, tolerance=1e-9, rounds=2000)
    each = 2 * ambient - ambient + ambient * dim - dim * (dim - 1) // 2 + 1  # mean, loadings, noise
    gain = 2 * n * (found.log_likelihood[-1] - truth.log_joint(x).mean()).item()
    assert 0 < gain < chi2.isf(FALSE_ALARM, components * each + components - 1)
    fresh, _ = truth.sample(n, generator(seed + 20))
    lost = (truth.log_joint(fresh) - found.law.log_joint(fresh)).squeeze(1)
    assert lost.mean() < 5 * components * each / (2 * n) + 5 * lost.std() / n**0.5
    control = fit(x, components - 1, dim, seed=seed)
    assert 2 * n * (control.log_likelihood[-1] - truth.log_joint(x).mean()) < -1000


@pytest.mark.parametrize("seed", range(2))
def test_as_many_factors_as_there_can_be_are_whole_covariances(seed: int) -> None:
    """D - 1 of them: scikit-learn's Gaussian mixture climbs to the same likelihood."""
    from sklearn.mixture import GaussianMixture

    x, _ = law_of(seed, 2, 4).sample(500, generator(seed))
    other = GaussianMixture(
        3, tol=1e-12, reg_covar=0.0, max_iter=3000, n_init=5, random_state=0
    ).fit(x)
    found = fit(x, 3, 3, seed=seed, **EXACT)
    assert abs(found.log_likelihood[-1].item() - other.score(x.numpy())) < 1e-6


def test_few_points_are_no_component() -> None:
    """Four far ones make a cluster, whose law of two factors would be a flat; so they go to the others."""
    x = torch.cat([crooked(200, 6, 1), 1000 + crooked(3, 6, 2)])
    found = fit(x, 2, 2)
    assert found.dropped == (1,) and found.converged and found.law.log_weights.shape == (1, 1)
    alone = fit(x, 1, 2)
    assert (found.log_likelihood[-1] - alone.log_likelihood[-1]).abs() < 1e-6


def test_noise_does_not_fall_below_its_floor() -> None:
    x = torch.randn(50, 2, generator=generator(), dtype=torch.float64) @ torch.randn(
        2, 7, generator=generator(1), dtype=torch.float64
    )
    found = fit(x, 1, 2, floor=1e-3)
    assert (found.law.noises**2 / (1e-3 * x.var(0, correction=0).mean()) - 1).abs().max() < 1e-9


def digits(start: int, stop: int) -> tuple[Data, Tensor, Tensor]:
    from sklearn.datasets import load_digits

    table = load_digits()
    x = torch.from_numpy(table.images[start:stop, None] / 16).float()
    y = torch.from_numpy(table.target[start:stop]).long()
    return in_memory(x, y, 10, classes=tuple("abcdefghij")), x, y


def test_twin_of_digits(tmp_path: Path) -> None:
    """It knows new digits better than one factor a class does, and reads itself again."""
    data, _, y = digits(0, 1200)
    told: list[str] = []
    path = tmp_path / "twin.safetensors"
    twin = factor_twin(
        data, path, components=3, dim=4, progress=lambda done, what: told.append(what)
    )
    assert (
        any("class j" in what for what in told)
        and twin.shape == (1, 8, 8)
        and twin.num_classes == 10
    )
    priors = twin.law.log_weights.exp().sum(1)
    assert (priors - torch.bincount(y).double() / 1200).abs().max() < 1e-12
    _, x, y = digits(1200, 1797)
    one = factor_twin(data, tmp_path / "one.safetensors", components=1, dim=1)
    better = (twin.log_joint(x) - one.log_joint(x)).gather(1, y[:, None])
    assert better.mean() > 5 * better.std() / len(x) ** 0.5
    assert (twin.log_joint(x).argmax(1) == y).double().mean() > 0.9
    before = len(told)
    again = factor_twin(
        data, path, components=3, dim=4, progress=lambda done, what: told.append(what)
    )
    assert again == twin and len(told) == before


def test_refusals(tmp_path: Path) -> None:
    x = crooked(20, 6, 0)
    for points, components, dim, message in (
        (x[0], 1, 2, r"finite table \(n, D\), not of shape \(6,\)"),
        (x.log(), 1, 2, "finite table"),
        (x, 0, 2, "0 components of 2 factors in dimension 6"),
        (x, 1, 6, "1 components of 6 factors in dimension 6"),
        (x, 6, 2, "20 points for 6 components of 2 factors: each needs 4, all 24"),
        (x * 0, 1, 2, "a variance above 0, not 0.0001 of 0"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            fit(points, components, dim)
        assert "\n" not in str(caught.value)
    data, *_ = digits(0, 200)
    path = tmp_path / "twin.safetensors"
    factor_twin(data, path, components=1, dim=2)
    other, *_ = digits(0, 199)
    with pytest.raises(ValueError, match="holds a twin of .*, not of .*: give another name"):
        factor_twin(other, path, components=1, dim=2)
    with pytest.raises(
        ValueError, match="no twin of class a: 21 points for 5 components of 12 factors"
    ):
        factor_twin(data, tmp_path / "large.safetensors")
