"""Files of the tangent spaces of a data set: 00000.safetensors, 00001.safetensors, ... of one folder.

Each holds the spaces of so many consecutive samples, and of each sample its index, a mark of its x and a
sum of the bits of its space. It is whole or not there, and rows of it are read without the rest.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from manifoldlab import checkpoints, files
from manifoldlab.tangents.base import Spaces

COMPLETE = "complete.json"


class Rows(NamedTuple):
    spaces: Spaces
    mark: Tensor  # (n,)


class Table(NamedTuple):
    number: Tensor  # (samples,) index of each sample, ascending
    file: Tensor  # (samples,) where it is
    row: Tensor  # (samples,)


@final
@dataclass(frozen=True)
class TangentFiles:
    folder: Path
    facts: Mapping[str, Any]  # of the spaces: what a file was made for

    def path(self, file: int) -> Path:
        return self.folder / f"{file:05}.safetensors"

    def write(self, file: int, index: Tensor, mark: Tensor, spaces: Spaces) -> None:
        own = {"index": index, "mark": mark, "bits": _bits(spaces)}
        checkpoints.save(self.path(file), spaces._asdict() | own, self.facts)

    def finish(self, count: int) -> None:
        files.write_json(self.folder / COMPLETE, {"files": count})

    def count(self) -> int | None:
        """How many files there are when all are there, if that was ever so."""
        try:
            found = json.loads((self.folder / COMPLETE).read_text())["files"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return found if isinstance(found, int) else None

    def wrong(self, file: int) -> str:
        """What is wrong with a file; nothing if it is whole and of these facts."""
        if not self.path(file).exists():
            return "is missing"
        try:
            with safe_open(self.path(file), framework="pt") as opened:
                text = (opened.metadata() or {}).get(checkpoints.FACTS, "")
                names = set(opened.keys())
        except (SafetensorError, OSError, ValueError) as error:
            return f"is damaged ({' '.join(str(error).split())})"
        if text != json.dumps(self.facts):
            return "holds something else"
        return "" if names == {*Spaces._fields, "index", "mark", "bits"} else "lacks a part"

    def table(self, count: int) -> Table:
        numbers = [self._read(file, "index") for file in range(count)]
        number = torch.cat(numbers)
        file = torch.cat([torch.full_like(n, i) for i, n in enumerate(numbers)])
        row = torch.cat([torch.arange(len(n)) for n in numbers])
        number, order = number.sort()
        return Table(number, file[order], row[order])

    def rows(self, file: Tensor, row: Tensor) -> Rows:
        """In the order asked for; each file is opened once."""
        parts, places = [], []
        for one in torch.unique(file).tolist():
            here = (file == one).nonzero().flatten()
            parts.append(self._rows(one, row[here]))
            places.append(here)
        order = torch.cat(places).argsort()
        fields = [torch.cat(tensors)[order] for tensors in zip(*parts, strict=True)]
        return Rows(Spaces(*fields[1:]), fields[0])

    def _rows(self, file: int, row: Tensor) -> list[Tensor]:
        found = [self._read(file, name, row) for name in ("mark", *Spaces._fields)]
        bits = self._read(file, "bits", row)
        damaged = (_bits(Spaces(*found[1:])) != bits).nonzero().flatten()
        if len(damaged):
            where = f"at row {int(row[damaged[0]])}, one of {len(damaged)}"
            raise ValueError(f"{self.path(file)} is damaged {where}: remove it and run again")
        return found

    def _read(self, file: int, name: str, row: Tensor | None = None) -> Tensor:
        """All of it, or rows: one by one where they are few of those that lie between them."""
        with safe_open(self.path(file), framework="pt") as opened:
            if row is None:
                whole: Tensor = opened.get_tensor(name)
                return whole
            part, first, last = opened.get_slice(name), int(row.min()), int(row.max()) + 1
            if 2 * len(row) > last - first:
                between: Tensor = part[first:last][row - first]
                return between
            return torch.cat([part[one : one + 1] for one in row.tolist()])


def _bits(spaces: Spaces) -> Tensor:
    """(n,) the sum of all its numbers read as integers, which one changed bit changes."""
    total = torch.zeros(len(spaces.condition), dtype=torch.int64)
    for tensor in spaces:
        flat = tensor.detach().cpu().reshape(len(total), -1).contiguous()
        kind = torch.int64 if flat.element_size() == 8 else torch.int32
        total += flat.view(kind).sum(1, dtype=torch.int64)
    return total
