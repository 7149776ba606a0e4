"""DDPM++ (Song et al. 2021), as EDM trained it on CIFAR-10 (Karras et al. 2022, Table 7): the network of
a `Denoiser`, with the parameter names of the published weights. What the names and shapes of weights do
not tell (scales, the order within a block) was read in NVlabs/edm, none of whose text is here.

A residual block is

    x -> (skip(x) + conv1(silu(norm1(conv0(silu(norm0(x))) + affine(e))))) / 2^(1/2),

with attention behind it at some heights, likewise divided by 2^(1/2); e is made of the noise level and
the label. Pictures are halved by means of 2 x 2 pixels and doubled by repeating them; on the way up each
block also sees what one on the way down made. Without dropout, and without the labels of augmentation.

Weights know pictures in [-1, 1] and the deviation 0.5. Here pictures are in [0, 1]: with sigma_data 0.25
and mean 0.5 the preconditioning is the same but for c_noise, to which ln(2) / 4 is added.
"""

from collections.abc import Callable
from math import log, sqrt
from typing import NamedTuple, final

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, silu

from manifoldlab.models.base import Options, check_image, check_sizes, normalization
from manifoldlab.models.denoiser import Denoiser, check_labels_and_levels, start_at_zero

SIGMA_DATA, MEAN = 0.25, 0.5
SHIFT = log(2) / 4  # of c_noise
PERIODS = 10_000  # of the slowest wave of the noise level to the fastest
FEATURES = 4  # times the width, of the vector that noise and label are made into
Resample = Callable[[Tensor], Tensor]


def halved(x: Tensor) -> Tensor:
    return avg_pool2d(x, 2)


def doubled(x: Tensor) -> Tensor:
    return interpolate(x, scale_factor=2)


def kept(x: Tensor) -> Tensor:
    return x


@final
class Block(nn.Module):
    def __init__(
        self,
        given: int,
        made: int,
        features: int,
        attends: bool = False,
        resample: Resample = kept,
    ):
        super().__init__()
        self.resample, self.attends = resample, attends
        self.norm0, self.conv0 = _norm(given), _conv(given, made)
        self.affine = nn.Linear(features, made)
        self.norm1, self.conv1 = _norm(made), _conv(made, made)
        plain = given == made and resample is kept
        self.skip = nn.Identity() if plain else _conv(given, made, 1)
        if attends:
            self.norm2, self.qkv, self.proj = (
                _norm(made),
                _conv(made, 3 * made, 1),
                _conv(made, made, 1),
            )

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        inside = self.conv0(self.resample(silu(self.norm0(x))))
        inside = silu(self.norm1(inside + self.affine(features)[:, :, None, None]))
        out: Tensor = (self.skip(self.resample(x)) + self.conv1(inside)) / sqrt(2)
        return (out + self._attended(out)) / sqrt(2) if self.attends else out

    def _attended(self, x: Tensor) -> Tensor:
        """Each place asks all others, with one head."""
        triples = self.qkv(self.norm2(x)).reshape(len(x), x.shape[1], 3, -1)  # (n, C, 3, places)
        query, key, value = triples.unbind(2)
        share = (query.mT @ key / sqrt(x.shape[1])).softmax(2)  # (n, places, places asked)
        found: Tensor = self.proj((value @ share.mT).reshape(x.shape))
        return found


class Level(NamedTuple):
    size: str  # as names have it: 16x16
    width: int
    attends: bool


@final
class SongUNet(nn.Module):
    def __init__(
        self,
        channels: int,
        width: int,
        levels: list[Level],
        blocks: int,
        classes: int,
        shift: float,
    ):
        super().__init__()
        features, self.width, self.shift = FEATURES * width, width, shift
        self.map_label = nn.Linear(classes, width) if classes else None
        self.map_layer0, self.map_layer1 = nn.Linear(width, features), nn.Linear(features, features)
        self.enc, made = _down(channels, width, levels, blocks)
        self.dec = _up(features, levels, blocks, made)
        first, last = levels[0].size, _conv(levels[0].width, channels)
        start_at_zero(last)
        self.dec[f"{first}_aux_norm"], self.dec[f"{first}_aux_conv"] = _norm(levels[0].width), last

    def forward(self, x: Tensor, noise: Tensor, label: Tensor) -> Tensor:
        features, seen = self._features(noise, label), []
        for block in self.enc.values():
            x = block(x, features) if isinstance(block, Block) else block(x)
            seen.append(x)
        *blocks, (_, norm), (_, last) = self.dec.items()
        for name, block in blocks:
            x = block(torch.cat([x, seen.pop()], 1) if "_block" in name else x, features)
        found: Tensor = last(silu(norm(x)))
        return found

    def _features(self, noise: Tensor, label: Tensor) -> Tensor:
        half = self.width // 2
        share = torch.arange(half, device=noise.device, dtype=noise.dtype) / (half - 1)
        turns = (noise + self.shift)[:, None] * (1 / PERIODS) ** share
        found = torch.cat([turns.sin(), turns.cos()], 1)
        if self.map_label is not None:
            found = found + self.map_label(label * sqrt(label.shape[1]))
        out: Tensor = silu(self.map_layer1(silu(self.map_layer0(found))))
        return out


def _down(
    channels: int, width: int, levels: list[Level], blocks: int
) -> tuple[nn.ModuleDict, list[int]]:
    """And the widths of what each of its modules makes."""
    features, made = FEATURES * width, [width]
    found = nn.ModuleDict({f"{levels[0].size}_conv": _conv(channels, width)})
    for i, level in enumerate(levels):
        if i > 0:
            found[f"{level.size}_down"] = Block(made[-1], made[-1], features, resample=halved)
            made.append(made[-1])
        for j in range(blocks):
            found[f"{level.size}_block{j}"] = Block(made[-1], level.width, features, level.attends)
            made.append(level.width)
    return found, made


def _up(features: int, levels: list[Level], blocks: int, made: list[int]) -> nn.ModuleDict:
    now, size = made[-1], levels[-1].size
    found = nn.ModuleDict({f"{size}_in0": Block(now, now, features, attends=True)})
    found[f"{size}_in1"] = Block(now, now, features)
    for i, level in reversed(list(enumerate(levels))):
        if i < len(levels) - 1:
            found[f"{level.size}_up"] = Block(now, now, features, resample=doubled)
        for j in range(blocks + 1):
            attends = level.attends and j == blocks
            block = Block(now + made.pop(), level.width, features, attends)
            found[f"{level.size}_block{j}"], now = block, level.width
    return found


def _norm(channels: int) -> nn.Module:
    return nn.GroupNorm(min(32, channels // 4), channels, eps=1e-6)


def _conv(given: int, made: int, size: int = 3) -> nn.Conv2d:
    return nn.Conv2d(given, made, size, padding=size // 2)


def song_unet(
    shape: tuple[int, ...],
    *,
    width: int = 128,
    multipliers: tuple[int, ...] = (2, 2, 2),
    blocks: int = 4,
    attention: tuple[int, ...] = (16,),
    classes: int = 0,
    levels: tuple[float, ...] = (),
) -> nn.Module:
    """The published one by default; `attention` are the heights with it, `multipliers` of the width are
    one a height, from the top, each half of the one before."""
    check_image(shape, "song_unet")
    check_sizes(
        width=width, blocks=blocks, **{"the smallest multiplier": min(multipliers, default=0)}
    )
    check_labels_and_levels(classes, levels)
    halvings = 2 ** (len(multipliers) - 1)
    if width % 8 or shape[1] % halvings or shape[2] % halvings:
        raise ValueError(
            f"a song_unet of {len(multipliers)} heights takes sides that are multiples of {halvings}, "
            f"and a width that is one of 8, not shape {shape} and width {width}"
        )
    sizes = [(shape[1] >> i, shape[2] >> i) for i in range(len(multipliers))]
    rows = [
        Level(f"{high}x{wide}", width * many, high in attention)
        for (high, wide), many in zip(sizes, multipliers, strict=True)
    ]
    network = SongUNet(shape[0], width, rows, blocks, classes, SHIFT)
    center = normalization(shape, (MEAN,) * shape[0], ())
    return Denoiser(network, SIGMA_DATA, center, classes, levels)


def examples(shape: tuple[int, ...]) -> list[Options]:
    if len(shape) != 3:
        return []
    one = {"width": 8, "multipliers": (1,), "blocks": 1, "attention": (shape[1],), "classes": 2}
    two = {"width": 8, "multipliers": (1, 2), "blocks": 1, "attention": ()}
    return [two, one] if shape[1] % 2 == shape[2] % 2 == 0 else [one]
