"""Random numbers for the samples of a batch: each member of an ensemble has its own stream, and a
process that holds part of a batch draws for all of it, so that two processes equal one.
"""

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor

from manifoldlab.interfaces import Source

Draw = Callable[..., Tensor]


class Share(NamedTuple):
    """Rows start to stop of the batch of `total` samples that one source draws for."""

    start: int
    stop: int
    total: int


_SHARE: ContextVar[Share | None] = ContextVar("share", default=None)


@contextmanager
def share(start: int, stop: int, total: int) -> Iterator[None]:
    """Within it this process holds those rows of every member's batch."""
    if not 0 <= start <= stop <= total:
        raise ValueError(f"rows {start} to {stop} are no share of {total} samples")
    token = _SHARE.set(Share(start, stop, total))
    try:
        yield
    finally:
        _SHARE.reset(token)


def normal(like: Tensor, source: Source) -> Tensor:
    """Standard normal, shaped like a batch (n, *shape)."""
    return _rows(torch.randn, like, source)


def uniform(like: Tensor, source: Source) -> Tensor:
    """On [0, 1), shaped like a batch (n, *shape)."""
    return _rows(torch.rand, like, source)


def _rows(draw: Draw, like: Tensor, source: Source) -> Tensor:
    if isinstance(source, torch.Generator):
        return _of_one(draw, like, source)
    if len(like) % len(source):
        raise ValueError(f"{len(like)} samples are no equal blocks for {len(source)} members")
    blocks = torch.unflatten(like, 0, (len(source), len(like) // len(source)))
    return torch.cat([_of_one(draw, b, own) for b, own in zip(blocks, source, strict=True)])


def _of_one(draw: Draw, like: Tensor, generator: torch.Generator) -> Tensor:
    held = _SHARE.get() or Share(0, len(like), len(like))
    if held.stop - held.start != len(like):
        raise ValueError(f"{len(like)} samples where the share of the batch is {held}")
    where: dict[str, Any] = {"dtype": like.dtype, "device": generator.device}
    drawn = draw(held.total, *like.shape[1:], generator=generator, **where)
    return drawn[held.start : held.stop].to(like.device)


def source(seed: int, *names: object) -> torch.Generator:
    """A generator for one of the uses of a seed, unlike those for its other uses and other seeds."""
    return torch.Generator().manual_seed(number(seed, *names))


def number(seed: int, *names: object) -> int:
    """A seed for one of the uses of a seed."""
    return zlib.crc32("/".join(map(str, (seed, *names))).encode())
