"""A multilayer perceptron on vectors or flattened images; depth 0 is a linear model."""

from collections.abc import Callable
from math import prod

from torch import nn

from manifoldlab.models.base import check_sizes


def mlp(
    shape: tuple[int, ...],
    num_classes: int,
    *,
    width: int = 128,
    depth: int = 2,
    activation: Callable[[], nn.Module] = nn.SiLU,
) -> nn.Module:
    """`depth` hidden layers; the default activation is smooth, as laws with derivatives ask."""
    check_sizes(num_classes=num_classes, width=width)
    if depth < 0:
        raise ValueError(f"depth counts hidden layers, 0 or more, not {depth}")
    sizes = [prod(shape), *[width] * depth]
    layers: list[nn.Module] = [nn.Flatten()]
    for size, following in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(size, following), activation()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], num_classes))
