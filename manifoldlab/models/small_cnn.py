"""A small convolutional network for images: two halvings, then the mean over the picture."""

from collections.abc import Callable

from torch import nn

from manifoldlab.models.base import Channels, Options, check_image, check_sizes, normalizing


def small_cnn(
    shape: tuple[int, ...],
    num_classes: int,
    *,
    width: int = 32,
    activation: Callable[[], nn.Module] = nn.SiLU,
    mean: Channels = (),
    deviation: Channels = (),
) -> nn.Module:
    """Without batch normalization, so that it can be one of an ensemble."""
    check_image(shape, "small_cnn")
    check_sizes(num_classes=num_classes, width=width)
    return nn.Sequential(
        normalizing(shape, mean, deviation),
        nn.Conv2d(shape[0], width, 3, padding=1),
        activation(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
        activation(),
        nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1),
        activation(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, num_classes),
    )


def examples(shape: tuple[int, ...]) -> list[Options]:
    if len(shape) != 3:
        return []
    normal = {"mean": (0.4,) * shape[0], "deviation": (0.2,) * shape[0]}
    return [{"width": 4}, {"width": 3, "activation": nn.Softplus, **normal}]
