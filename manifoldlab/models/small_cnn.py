"""A small convolutional network for images: two halvings, then the mean over the picture."""

from torch import nn

from manifoldlab.models.base import Channels, Normalize, check_image, check_sizes


def small_cnn(
    shape: tuple[int, ...],
    num_classes: int,
    *,
    width: int = 32,
    mean: Channels = (),
    deviation: Channels = (),
) -> nn.Module:
    """Smooth, without coupling of samples; mean and deviation by channel, none to leave x as it is."""
    check_image(shape, "small_cnn")
    check_sizes(num_classes=num_classes, width=width)
    first: list[nn.Module] = [Normalize(mean, deviation)] if mean or deviation else []
    return nn.Sequential(
        *first,
        nn.Conv2d(shape[0], width, 3, padding=1),
        nn.SiLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
        nn.SiLU(),
        nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1),
        nn.SiLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, num_classes),
    )
