"""A stream of batches through a probe: fields joined along the samples, bad numbers refused."""

import weakref
from dataclasses import dataclass, field
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from manifoldlab.evaluation import evaluate
from manifoldlab.interfaces import Batch, Geometry, Model
from manifoldlab.manifolds.sphere import Sphere
from manifoldlab.probes.gradient_rank import gradient_rank


class Record(NamedTuple):
    logits: Tensor  # (n, 2)
    label: Tensor  # (n,)


def read(model: Model, batch: Batch, geometry: Geometry) -> Record:
    del geometry
    return Record(model(batch.x), batch.y)


def model(x: Tensor) -> Tensor:
    return torch.stack([x[:, 0].sin(), (x[:, 1] * x[:, 2]).exp()], 1)


def batches(n: int, size: int) -> list[Batch]:
    x = torch.randn(n, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x / x.norm(dim=1, keepdim=True)
    return [Batch(*part) for part in zip(x.split(size), torch.arange(n).split(size), strict=True)]


def test_what_a_probe_gave_is_not_kept_batch_by_batch() -> None:
    """Small tensors that are kept among large ones that pass would hold the heap open."""
    alive, most = weakref.WeakSet[Tensor](), 0

    def watched(model: Model, batch: Batch, geometry: Geometry) -> Record:
        nonlocal most
        found = read(model, batch, geometry)
        alive.add(found.logits)
        most = max(most, len(alive))
        return found

    found = evaluate(watched, model, batches(100, 5), Sphere(2))
    assert most <= 2 and not alive  # that of a batch, and of the one before
    assert torch.equal(found.label, torch.arange(100)) and found.label.dtype == torch.int64
    assert found.logits.untyped_storage().nbytes() == 8 * found.logits.numel()


@dataclass
class Counting(Geometry):
    dim: int = 2
    seen: list[int] = field(default_factory=list)

    def to_tangent(self, x: Tensor, v: Tensor) -> Tensor:
        raise AssertionError("only the prepared geometry is asked")

    def at(self, batch: Batch) -> Geometry:
        self.seen.append(len(batch.x))
        return Sphere(2)


@pytest.mark.parametrize("size", [1, 3, 10])
def test_chunks_join(size: int) -> None:
    whole = read(model, batches(10, 10)[0], Sphere(2))
    found = evaluate(read, model, iter(batches(10, size)), Sphere(2))
    assert type(found) is Record
    assert torch.equal(found.label, whole.label)
    assert (found.logits - whole.logits).abs().max() < 1e-15


def test_the_geometry_is_prepared_once_a_batch() -> None:
    geometry = Counting()
    found = evaluate(gradient_rank, model, batches(10, 4), geometry)
    assert geometry.seen == [4, 4, 2]
    assert found.rank.shape == (10,)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_bad_data_are_refused_before_the_model_sees_them(value: float) -> None:
    found = batches(6, 3)
    found[1].x[2, 1] = value

    def unreached(x: Tensor) -> Tensor:
        assert x.isfinite().all()
        return model(x)

    line = r"data not finite in 1 of 3 samples, first sample 2: \[.*(nan|inf).*\]"
    with pytest.raises(ValueError, match=line) as refused:
        evaluate(read, unreached, found, Sphere(2))
    assert "\n" not in str(refused.value)


def test_bad_output_is_refused_by_the_name_of_its_field() -> None:
    def broken(x: Tensor) -> Tensor:
        return model(x).where(x[:, :1] > 0, torch.nan)

    bad = int((batches(10, 10)[0].x[:, 0] <= 0).sum())
    line = rf"logits of Record not finite in {bad} of 10 samples, first sample \d: \[nan, nan\]"
    with pytest.raises(ValueError, match=line) as refused:
        evaluate(read, broken, batches(10, 10), Sphere(2))
    assert "\n" not in str(refused.value)


def test_no_batches_are_refused() -> None:
    with pytest.raises(ValueError, match="no batches to probe"):
        evaluate(read, model, [], Sphere(2))
