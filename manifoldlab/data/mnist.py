"""MNIST: 60,000 and 10,000 handwritten digits, 28 x 28 in grey, from the four idx files, gz or not.

LeCun, Bottou, Bengio and Haffner 1998. An idx file is big-endian: a magic number (2051 of images,
2049 of labels), the count, of images rows and columns, and then one byte a pixel or a label.
"""

import gzip
import struct
import zlib
from pathlib import Path

import torch
from torch import Tensor

from manifoldlab.data import base
from manifoldlab.data.base import Found, Layout, Publication, Table
from manifoldlab.interfaces import Data

CLASSES = tuple("0123456789")
SHAPE = (28, 28)
PUBLICATION = Publication("mnist", "http://yann.lecun.com/exdb/mnist")
FOLDERS = ("MNIST/raw", "mnist/raw", "MNIST", "mnist", ".")
IMAGES, LABELS = 2051, 2049  # magic numbers
MD5 = {  # of the files unpacked, for there are many ways to pack them
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


def mnist(*, root: str = "", train: bool = True, device: str = "cpu", check: bool = True) -> Data:
    """x (1, 28, 28); check=False reads other files of the same names, of any number of images."""
    return read(root, train, check).data(CLASSES, device)


def found(root: str, train: bool) -> Found:
    return read(root, train, True).found("train" if train else "test", len(CLASSES))


def read(root: str, train: bool, check: bool) -> Table:
    part = "train" if train else "t10k"
    names = (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte")
    images, labels = base.locate(PUBLICATION, root, [Layout(FOLDERS, names, ("", ".gz"))])
    x, verified = _idx(images, IMAGES, SHAPE, check)
    y, _ = _idx(labels, LABELS, (), check)
    if len(x) != len(y):
        raise ValueError(f"{labels} has {len(y)} labels for the {len(x)} images of {images.name}")
    return Table(x.unsqueeze(1), base.labels(labels, y, len(CLASSES)), images.parent, verified)


def _idx(path: Path, magic: int, shape: tuple[int, ...], check: bool) -> tuple[Tensor, str]:
    content = _unpacked(path)
    header = 4 * (2 + len(shape))
    if len(content) < header:
        raise ValueError(f"{path} is truncated: {len(content)} bytes, fewer than its header has")
    own, count, *sides = struct.unpack(f">{header // 4}I", content[:header])
    if (own, *sides) != (magic, *shape):
        line = f"{(own, *sides)} where the magic number and sides {(magic, *shape)} are due"
        raise ValueError(f"{path} is no such idx file: {line}")
    due = header + count * torch.Size(shape).numel()
    if len(content) != due:
        raise ValueError(f"{path} has {len(content)} bytes, not the {due} of its {count} items")
    verified = base.verify(path, content, MD5[path.name.removesuffix(".gz")], check=check)
    values = torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=header)
    return values.reshape(count, *shape), verified


def _unpacked(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix != ".gz":
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
