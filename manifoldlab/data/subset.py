"""So many samples of a data set, as many of each class as there are, held in memory.

Which ones is drawn by the seed: more of them contain the fewer. They keep their order and their index.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from manifoldlab.data.in_memory import in_memory
from manifoldlab.interfaces import Batch, Data

CHUNK = 512  # samples at a time, while the data are gone through


def subset(data: Data, n: int, *, seed: int = 0) -> Data:
    """The data are gone through twice, and n of their samples kept; what is streamed from files has an
    option `limit` for the same, which decodes no others."""
    y = torch.cat([batch.y.cpu() for batch in data.batches(CHUNK, None)])
    rows = balanced(y, n, seed)
    chosen = torch.zeros(len(y), dtype=torch.bool).index_fill(0, rows, True)
    kept = _kept(data, chosen)
    x = _bytes(torch.cat([batch.x for batch in kept]))
    labels = torch.cat([batch.y for batch in kept])
    parts = [batch.region for batch in kept if batch.region is not None]
    region = torch.cat(parts) if parts else None
    held = in_memory(x, labels, data.num_classes, region=region, classes=data.classes)
    known = [batch.index for batch in kept if batch.index is not None]
    index = torch.cat(known) if known else rows.to(x.device)

    def batches(size: int, seed: int | None = None) -> Iterator[Batch]:
        for batch in held.batches(size, seed):
            yield batch._replace(index=index[batch.index])

    return held._replace(batches=batches)


def balanced(y: Tensor, n: int, seed: int) -> Tensor:
    """Rows in order: in each class the first ones of a random order, in turns until there are n."""
    if not 1 <= n <= len(y):
        raise ValueError(f"a subset of {n} samples of data of {len(y)}")
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    by_class = torch.sort(y[order], stable=True)
    counts = torch.bincount(y)
    first = counts.cumsum(0) - counts
    turn = torch.empty(len(y), dtype=torch.int64)
    turn[by_class.indices] = torch.arange(len(y)) - first[by_class.values]
    return order[torch.sort(turn, stable=True).indices[:n]].sort().values


def _kept(data: Data, chosen: Tensor) -> list[Batch]:
    kept, start = list[Batch](), 0
    for batch in data.batches(CHUNK, None):
        mask = chosen[start : start + len(batch.y)].to(batch.y.device)
        index = None if batch.index is None else batch.index[mask]
        region = None if batch.region is None else batch.region[mask]
        kept.append(Batch(batch.x[mask], batch.y[mask], index, region))
        start += len(batch.y)
    return kept


def _bytes(x: Tensor) -> Tensor:
    """As bytes, if pictures came from bytes."""
    own = (255 * x).round().clamp(0, 255).to(torch.uint8)
    return own if x.dtype == torch.float32 and torch.equal(own.float() / 255, x) else x
