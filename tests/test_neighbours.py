"""Nearest neighbours against distances one by one, from tensors, memory-mapped arrays and streams."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from manifoldlab import neighbours
from manifoldlab.data.in_memory import in_memory
from manifoldlab.neighbours import Points, nearest


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def one_by_one(x: Tensor, reference: Tensor, count: int) -> Tensor:
    """By differences in float64."""
    x, reference = x.double().flatten(1), reference.double().flatten(1)
    square = torch.stack([(reference - point).square().sum(1) for point in x])
    return square.argsort(1)[:, :count]


def data(points: Tensor) -> Points:
    return in_memory(points, torch.zeros(len(points), dtype=torch.int64), 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("chunk", [1, 300, 2**20])
def test_they_are_the_nearest(dtype: torch.dtype, chunk: int) -> None:
    x, reference = gaussian(7, 5).to(dtype), gaussian(200, 5, seed=1).to(dtype)
    found = nearest(x, reference, 12, chunk=chunk)
    assert found.equal(one_by_one(x, reference, 12))


def test_rounding_chooses_none() -> None:
    """Far from the origin and in float32, where a squared distance has no digit of its own."""
    x, reference = (1000 + gaussian(9, 50)).float(), (1000 + 1e-3 * gaussian(300, 50, seed=1))
    reference = torch.cat([reference, 1000 + gaussian(300, 50, seed=2)]).float()
    found, expected = nearest(x, reference, 20), one_by_one(x, reference, 20)
    assert found.sort(1).values.equal(expected.sort(1).values)
    x = reference[:9] + 2e-4
    found, expected = nearest(x, reference, 20), one_by_one(x, reference, 20)
    assert found.sort(1).values.equal(expected.sort(1).values)
    products = (x @ reference.T) * -2 + reference.square().sum(1)
    plain = products.topk(20, largest=False).indices
    assert not plain.sort(1).values.equal(expected.sort(1).values)  # as the product alone has it


@pytest.mark.parametrize("chunk", [40, 2**20])
def test_tensors_files_and_streams_give_the_same(tmp_path: Path, chunk: int) -> None:
    reference = gaussian(60, 3, 2, 2).float()
    np.save(tmp_path / "reference.npy", reference.numpy())
    mapped = np.load(tmp_path / "reference.npy", mmap_mode="r")
    x = gaussian(5, 3, 2, 2, seed=1).float()
    expected = nearest(x, reference, 7)
    for points in (mapped, data(reference)):
        found = nearest(x, points, 7, chunk=chunk)
        assert found.equal(expected)
        assert neighbours.rows(points, found).equal(reference[found])
    assert neighbours.fingerprint(mapped) == neighbours.fingerprint(reference)
    assert neighbours.fingerprint(reference) != neighbours.fingerprint(reference.flip(0))


def test_bytes_are_pixels() -> None:
    pixels = (255 * torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(0))).byte()
    x = pixels[:6].float() / 255
    assert nearest(x, pixels, 5).equal(nearest(x, pixels.float() / 255, 5))
    assert neighbours.rows(pixels, torch.tensor([[3]])).equal(pixels[3].float()[None, None] / 255)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_point_itself_is_left_out(dtype: torch.dtype) -> None:
    reference = (100 + gaussian(50, 4)).to(dtype)
    x = torch.cat([reference[10:14], (100 + gaussian(3, 4, seed=1)).to(dtype)])
    found = nearest(x, reference, 6, leave_out=True)
    expected = one_by_one(x, reference, 7)
    assert found[:4].equal(expected[:4, 1:]) and found[4:].equal(expected[4:, :6])
    twice = torch.cat([reference, reference[10:14]])  # of two that are equal to x one stays
    assert (twice[nearest(x, twice, 1, leave_out=True)[:4, 0]] == x[:4]).all()


def test_bad_input_is_refused() -> None:
    x, reference = gaussian(4, 3), gaussian(9, 3)
    with pytest.raises(
        ValueError, match=r"shape \(3,\) and a reference set of points of shape \(2,\)"
    ):
        nearest(x, reference[:, :2], 3)
    with pytest.raises(ValueError, match="10 neighbours of a reference set of 9 points"):
        nearest(x, reference, 10)
    with pytest.raises(
        ValueError, match="9 neighbours beside the point itself of a reference set of 9"
    ):
        nearest(x, data(reference), 9, leave_out=True)
    with pytest.raises(ValueError, match="at least 1 neighbour, not 0"):
        nearest(x, reference, 0)
    bad = x.clone()
    bad[2, 1] = torch.nan
    with pytest.raises(ValueError, match="points not finite: 1 of 4, the first is 2"):
        nearest(bad, reference, 2)
    reference[7, 0] = torch.inf
    with pytest.raises(ValueError, match="point 7 of the reference set is not finite"):
        nearest(x, reference, 2, chunk=8)
