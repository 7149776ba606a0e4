"""CIFAR-10: 50,000 and 10,000 pictures of ten classes, 32 x 32 in colour, binary or in Python's pickles.

Krizhevsky 2009. A binary file is records of a label and 3 x 1,024 bytes, plane by plane and row by
row; a pickle has the same planes in an array `data`, and a list `labels`. It is read without being
executed. Both give the same tensors.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from manifoldlab import restricted_pickle
from manifoldlab.data import base
from manifoldlab.data.base import Found, Layout, Publication, Table
from manifoldlab.interfaces import Data

SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32
CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
PUBLICATION = Publication("cifar10", "https://www.cs.toronto.edu/~kriz/cifar.html")
BATCHES = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5")
MD5 = {
    "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
    "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
    "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
    "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
    "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
    "test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d",
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}


class Format(NamedTuple):
    """What CIFAR-10 and CIFAR-100 differ in."""

    bytes: int  # before the pixels of a record, the last of them the label
    key: str  # of the labels in a pickle
    num_classes: int
    md5: dict[str, str]


FORMAT = Format(1, "labels", len(CLASSES), MD5)


def cifar10(*, root: str = "", train: bool = True, device: str = "cpu", check: bool = True) -> Data:
    """x (3, 32, 32); check=False reads other files of the same names, of any number of images."""
    return read(root, train, check).data(CLASSES, device)


def found(root: str, train: bool) -> Found:
    return read(root, train, True).found("train" if train else "test", len(CLASSES))


def read(root: str, train: bool, check: bool) -> Table:
    names = BATCHES if train else ("test_batch",)
    binary = tuple(f"{name}.bin" for name in names)
    layouts = [
        Layout(("cifar-10-batches-bin", "cifar10/cifar-10-batches-bin", "cifar10", "."), binary),
        Layout(("cifar-10-batches-py", "cifar10/cifar-10-batches-py", "cifar10", "."), names),
    ]
    return table(base.locate(PUBLICATION, root, layouts), FORMAT, check)


def table(paths: list[Path], form: Format, check: bool) -> Table:
    """The samples of several files, one after the other."""
    parts = [_batch(path, form, check) for path in paths]
    x = torch.cat([part.x for part in parts]).reshape(-1, *SHAPE)
    return Table(x, torch.cat([part.y for part in parts]), paths[0].parent, parts[0].verified)


def _batch(path: Path, form: Format, check: bool) -> Table:
    content = path.read_bytes()
    x, y = (_binary if path.suffix == ".bin" else _pickled)(path, content, form)
    verified = base.verify(path, content, form.md5.get(path.name), check=check)
    return Table(x, base.labels(path, y, form.num_classes), path, verified)


def _binary(path: Path, content: bytes, form: Format) -> tuple[Tensor, Tensor]:
    record = form.bytes + PIXELS
    if not content or len(content) % record:
        line = f"{len(content)} bytes are no whole number of records of {record}"
        raise ValueError(f"{path} is truncated, or another file: {line}")
    rows = torch.from_numpy(np.frombuffer(content, np.uint8).copy()).reshape(-1, record)
    return rows[:, form.bytes :], rows[:, form.bytes - 1]


def _pickled(path: Path, content: bytes, form: Format) -> tuple[Tensor, Tensor]:
    try:
        held = restricted_pickle.read(content)
    except ValueError as error:
        raise ValueError(f"{path} is not read: {error}") from None
    x, y = (held.get(key) if isinstance(held, dict) else None for key in ("data", form.key))
    if not isinstance(x, np.ndarray) or x.dtype != np.uint8 or x.shape[1:] != (PIXELS,):
        raise ValueError(f"{path} has no array 'data' of bytes, {PIXELS} a picture")
    if not isinstance(y, list) or len(y) != len(x) or any(type(label) is not int for label in y):
        raise ValueError(f"{path} has no list {form.key!r} of {len(x)} whole numbers")
    return torch.from_numpy(x.copy()), torch.tensor(y)
