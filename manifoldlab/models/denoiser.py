"""A denoiser with the preconditioning of EDM (Karras et al. 2022, Table 1 and eq. 7).

    D(x, s) = m + c_skip(s) (x - m) + c_out(s) F(c_in(s) (x - m), c_noise(s)),
    c_skip = d^2 / (s^2 + d^2),  c_out = s d / sqrt(s^2 + d^2),
    c_in = 1 / sqrt(s^2 + d^2),  c_noise = log(s) / 4,

with s the deviation of the noise, d that of the data about m. F starts at zero, where D is exact for
data N(m, d^2 I). The score of the noisy data is (D(x, s) - x) / s^2.

With `classes` a label y goes into F, too, one-hot beside the noise, and D(x, s, y) is the mean of the
clean samples of that class; NONE stands for no label, a row of zeros, and D(x, s) for the mean of all.
`denoising.denoising` is the loss, which drops labels, so that one network learns both.
"""

from functools import partial
from math import gcd, prod
from typing import NamedTuple, final

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, silu

from manifoldlab.models.base import (
    Channels,
    Normalize,
    Options,
    check_sizes,
    normalization,
    perceptron,
)

OCTAVES = 6  # of sines of c_noise, which is of order 1
NONE = -1  # the label of a sample whose class is not told


class Preconditioning(NamedTuple):
    skip: Tensor
    out: Tensor
    into: Tensor
    noise: Tensor


def preconditioning(sigma: Tensor, sigma_data: float) -> Preconditioning:
    total = torch.hypot(sigma, torch.full_like(sigma, sigma_data))
    skip, out = (sigma_data / total) ** 2, sigma * sigma_data / total
    return Preconditioning(skip, out, 1 / total, sigma.log() / 4)


@final
class Denoiser(nn.Module):
    def __init__(
        self,
        network: nn.Module,
        sigma_data: float,
        center: Normalize,
        classes: int = 0,
        levels: tuple[float, ...] = (),
    ):
        super().__init__()
        self.network, self.sigma_data, self.center = network, sigma_data, center
        self.classes, self.levels = classes, levels

    def forward(self, x: Tensor, sigma: float | Tensor, y: Tensor | None = None) -> Tensor:
        """x (n, *shape) with noise of deviation sigma, a number or one a sample (n,) -> E[clean | x, y]

        Labels y (n,) are from 0 on, NONE for no label.
        """
        if not isinstance(sigma, Tensor):
            self._check_level(sigma)
            sigma = x.new_full((len(x),), sigma)
        skip, out, into, noise = preconditioning(sigma.to(x), self.sigma_data)
        wide = (-1, *[1] * (x.ndim - 1))
        centered = self.center(x)
        found = self.network(into.reshape(wide) * centered, noise, self._one_hot(x, y))
        return self.center.inverse(skip.reshape(wide) * centered + out.reshape(wide) * found)

    def _check_level(self, sigma: float) -> None:
        if not 0 < sigma < torch.inf:
            raise ValueError(f"noise must have a positive and finite deviation, not {sigma}")
        if self.levels and not self.levels[0] <= sigma <= self.levels[1]:
            low, high = self.levels
            raise ValueError(
                f"a denoiser for noise from {low:g} to {high:g} is asked for {sigma:g}"
            )

    def _one_hot(self, x: Tensor, y: Tensor | None) -> Tensor:
        """(n, classes)"""
        if y is None:
            return x.new_zeros(len(x), self.classes)
        if not self.classes:
            raise ValueError(
                "a denoiser without classes is given labels: build it with classes=..."
            )
        table = torch.eye(self.classes + 1, device=x.device, dtype=x.dtype)[
            :, 1:
        ]  # NONE comes first
        try:
            return table[y + 1]
        except IndexError as error:  # on a GPU an assertion of the device
            line = f"labels from {int(y.min())} to {int(y.max())} for {self.classes} classes"
            raise ValueError(f"{line} of a denoiser") from error


def _features(noise: Tensor, label: Tensor) -> Tensor:
    """(n,) and (n, classes) -> (n, 2 OCTAVES + 1 + classes)"""
    turns = noise[:, None] * 2 ** torch.arange(OCTAVES, device=noise.device)
    return torch.cat([noise[:, None], turns.sin(), turns.cos(), label], 1)


@final
class OfVectors(nn.Module):
    def __init__(self, shape: tuple[int, ...], width: int, depth: int, classes: int):
        super().__init__()
        size = prod(shape)
        sizes = (size + 2 * OCTAVES + 1 + classes, *[width] * depth, size)
        self.layers = nn.Sequential(*perceptron(sizes, nn.SiLU))
        start_at_zero(self.layers[-1])

    def forward(self, x: Tensor, noise: Tensor, label: Tensor) -> Tensor:
        found: Tensor = self.layers(torch.cat([x.flatten(1), _features(noise, label)], 1))
        return found.reshape(x.shape)


@final
class Block(nn.Module):
    """x + convolutions of it, shifted by the features of noise and label."""

    def __init__(self, width: int, classes: int):
        super().__init__()
        self.norm1, self.norm2 = _norm(width), _norm(width)
        self.conv1, self.conv2 = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.shift = nn.Linear(2 * OCTAVES + 1 + classes, width)

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        inside = self.conv1(silu(self.norm1(x))) + self.shift(features)[:, :, None, None]
        out: Tensor = x + self.conv2(silu(self.norm2(inside)))
        return out


@final
class OfImages(nn.Module):
    """A block at each size of the picture on the way down, and one on the way up beside it."""

    def __init__(self, shape: tuple[int, ...], width: int, depth: int, classes: int):
        super().__init__()
        widths = [width << level for level in range(depth)]
        block = partial(Block, classes=classes)
        self.stem = nn.Conv2d(shape[0], width, 3, padding=1)
        self.before, self.after = (nn.ModuleList(map(block, widths)) for _ in range(2))
        self.down = nn.ModuleList(nn.Conv2d(w, 2 * w, 3, 2, padding=1) for w in widths)
        self.middle = block(width << depth)
        self.up = nn.ModuleList(nn.Conv2d(2 * w, w, 3, padding=1) for w in widths)
        self.norm, self.last = _norm(width), nn.Conv2d(width, shape[0], 3, padding=1)
        start_at_zero(self.last)

    def forward(self, x: Tensor, noise: Tensor, label: Tensor) -> Tensor:
        features = _features(noise, label)
        x, seen = self.stem(x), []
        for block, down in zip(self.before, self.down, strict=True):
            seen.append(block(x, features))
            x = down(seen[-1])
        x = self.middle(x, features)
        steps = list(zip(self.after, self.up, seen, strict=True))
        for block, up, beside in reversed(steps):
            x = block(beside + up(interpolate(x, beside.shape[2:])), features)
        found: Tensor = self.last(silu(self.norm(x)))
        return found


def _norm(width: int) -> nn.Module:
    return nn.GroupNorm(gcd(8, width), width)


def start_at_zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def denoiser(
    shape: tuple[int, ...],
    *,
    sigma_data: float = 0.5,
    mean: Channels = (),
    width: int = 64,
    depth: int = 2,
    classes: int = 0,
    levels: tuple[float, ...] = (),
) -> nn.Module:
    """`depth` hidden layers of vectors, or halvings of images; pictures in [0, 1] have mean 0.5.

    `levels` are the least and the largest deviation of noise that it is trained for, and refuses
    others then; none given are all.
    """
    check_sizes(width=width, depth=depth)
    if not 0 < sigma_data < torch.inf:
        raise ValueError(f"sigma_data must be positive and finite, not {sigma_data}")
    check_labels_and_levels(classes, levels)
    made = OfImages if len(shape) == 3 else OfVectors
    network, center = made(shape, width, depth, classes), normalization(shape, mean, ())
    return Denoiser(network, sigma_data, center, classes, levels)


def check_labels_and_levels(classes: int, levels: tuple[float, ...]) -> None:
    if classes < 0:
        raise ValueError(
            f"classes are 0, for a denoiser that takes no labels, or more, not {classes}"
        )
    if levels and not (len(levels) == 2 and 0 < levels[0] <= levels[1] < torch.inf):
        raise ValueError(f"levels are the least and the largest noise, positive, not {levels}")


def examples(shape: tuple[int, ...]) -> list[Options]:
    centered = {"sigma_data": 0.3, "mean": (0.5,) * shape[0]}
    return [{"width": 4}, {"width": 3, "depth": 1, **centered, "classes": 2}]
