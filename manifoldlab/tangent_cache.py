"""Tangent spaces of a data set, estimated once and kept on disk, looked up by the index of a sample.

They lie in FOLDER/ESTIMATOR-KEY, the key a digest of the estimator's facts (options, reference set, weights
of networks) and of the data's fingerprint. A process that was killed goes on where it stopped; what is no
whole file of these facts is said in one line and computed anew.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from manifoldlab import files
from manifoldlab.interfaces import Batch, Data, Geometry
from manifoldlab.tangent_files import Table, TangentFiles
from manifoldlab.tangents.base import Diagnostics, Estimator, Spaces, diagnosed

Tell = Callable[[str], None]

FORMAT = 1
FILE = 2**24  # numbers in a file, about
QUIET = 2.0  # seconds before the first word of progress, and between two
SAME = 1e-5  # by how much the mark of a sample may differ, in units of |x|: x may come in float32


def silent(line: str) -> None:
    del line


def cached(estimator: Estimator, data: Data, folder: Path, *, tell: Tell = silent) -> "Cached":
    """Computes what is missing, while other processes wait for it, then looks spaces up."""
    if not data.fingerprint:
        raise ValueError(
            f"data of shape {data.shape} without a fingerprint: no cache can know them"
        )
    facts = {"format": FORMAT, "data": data.fingerprint, **estimator.facts()}
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    store = TangentFiles(folder / f"{facts['estimator']}-{key}", facts)
    files.check_writable(store.folder)
    with files.lock(files.beside(store.folder, "lock"), wait=True):
        count = _filled(store, estimator, data, tell)
    return Cached(estimator, store, store.table(count))


@final
@dataclass(frozen=True, eq=False)
class Cached(Geometry):
    """The spaces of an estimator at the samples of one data set."""

    estimator: Estimator
    files: TangentFiles
    table: Table = field(repr=False)

    @property
    def dim(self) -> int:
        return self.estimator.dim

    def to_tangent(self, x: Tensor, v: Tensor) -> Tensor:
        """At any points, and computed; `at` looks up."""
        return self.estimator.to_tangent(x, v)

    def at(self, batch: Batch) -> Geometry:
        return self.estimator.prepared(self.spaces(batch))

    def held(self) -> "Held":
        """All spaces in memory."""
        return Held(self.estimator, self.table.number, self.files.rows(*self.table[1:]).spaces)

    def diagnostics(self, batch: Batch) -> Diagnostics:
        return diagnosed(self.estimator, self.spaces(batch), batch.x)

    def spaces(self, batch: Batch) -> Spaces:
        where = f"the spaces in {self.files.folder}"
        if batch.index is None:
            raise ValueError(f"samples without an index cannot be looked up in {where}")
        number = batch.index.cpu()
        place = _places(number, self.table.number, where)
        kept, mark = self.files.rows(self.table.file[place], self.table.row[place])
        other = ((mark - _mark(batch.x)).abs() > SAME * _size(batch.x)).nonzero().flatten()
        if len(other):
            first = int(number[other[0]])
            raise ValueError(f"sample {first} is not at the point for which {where} were computed")
        return Spaces(*(tensor.to(batch.x.device) for tensor in kept))


@final
@dataclass(frozen=True, eq=False)
class Held(Geometry):
    """For training, which asks for the same samples in every epoch: looked up without a look at x."""

    estimator: Estimator
    number: Tensor  # (samples,) the index of each, ascending
    kept: Spaces = field(repr=False)

    @property
    def dim(self) -> int:
        return self.estimator.dim

    def to_tangent(self, x: Tensor, v: Tensor) -> Tensor:
        return self.estimator.to_tangent(x, v)

    def at(self, batch: Batch) -> Geometry:
        if batch.index is None:
            raise ValueError("samples without an index cannot be looked up among spaces in memory")
        place = _places(batch.index.cpu(), self.number, "the spaces in memory")
        return self.estimator.prepared(Spaces(*(t[place].to(batch.x.device) for t in self.kept)))


def _places(number: Tensor, known: Tensor, where: str) -> Tensor:
    """Where these are among the known, which ascend."""
    place = torch.searchsorted(known, number).clamp_max(len(known) - 1)
    absent = (known[place] != number).nonzero().flatten()
    if len(absent):
        raise ValueError(f"no sample {int(number[absent[0]])} among the {len(known)} of {where}")
    return place


def _filled(store: TangentFiles, estimator: Estimator, data: Data, tell: Tell) -> int:
    """How many files there are, now that all are there."""
    count = store.count()
    if count and not any(store.wrong(file) for file in range(count)):
        return count  # without a look at the data, which may have to be decoded
    size = min(256, max(1, FILE // (prod(data.shape) * estimator.dim)))
    file, done, told = -1, 0, time.monotonic()
    for file, batch in enumerate(data.batches(size, None)):
        if wrong := store.wrong(file):
            if store.path(file).exists():
                tell(f"{store.path(file)} {wrong}: computed anew")
            _write(store, file, estimator, batch)
        done += len(batch.x)
        if time.monotonic() - told > QUIET:
            told = time.monotonic()
            tell(f"tangent spaces of {done} samples are in {store.folder}")
    store.finish(file + 1)
    return file + 1


def _write(store: TangentFiles, file: int, estimator: Estimator, batch: Batch) -> None:
    if batch.index is None:
        raise ValueError(f"data whose samples have no index cannot be cached: {store.folder}")
    spaces = estimator.spaces(batch)
    needed = sum(tensor.numel() * tensor.element_size() for tensor in spaces)
    free = shutil.disk_usage(store.folder).free
    if needed > free:
        raise ValueError(
            f"{len(batch.x)} spaces of {needed} bytes, and {free} free in {store.folder}"
        )
    store.write(file, batch.index, _mark(batch.x), spaces)


def _mark(x: Tensor) -> Tensor:
    """(n,) by which points are known again: their product with fixed signs, on the CPU."""
    signs = torch.randint(2, x.shape[1:], generator=torch.Generator().manual_seed(0)) * 2.0 - 1
    return (x.detach().cpu().double() * signs).flatten(1).sum(1)


def _size(x: Tensor) -> Tensor:
    size: Tensor = x.detach().cpu().double().flatten(1).norm(dim=1)
    return size
