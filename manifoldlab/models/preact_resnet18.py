"""Pre-activation ResNet-18 (He et al. 2016b), the network of the TRADES and WEAT codes on CIFAR."""

from typing import final

from torch import Tensor, nn

from manifoldlab.models.base import Channels, Normalize, check_image, check_sizes

PLANES = (64, 128, 256, 512)


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
            self.shortcut = nn.Conv2d(inside, outside, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = self.bn1(x).relu()
        straight = x if self.shortcut is None else self.shortcut(active)
        out: Tensor = self.conv2(self.bn2(self.conv1(active)).relu())
        return out + straight


@final
class PreactResNet18(nn.Module):
    def __init__(self, channels: int, num_classes: int, normalize: nn.Module):
        super().__init__()
        self.normalize = normalize
        self.stem = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(Block(inside, planes, stride), Block(planes, planes, 1))
                for inside, planes, stride in zip((64, *PLANES), PLANES, (1, 2, 2, 2), strict=False)
            )
        )
        self.norm = nn.BatchNorm2d(512)
        self.linear = nn.Linear(512, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm(self.blocks(self.stem(self.normalize(x)))).relu()
        logits: Tensor = self.linear(out.mean((2, 3)))
        return logits


def preact_resnet18(
    shape: tuple[int, ...], num_classes: int, *, mean: Channels = (), deviation: Channels = ()
) -> nn.Module:
    check_image(shape, "preact_resnet18")
    check_sizes(num_classes=num_classes)
    normalize = Normalize(mean, deviation) if mean or deviation else nn.Identity()
    return PreactResNet18(shape[0], num_classes, normalize)
