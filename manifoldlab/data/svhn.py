"""SVHN: 73,257 and 26,032 house numbers, cropped to a digit each, 32 x 32 in colour, from .mat files.

Netzer et al. 2011. The files hold X (32, 32, 3, n) of bytes and y (n, 1) from 1 to 10, where 10 is
the digit 0; here labels are the digits.
"""

import io
from pathlib import Path

import numpy as np
import torch

from manifoldlab.data import base
from manifoldlab.data.base import Found, Layout, Publication, Table
from manifoldlab.interfaces import Data

CLASSES = tuple("0123456789")
SHAPE = (32, 32, 3)
PUBLICATION = Publication("svhn", "http://ufldl.stanford.edu/housenumbers")
MD5 = {
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
}


def svhn(*, root: str = "", train: bool = True, device: str = "cpu", check: bool = True) -> Data:
    """x (3, 32, 32); check=False reads other files of the same names, of any number of images."""
    return read(root, train, check).data(CLASSES, device)


def found(root: str, train: bool) -> Found:
    return read(root, train, True).found("train" if train else "test", len(CLASSES))


def read(root: str, train: bool, check: bool) -> Table:
    name = "train_32x32.mat" if train else "test_32x32.mat"
    [path] = base.locate(PUBLICATION, root, [Layout(("svhn", "SVHN", "."), (name,))])
    content = path.read_bytes()
    x, y = _arrays(path, content)
    if x.dtype != np.uint8 or x.ndim != 4 or x.shape[:3] != SHAPE:
        raise ValueError(f"{path}: X is {x.dtype} of shape {x.shape}, not uint8 of {SHAPE} and n")
    if y.shape != (x.shape[3], 1) or not np.issubdtype(y.dtype, np.integer):
        raise ValueError(f"{path}: y is {y.dtype} of shape {y.shape} for {x.shape[3]} pictures")
    verified = base.verify(path, content, MD5[name], check=check)
    labels = base.labels(path, torch.from_numpy(y.astype(np.int64)).flatten() - 1, len(CLASSES))
    pixels = torch.from_numpy(np.ascontiguousarray(x.transpose(3, 2, 0, 1)))
    return Table(pixels, (labels + 1) % 10, path.parent, verified)


def _arrays(path: Path, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    from scipy.io import loadmat

    try:
        held = loadmat(io.BytesIO(content))
        return held["X"], held["y"]
    except Exception as error:  # scipy raises whatever the damaged bytes lead it to
        line = " ".join(str(error).split())
        raise ValueError(f"{path} is damaged, or no .mat file of X and y: {line}") from error
