"""A denoiser with the preconditioning of EDM (Karras et al. 2022, Table 1 and eq. 7).

    D(x, s) = m + c_skip(s) (x - m) + c_out(s) F(c_in(s) (x - m), c_noise(s)),
    c_skip = d^2 / (s^2 + d^2),  c_out = s d / sqrt(s^2 + d^2),
    c_in = 1 / sqrt(s^2 + d^2),  c_noise = log(s) / 4,

with s the deviation of the noise, d that of the data about m. F starts at zero, where D is exact for
data N(m, d^2 I). The score of the noisy data is (D(x, s) - x) / s^2.
"""

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
    def __init__(self, network: nn.Module, sigma_data: float, center: Normalize):
        super().__init__()
        self.network, self.sigma_data, self.center = network, sigma_data, center

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """x (n, *shape) with noise of deviation sigma, a number or one a sample (n,) -> E[clean | x]"""
        if not isinstance(sigma, Tensor):
            if not 0 < sigma < torch.inf:
                raise ValueError(f"noise must have a positive and finite deviation, not {sigma}")
            sigma = x.new_full((len(x),), sigma)
        skip, out, into, noise = preconditioning(sigma.to(x), self.sigma_data)
        wide = (-1, *[1] * (x.ndim - 1))
        centered = self.center(x)
        found = self.network(into.reshape(wide) * centered, _features(noise))
        return self.center.inverse(skip.reshape(wide) * centered + out.reshape(wide) * found)


def _features(noise: Tensor) -> Tensor:
    """(n,) -> (n, 2 OCTAVES + 1)"""
    turns = noise[:, None] * 2 ** torch.arange(OCTAVES, device=noise.device)
    return torch.cat([noise[:, None], turns.sin(), turns.cos()], 1)


@final
class OfVectors(nn.Module):
    def __init__(self, shape: tuple[int, ...], width: int, depth: int):
        super().__init__()
        size = prod(shape)
        sizes = (size + 2 * OCTAVES + 1, *[width] * depth, size)
        self.layers = nn.Sequential(*perceptron(sizes, nn.SiLU))
        _start_at_zero(self.layers[-1])

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        found: Tensor = self.layers(torch.cat([x.flatten(1), noise], 1))
        return found.reshape(x.shape)


@final
class Block(nn.Module):
    """x + convolutions of it, shifted by the noise."""

    def __init__(self, width: int):
        super().__init__()
        self.norm1, self.norm2 = _norm(width), _norm(width)
        self.conv1, self.conv2 = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.shift = nn.Linear(2 * OCTAVES + 1, width)

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        inside = self.conv1(silu(self.norm1(x))) + self.shift(noise)[:, :, None, None]
        out: Tensor = x + self.conv2(silu(self.norm2(inside)))
        return out


@final
class OfImages(nn.Module):
    """A block at each size of the picture on the way down, and one on the way up beside it."""

    def __init__(self, shape: tuple[int, ...], width: int, depth: int):
        super().__init__()
        widths = [width << level for level in range(depth)]
        self.stem = nn.Conv2d(shape[0], width, 3, padding=1)
        self.before, self.after = (nn.ModuleList(map(Block, widths)) for _ in range(2))
        self.down = nn.ModuleList(nn.Conv2d(w, 2 * w, 3, 2, padding=1) for w in widths)
        self.middle = Block(width << depth)
        self.up = nn.ModuleList(nn.Conv2d(2 * w, w, 3, padding=1) for w in widths)
        self.norm, self.last = _norm(width), nn.Conv2d(width, shape[0], 3, padding=1)
        _start_at_zero(self.last)

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        x, seen = self.stem(x), []
        for block, down in zip(self.before, self.down, strict=True):
            seen.append(block(x, noise))
            x = down(seen[-1])
        x = self.middle(x, noise)
        steps = list(zip(self.after, self.up, seen, strict=True))
        for block, up, beside in reversed(steps):
            x = block(beside + up(interpolate(x, beside.shape[2:])), noise)
        found: Tensor = self.last(silu(self.norm(x)))
        return found


def _norm(width: int) -> nn.Module:
    return nn.GroupNorm(gcd(8, width), width)


def _start_at_zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def denoiser(
    shape: tuple[int, ...],
    *,
    sigma_data: float = 0.5,
    mean: Channels = (),
    width: int = 64,
    depth: int = 2,
) -> nn.Module:
    """`depth` hidden layers of vectors, or halvings of images; pictures in [0, 1] have mean 0.5."""
    check_sizes(width=width, depth=depth)
    if not 0 < sigma_data < torch.inf:
        raise ValueError(f"sigma_data must be positive and finite, not {sigma_data}")
    network = OfImages if len(shape) == 3 else OfVectors
    return Denoiser(network(shape, width, depth), sigma_data, normalization(shape, mean, ()))


def examples(shape: tuple[int, ...]) -> list[Options]:
    return [{"width": 4}, {"width": 3, "depth": 1, "sigma_data": 0.3, "mean": (0.5,) * shape[0]}]
