"""ImageNet (ILSVRC 2012), streamed: class folders, or flat files named by their class, of any resolution.

Russakovsky et al. 2015. A class is its wnid, such as n01440764, the first word of a name; labels
count the thousand wnids in order. They come from classes.tsv (index, wnid, name) or
LOC_synset_mapping.txt beside train and val, or are the thousand class folders themselves.
"""

import csv
import os
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from manifoldlab.data import base, image_folder
from manifoldlab.data.base import Found, Missing, Publication
from manifoldlab.data.image_folder import Options
from manifoldlab.data.subset import balanced
from manifoldlab.decoding import Central
from manifoldlab.interfaces import Data

PUBLICATION = Publication("imagenet", "https://image-net.org/download")
FOLDERS = ("imagenet", "ImageNet", "ILSVRC2012", "ILSVRC/Data/CLS-LOC", ".")
COUNT = 1000
WNID = re.compile(r"n\d{8}(?!\d)")


def imagenet(
    *,
    root: str = "",
    train: bool = True,
    device: str = "cpu",
    shorter: int = 256,
    crop: int = 224,
    limit: int = 0,
    seed: int = 0,
    workers: int = 2,
    turn: tuple[int, int] = (0, 1),
) -> Data:
    """x (3, crop, crop) of the centre, the shorter side resized. `limit` and `seed` choose as `subset`
    does, before anything is decoded; `turn` is of `streamed`."""
    folder = _folder(root, train)
    names, y, classes = _listed(folder)
    rows = balanced(y, limit, seed) if limit else None
    view, shape = Central(shorter, crop), (3, crop, crop)
    options: Options = {"rows": rows, "workers": workers, "device": device, "turn": turn}
    return image_folder.of_files(folder, names, y, shape, classes, view, options)


def found(root: str, train: bool) -> Found:
    folder = _folder(root, train)
    _, y, _ = _listed(folder)
    counts = len(y), len(torch.unique(y)), COUNT
    return Found(folder.name, str(folder), *counts, "a class each, not decoded")


def _folder(root: str, train: bool) -> Path:
    part = "train" if train else "val"
    looked = f"{part}/WNID/*.JPEG or {part}/WNID_*.JPEG in {' or '.join(FOLDERS)}"
    above = base.folder(PUBLICATION, root, looked)
    for place in FOLDERS:
        folder = above / place / part
        if folder.is_dir() and _is_of_wnids(folder):
            return folder
    what = f"imagenet is not in {above}: looked for {looked}"
    raise Missing(f"{what}; it is published at {PUBLICATION.page}")


def _is_of_wnids(folder: Path) -> bool:
    """Unlike the folders train and val of another set, in the root itself."""
    with os.scandir(folder) as found:
        return any(WNID.match(one.name) for one in found)


def _listed(folder: Path) -> tuple[list[str], Tensor, tuple[str, ...]]:
    names = list(image_folder.files(folder))
    if not names:
        raise Missing(f"{folder} has no pictures; imagenet is published at {PUBLICATION.page}")
    classes = _classes(folder)
    known = {wnid: label for label, wnid in enumerate(classes)}
    y = [known.get(_wnid(name), -1) for name in names]
    if -1 in y:
        path = folder / names[y.index(-1)]
        raise ValueError(f"{path} is neither in the folder of a class nor named by one")
    return names, torch.tensor(y), tuple(classes.values())


def _wnid(name: str) -> str:
    """That of the class folder, or of the file itself where it lies flat."""
    match = WNID.match(name)
    return match.group() if match else ""


def _classes(folder: Path) -> dict[str, str]:
    """Names by wnid, in the order of labels."""
    table, mapping = folder.parent / "classes.tsv", folder.parent / "LOC_synset_mapping.txt"
    if table.is_file():
        with table.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        return _ordered(table, [(row.get("wnid") or "", row.get("name") or "") for row in rows])
    if mapping.is_file():
        lines = mapping.read_text(encoding="utf-8").splitlines()
        return _ordered(mapping, [(line[:9], line[10:]) for line in lines if line])
    wnids = [name for name in image_folder.class_folders(folder) if WNID.fullmatch(name)]
    if len(wnids) != COUNT:
        line = f"{folder.parent} has no classes.tsv, and {folder} {len(wnids)} class folders"
        raise ValueError(f"{line}, not {COUNT}: which labels they have is not known")
    return {wnid: wnid for wnid in wnids}


def _ordered(path: Path, rows: Sequence[tuple[str, str]]) -> dict[str, str]:
    wnids = [wnid for wnid, _ in rows]
    if wnids != sorted(set(wnids)) or not all(WNID.fullmatch(wnid) for wnid in wnids):
        raise ValueError(f"{path} does not name classes by wnid, once each and in order")
    if len(wnids) != COUNT:
        raise ValueError(f"{path} names {len(wnids)} classes, not {COUNT}")
    return dict(rows)
