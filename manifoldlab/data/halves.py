"""Two halves, one above the other: a picture of some data, and in the other half always the same one.

The region is the half of the picture. Which half it is depends on the seed and the sample's index
only, so that a sample looks alike in every epoch.
"""

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor

from manifoldlab.data.in_memory import fingerprint
from manifoldlab.interfaces import Batch, Data

MIXING = ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15), (31, 1))  # splitmix64's finalizer
STRIDE, SEEDS = -0x61C8864680B583EB, 0x2545F4914F6CDD1D  # odd and of no pattern


def halves(data: Data, other: Tensor, *, top: float = 0.5, seed: int = 0) -> Data:
    """The picture is on top with probability `top`; `other` (C, H, W) is shaped like one of the data."""
    if len(data.shape) != 3 or other.shape != data.shape:
        raise ValueError(f"halves {tuple(other.shape)} and {data.shape} are no two like (C, H, W)")
    if not 0 <= top <= 1:
        raise ValueError(f"a probability lies between 0 and 1, not at {top}")

    def batches(size: int, epoch: int | None = None) -> Iterator[Batch]:
        for batch in data.batches(size, epoch):
            yield _stacked(batch, other, top, seed)

    channels, height, width = data.shape
    own = hashlib.blake2b(f"{data.fingerprint} {top} {seed}".encode(), digest_size=8)
    own.update(fingerprint(other).encode())
    shape = (channels, 2 * height, width)
    return Data(shape, data.num_classes, batches, data.classes, own.hexdigest())


def _stacked(batch: Batch, other: Tensor, top: float, seed: int) -> Batch:
    if batch.index is None:
        raise ValueError("halves are chosen by the index of a sample, and these data have none")
    x, here = batch.x, uniform(batch.index, seed).lt(top).reshape(-1, 1, 1, 1)
    beside = other.to(x).expand(x.shape)
    both = torch.cat([torch.where(here, x, beside), torch.where(here, beside, x)], 2)
    whole = torch.ones_like(x, dtype=torch.bool) if batch.region is None else batch.region
    region = torch.cat([whole & here, whole & ~here], 2)
    return Batch(both, batch.y, batch.index, region)


def uniform(index: Tensor, seed: int) -> Tensor:
    """On [0, 1), a number for each index (n,), the same on every device: splitmix64 of Steele 2014."""
    start = (seed + 1) * SEEDS % 2**64
    mixed = (index + 1) * STRIDE + (start - 2**64 if start >= 2**63 else start)
    for shift, factor in MIXING:
        mixed = (mixed ^ ((mixed >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return ((mixed >> 11) & ((1 << 53) - 1)).double() / 2.0**53
