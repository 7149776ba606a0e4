"""ResNet-18 (He et al. 2016) with a stem for CIFAR (3x3) or for ImageNet (7x7 and pooling).

The names of its tensors are those that torchvision uses, so that weights trained there fit.
"""

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor, nn

from manifoldlab.models.base import Channels, Normalize, check_image, check_sizes

Stem = Callable[[int], tuple[nn.Module, nn.Module]]  # channels -> convolution and pooling
PLANES = (64, 128, 256, 512)


def cifar_stem(channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(channels, 64, 3, padding=1, bias=False), nn.Identity()


def imagenet_stem(channels: int) -> tuple[nn.Module, nn.Module]:
    convolution = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
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


@final
class ResNet18(nn.Module):
    def __init__(self, channels: int, num_classes: int, stem: Stem, normalize: nn.Module):
        super().__init__()
        self.normalize = normalize
        self.conv1, self.maxpool = stem(channels)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.Sequential(Block(inside, planes, stride), Block(planes, planes, 1))
            for inside, planes, stride in zip((64, *PLANES), PLANES, (1, 2, 2, 2), strict=False)
        )
        self.fc = nn.Linear(512, num_classes)
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
    mean: Channels = (),
    deviation: Channels = (),
) -> nn.Module:
    check_image(shape, "resnet18")
    check_sizes(num_classes=num_classes)
    normalize = Normalize(mean, deviation) if mean or deviation else nn.Identity()
    return ResNet18(shape[0], num_classes, stem, normalize)
