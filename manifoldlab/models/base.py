"""What networks share: normalization inside the model, layers of a perceptron, checks of sizes.

A module NAME.py of this package defines NAME(shape, num_classes, *, options) -> nn.Module, without
num_classes where it is no classifier, and `examples(shape)`: options of small networks for samples
of that shape, none where it does not fit. Options are numbers, words, tuples of them, and functions
of torch.nn or of the module, so that a checkpoint can name them.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod
from typing import Any, final

import torch
from torch import Tensor, nn

Channels = tuple[float, ...]
Options = dict[str, Any]


@final
class Normalize(nn.Module):
    """(x - mean) / deviation by channel; images come in [0, 1].

    No part of the state, for both are options: weights from elsewhere fit. Kept in float64, so that
    a model in float64 has the numbers that were given.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: Channels, deviation: Channels):
        super().__init__()
        if len(mean) != len(deviation) or not all(d > 0 for d in deviation):
            raise ValueError(f"means {mean} need as many positive deviations, not {deviation}")
        for name, values in (("mean", mean), ("deviation", deviation)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float64), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return (x - _wide(self.mean, x)) / _wide(self.deviation, x)

    def inverse(self, x: Tensor) -> Tensor:
        return x * _wide(self.deviation, x) + _wide(self.mean, x)


def _wide(values: Tensor, x: Tensor) -> Tensor:
    return values.to(x).reshape(-1, *[1] * (x.ndim - 2))


def normalization(shape: tuple[int, ...], mean: Channels, deviation: Channels) -> Normalize:
    """One number a channel, or a coordinate of a vector; none given is 0 and 1."""
    channels = shape[0]
    means, deviations = mean or (0.0,) * channels, deviation or (1.0,) * channels
    if not len(means) == len(deviations) == channels:
        raise ValueError(
            f"{channels} channels of samples of shape {shape} need as many means and deviations, "
            f"not {mean} and {deviation}"
        )
    return Normalize(means, deviations)


def normalizing(shape: tuple[int, ...], mean: Channels, deviation: Channels) -> nn.Module:
    """Likewise, at no cost where nothing is given."""
    normalize = normalization(shape, mean, deviation)
    return normalize if mean or deviation else nn.Identity()


def perceptron(sizes: Sequence[int], activation: Callable[[], nn.Module]) -> list[nn.Module]:
    """Linear layers from size to size, activations between them."""
    layers: list[nn.Module] = []
    for size, following in pairwise(sizes):
        layers += [nn.Linear(size, following), activation()]
    return layers[:-1]


def halvings(shape: tuple[int, ...], levels: int) -> list[tuple[int, int]]:
    """Height and width of a picture before and after each of so many convolutions of stride 2."""
    sizes = [(shape[1], shape[2])]
    for _ in range(levels):
        height, width = sizes[-1]
        sizes.append(((height + 1) // 2, (width + 1) // 2))
    return sizes


def check_sizes(**sizes: int) -> None:
    """Refuses sizes below 1."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be 1 or more, not {size}")


def check_depth(depth: int) -> None:
    if depth < 0:
        raise ValueError(f"depth counts hidden layers, 0 or more, not {depth}")


def check_image(shape: tuple[int, ...], model: str) -> None:
    if len(shape) != 3 or prod(shape) < 1:
        raise ValueError(f"{model} takes images (C, H, W), not samples of shape {shape}")
