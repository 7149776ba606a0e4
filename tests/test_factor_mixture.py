"""Mixtures of factor analyzers against dense Gaussians, other families, and what is known in closed form.

Statistical tests: each divides a false-alarm probability of 1e-6 among its cases.
"""

import time
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from manifoldlab import checkpoints, linalg
from manifoldlab.densities.gaussians import random_gaussians
from manifoldlab.factor_components import FactorComponents
from manifoldlab.gradients import input_gradient, log_marginal
from manifoldlab.interfaces import Batch
from manifoldlab.manifolds.flat import Flat
from manifoldlab.manifolds.placed import Placed
from manifoldlab.problems.base import BayesClassifier, Problem
from manifoldlab.problems.factor_mixture import FactorMixture, RandomFactors, Stored, save
from manifoldlab.problems.gaussian_subspace import GaussianSubspace
from manifoldlab.statistics import FALSE_ALARM, bonferroni, kolmogorov_p, mean_p

SEEDS = range(4)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mixture(seed: int, **options: Any) -> FactorMixture:
    counts, dim = ((2, 1, 3), (1, 2))[seed % 2], 1 + seed % 3
    return FactorMixture(RandomFactors((4 + seed,), counts, dim, seed, **options), 0.1 * (seed % 2))


def dense(problem: FactorMixture) -> list[list[tuple[Tensor, torch.distributions.Distribution]]]:
    """(log weight, law) of every component, from whole covariances."""
    law, eye = problem.law, torch.eye(prod(problem.shape), dtype=torch.float64)
    found = []
    for y in range(law.num_classes):
        found.append([])
        for j in torch.arange(law.log_weights.shape[1])[law.log_weights[y].isfinite()].tolist():
            loadings = law.frames[y, j].mT * law.deviations[y, j]
            covariance = loadings @ loadings.mT + law.noises[y, j] ** 2 * eye
            normal = torch.distributions.MultivariateNormal(law.means[y, j], covariance)
            found[-1].append((law.log_weights[y, j], normal))
    return found


def dense_log_joint(problem: FactorMixture, x: Tensor) -> Tensor:
    classes = [[weight + law.log_prob(x) for weight, law in row] for row in dense(problem)]
    return torch.stack([torch.stack(row, 1).logsumexp(1) for row in classes], 1)


@pytest.mark.parametrize("seed", SEEDS)
def test_log_joint_and_score_are_those_of_dense_gaussians(seed: int) -> None:
    problem = mixture(seed)
    x, y, *_ = problem.sample(50, generator())
    x = x * 2  # away from the mass, too
    expected = dense_log_joint(problem, x)
    assert (problem.log_joint(x) - expected).abs().max() < 1e-12 * expected.abs().max()
    score = input_gradient(BayesClassifier(problem), x, y, log_marginal)
    other = input_gradient(lambda x: dense_log_joint(problem, x), x, y, log_marginal)
    assert (score - other).abs().max() < 1e-12 * other.abs().max()
    few = x[:3].clone().requires_grad_()
    assert torch.autograd.gradcheck(problem.log_joint, few)
    assert torch.autograd.gradgradcheck(problem.log_joint, few)


@pytest.mark.parametrize("noise", [0.01, 0.3])
def test_one_flat_is_a_gaussian_subspace(noise: float) -> None:
    """To 1e-10 of |x|^2 / 2 noise^2, and margins to 1e-10 of max(1, |margin|)."""
    plane, densities = Placed(Flat(2), 5, 3, shift=1.0), random_gaussians(2, 3, 1)
    subspace, law = GaussianSubspace(plane, densities, noise), densities.components()
    values, vectors = torch.linalg.eigh(law.covariances)
    frames = (plane.frame @ vectors).mT
    means = plane.origin + law.means @ plane.frame.mT
    noises = torch.full_like(law.log_weights, noise)
    found = FactorComponents(law.log_weights, means, frames, values.sqrt(), noises)
    x = subspace.sample(20, generator()).x
    x = x + noise * torch.randn(x.shape, generator=generator(), dtype=x.dtype)
    logits, expected = found.log_joint(x), subspace.log_joint(x)
    scale = (x.square().sum(1) / (2 * noise**2)).clamp_min(1)[:, None]
    assert ((logits - expected).abs() <= 1e-10 * scale).all()
    margins, truth = (t[:, 1:] - t[:, :1] for t in (logits, expected))
    assert ((margins - truth).abs() <= 1e-10 * truth.abs().clamp_min(1)).all()


def test_samples_follow_the_law() -> None:
    """Along random directions, label by label: a mixture of normal laws of known mean and deviation."""
    p_values = []
    for seed in SEEDS:
        problem = mixture(seed)
        x, y, *_ = problem.sample(6000, generator(seed))
        for v in linalg.random_frame(x.shape[1], 2, seed).mT:
            for label, row in enumerate(dense(problem)):
                shares = torch.stack([weight for weight, _ in row]).softmax(0)
                means = torch.stack([law.mean @ v for _, law in row])
                deviations = torch.stack([(v @ law.covariance_matrix @ v).sqrt() for _, law in row])

                def cumulative(
                    t: Any, m: Tensor = means, s: Tensor = deviations, w: Tensor = shares
                ) -> Any:
                    return (torch.special.ndtr((torch.as_tensor(t)[:, None] - m) / s) @ w).numpy()

                p_values.append(kolmogorov_p((x @ v)[y == label], cumulative))
    assert bonferroni(np.array(p_values)) > FALSE_ALARM


def pair(gap: float, noise: float) -> FactorComponents:
    """Two equal Gaussians, so far apart along a direction halfway between factors and noise."""
    frame = linalg.random_frame(6, 3, 0).mT
    step = gap / 2 * (frame[0] + frame[2]) / 2**0.5
    frames, deviations = (
        frame[:2].expand(2, 1, 2, 6),
        torch.tensor([1.0, 2.0]).double().expand(2, 1, 2),
    )
    weights = torch.full((2, 1), 0.5, dtype=torch.float64).log()
    return FactorComponents(
        weights, torch.stack([-step, step])[:, None], frames, deviations, weights.exp() * 0 + noise
    )


def test_bayes_accuracy_by_three_routes() -> None:
    """Hits, the mean of the largest posterior, and Phi of half the distance in units of the covariance."""
    p_values = []
    for gap, noise in ((1.0, 0.5), (0.6, 0.3), (2.0, 1.5)):
        law = pair(gap, noise)
        x, y = law.sample(20_000, generator(1))
        posterior = law.log_joint(x).softmax(1)
        hit = (posterior.argmax(1) == y).double()
        square = gap**2 / 2 * (1 / (1 + noise**2) + 1 / noise**2)
        exact = torch.special.ndtr(torch.tensor(square**0.5 / 2)).item()
        p_values += [
            mean_p(hit, exact, low=0, high=1),
            mean_p(posterior.amax(1), exact, low=0, high=1),
            mean_p(hit - posterior.amax(1), 0.0, low=-1, high=1),
        ]
    assert bonferroni(np.array(p_values)) > FALSE_ALARM


def margin_share(problem: Problem, batch: Batch) -> Tensor:
    """omega of the Bayes margin of the first two classes."""
    y = torch.zeros_like(batch.y)
    margin = lambda logits, y: logits[:, 0] - logits[:, 1]
    gradient = input_gradient(problem.log_joint, batch.x, y, margin)
    tangent = problem.geometry(batch).at(batch).to_tangent(batch.x, gradient)
    return linalg.squared_norm(gradient - tangent) / linalg.squared_norm(gradient)


@pytest.mark.parametrize("seed", SEEDS)
def test_margins_on_one_flat_are_tangent(seed: int) -> None:
    """B1. Controls: flats of their own, and one flat with more noise in one class."""
    problem = mixture(seed, one_flat=True)
    batch = problem.sample(40, generator())
    assert margin_share(problem, batch).max() < 1e-20
    apart = mixture(seed)
    assert margin_share(apart, apart.sample(40, generator())).median() > 0.01
    law = problem.law
    noises = (
        law.noises * torch.tensor([1.0, 1.3, 1.0], dtype=torch.float64)[: law.num_classes, None]
    )
    y = torch.zeros_like(batch.y)
    louder = FactorComponents(law.log_weights, law.means, law.frames, law.deviations, noises)
    margin = lambda logits, y: logits[:, 0] - logits[:, 1]
    gradient = input_gradient(louder.log_joint, batch.x, y, margin)
    normal = gradient - problem.geometry(batch).to_tangent(batch.x, gradient)
    offset = batch.x - law.means[0, 0]
    offset = offset - problem.geometry(batch).to_tangent(batch.x, offset)
    predicted = -(law.noises[0, 0] ** -2 - (1.3 * law.noises[0, 0]) ** -2) * offset
    assert (normal - predicted).abs().max() < 1e-10 * predicted.abs().max()


@pytest.mark.parametrize("seed", SEEDS)
def test_without_noise_the_tangent_space_is_the_flat_of_the_sample(seed: int) -> None:
    problem = mixture(seed, noise=1e-4)
    law, factors = (
        problem.law,
        torch.randn(200, 1 + seed % 3, generator=generator(), dtype=torch.float64),
    )
    for y, j in law.log_weights.isfinite().nonzero().tolist():
        x = law.means[y, j] + (factors * law.deviations[y, j]) @ law.frames[y, j]
        batch = Batch(x, torch.full((200,), y))
        step = torch.randn(200, law.dim, generator=generator(1), dtype=x.dtype) @ law.frames[y, j]
        along = problem.geometry(batch).to_tangent(x, step)
        assert (along - step).abs().amax(1).le(1e-10).float().mean() > 0.99  # not where flats meet


def test_geometry_takes_labels_and_points_of_the_batch() -> None:
    problem = mixture(2)
    first, second = problem.sample(5, generator(0)), problem.sample(9, generator(1))
    v = torch.randn(3, *second.x.shape, generator=generator(), dtype=torch.float64)
    found = problem.geometry(first).at(second).to_tangent(second.x, v)
    assert torch.equal(found, problem.geometry(second).to_tangent(second.x, v))
    law, components = problem.law, dense(problem)
    for i, (x, y) in enumerate(zip(second.x, second.y.tolist(), strict=True)):
        logs = torch.stack([weight + part.log_prob(x) for weight, part in components[y]])
        frame = law.frames[y, logs.argmax()].mT
        assert (found[:, i] - v[:, i] @ frame @ frame.mT).abs().max() < 1e-12


def test_pictures_of_12288_pixels() -> None:
    """No matrix of 12288 x 12288 would fit: 1.2 GB. Float32 differs by its own rounding of x."""
    factors = RandomFactors((3, 64, 64), (3, 2, 3), 12, spread=20.0, scale=3.0, noise=0.1)
    problem = FactorMixture(factors)
    _ = problem.law
    started = time.process_time()
    batch = problem.sample(16, generator())
    score = input_gradient(BayesClassifier(problem), batch.x, batch.y, log_marginal)
    assert time.process_time() - started < 5
    share = score.square().sum((1, 2, 3)) * problem.law.noises.square().amin() / 12288
    assert score.isfinite().all() and (share < 1.2).all()
    narrow = problem.log_joint(batch.x.float())
    assert narrow.dtype == torch.float32
    error = (narrow.double() - problem.log_joint(batch.x.float().double())).abs()
    assert error.max() < 1e-6 * narrow.abs().max()


def test_a_stored_law_comes_back(tmp_path: Path) -> None:
    problem = FactorMixture(RandomFactors((1, 3, 3), (2, 1), 2))
    path = tmp_path / "twin.safetensors"
    stored = save(path, problem.law, problem.shape, {"data": "digest of images"})
    twin = FactorMixture(stored, 0.2)
    x = problem.sample(5, generator()).x
    assert torch.equal(twin.log_joint(x), problem.noisier(0.2).log_joint(x))
    assert twin.shape == (1, 3, 3) and twin.num_classes == 2
    vocabulary = {"FactorMixture": FactorMixture, "Stored": Stored}
    assert eval(repr(twin), vocabulary) == twin
    assert FactorMixture(Stored(str(path))).shape == (1, 3, 3)  # whatever its content


def test_refusals(tmp_path: Path) -> None:
    law = FactorMixture(RandomFactors((4,), (1, 1), 2)).law
    good, other = tmp_path / "good.safetensors", tmp_path / "other.safetensors"
    save(good, law, (4,), {})
    checkpoints.save(other, {"weight": torch.zeros(3)}, {})
    wrong = tmp_path / "wrong.safetensors"
    save(wrong, law, (5,), {})
    broken = tmp_path / "broken.safetensors"
    checkpoints.save(
        broken, {**checkpoints.load(good)[0], "noises": torch.zeros(2, 1)}, {"shape": [4]}
    )
    cases: list[tuple[Callable[[], Any], str]] = [
        (lambda: RandomFactors((4,), (1, 1), 4), "4 factors in dimension 4: RandomFactors"),
        (lambda: RandomFactors((4,), (1, 0), 2), r"has a component, not \(1, 0\)"),
        (lambda: RandomFactors((4,), (1, 1), 2, noise=0.0), "positive and finite, not 0.0"),
        (
            lambda: FactorMixture(RandomFactors((4,), (1,), 2), -1.0),
            "0 or more and finite, not -1.0",
        ),
        (lambda: FactorMixture(Stored("nowhere")).law, "no checkpoint nowhere"),
        (lambda: FactorMixture(Stored(str(good), "abc")).law, "has the digest .*: Stored"),
        (lambda: FactorMixture(Stored(str(other))).law, "holds weight, no law of factors"),
        (lambda: FactorMixture(Stored(str(wrong))).law, r"for samples of shape \(5,\)"),
        (lambda: FactorMixture(Stored(str(broken))).law, "finite and its noises positive"),
    ]
    for build, message in cases:
        with pytest.raises(ValueError, match=message) as caught:
            build()
        assert "\n" not in str(caught.value)
