"""Data held in memory on one device: batches are made there."""

from collections.abc import Iterator

import torch
from torch import Tensor

from manifoldlab.interfaces import Batch, Data


def in_memory(
    x: Tensor, y: Tensor, num_classes: int, *, region: Tensor | None = None, first: int = 0
) -> Data:
    """An epoch goes through x (n, *shape) and y (n,) once, in the order that its seed draws.

    The index of a sample counts from `first`, for data that are rows of a larger table.
    """
    _check(x, y, num_classes, region)

    def batches(size: int, seed: int | None = None) -> Iterator[Batch]:
        if size < 1:
            raise ValueError(f"a batch has 1 sample or more, not {size}")
        order = torch.arange(len(x))
        if seed is not None:  # drawn on the CPU: the same order on every device
            order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
        for rows in torch.split(order.to(x.device), size):
            yield Batch(x[rows], y[rows], first + rows, None if region is None else region[rows])

    return Data(tuple(x.shape[1:]), num_classes, batches)


def _check(x: Tensor, y: Tensor, num_classes: int, region: Tensor | None) -> None:
    if y.shape != (len(x),) or not len(x):
        raise ValueError(f"labels of shape {tuple(y.shape)} for samples of shape {tuple(x.shape)}")
    if y.dtype != torch.int64:
        raise ValueError(f"labels are of torch.int64, not of {y.dtype}")
    if region is not None and region.shape != x.shape:
        raise ValueError(f"regions of shape {tuple(region.shape)} for samples {tuple(x.shape)}")
    if not bool(x.isfinite().all()):
        raise ValueError(f"data not finite in {int((~x.isfinite()).sum())} of {x.numel()} numbers")
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= num_classes:
        raise ValueError(f"labels from {low} to {high} for {num_classes} classes")
