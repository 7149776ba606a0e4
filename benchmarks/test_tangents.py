"""How long estimated tangent spaces take, each group beside its floor: the passes that none can avoid.

Bases of local PCA beside one product of all points; a decoder's Jacobian of k columns beside k + 1 forward
passes; projections on a basis and, without one, through the decoder. Both have first been shown right.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

from manifoldlab.architecture import Architecture
from manifoldlab.interfaces import Batch
from manifoldlab.tangents.autoencoder import Autoencoder
from manifoldlab.tangents.base import Estimator, unlabelled
from manifoldlab.tangents.denoiser import Denoiser
from manifoldlab.tangents.local_pca import LocalPca

SAMPLES, LATENT, SHAPE = 8, 32, (3, 32, 32)


def timed(benchmark: BenchmarkFixture, group: str, call: Callable[[], Any]) -> None:
    benchmark.group = group
    benchmark.extra_info |= {"threads": torch.get_num_threads(), "torch": torch.__version__}
    benchmark.pedantic(call, rounds=7, warmup_rounds=1)


def uniform(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@cache
def network(name: str, latent: int = 0) -> Any:
    options = {"width": 16} | ({"latent": latent} if latent else {})
    model: nn.Module = Architecture(name, SHAPE, None, options).build(0).eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
    return model


def pictures() -> Batch:
    return unlabelled(uniform(SAMPLES, *SHAPE))


def assert_projects(estimator: Estimator, batch: Batch) -> None:
    found = estimator.diagnostics(batch)
    assert found.residual.max() < 1e-4 and found.condition.isfinite().all()


def test_product_of_all_points(benchmark: BenchmarkFixture) -> None:
    points = uniform(1000, 784)
    timed(benchmark, "local pca", lambda: points @ points.T)


def test_local_pca(benchmark: BenchmarkFixture) -> None:
    batch = unlabelled(uniform(1000, 784))
    estimator = LocalPca(batch.x, 8, 32)
    assert_projects(estimator, batch)
    timed(benchmark, "local pca", lambda: estimator.spaces(batch))


@torch.no_grad()
def test_decoded(benchmark: BenchmarkFixture) -> None:
    model, z = network("autoencoder", LATENT), uniform(SAMPLES * (LATENT + 1), LATENT)
    timed(benchmark, "decoder's Jacobian", lambda: model.decode(z))


@pytest.mark.parametrize("explicit", [0, 2**30], ids=["factor", "basis"])
def test_autoencoder(benchmark: BenchmarkFixture, explicit: int) -> None:
    estimator = Autoencoder(network("autoencoder", LATENT), LATENT, explicit=explicit)
    assert_projects(estimator, pictures())
    timed(benchmark, "decoder's Jacobian", lambda: estimator.spaces(pictures()))


@pytest.mark.parametrize("explicit", [0, 2**30], ids=["factor", "basis"])
def test_projection(benchmark: BenchmarkFixture, explicit: int) -> None:
    estimator = Autoencoder(network("autoencoder", LATENT), LATENT, explicit=explicit)
    prepared, x = estimator.at(pictures()), pictures().x
    assert_projects(estimator, pictures())
    timed(benchmark, "projection", lambda: prepared.to_tangent(x, x))


@torch.no_grad()
def test_denoised(benchmark: BenchmarkFixture) -> None:
    model, x = network("denoiser"), pictures().x
    timed(benchmark, "denoiser's Jacobian", lambda: model(x, 0.3))


@pytest.mark.parametrize("symmetric", [True, False])
def test_denoiser(benchmark: BenchmarkFixture, symmetric: bool) -> None:
    estimator = Denoiser(network("denoiser"), 0.3, 4, symmetric=symmetric, most=2, tolerance=0)
    assert_projects(estimator, pictures())
    timed(benchmark, "denoiser's Jacobian", lambda: estimator.spaces(pictures()))
