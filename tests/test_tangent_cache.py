"""Tangent spaces on disk: equal to those computed, computed once, and never given to another sample."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from manifoldlab import checkpoints, tangent_cache
from manifoldlab.data.in_memory import in_memory
from manifoldlab.evaluation import evaluate
from manifoldlab.interfaces import Batch, Data, Geometry
from manifoldlab.models.autoencoder import autoencoder
from manifoldlab.models.denoiser import denoiser
from manifoldlab.probes.tangent_alignment import tangent_alignment
from manifoldlab.tangent_cache import cached
from manifoldlab.tangents.autoencoder import Autoencoder
from manifoldlab.tangents.base import Estimator, Spaces, weights
from manifoldlab.tangents.denoiser import Denoiser
from manifoldlab.tangents.local_pca import LocalPca

SHAPE = (1, 4, 4)
POINTS = torch.rand(30, *SHAPE, generator=torch.Generator().manual_seed(0))


def pictures(count: int = 30, first: int = 100) -> Data:
    return in_memory(POINTS[:count], torch.arange(count) % 2, 2, first=first)


def network(make: Callable[..., nn.Module], **options: int) -> nn.Module:
    model = make(SHAPE, width=3, depth=1, **options)
    for i, parameter in enumerate(model.parameters()):
        generator = torch.Generator().manual_seed(i)
        parameter.data = 0.5 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


@dataclass(frozen=True, eq=False)
class Counted(Estimator):
    """Another estimator, whose samples are counted."""

    estimator: Estimator
    samples: list[int] = field(default_factory=list)

    @property
    def dim(self) -> int:
        return self.estimator.dim

    def spaces(self, batch: Batch) -> Spaces:
        self.samples.append(len(batch.x))
        return self.estimator.spaces(batch)

    def prepared(self, spaces: Spaces) -> Geometry:
        return self.estimator.prepared(spaces)

    def facts(self) -> dict[str, Any]:
        return self.estimator.facts()


ESTIMATORS: dict[str, Callable[[], Estimator]] = {
    "local_pca": lambda: LocalPca(POINTS, 3, 8),
    "local_pca_rows": lambda: LocalPca(POINTS, 3, 8, explicit=0),
    "autoencoder": lambda: Autoencoder(network(autoencoder, latent=3), 3),
    "autoencoder_factor": lambda: Autoencoder(network(autoencoder, latent=3), 3, explicit=0),
    "denoiser": lambda: Denoiser(network(denoiser), 0.3, 2),
}


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tangent_cache, "FILE", 7 * 3 * 16)  # 7 samples of 3 directions


@pytest.mark.parametrize("name", ESTIMATORS)
def test_looked_up_spaces_are_the_computed_ones(name: str, tmp_path: Path) -> None:
    estimator, data = Counted(ESTIMATORS[name]()), pictures()
    geometry = cached(estimator, data, tmp_path)
    assert geometry.dim == estimator.dim and sum(estimator.samples) == 30
    v = torch.randn(2, 30, *SHAPE, generator=torch.Generator().manual_seed(1))
    (batch,) = data.batches(30, None)
    expected = estimator.estimator.to_tangent(batch.x, v)
    torch.testing.assert_close(geometry.at(batch).to_tangent(batch.x, v), expected)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(2))
    for rows in (order, order[:4], torch.tensor([29, 0, 29])):
        some = Batch(batch.x[rows], batch.y[rows], batch.index[rows])
        torch.testing.assert_close(
            geometry.at(some).to_tangent(some.x, v[:, rows]), expected[:, rows]
        )
        torch.testing.assert_close(
            geometry.held().at(some).to_tangent(some.x, v[:, rows]), expected[:, rows]
        )
    assert sum(estimator.samples) == 30
    with pytest.raises(ValueError, match="no sample 130 among the 30 of the spaces in memory"):
        geometry.held().at(batch._replace(index=batch.index + 1))
    with pytest.raises(ValueError, match="without an index"):
        geometry.held().at(Batch(batch.x, batch.y))
    found = geometry.diagnostics(batch)
    for ours, theirs in zip(found, estimator.diagnostics(batch), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_a_probe_sees_no_difference(tmp_path: Path) -> None:
    estimator, data = LocalPca(POINTS, 3, 8), pictures()
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    geometry = cached(estimator, data, tmp_path)
    for size in (30, 4):
        found = evaluate(tangent_alignment, model, data.batches(size, 0), geometry)
        expected = evaluate(tangent_alignment, model, data.batches(size, 0), estimator)
        torch.testing.assert_close(found.omega, expected.omega)


def opened(folder: Path, data: Data | None = None) -> tuple[list[int], list[str]]:
    """What is computed, and what is said."""
    estimator, lines = Counted(LocalPca(POINTS, 3, 8)), []
    geometry = cached(estimator, data or pictures(), folder, tell=lines.append)
    counted = list(estimator.samples)
    (batch,) = (data or pictures()).batches(30, None)
    v = torch.ones_like(batch.x)
    expected = estimator.estimator.to_tangent(batch.x, v)
    torch.testing.assert_close(geometry.at(batch).to_tangent(batch.x, v), expected)
    return counted, lines


def files_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.safetensors"))


def test_only_what_is_missing_is_computed(tmp_path: Path) -> None:
    assert opened(tmp_path) == ([7, 7, 7, 7, 2], [])
    assert opened(tmp_path) == ([], [])
    files_of(tmp_path)[1].unlink()
    assert opened(tmp_path) == ([7], [])
    (kept,) = tmp_path.glob("*/complete.json")
    kept.unlink()
    files_of(tmp_path)[4].unlink()
    assert opened(tmp_path) == ([2], [])  # as after a kill before the end
    kept.write_text("{")
    assert opened(tmp_path) == ([], [])
    assert [path.name for path in tmp_path.iterdir()] == [kept.parent.name]  # no lock, no rest


def test_damaged_and_foreign_files_are_computed_anew(tmp_path: Path) -> None:
    opened(tmp_path)
    paths = files_of(tmp_path)
    whole = paths[0].read_bytes()
    paths[0].write_bytes(whole[:-9])
    paths[1].write_text("<html>")
    checkpoints.save(paths[2], load_file(paths[2]), {"estimator": "another"})
    counted, lines = opened(tmp_path)
    assert counted == [7, 7, 7] and len(lines) == 3
    for line, what in zip(
        lines, ("is damaged (", "is damaged (", "holds something else"), strict=True
    ):
        assert what in line and line.endswith("computed anew") and "\n" not in line
    assert paths[0].read_bytes() == whole and opened(tmp_path) == ([], [])


def test_a_changed_bit_is_refused(tmp_path: Path) -> None:
    opened(tmp_path)
    path = files_of(tmp_path)[3]
    content = bytearray(path.read_bytes())
    place = len(content) - 7 * 3 * 16 * 4 // 2
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"00003.safetensors is damaged at row \d.*: remove it and run"
    ):
        opened(tmp_path)


def test_other_options_weights_and_data_have_other_places(tmp_path: Path) -> None:
    moved = network(autoencoder, latent=3)
    moved.decoder[0].weight.data[0, 0] += 1e-6
    estimators = [make() for make in ESTIMATORS.values()]
    estimators += [LocalPca(POINTS[1:], 3, 8), LocalPca(POINTS, 2, 8), Autoencoder(moved, 3)]
    estimators += [LocalPca(POINTS, 3, 9)]
    estimators += [Denoiser(network(denoiser), 0.31, 2)]
    for estimator in estimators:
        cached(estimator, pictures(), tmp_path)
    cached(estimators[0], pictures(20), tmp_path)
    assert len(list(tmp_path.iterdir())) == len(estimators) + 1
    again = [make() for make in ESTIMATORS.values()]
    for estimator in again:  # a network built anew with the same weights is the same
        cached(estimator, pictures(), tmp_path)
    assert len(list(tmp_path.iterdir())) == len(estimators) + 1


def test_weights_know_options_that_are_no_tensors() -> None:
    plain, wide = network(denoiser), denoiser(SHAPE, width=3, depth=1, sigma_data=0.3).eval()
    wide.load_state_dict(plain.state_dict())
    assert weights(plain) != weights(wide)
    assert weights(plain) == weights(network(denoiser))

    class Bent(nn.Module):
        def __init__(self, bend: Callable[..., Any]):
            super().__init__()
            self.bend = bend

    bends = (
        torch.relu,
        torch.tanh,
        Bent,
        nn.SiLU,
        pictures,
        partial(pictures, 3),
        partial(pictures, 4),
    )
    assert len({weights(Bent(bend)) for bend in bends}) == 7
    assert weights(Bent(torch.relu)) == weights(Bent(torch.relu))


def test_progress_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tangent_cache, "QUIET", 0.0)
    _, lines = opened(tmp_path)
    assert [line.split()[3] for line in lines] == ["7", "14", "21", "28", "30"]


def test_spaces_are_for_the_samples_of_the_data_alone(tmp_path: Path) -> None:
    estimator, data = LocalPca(POINTS, 3, 8), pictures()
    geometry = cached(estimator, data, tmp_path)
    (batch,) = data.batches(30, None)
    with pytest.raises(ValueError, match="sample 102 is not at the point for which the spaces in "):
        geometry.at(batch._replace(x=batch.x + 1e-3 * (torch.arange(30) == 2)[:, None, None, None]))
    with pytest.raises(ValueError, match="no sample 99 among the 30 of the spaces in "):
        geometry.at(batch._replace(index=batch.index - 1))
    with pytest.raises(ValueError, match="samples without an index cannot be looked up"):
        geometry.at(Batch(batch.x, batch.y))
    exact = batch._replace(x=batch.x.double())
    assert geometry.at(exact).to_tangent(exact.x, exact.x).dtype == torch.float64


def test_what_cannot_be_known_is_refused(tmp_path: Path) -> None:
    estimator, data = LocalPca(POINTS, 3, 8), pictures()
    with pytest.raises(ValueError, match=r"data of shape \(1, 4, 4\) without a fingerprint"):
        cached(estimator, data._replace(fingerprint=""), tmp_path)
    with pytest.raises(ValueError, match="no weights to know a cache by: .* is no nn.Module"):
        cached(Denoiser(lambda x, sigma: x, 0.3, 2), data, tmp_path)

    def unnumbered(size: int, seed: int | None) -> Any:
        return (batch._replace(index=None) for batch in data.batches(size, seed))

    with pytest.raises(ValueError, match="data whose samples have no index cannot be cached"):
        cached(estimator, data._replace(batches=unnumbered), tmp_path)
