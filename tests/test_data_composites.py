"""Composites and subsets of data."""

import math

import pytest
import torch
from torch import Tensor

from manifoldlab.data import base, block, distractor
from manifoldlab.data.digits import digits
from manifoldlab.data.halves import halves, uniform
from manifoldlab.data.in_memory import in_memory
from manifoldlab.data.samples import samples
from manifoldlab.data.subset import balanced, subset
from manifoldlab.interfaces import Batch, Data
from manifoldlab.problems import von_mises_sphere


def whole(data: Data, seed: int | None = None) -> Batch:
    return next(data.batches(10**6, seed))


def restored(batch: Batch) -> Tensor:
    """The halves that the region says, of which each has one whole half."""
    return batch.x[batch.region].reshape(len(batch.y), 1, 8, 8)


@pytest.mark.parametrize("name", ["distractor", "block"])
def test_the_region_is_the_picture_and_the_rest_is_always_the_same(name: str) -> None:
    data, plain = (
        distractor.distractor(of="digits") if name == "distractor" else block.block(of="digits"),
        whole(digits()),
    )
    batch = whole(data)
    assert data.shape == (1, 16, 8) and data.classes == tuple("0123456789")
    assert torch.equal(restored(batch), plain.x) and torch.equal(batch.y, plain.y)
    rest = batch.x[~batch.region].reshape(-1, 64)
    assert torch.equal(rest, rest[:1].expand(rest.shape)) and 0 < rest[0].sum() < 64
    on_top = batch.region[:, 0, 0, 0].double()
    assert abs(on_top.mean() - 0.5) < 4 * 0.5 / math.sqrt(len(on_top))  # four standard errors


def test_a_sample_looks_alike_in_every_epoch_and_with_another_seed_not() -> None:
    data = distractor.distractor(of="digits")
    first, second = whole(data), whole(data, 3)
    assert torch.equal(first.x[second.index], second.x)
    other = distractor.distractor(of="digits", seed=1)
    assert not torch.equal(whole(other).region, first.region)
    prints = {data.fingerprint, other.fingerprint, block.block(of="digits").fingerprint}
    prints.add(distractor.distractor(of="digits", letter="B").fingerprint)
    prints.add(distractor.distractor(of="digits", train=False).fingerprint)
    assert len(prints) == 5
    assert distractor.distractor(of="digits").fingerprint in prints


@pytest.mark.parametrize("top", [0.0, 1.0])
def test_the_signal_block_may_have_a_fixed_place(top: float) -> None:
    region = whole(block.block(of="digits", top=top)).region
    assert bool((region[:, :, :8] == bool(top)).all()) and bool(
        (region[:, :, 8:] != bool(top)).all()
    )


def test_the_region_of_a_part_stays_a_part_in_colour() -> None:
    x = torch.rand(6, 3, 4, 5)
    where = torch.rand(6, 3, 4, 5) < 0.5
    data = halves(in_memory(x, torch.zeros(6).long(), 2, region=where), torch.ones(3, 4, 5))
    batch = whole(data)
    assert batch.region.sum() == where.sum() and batch.x.shape == (6, 3, 8, 5)
    assert torch.equal(batch.x[batch.region].sort().values, x[where].sort().values)


def test_numbers_of_indices_are_uniform_and_of_no_pattern() -> None:
    """Moments and neighbours of 100,000 consecutive ones within five standard errors."""
    index = torch.arange(100_000)
    for seed in (0, 1, 2**40):
        u = uniform(index, seed)
        assert u.min() >= 0 and u.max() < 1
        error = 5 / math.sqrt(len(u))
        assert abs(u.mean() - 0.5) < error * math.sqrt(1 / 12)
        assert abs((u**2).mean() - 1 / 3) < error * math.sqrt(4 / 45)
        centred = u - 0.5
        for other in (centred.roll(1), centred.roll(2), uniform(index, seed + 1) - 0.5):
            assert abs((centred * other).mean()) < error / 12


def test_splitmix64_is_that_of_its_author() -> None:
    """The seed -1 starts at zero, where the published generator gives these three numbers first."""
    published = (0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F)
    expected = torch.tensor([(number >> 11) / 2.0**53 for number in published], dtype=torch.float64)
    assert torch.equal(uniform(torch.arange(3), -1), expected)


def test_halves_that_do_not_fit_are_refused() -> None:
    data = digits()
    for wrong, top, words in [
        (torch.zeros(1, 8, 9), 0.5, "no two like"),
        (torch.zeros(1, 8, 8), 1.5, "not at 1.5"),
    ]:
        with pytest.raises(ValueError, match=words):
            halves(data, wrong, top=top)
    problem = von_mises_sphere.examples(0)[0]
    with pytest.raises(ValueError, match="no two like"):
        halves(samples(problem, 3), torch.zeros(problem.shape))
    nameless = data._replace(
        batches=lambda n, s: (b._replace(index=None) for b in data.batches(n, s))
    )
    with pytest.raises(ValueError, match="have none"):
        whole(halves(nameless, torch.zeros(1, 8, 8)))
    for letter in ("", "AB", " "):
        with pytest.raises(ValueError, match="is one letter"):
            distractor.distractor(of="digits", letter=letter)
    with pytest.raises(ValueError, match="no data set called 'none'"):
        block.block(of="none")


def test_composites_are_data_sets_by_name() -> None:
    assert {"distractor", "block"} <= set(base.loaders())


def test_a_subset_is_balanced_and_the_larger_contains_the_smaller() -> None:
    y = torch.tensor([0] * 50 + [1] * 3 + [2] * 20)[torch.randperm(73)]
    for n, counts in ((3, [1, 1, 1]), (9, [3, 3, 3]), (23, [10, 3, 10]), (73, [50, 3, 20])):
        rows = balanced(y, n, 0)
        assert y[rows].bincount().tolist() == counts and torch.equal(rows, rows.unique())
    assert y[balanced(y, 10, 0)].bincount().tolist() in ([4, 3, 3], [3, 3, 4])
    for n in range(1, 73):
        assert set(balanced(y, n, 5).tolist()) < set(balanced(y, n + 1, 5).tolist())
    assert balanced(y, 20, 0).tolist() != balanced(y, 20, 1).tolist()
    for n in (0, 74):
        with pytest.raises(ValueError, match=f"a subset of {n} samples of data of 73"):
            balanced(y, n, 0)


def test_a_subset_keeps_index_region_and_bytes() -> None:
    x = torch.randint(0, 256, (700, 1, 3, 3), dtype=torch.uint8)
    data = in_memory(
        x, torch.arange(700) % 7, 7, region=x > 9, first=1000, classes=tuple("abcdefg")
    )
    part = subset(data, 70, seed=2)
    batch, entire = whole(part), whole(data)
    assert batch.y.bincount().tolist() == [10] * 7 and part.classes == data.classes
    rows = batch.index - 1000
    assert torch.equal(batch.x, entire.x[rows]) and torch.equal(batch.region, entire.region[rows])
    shuffled = whole(part, 1)
    assert torch.equal(shuffled.x, entire.x[shuffled.index - 1000])
    assert part.fingerprint == in_memory(x[rows], batch.y, 7).fingerprint  # it lies there as bytes
    real = in_memory(torch.rand(20, 2, dtype=torch.float64), torch.arange(20) % 2, 2)
    assert whole(subset(real, 4)).x.dtype == torch.float64
