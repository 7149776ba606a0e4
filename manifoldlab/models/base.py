"""What architectures share: the normalization inside a model, and checks of sizes."""

from math import prod
from typing import final

import torch
from torch import Tensor, nn

Channels = tuple[float, ...]


@final
class Normalize(nn.Module):
    """(x - mean) / deviation by channel; images come in [0, 1]. Buffers, so that they are saved."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: Channels, deviation: Channels):
        super().__init__()
        if len(mean) != len(deviation) or not all(d > 0 for d in deviation):
            raise ValueError(f"means {mean} need as many positive deviations, not {deviation}")
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("deviation", torch.tensor(deviation))

    def forward(self, x: Tensor) -> Tensor:
        wide = (-1, *[1] * (x.ndim - 2))
        return (x - self.mean.to(x).reshape(wide)) / self.deviation.to(x).reshape(wide)


def check_sizes(**sizes: int) -> None:
    """Refuses sizes below 1."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be 1 or more, not {size}")


def check_image(shape: tuple[int, ...], model: str) -> None:
    if len(shape) != 3 or prod(shape) < 1:
        raise ValueError(f"{model} takes images (C, H, W), not samples of shape {shape}")
