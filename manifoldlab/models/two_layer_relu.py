"""f(x) = sum_j u_j max(0, w_j.x), outer weights u_j = +-1/sqrt(m) fixed, inner w_j ~ N(0, scale^2 I).

The network of laws D3 and F2 (Melamed et al. 2023). Two classes get the logits +-f/2, so that their
difference is f.
"""

from math import prod
from typing import final

import torch
from torch import Tensor, nn

from manifoldlab.models.base import Options, check_sizes


@final
class TwoLayerRelu(nn.Module):
    signs: Tensor

    def __init__(self, size: int, width: int, scale: float):
        super().__init__()
        self.inner = nn.Linear(size, width, bias=False)
        nn.init.normal_(self.inner.weight, std=scale)
        self.register_buffer("signs", 1.0 - 2.0 * (torch.arange(width) % 2))

    def forward(self, x: Tensor) -> Tensor:
        f = self.inner(x.flatten(1)).relu() @ self.signs.to(x) / len(self.signs) ** 0.5
        return torch.stack([f / 2, -f / 2], 1)


def two_layer_relu(
    shape: tuple[int, ...], num_classes: int, *, width: int = 256, scale: float | None = None
) -> nn.Module:
    """`scale` is the deviation of the inner weights, D^(-1/2) unless given."""
    check_sizes(width=width)
    if num_classes != 2:
        raise ValueError(f"two_layer_relu has one output and so 2 classes, not {num_classes}")
    if scale is not None and not 0 < scale < torch.inf:
        raise ValueError(f"scale, of the inner weights, must be positive and finite, not {scale}")
    size = prod(shape)
    return TwoLayerRelu(size, width, size**-0.5 if scale is None else scale)


def examples(shape: tuple[int, ...]) -> list[Options]:
    del shape
    return [{"width": 6}, {"width": 9, "scale": 0.5}]
