"""Runs a probe over a stream of batches, in one process or in all those that torchrun started."""

from collections.abc import Iterable
from typing import Any, final

import torch
from torch import Tensor

from manifoldlab import synchronized
from manifoldlab.interfaces import Batch, Geometry, Model, Probe


def evaluate(probe: Probe, model: Model, batches: Iterable[Batch], geometry: Geometry) -> Any:
    """The probe's record over all batches, its fields joined along the samples.

    Data that are not finite are refused before they reach the model, fields that are not finite
    after the probe: here, and not in the probes, because to look is to wait for the device.

    Processes take turns at the batches, and each has the record of all: a probe sees the batches
    that it would see in one process, so that what it draws for them is the same, too.
    """
    synchronized.join()
    here, count = synchronized.rank(), synchronized.processes()
    record, lengths, first = _Record(), [], None
    for turn, batch in enumerate(batches):
        first = first or batch
        lengths.append(len(batch.x))
        if turn % count == here:
            record.add(_probed(probe, model, batch, geometry))
    if first is None:
        raise ValueError("no batches to probe")
    if record.kind is None:  # fewer batches than processes: only names and shapes of fields count
        part = _probed(probe, model, first, geometry)
        record.add(type(part)(*(field[:0] for field in part)))
    fields = (_in_order(column.all(), lengths) for column in record.columns)
    return record.kind(*fields)


@final
class _Column:
    """A field over the batches so far, in memory that doubles when it is full.

    The parts themselves, small and kept, would lie among the large tensors that come and go, and hold
    the heap open: 4 MB for each image of 224 x 224 pixels, as measured.
    """

    def __init__(self) -> None:
        self.rows, self.count = torch.empty(0), 0

    def add(self, part: Tensor) -> None:
        count = self.count + len(part)
        if not self.count or count > len(self.rows):
            grown = part.new_empty((max(count, 2 * self.count), *part.shape[1:]))
            if self.count:
                grown[: self.count] = self.rows[: self.count]
            self.rows = grown
        self.rows[self.count : count] = part.detach()
        self.count = count

    def all(self) -> Tensor:
        return self.rows[: self.count].clone()


@final
class _Record:
    """The fields of a probe over the batches so far."""

    def __init__(self) -> None:
        self.kind: Any = None
        self.columns = list[_Column]()

    def add(self, part: Any) -> None:
        if self.kind is None:
            self.kind, self.columns = type(part), [_Column() for _ in part]
        for column, field in zip(self.columns, part, strict=True):
            column.add(field)


def _probed(probe: Probe, model: Model, batch: Batch, geometry: Geometry) -> Any:
    _check_finite("data", batch.x)
    part = probe(model, batch, geometry.at(batch))
    for name, field in part._asdict().items():
        _check_finite(f"{name} of {type(part).__name__}", field)
    return part


def _in_order(own: Tensor, lengths: list[int]) -> Tensor:
    """The rows of all batches, of which each process has those whose turn was its own."""
    count = synchronized.processes()
    if count == 1:
        return own
    found = synchronized.gather(own, [sum(lengths[start::count]) for start in range(count)])
    split = [torch.split(rows, lengths[start::count]) for start, rows in enumerate(found)]
    return torch.cat([split[turn % count][turn // count] for turn in range(len(lengths))])


def _check_finite(what: str, values: Tensor) -> None:
    bad = ~values.isfinite().flatten(1).all(1) if values.ndim > 1 else ~values.isfinite()
    if bool(bad.any()):
        where = bad.nonzero().flatten().tolist()
        raise ValueError(
            f"{what} not finite in {len(where)} of {len(values)} samples, first sample {where[0]}: "
            f"{values[where[0]].flatten()[:4].tolist()}"
        )
