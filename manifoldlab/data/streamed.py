"""Data too large for memory: a batch is read from its files when it is asked for, in worker processes.

Memory holds two batches a worker, however many samples there are.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from manifoldlab.interfaces import Batch, Data

# Row -> pixels, uint8 (C, H, W), and where the label's evidence is, bool (H, W), if known. It raises
# a ValueError that names the file.
Read = Callable[[int], tuple[Tensor, Tensor | None]]


def streamed(
    read: Read,
    y: Tensor,
    shape: tuple[int, ...],
    classes: tuple[str, ...],
    *,
    fingerprint: str,
    rows: Tensor | None = None,
    workers: int = 2,
    device: str = "cpu",
    turn: tuple[int, int] = (0, 1),
) -> Data:
    """Rows of `read` with labels y (n,), all of them or those given; a batch's index is of rows.

    Processes that take turns at batches, as in `evaluate`, say whose turn each is: (rank, processes).
    A batch of another's turn is not read: it has its length and labels, and black pictures.
    """
    if workers < 0 or not 0 <= turn[0] < turn[1]:
        raise ValueError(f"no stream of {workers} worker processes for turn {turn[0]} of {turn[1]}")
    chosen = torch.arange(len(y)) if rows is None else rows

    def batches(size: int, seed: int | None = None) -> Iterator[Batch]:
        if size < 1:
            raise ValueError(f"a batch has 1 sample or more, not {size}")
        order = chosen
        if seed is not None:
            order = chosen[torch.randperm(len(chosen), generator=_seeded(seed))]
        split = torch.split(order, size)
        here = iter(_loader(read, split[turn[0] :: turn[1]], workers, device))
        for number, index in enumerate(split):
            own = number % turn[1] == turn[0]
            pixels = next(here) if own else (_black(len(index), shape), None)
            yield _batch(pixels, y[index], index, device)

    return Data(shape, len(classes), batches, classes, _with_rows(fingerprint, rows))


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _black(count: int, shape: tuple[int, ...]) -> Tensor:
    return torch.zeros((), dtype=torch.uint8).expand(count, *shape)


def _loader(read: Read, split: Sequence[Tensor], workers: int, device: str) -> Any:
    return DataLoader(
        _Rows(read, 1 + max((int(index.max()) for index in split), default=0)),
        batch_sampler=[index.tolist() for index in split],
        num_workers=workers,
        collate_fn=_together,
        pin_memory=device.startswith("cuda"),
        generator=_seeded(0),  # which draws for workers, and else the global one would
    )


@final
class _Rows(Dataset[Any]):
    """What workers do; an error comes back as its line, for torch would wrap it in its traceback."""

    def __init__(self, read: Read, count: int):
        self.read, self.count = read, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor | None] | str:
        try:
            return self.read(row)
        except ValueError as error:
            return str(error)


def _together(ones: list[Any]) -> Any:
    wrong = [one for one in ones if isinstance(one, str)]
    if wrong:
        return wrong[0]
    x, regions = zip(*ones, strict=True)
    return torch.stack(x), None if regions[0] is None else torch.stack(regions)


def _batch(read_ones: Any, y: Tensor, index: Tensor, device: str) -> Batch:
    if isinstance(read_ones, str):
        raise ValueError(read_ones)
    bytes_of, where = read_ones
    x = bytes_of.to(device, non_blocking=True).float() / 255
    region = None if where is None else where.to(device, non_blocking=True)
    region = None if region is None else region.unsqueeze(1).expand(x.shape)
    return Batch(x, y.to(device), index.to(device), region)


def digest(folder: Path, names: Sequence[str], y: Tensor, view: object) -> str:
    """A fingerprint of names, sizes and labels, and of how pictures are made of the files."""
    own = hashlib.blake2b(repr(view).encode(), digest_size=8)
    for name, label in zip(names, y.tolist(), strict=True):
        size = os.stat(folder / name).st_size
        own.update(f"{name} {size} {label}\n".encode(errors="surrogateescape"))
    return own.hexdigest()


def _with_rows(fingerprint: str, rows: Tensor | None) -> str:
    if rows is None:
        return fingerprint
    content = f"{fingerprint} {rows.tolist()}".encode()
    return hashlib.blake2b(content, digest_size=8).hexdigest()
