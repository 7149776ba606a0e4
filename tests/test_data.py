"""Data in memory: every sample once an epoch, in an order that its seed draws."""

import pytest
import torch

from manifoldlab.data.in_memory import in_memory

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
    ],
)
def test_wrong_data_are_refused(x, y, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        in_memory(x, y, 3)


def test_empty_batches_are_refused() -> None:
    with pytest.raises(ValueError, match="1 sample or more, not 0"):
        next(in_memory(X, Y, 3).batches(0, None))
