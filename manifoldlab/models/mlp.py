"""A multilayer perceptron on vectors or flattened images; depth 0 is a linear model."""

from collections.abc import Callable
from math import prod

from torch import nn

from manifoldlab.models.base import (
    Channels,
    Options,
    check_depth,
    check_sizes,
    normalizing,
    perceptron,
)


def mlp(
    shape: tuple[int, ...],
    num_classes: int,
    *,
    width: int = 128,
    depth: int = 2,
    activation: Callable[[], nn.Module] = nn.SiLU,
    mean: Channels = (),
    deviation: Channels = (),
) -> nn.Module:
    """`depth` hidden layers; the default activation is smooth, as laws with derivatives ask."""
    check_sizes(num_classes=num_classes, width=width)
    check_depth(depth)
    layers = perceptron((prod(shape), *[width] * depth, num_classes), activation)
    return nn.Sequential(normalizing(shape, mean, deviation), nn.Flatten(), *layers)


def examples(shape: tuple[int, ...]) -> list[Options]:
    normal = {"mean": (0.1,) * shape[0], "deviation": (0.3,) * shape[0]}
    return [{"width": 8}, {"width": 6, "depth": 1, "activation": nn.ReLU, **normal}, {"depth": 0}]
