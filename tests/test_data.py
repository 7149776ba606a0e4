"""Data: every sample once an epoch, in an order that its seed draws, or new ones in every epoch."""

from dataclasses import dataclass
from typing import final

import pytest
import torch
from torch import Tensor

from manifoldlab.data.fresh_samples import fresh_samples
from manifoldlab.data.in_memory import in_memory
from manifoldlab.data.samples import samples
from manifoldlab.interfaces import Batch, Data
from manifoldlab.problems import von_mises_sphere

X = torch.arange(20.0).reshape(10, 2)
Y = torch.arange(10) % 3


def test_every_sample_once_in_the_order_of_the_seed() -> None:
    data = in_memory(X, Y, 3)
    assert data.shape == (2,) and data.num_classes == 3
    for seed in (None, 4):
        batches = list(data.batches(4, seed))
        assert [len(b.y) for b in batches] == [4, 4, 2]
        index = torch.cat([b.index for b in batches])
        assert torch.equal(index.sort().values, torch.arange(10))
        assert torch.equal(torch.cat([b.x for b in batches]), X[index])
        assert torch.equal(torch.cat([b.y for b in batches]), Y[index])
        again = torch.cat([b.index for b in data.batches(3, seed)])
        assert torch.equal(index, again) and (seed is None) == torch.equal(index, torch.arange(10))


@pytest.mark.parametrize(
    ("x", "y", "line"),
    [
        (X, Y[:5], r"labels of shape \(5,\) for samples of shape \(10, 2\)"),
        (X[:0], Y[:0], r"labels of shape \(0,\)"),
        (X.clone().fill_(float("nan")), Y, "data not finite in 20 of 20 numbers"),
        (X, Y + 1, "labels from 1 to 3 for 3 classes"),
        (X, Y - 1, "labels from -1 to 1 for 3 classes"),
        (X, Y.float(), "labels are of torch.int64, not of torch.float32"),
    ],
)
def test_wrong_data_are_refused(x: Tensor, y: Tensor, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        in_memory(x, y, 3)


def test_empty_batches_are_refused() -> None:
    with pytest.raises(ValueError, match="1 sample or more, not 0"):
        next(in_memory(X, Y, 3).batches(0, None))


def test_regions_go_with_their_samples() -> None:
    data = in_memory(X, Y, 3, region=X > 7)
    for batch in data.batches(4, 2):
        assert batch.region is not None and torch.equal(batch.region, batch.x > 7)
    with pytest.raises(ValueError, match=r"regions of shape \(10,\) for samples \(10, 2\)"):
        in_memory(X, Y, 3, region=Y > 1)


PROBLEM = von_mises_sphere.examples(0)[0]


@final
@dataclass(frozen=True)
class Marked:
    """Of one class, with a region where x is positive."""

    shape = (2, 3)
    num_classes = 1

    def sample(self, n: int, generator: torch.Generator) -> Batch:
        x = torch.randn(n, 2, 3, generator=generator, dtype=torch.float64)
        return Batch(x, torch.zeros(n, dtype=torch.int64), None, x > 0)


def whole(data: Data, seed: int | None, size: int = 4) -> Batch:
    x, y, _, region = zip(*data.batches(size, seed), strict=True)
    marked = None if region[0] is None else torch.cat(region)
    return Batch(torch.cat(x), torch.cat(y), None, marked)


@pytest.mark.parametrize("source", [samples, fresh_samples])
def test_samples_of_a_problem(source) -> None:  # type: ignore[no-untyped-def]
    data = source(PROBLEM, 10, seed=3)
    drawn = PROBLEM.sample(10, torch.Generator().manual_seed(3))
    found = whole(data, None)
    assert (data.shape, data.num_classes) == (PROBLEM.shape, PROBLEM.num_classes)
    assert found.x.dtype == torch.float32 and torch.equal(found.x, drawn.x.float())
    assert torch.equal(found.y, drawn.y)
    exact = whole(source(PROBLEM, 10, seed=3, dtype=torch.float64), None)
    assert torch.equal(exact.x, drawn.x)
    assert not torch.equal(whole(source(PROBLEM, 10, seed=4), None).x, found.x)
    marked = whole(source(Marked(), 10), 5)
    assert marked.region is not None and torch.equal(marked.region, marked.x > 0)


def test_samples_are_shuffled_and_fresh_samples_are_new() -> None:
    fixed, fresh = samples(PROBLEM, 10), fresh_samples(PROBLEM, 10)
    rows = lambda batch: set(map(tuple, batch.x.tolist()))
    for seed in (1, 2):
        assert rows(whole(fixed, seed)) == rows(whole(fixed, None))
        assert not torch.equal(whole(fixed, seed).x, whole(fixed, None).x)
    epochs = [rows(whole(fresh, seed)) for seed in (None, 0, 1, 2)]
    epochs += [rows(whole(fresh_samples(PROBLEM, 10, seed=1), seed)) for seed in (None, 0, 1)]
    assert len(set.union(*epochs)) == 70
    assert torch.equal(whole(fresh, 2).x, whole(fresh, 2, size=3).x)  # however it is cut


def test_no_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="an epoch has 1 sample or more, not 0"):
        fresh_samples(PROBLEM, 0)
    with pytest.raises(ValueError, match="a batch has 1 sample or more, not 0"):
        next(fresh_samples(PROBLEM, 3).batches(0, None))
    with pytest.raises(ValueError):
        samples(PROBLEM, 0)


def test_pictures_lie_as_bytes_and_come_as_numbers() -> None:
    x = torch.arange(2 * 3 * 4 * 5, dtype=torch.uint8).reshape(2, 3, 4, 5)
    (batch,) = in_memory(x, torch.tensor([1, 0]), 2, classes=("cat", "dog")).batches(9, None)
    assert batch.x.dtype == torch.float32
    assert torch.equal(batch.x, x.float() / 255)


def test_a_fingerprint_knows_samples_labels_and_order() -> None:
    x, y = torch.rand(4, 3, dtype=torch.float64), torch.tensor([0, 1, 0, 1])
    turned = torch.tensor([1, 0, 2, 3])
    others = [(x.float(), y), (x, 1 - y), (x[turned], y[turned]), (x.reshape(2, 2, 3), y[:2])]
    prints = {in_memory(a, b, 2).fingerprint for a, b in [(x, y), *others]}
    assert len(prints) == 5
    assert in_memory(x.clone(), y.clone(), 2).fingerprint in prints


def test_names_are_as_many_as_classes() -> None:
    with pytest.raises(ValueError, match="3 names for 2 classes"):
        in_memory(torch.zeros(1, 2), torch.zeros(1).long(), 2, classes=("a", "b", "c"))
