"""Pictures in a folder of class folders, streamed: the class is the name of the folder.

Labels count the class folders of train, if there are any, in the order of their names.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, final

import numpy as np
import torch
from torch import Tensor

from manifoldlab import decoding
from manifoldlab.data import base, streamed
from manifoldlab.data.base import Missing, Publication
from manifoldlab.data.subset import balanced
from manifoldlab.interfaces import Data

PUBLICATION = Publication("image_folder", "no page, for it is yours")
LOOKED = "CLASS/*.png, *.jpg and others in train, and in val or test"


class Options(TypedDict):
    """Of streamed data."""

    rows: Tensor | None
    workers: int
    device: str
    turn: tuple[int, int]


def image_folder(
    *,
    root: str = "",
    train: bool = True,
    device: str = "cpu",
    split: str = "",
    size: int = 0,
    limit: int = 0,
    seed: int = 0,
    workers: int = 2,
    turn: tuple[int, int] = (0, 1),
) -> Data:
    """x (3, size, size): the shorter side resized, the centre cropped; size 0 leaves pictures as they
    are, all of one size then. `split` is another folder than train, val or test: "." is the root.
    `limit` and `seed` choose as `subset` does, before anything is decoded; `turn` is of `streamed`."""
    above = base.folder(PUBLICATION, root, LOOKED)
    folder = part(above, train, split)
    names = list(files(folder))
    classes = class_folders(above / "train" if (above / "train").is_dir() else folder)
    y = labels(folder, names, classes)
    view = decoding.Central(size, size) if size else decoding.as_it_is
    shape = (3, size, size) if size else _shape(folder / names[0])
    rows = balanced(y, limit, seed) if limit else None
    options: Options = {"rows": rows, "workers": workers, "device": device, "turn": turn}
    return of_files(folder, names, y, shape, tuple(classes), view, options)


def part(above: Path, train: bool, split: str) -> Path:
    """The folder of a part of the data."""
    wanted = (split,) if split else ("train",) if train else ("val", "test")
    for name in wanted:
        if (above / name).is_dir():
            return above / name
    raise Missing(f"{above} has no folder {' or '.join(wanted)}; split='.' is the folder itself")


def files(folder: Path) -> Iterator[str]:
    """Pictures below a folder, hidden ones aside, by their names from there, in their order."""
    for place, folders, found in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = "" if place == str(folder) else f"{os.path.relpath(place, folder)}{os.sep}"
        for name in sorted(found):
            if not name.startswith(".") and name.lower().endswith(decoding.ENDINGS):
                yield f"{below}{name}"


def class_folders(folder: Path) -> list[str]:
    with os.scandir(folder) as found:
        return sorted(one.name for one in found if one.is_dir() and not one.name.startswith("."))


def labels(folder: Path, names: Sequence[str], classes: Sequence[str]) -> Tensor:
    """Of files in class folders; no class of those that are there may lack pictures."""
    if not names:
        raise Missing(f"{folder} has no pictures: {', '.join(decoding.ENDINGS)} in class folders")
    known = {name: label for label, name in enumerate(classes)}
    own = [name.split(os.sep)[0] for name in names]
    for name, path in zip(own, names, strict=True):
        if name not in known:
            raise ValueError(
                f"{folder / path} is in no folder of a class, of which there are {len(known)}"
            )
    for name in sorted(set(class_folders(folder)) - set(own)):
        raise ValueError(f"{folder / name} has no pictures: {', '.join(decoding.ENDINGS)}")
    return torch.tensor([known[name] for name in own])


def of_files(
    folder: Path,
    names: Sequence[str],
    y: Tensor,
    shape: tuple[int, ...],
    classes: tuple[str, ...],
    view: Callable[[Any], Any],
    options: Options,
) -> Data:
    """Streamed from named files of a folder."""
    read = Files(folder, np.array([os.fsencode(name) for name in names]), view, shape)
    print_of = streamed.digest(folder, names, y, view)
    return streamed.streamed(read, y, shape, classes, fingerprint=print_of, **options)


@final
@dataclass(frozen=True)
class Files:
    """One picture a row. Names lie in one array: a million strings would be copied to every worker."""

    folder: Path
    names: np.ndarray
    view: Callable[[Any], Any]
    shape: tuple[int, ...]

    def __call__(self, row: int) -> tuple[Tensor, None]:
        path = self.folder / os.fsdecode(self.names[row])
        x = decoding.pixels(self.view(decoding.picture(path)))
        if x.shape != self.shape:
            due = f"{self.shape[2]} x {self.shape[1]}"
            raise ValueError(f"{path} is {x.shape[2]} x {x.shape[1]} where {due} is due: give size")
        return x, None


def _shape(path: Path) -> tuple[int, ...]:
    return tuple(decoding.pixels(decoding.picture(path)).shape)
