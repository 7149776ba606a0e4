"""PASCAL VOC in its VOCdevkit layout, streamed: the label is the class of the largest object's box.

Everingham et al. 2010. The region is the boxes of all objects of that class. A picture has several
objects anywhere in it: it is squeezed into a square as a whole, not cropped. Parts are the lists of
ImageSets/Main.
"""

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, final

import torch
from torch import Tensor

from manifoldlab import decoding
from manifoldlab.data import base, streamed
from manifoldlab.data.base import Found, Missing, Publication
from manifoldlab.interfaces import Data

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
PUBLICATION = Publication("voc", "http://host.robots.ox.ac.uk/pascal/VOC")
LISTS = "ImageSets/Main"


class Annotated(NamedTuple):
    """A picture, its sides, its label, and the boxes of that class: 1-based pixels, ends included."""

    path: Path
    sides: tuple[int, int]  # width, height
    label: int
    boxes: tuple[tuple[int, ...], ...]  # left, top, right, bottom


def voc(
    *,
    root: str = "",
    train: bool = True,
    device: str = "cpu",
    year: int = 2012,
    split: str = "",
    size: int = 224,
    workers: int = 2,
) -> Data:
    """x (3, size, size). `split` is a list: train, or else val, or the only one where no val is."""
    folder, split = _part(root, train, year, split)
    annotated = _listed(folder, split)
    y = torch.tensor([one.label for one in annotated])
    view = decoding.Squeezed(size)
    names = [one.path.name for one in annotated]
    own = streamed.digest(folder / "JPEGImages", names, y, view)
    read, shape = Boxed(tuple(annotated), view), (3, size, size)
    return streamed.streamed(
        read, y, shape, CLASSES, fingerprint=own, workers=workers, device=device
    )


def found(root: str, train: bool) -> Found:
    folder, split = _part(root, train, 2012, "")
    annotated = _listed(folder, split)
    counts = len(annotated), len({one.label for one in annotated}), len(CLASSES)
    return Found(split, str(folder), *counts, "boxes each, not decoded")


def _part(root: str, train: bool, year: int, split: str) -> tuple[Path, str]:
    name = split or ("train" if train else "val")
    places = (f"VOCdevkit/VOC{year}", f"VOC{year}", f"voc/VOCdevkit/VOC{year}", ".")
    looked = f"{LISTS}/{name}.txt in {' or '.join(places)}"
    above = base.folder(PUBLICATION, root, looked)
    for place in places:
        lists = sorted(path.stem for path in (above / place / LISTS).glob("*.txt"))
        if name in lists or (not train and not split and len(lists) == 1):
            return above / place, name if name in lists else lists[0]
        if lists:
            line = f"{above / place / LISTS} has {', '.join(lists)}: split chooses one"
            raise Missing(f"voc has no list {name}: {line}")
    what = f"voc is not in {above}: looked for {looked}"
    raise Missing(f"{what}; it is published at {PUBLICATION.page}")


def _listed(folder: Path, split: str) -> list[Annotated]:
    path = folder / LISTS / f"{split}.txt"
    names = path.read_text(encoding="utf-8").split()
    if not names:
        raise Missing(f"{path} names no picture")
    return [_annotated(folder, name) for name in names]


def _annotated(folder: Path, name: str) -> Annotated:
    picture, path = folder / "JPEGImages" / f"{name}.jpg", folder / "Annotations" / f"{name}.xml"
    for file in (picture, path):
        if not file.is_file():
            raise Missing(f"voc is not whole: there is no {file}")
    try:
        tree = ElementTree.parse(path)
        width, height = (int(tree.findtext(f"size/{side}") or 0) for side in ("width", "height"))
        objects = [(one.findtext("name") or "", _box(one)) for one in tree.iter("object")]
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(f"{path} is no annotation of VOC: {error}") from error
    return Annotated(picture, (width, height), *_largest(path, objects, (width, height)))


def _box(one: ElementTree.Element) -> tuple[int, ...]:
    """Some years have fractions of pixels."""
    sides = ("xmin", "ymin", "xmax", "ymax")
    return tuple(round(float(one.findtext(f"bndbox/{side}") or "")) for side in sides)


def _largest(
    path: Path, objects: list[tuple[str, tuple[int, ...]]], sides: tuple[int, int]
) -> tuple[int, tuple[tuple[int, ...], ...]]:
    for name, (left, top, right, bottom) in objects:
        inside = 1 <= left <= right <= sides[0] and 1 <= top <= bottom <= sides[1]
        if name not in CLASSES or not inside:
            box = (left, top, right, bottom)
            raise ValueError(f"{path}: {name!r} in box {box} of a picture of {sides}")
    if not objects:
        raise ValueError(f"{path} has no objects")
    own = max(objects, key=lambda one: (one[1][2] - one[1][0] + 1) * (one[1][3] - one[1][1] + 1))[0]
    return CLASSES.index(own), tuple(box for name, box in objects if name == own)


@final
@dataclass(frozen=True)
class Boxed:
    """One picture a row, with the pixels whose middle lies in a box."""

    annotated: tuple[Annotated, ...]
    view: decoding.Squeezed

    def __call__(self, row: int) -> tuple[Tensor, Tensor]:
        path, sides, _, boxes = self.annotated[row]
        image = decoding.picture(path)
        if image.size != sides:
            raise ValueError(f"{path} is {image.size}, and {sides} in its annotation")
        size = self.view.size
        region = torch.zeros(size, size, dtype=torch.bool)
        for left, top, right, bottom in boxes:
            columns = _between(left - 1, right, sides[0], size)
            rows = _between(top - 1, bottom, sides[1], size)
            region |= rows.unsqueeze(1) & columns
        return decoding.pixels(self.view(image)), region


def _between(low: int, high: int, side: int, size: int) -> Tensor:
    """Which of `size` pixels lie there, of a side of `side` pixels; at least the nearest one."""
    middles = (torch.arange(size) + 0.5) * (side / size)
    inside = (middles >= low) & (middles < high)
    inside[min(size - 1, int((low + high) / 2 * size / side))] = True
    return inside
