"""AlexNet (Krizhevsky 2014, the form of one column), with the parameter names of torchvision.

Width 64 is the published one, of 61,100,840 parameters. LPIPS looks at the five rectified layers of
`features`, called by the names in RECTIFIED, which take pictures of 31 x 31 or more.
"""

from typing import final

from torch import Tensor, nn

from manifoldlab.models.base import Channels, Options, check_image, check_sizes, normalizing

LEAST = 63  # pixels a side: then the last halving has 3 to take the largest of
RECTIFIED = ("1", "4", "7", "9", "11")


@final
class AlexNet(nn.Module):
    def __init__(self, normalize: nn.Module, channels: int, width: int, num_classes: int):
        super().__init__()
        self.normalize, self.features = normalize, convolutions(channels, width)
        self.avgpool = nn.AdaptiveAvgPool2d((6, 6))
        self.classifier = nn.Sequential(
            nn.Dropout(),
            nn.Linear(36 * 4 * width, 64 * width),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(64 * width, 64 * width),
            nn.ReLU(),
            nn.Linear(64 * width, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.avgpool(self.features(self.normalize(x))).flatten(1))
        return logits


def convolutions(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(width, 3 * width, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(3 * width, 6 * width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(6 * width, 4 * width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(4 * width, 4 * width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
    )


def alexnet(
    shape: tuple[int, ...],
    num_classes: int,
    *,
    width: int = 64,
    mean: Channels = (),
    deviation: Channels = (),
) -> nn.Module:
    check_image(shape, "alexnet")
    check_sizes(num_classes=num_classes, width=width)
    if min(shape[1:]) < LEAST:
        raise ValueError(
            f"alexnet takes pictures of {LEAST} x {LEAST} or more, not of shape {shape}"
        )
    return AlexNet(normalizing(shape, mean, deviation), shape[0], width, num_classes)


def examples(shape: tuple[int, ...]) -> list[Options]:
    if len(shape) != 3 or min(shape[1:]) < LEAST:
        return []
    normal = {"mean": (0.4,) * shape[0], "deviation": (0.2,) * shape[0]}
    return [{"width": 2}, {"width": 1, **normal}]
