"""The 1,797 digits of scikit-learn, 8 x 8 in 17 shades of grey: they come with it, and need no folder.

UCI's "Optical Recognition of Handwritten Digits", of which scikit-learn has the test part. 1,000 of
them, of each class its share, are for testing: no fewer carry a claim about accuracy. The rows of a part
are in scikit-learn's order.
"""

from pathlib import Path

import torch
from torch import Tensor

from manifoldlab.data.base import Found, Table
from manifoldlab.interfaces import Data

CLASSES = tuple("0123456789")
SHADES = 16  # of grey beside black
TESTS = 1000


def digits(*, root: str = "", train: bool = True, device: str = "cpu", split_seed: int = 0) -> Data:
    """x (1, 8, 8) in sixteenths; `split_seed` chooses what is for testing; `root` is not looked at."""
    del root
    return read(train, split_seed).data(CLASSES, device)


def found(root: str, train: bool) -> Found:
    del root
    return read(train, 0).found("train" if train else "test", len(CLASSES))


def read(train: bool, split_seed: int) -> Table:
    import sklearn
    from sklearn.datasets import load_digits

    whole = load_digits()
    x = torch.from_numpy(whole.images).float().unsqueeze(1) / SHADES
    y = torch.from_numpy(whole.target).long()
    rows = _is_test(y, split_seed).logical_xor(torch.tensor(train))
    where = Path(f"scikit-learn {sklearn.__version__}")
    return Table(x[rows], y[rows], where, "comes with it")


def _is_test(y: Tensor, seed: int) -> Tensor:
    """TESTS rows at even steps through all, shuffled and then sorted by class: stratified."""
    shuffled = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    by_class = shuffled[torch.sort(y[shuffled], stable=True).indices]
    chosen = by_class[torch.arange(TESTS) * len(y) // TESTS]
    return torch.zeros(len(y), dtype=torch.bool).index_fill(0, chosen, True)
