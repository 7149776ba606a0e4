"""A signal block above or below a null block, a square pattern that is no digit: BlockMNIST.

Shah, Jain and Netrapalli 2021: gradients of standard networks light up both blocks, "feature
leakage", unless the signal is always on top. The region is the signal block.
"""

import torch
from torch import Tensor

from manifoldlab.data import base
from manifoldlab.data.halves import halves
from manifoldlab.interfaces import Data


def block(
    *,
    of: str = "mnist",
    top: float = 0.5,
    seed: int = 0,
    root: str = "",
    train: bool = True,
    device: str = "cpu",
) -> Data:
    """x (C, 2 H, W) of the data set `of`; the signal is on top with probability `top`, 1 or 0 always
    or never; the seed chooses the halves."""
    data = base.load(of, root=root, train=train, device=device)
    return halves(data, null(data.shape), top=top, seed=seed)


def null(shape: tuple[int, ...]) -> Tensor:
    """Square rings in the middle: white where the distance from it, by the larger coordinate, is
    in the second or the fourth quarter of three quarters of the half side."""
    channels, height, width = shape
    row, column = (torch.arange(side) - (side - 1) / 2 for side in (height, width))
    distance = torch.maximum(row.abs().unsqueeze(1), column.abs()) / (min(height, width) / 2)
    quarter = (distance / 0.75 * 4).floor()
    return ((quarter == 1) | (quarter == 3)).float().expand(channels, height, width).contiguous()
