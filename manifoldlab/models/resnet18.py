"""ResNet-18 (He et al. 2016a) with a stem for CIFAR (3x3) or for ImageNet (7x7 and pooling).

The names of its tensors are those that torchvision uses, so that weights trained there fit.
"""

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor, nn

from manifoldlab.models.base import Channels, Options, check_image, check_sizes, normalizing

Stem = Callable[[int, int], tuple[nn.Module, nn.Module]]  # channels, width -> convolution, pooling


def cifar_stem(channels: int, width: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.Identity()


def imagenet_stem(channels: int, width: int) -> tuple[nn.Module, nn.Module]:
    convolution = nn.Conv2d(channels, width, 7, stride=2, padding=3, bias=False)
    return convolution, nn.MaxPool2d(3, stride=2, padding=1)


@final
class Block(nn.Module):
    def __init__(self, inside: int, outside: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.downsample: nn.Module = nn.Sequential()
        if stride > 1 or inside != outside:
            shortcut = nn.Conv2d(inside, outside, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outside))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn1(self.conv1(x)).relu()
        out = self.bn2(self.conv2(out)) + self.downsample(x)
        return torch.relu(out)


def _stage(inside: int, outside: int, stride: int) -> nn.Module:
    return nn.Sequential(Block(inside, outside, stride), Block(outside, outside, 1))


@final
class ResNet18(nn.Module):
    def __init__(
        self, channels: int, num_classes: int, width: int, stem: Stem, normalize: nn.Module
    ):
        super().__init__()
        self.normalize = normalize
        self.conv1, self.maxpool = stem(channels, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, 1)
        self.layer2 = _stage(width, 2 * width, 2)
        self.layer3 = _stage(2 * width, 4 * width, 2)
        self.layer4 = _stage(4 * width, 8 * width, 2)
        self.fc = nn.Linear(8 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.bn1(self.conv1(self.normalize(x))).relu())
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


def resnet18(
    shape: tuple[int, ...],
    num_classes: int,
    *,
    stem: Stem = cifar_stem,
    width: int = 64,
    mean: Channels = (),
    deviation: Channels = (),
) -> nn.Module:
    """Of 64 channels, doubled at each halving of the picture, as published."""
    check_image(shape, "resnet18")
    check_sizes(num_classes=num_classes, width=width)
    normalize = normalizing(shape, mean, deviation)
    return ResNet18(shape[0], num_classes, width, stem, normalize)


def examples(shape: tuple[int, ...]) -> list[Options]:
    if len(shape) != 3:
        return []
    normal = {"mean": (0.4,) * shape[0], "deviation": (0.2,) * shape[0]}
    return [{"width": 4}, {"width": 2, "stem": imagenet_stem, **normal}]
