"""Tiny ImageNet: 500 and 50 pictures of each of 200 classes, 64 x 64 in RGB, with a box each.

Stanford CS231n. Decoded once into bytes; grey pictures become RGB. Labels count the wnids in their
order. The region of a sample is its box.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from manifoldlab import decoding
from manifoldlab.data import base
from manifoldlab.data.base import Found, Missing, Publication, Table
from manifoldlab.interfaces import Data

SIDE = 64
PUBLICATION = Publication("tiny_imagenet", "http://cs231n.stanford.edu/tiny-imagenet-200.zip")
LAYOUT = base.Layout(("tiny-imagenet-200", "tiny_imagenet", "."), ("wnids.txt",))
ANNOTATIONS = "val_annotations.txt"


class Boxed(NamedTuple):
    """A picture, its class, and its box in pixels, ends included."""

    path: Path
    wnid: str
    box: tuple[int, ...]  # left, top, right, bottom


def tiny_imagenet(
    *, root: str = "", train: bool = True, device: str = "cpu", partial: bool = False
) -> Data:
    """x (3, 64, 64). Where train lacks classes that is an error, or with partial=True the classes are
    those that it has, of both parts."""
    folder, boxed, wnids = _listed(root, train, partial)
    known = {wnid: label for label, wnid in enumerate(wnids)}
    y = torch.tensor([known[one.wnid] for one in boxed])
    x = torch.stack([_decoded(one.path) for one in boxed])
    region = _inside(torch.tensor([one.box for one in boxed]))
    names = tuple(_names(folder).get(wnid, wnid) for wnid in wnids)
    return Table(x, y, folder, "").data(names, device, region)


def found(root: str, train: bool) -> Found:
    folder, boxed, _ = _listed(root, train, train)
    where = folder / ("train" if train else "val")
    counts = len(boxed), len({one.wnid for one in boxed}), len(_wnids(folder / "wnids.txt"))
    return Found(where.name, str(where), *counts, "a box each, not decoded")


def _listed(root: str, train: bool, partial: bool) -> tuple[Path, list[Boxed], list[str]]:
    [path] = base.locate(PUBLICATION, root, [LAYOUT])
    wnids = _wnids(path)
    there = [wnid for wnid in wnids if (path.parent / "train" / wnid).is_dir()]
    if train and not there:
        raise Missing(f"{path.parent} has no class in train; it is published at {PUBLICATION.page}")
    if train and len(there) < len(wnids) and not partial:
        line = f"{path.parent / 'train'} has {len(there)} of {len(wnids)} classes"
        raise Missing(f"{line}: partial=True takes these, it is published at {PUBLICATION.page}")
    classes = there if partial and there else wnids
    boxed = _train(path.parent, classes) if train else _val(path.parent, wnids)
    return path.parent, [one for one in boxed if one.wnid in set(classes)], classes


def _wnids(path: Path) -> list[str]:
    wnids = sorted(path.read_text(encoding="utf-8").split())
    if len(set(wnids)) != len(wnids) or not wnids:
        raise ValueError(f"{path} does not name classes once each")
    return wnids


def _train(folder: Path, wnids: Sequence[str]) -> list[Boxed]:
    boxed = list[Boxed]()
    for wnid in wnids:
        place = folder / "train" / wnid
        rows = _rows(place / f"{wnid}_boxes.txt", 5)
        own = [Boxed(place / "images" / name, wnid, _box(box)) for name, *box in rows]
        boxed += _complete(place / "images", own)
    return boxed


def _val(folder: Path, wnids: Sequence[str]) -> list[Boxed]:
    place = folder / "val"
    rows = _rows(place / ANNOTATIONS, 6)
    for name, wnid, *_ in rows:
        if wnid not in wnids:
            raise ValueError(f"{place / ANNOTATIONS}: {name} has class {wnid!r}, not of wnids.txt")
    boxed = [Boxed(place / "images" / name, wnid, _box(box)) for name, wnid, *box in rows]
    return _complete(place / "images", boxed)


def _rows(path: Path, columns: int) -> list[list[str]]:
    if not path.is_file():
        raise Missing(f"tiny_imagenet is not whole: there is no {path}")
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    for number, row in enumerate(rows, 1):
        if len(row) != columns or not _is_box(row[-4:]):
            line = f"a name and a box within {SIDE} x {SIDE}"
            raise ValueError(f"{path}, line {number} is not {line}: {' '.join(row)!r}")
    return rows


def _is_box(words: Sequence[str]) -> bool:
    if not all(word.isdecimal() for word in words):
        return False
    left, top, right, bottom = _box(words)
    return left <= right < SIDE and top <= bottom < SIDE


def _box(words: Sequence[str]) -> tuple[int, ...]:
    return tuple(int(word) for word in words)


def _complete(folder: Path, boxed: list[Boxed]) -> list[Boxed]:
    """As many files as lines, of the same names."""
    there = {path.name for path in folder.glob("*.JPEG")}
    named = {one.path.name for one in boxed}
    for what, names in (("without a box", there - named), ("missing", named - there)):
        if names:
            raise ValueError(f"{folder / min(names)} is {what}, and {len(names) - 1} more")
    return boxed


def _names(folder: Path) -> dict[str, str]:
    path = folder / "words.txt"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return {line.split("\t")[0]: line.split("\t")[-1].strip() for line in lines}


def _decoded(path: Path) -> Tensor:
    x = decoding.pixels(decoding.picture(path))
    if x.shape != (3, SIDE, SIDE):
        raise ValueError(f"{path} is {x.shape[2]} x {x.shape[1]}, not {SIDE} x {SIDE}")
    return x


def _inside(boxes: Tensor) -> Tensor:
    """(n, 1, 64, 64) bool"""
    left, top, right, bottom = (side.reshape(-1, 1) for side in boxes.T)
    at = torch.arange(SIDE)
    columns, rows = (at >= left) & (at <= right), (at >= top) & (at <= bottom)
    inside: Tensor = rows.unsqueeze(2) & columns.unsqueeze(1)
    return inside.unsqueeze(1)
