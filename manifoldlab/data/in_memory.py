"""Data held in memory on one device: batches are made there.

Pictures lie there as bytes, a quarter of the memory, and become numbers in [0, 1] a batch at a time.
"""

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor

from manifoldlab.interfaces import Batch, Data


def in_memory(
    x: Tensor,
    y: Tensor,
    num_classes: int,
    *,
    region: Tensor | None = None,
    first: int = 0,
    classes: tuple[str, ...] = (),
) -> Data:
    """An epoch goes through x (n, *shape) and y (n,) once, in the order that its seed draws.

    The index of a sample counts from `first`, for data that are rows of a larger table. x of uint8 are
    pixels from 0 to 255.
    """
    _check(x, y, num_classes, region, classes)

    def batches(size: int, seed: int | None = None) -> Iterator[Batch]:
        if size < 1:
            raise ValueError(f"a batch has 1 sample or more, not {size}")
        order = torch.arange(len(x))
        if seed is not None:  # drawn on the CPU: the same order on every device
            order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
        for rows in torch.split(order.to(x.device), size):
            where = None if region is None else region[rows]
            yield Batch(_numbers(x[rows]), y[rows], first + rows, where)

    return Data(tuple(x.shape[1:]), num_classes, batches, classes, fingerprint(x, y))


def _numbers(x: Tensor) -> Tensor:
    return x.float() / 255 if x.dtype == torch.uint8 else x


def fingerprint(*tensors: Tensor) -> str:
    """A digest of their bytes, shapes and kinds."""
    digest = hashlib.blake2b(digest_size=8)
    for tensor in tensors:
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _check(
    x: Tensor, y: Tensor, num_classes: int, region: Tensor | None, classes: tuple[str, ...]
) -> None:
    if y.shape != (len(x),) or not len(x):
        raise ValueError(f"labels of shape {tuple(y.shape)} for samples of shape {tuple(x.shape)}")
    if y.dtype != torch.int64:
        raise ValueError(f"labels are of torch.int64, not of {y.dtype}")
    if region is not None and region.shape != x.shape:
        raise ValueError(f"regions of shape {tuple(region.shape)} for samples {tuple(x.shape)}")
    if classes and len(classes) != num_classes:
        raise ValueError(f"{len(classes)} names for {num_classes} classes")
    if not bool(x.isfinite().all()):
        raise ValueError(f"data not finite in {int((~x.isfinite()).sum())} of {x.numel()} numbers")
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= num_classes:
        raise ValueError(f"labels from {low} to {high} for {num_classes} classes")
