"""Numbers of each seed that leave it out: a choice made by the others, and a function's jackknife.

Choosing what is best by the values that are then shown would flatter them; and a function that bends
makes a bias of errors that are none on average: E f(mean) = f(truth) + tr(Hess f Cov) / 2 n + ...
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def best(values: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """For each seed the row with the largest mean over the other seeds, (rows, seeds) -> (seeds,)."""
    if values.ndim != 2 or values.shape[1] < 2:
        raise ValueError(f"values are of rows and 2 seeds or more, not of shape {values.shape}")
    others = values.sum(1, keepdims=True) - values
    found: npt.NDArray[np.int64] = others.argmax(0)
    return found


def jackknife(of: Callable[[Tensor], Tensor], found: Tensor) -> Tensor:
    """n of(mean of all) - (n - 1) of(mean of the others), one a seed: (rows, n, D) -> (rows, n).

    Their mean has no bias of order 1 / n, and they scatter as n independent values do (Tukey 1958), but
    for functions that are flat at the truth, as a cosine is at 1: there they scatter more than it errs.
    """
    n = found.shape[1]
    if n < 2:
        raise ValueError(f"a jackknife needs 2 seeds or more, not {n}")
    others = (found.sum(1, keepdim=True) - found) / (n - 1)
    each = torch.stack([of(mean) for mean in others.unbind(1)], 1)
    return n * of(found.mean(1))[:, None] - (n - 1) * each
