"""How long gradients, probes and log densities take, each group beside its floor.

The floor is one forward pass without gradients of the same model at the same points. What is timed
has first been shown to be right. `make bench`; not a part of `make test`.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

from manifoldlab import catalog
from manifoldlab.densities.gaussians import random_gaussians
from manifoldlab.gradients import input_gradient, log_marginal, margin
from manifoldlab.interfaces import Batch, Geometry, Model
from manifoldlab.manifolds.drawn import Drawn
from manifoldlab.manifolds.flat import Flat
from manifoldlab.manifolds.placed import Placed
from manifoldlab.problems.base import BayesClassifier, Problem
from manifoldlab.problems.gaussian_subspace import GaussianSubspace

SAMPLES = 64
FEW = 4  # that are enough to see that what is timed is right
STEP = 1e-4


class Setting(NamedTuple):
    model: Model
    batch: Batch
    geometry: Geometry


@cache
def bayes() -> Setting:
    """The exact classifier of three classes on an 8-dimensional subspace of R^3072."""
    manifold = Placed(Flat(8), codim=3064, seed=0)
    problem = GaussianSubspace(manifold, random_gaussians(8, 3, seed=0), 0.5)
    batch = problem.sample(SAMPLES, torch.Generator().manual_seed(0))
    return Setting(BayesClassifier(problem), batch, manifold)


@cache
def network() -> Setting:
    """A small convolutional network in float32 on drawn pictures of 3 x 16 x 16."""
    manifold = Drawn(("x", "y"), (3, 16, 16))
    generator = torch.Generator().manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.GELU(), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(256, 10)
    )
    for tensor in layers.parameters():
        nn.init.normal_(tensor, std=0.1, generator=generator)
    x = manifold.embed(0.2 * torch.randn(SAMPLES, 2, generator=generator).clamp(-2, 2))
    return Setting(layers.eval(), Batch(x, torch.arange(SAMPLES) % 10), manifold)


SETTINGS: dict[str, Callable[[], Setting]] = {"bayes": bayes, "network": network}
each_setting = pytest.mark.parametrize("setting", SETTINGS)


def timed(benchmark: BenchmarkFixture, group: str, x: Tensor, call: Callable[..., Any]) -> None:
    benchmark.group = group
    benchmark.extra_info |= {
        "shape": list(x.shape),
        "dtype": str(x.dtype),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    benchmark.pedantic(call, rounds=10, warmup_rounds=2)


def forward(model: Model, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x)


def assert_is_derivative(gradient: Tensor, f: Callable[[Tensor], Tensor], x: Tensor) -> None:
    """Along a direction, by a central difference; 1e-3 is for float32 and the next term."""
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    step = STEP if x.dtype == torch.float64 else 100 * STEP
    v = v / v.flatten(1).norm(dim=1).amax()
    slope = (f(x + step * v) - f(x - step * v)) / (2 * step)
    found = (gradient * v).flatten(1).sum(1)
    size = gradient.flatten(1).norm(dim=1).max()
    assert (found - slope).abs().max() < 1e-3 * size


@each_setting
def test_forward(benchmark: BenchmarkFixture, setting: str) -> None:
    model, batch, _ = SETTINGS[setting]()
    assert forward(model, batch.x).isfinite().all()
    timed(benchmark, setting, batch.x, lambda: forward(model, batch.x))


@each_setting
def test_input_gradient(benchmark: BenchmarkFixture, setting: str) -> None:
    model, (x, y, *_), _ = SETTINGS[setting]()
    gradient = input_gradient(model, x, y, margin)
    assert_is_derivative(gradient, lambda x: margin(forward(model, x), y), x)
    timed(benchmark, setting, x, lambda: input_gradient(model, x, y, margin))


@each_setting
def test_to_tangent(benchmark: BenchmarkFixture, setting: str) -> None:
    _, batch, geometry = SETTINGS[setting]()
    prepared = geometry.at(batch)
    tangent = prepared.to_tangent(batch.x, batch.x)
    assert (geometry.to_tangent(batch.x, tangent) - tangent).abs().max() < 1e-4
    timed(benchmark, setting, batch.x, lambda: prepared.to_tangent(batch.x, batch.x))


# They need regions of evidence, and weights from elsewhere.
ELSEWHERE = {"signal_robustness", "lpips_alignment"}


@pytest.mark.parametrize("name", sorted(set(catalog.names("probes")) - ELSEWHERE))
@each_setting
def test_probe(benchmark: BenchmarkFixture, setting: str, name: str) -> None:
    """With the geometry prepared, as `evaluate` does it."""
    model, batch, geometry = SETTINGS[setting]()
    geometry = geometry.at(batch)
    probe = catalog.module("probes", name).example(model)
    found = probe(model, batch, geometry)
    assert all(len(field) == SAMPLES and field.isfinite().all() for field in found)
    timed(benchmark, setting, batch.x, lambda: probe(model, batch, geometry))


def points(problem: Problem) -> Tensor:
    return problem.sample(SAMPLES, torch.Generator().manual_seed(0)).x


@cache
def problem(name: str) -> Problem:
    found: Problem = catalog.module("problems", name).examples(0)[0]
    return found


@pytest.mark.parametrize("name", catalog.names("problems"))
def test_log_joint(benchmark: BenchmarkFixture, name: str) -> None:
    x, model = points(problem(name)), BayesClassifier(problem(name))
    logits = forward(model, x)
    alone = forward(model, x[:FEW])
    assert (logits[:FEW] - alone).abs().max() < 1e-9 * logits.abs().max()
    timed(benchmark, name, x, lambda: forward(model, x))


@pytest.mark.parametrize("name", catalog.names("problems"))
def test_score(benchmark: BenchmarkFixture, name: str) -> None:
    """grad log p(x); its floor is `log_joint`."""
    x, model = points(problem(name)), BayesClassifier(problem(name))
    y = torch.zeros(SAMPLES, dtype=torch.int64)
    score = input_gradient(model, x[:FEW], y[:FEW], log_marginal)
    assert_is_derivative(score, lambda x: forward(model, x).logsumexp(1), x[:FEW])
    timed(benchmark, name, x, lambda: input_gradient(model, x, y, log_marginal))
