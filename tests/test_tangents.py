"""What every tangent estimator of the catalog keeps to."""

import inspect
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from manifoldlab import catalog
from manifoldlab.data.in_memory import in_memory
from manifoldlab.interfaces import Batch
from manifoldlab.tangent_cache import cached
from manifoldlab.tangents import base
from manifoldlab.tangents.base import Estimator, unlabelled

SHAPES = ((7,), (2, 4, 3))
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
each = pytest.mark.parametrize("name", catalog.names("tangents"))


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def examples(name: str, dtype: torch.dtype) -> list[tuple[Estimator, Batch]]:
    found = []
    for shape in SHAPES:
        x = gaussian(14, *shape).to(dtype)
        batch = Batch(x[:5], torch.zeros(5, dtype=torch.int64))
        made: list[Estimator] = catalog.module("tangents", name).examples(x)
        found += [(estimator, batch) for estimator in made]
    return found


def of_all_directions(estimator: Estimator, batch: Batch) -> Tensor:
    """P (n, D, D), to look at it whole."""
    size = batch.x[0].numel()
    eye = torch.eye(size, dtype=batch.x.dtype).reshape(size, 1, *batch.x.shape[1:])
    return (
        estimator.at(batch)
        .to_tangent(batch.x, eye.expand(-1, len(batch.x), *[-1] * (eye.ndim - 2)))
        .flatten(2)
        .movedim(0, 2)
    )


@each
@DTYPES
def test_projects_orthogonally_on_so_many_directions(name: str, dtype: torch.dtype) -> None:
    for estimator, batch in examples(name, dtype):
        p, size = of_all_directions(estimator, batch), 1e4 * torch.finfo(dtype).eps
        assert p.dtype == dtype and p.isfinite().all()
        assert (p @ p - p).abs().max() < size, estimator
        assert (p - p.mT).abs().max() < size, estimator
        trace = p.diagonal(dim1=1, dim2=2).sum(1)
        assert (trace - estimator.dim).abs().max() < size, estimator
        assert estimator.at(batch).dim == estimator.dim


@each
def test_a_prepared_batch_gives_what_any_points_give(name: str) -> None:
    for estimator, batch in examples(name, torch.float64):
        v = gaussian(2, 3, *batch.x.shape, seed=1)
        found = estimator.at(batch).to_tangent(batch.x, v)
        assert found.shape == v.shape and not found.requires_grad
        torch.testing.assert_close(estimator.to_tangent(batch.x, v), found)
        torch.testing.assert_close(estimator.to_tangent(batch.x, v[1, 2]), found[1, 2])
        alone = estimator.to_tangent(batch.x[2:3], v[:, :, 2:3])  # samples are not coupled
        torch.testing.assert_close(alone, found[:, :, 2:3], rtol=1e-6, atol=1e-8)
        assert estimator.to_tangent(batch.x, 0 * v).abs().max() == 0


@each
@DTYPES
def test_diagnostics_say_how_good_the_spaces_are(name: str, dtype: torch.dtype) -> None:
    for estimator, batch in examples(name, dtype):
        before = batch.x.clone()
        found = estimator.diagnostics(batch)
        for key, values in found._asdict().items():
            assert values.shape == (5,) and values.isfinite().all(), key
            assert values.dtype in (dtype, torch.float64) and not values.requires_grad, key
        assert (found.condition >= 1 - 1e-6).all() and (found.gap >= 0).all()
        assert (found.gap <= 1 + 1e-2).all() and (found.unsettled < 0.1).all()
        assert found.residual.max() < 1e4 * torch.finfo(dtype).eps
        assert batch.x.equal(before)


@each
def test_what_the_spaces_depend_on_is_said_in_json(name: str) -> None:
    """So that a cache knows them, and knows options that differ."""
    for (estimator, _), (again, _) in zip(
        examples(name, torch.float64), examples(name, torch.float64), strict=True
    ):
        facts = estimator.facts()
        assert json.loads(json.dumps(facts, allow_nan=False)) == again.facts()
        fields = set(inspect.signature(type(estimator)).parameters)
        assert fields - {"chunk"} <= set(facts), estimator


@each
def test_kept_on_disk_they_are_the_same(name: str, tmp_path: Path) -> None:
    for estimator, batch in examples(name, torch.float32):
        data = in_memory(batch.x, batch.y, 1)
        geometry = cached(estimator, data, tmp_path)
        v = gaussian(2, *batch.x.shape, seed=1).float()
        for part in data.batches(2, 0):
            found = geometry.at(part).to_tangent(part.x, v[:, part.index])
            expected = estimator.at(batch).to_tangent(batch.x, v)[:, part.index]
            torch.testing.assert_close(found, expected)


@each
def test_points_that_are_not_finite_are_refused(name: str) -> None:
    for estimator, batch in examples(name, torch.float64):
        bad = batch.x.clone()
        bad[3].flatten()[0] = torch.nan
        with pytest.raises(
            ValueError, match="points not finite: 1 of 5, the first is 3"
        ) as refused:
            estimator.at(unlabelled(bad))
        assert "\n" not in str(refused.value)


def test_rows_that_are_only_nearly_orthonormal_become_so() -> None:
    rows = torch.randn(4, 3, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    columns = base.orthonormal(rows)
    assert (columns.mT @ columns - torch.eye(3)).abs().max() < 1e-12
    assert (rows.mT - columns @ (columns.mT @ rows.mT)).abs().max() < 1e-12
