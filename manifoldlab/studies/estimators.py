"""Estimators of tangent spaces by name, fitted to a data set: what is calibrated is what images are read by.

local_pca_M    from the M nearest images
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from manifoldlab.interfaces import Data
from manifoldlab.tangents.base import Estimator
from manifoldlab.tangents.local_pca import LocalPca
from manifoldlab.training import Advance, silent

PCA = "local_pca_"


def check(names: Sequence[str]) -> None:
    if not names:
        raise ValueError("estimators of tangent spaces are one or more, not none")
    for name in names:
        _neighbours(name)


def estimator(name: str, data: Data, *, dim: int, advance: Advance = silent) -> Estimator:
    del advance
    return LocalPca(images(data), dim, _neighbours(name))


def images(data: Data) -> Tensor:
    """All of them, in the order of the data."""
    return torch.cat([batch.x for batch in data.batches(4096, None)])


def _neighbours(name: str) -> int:
    given = name.removeprefix(PCA)
    if not (name.startswith(PCA) and given.isdigit() and int(given) > 1):
        raise ValueError(f"no estimator called {name!r}; there is {PCA}M, of M neighbours")
    return int(given)
