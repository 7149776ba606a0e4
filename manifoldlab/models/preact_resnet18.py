"""ResNet-18 with activations before convolutions (He et al. 2016b), usual in robust training on CIFAR.

The names of its tensors are those of the codes it is known from (Rice et al. 2020), whose weights fit.
"""

from typing import final

from torch import Tensor, nn

from manifoldlab.models.base import Channels, Options, check_image, check_sizes, normalizing


@final
class Block(nn.Module):
    def __init__(self, inside: int, outside: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inside)
        self.conv1 = nn.Conv2d(inside, outside, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1, bias=False)
        self.shortcut: nn.Module | None = None
        if stride > 1 or inside != outside:
            self.shortcut = nn.Sequential(nn.Conv2d(inside, outside, 1, stride=stride, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        active = self.bn1(x).relu()
        straight = x if self.shortcut is None else self.shortcut(active)
        out: Tensor = self.conv2(self.bn2(self.conv1(active)).relu())
        return out + straight


def _stage(inside: int, outside: int, stride: int) -> nn.Module:
    return nn.Sequential(Block(inside, outside, stride), Block(outside, outside, 1))


@final
class PreactResNet18(nn.Module):
    def __init__(
        self, channels: int, num_classes: int, width: int, normalize: nn.Module, last: bool
    ):
        super().__init__()
        self.normalize = normalize
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.layer1 = _stage(width, width, 1)
        self.layer2 = _stage(width, 2 * width, 2)
        self.layer3 = _stage(2 * width, 4 * width, 2)
        self.layer4 = _stage(4 * width, 8 * width, 2)
        self.bn = nn.BatchNorm2d(8 * width) if last else None
        self.linear = nn.Linear(8 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer2(self.layer1(self.conv1(self.normalize(x))))
        x = self.layer4(self.layer3(x))
        if self.bn is not None:
            x = self.bn(x).relu()
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


def preact_resnet18(
    shape: tuple[int, ...],
    num_classes: int,
    *,
    width: int = 64,
    last_norm: bool = True,
    mean: Channels = (),
    deviation: Channels = (),
) -> nn.Module:
    """`last_norm`: batch normalization and ReLU behind the last block, which some codes leave out."""
    check_image(shape, "preact_resnet18")
    check_sizes(num_classes=num_classes, width=width)
    normalize = normalizing(shape, mean, deviation)
    return PreactResNet18(shape[0], num_classes, width, normalize, last_norm)


def examples(shape: tuple[int, ...]) -> list[Options]:
    if len(shape) != 3:
        return []
    normal = {"mean": (0.4,) * shape[0], "deviation": (0.2,) * shape[0]}
    return [{"width": 4}, {"width": 2, "last_norm": False, **normal}]
