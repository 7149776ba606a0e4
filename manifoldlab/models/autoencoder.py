"""An encoder and a decoder, x -> z (n, latent) -> x: perceptrons of vectors, convolutions of images.

Smooth, and with no squashing at the end: the columns of the decoder's Jacobian are to span tangent
spaces, and a squashed output has no derivative at black and white.
"""

from math import prod
from typing import final

from torch import Tensor, nn

from manifoldlab.models.base import (
    Channels,
    Normalize,
    Options,
    check_sizes,
    halvings,
    normalization,
    perceptron,
)


@final
class Autoencoder(nn.Module):
    def __init__(self, encoder: nn.Module, decoder: nn.Module, normalize: Normalize):
        super().__init__()
        self.encoder, self.decoder, self.normalize = encoder, decoder, normalize

    def encode(self, x: Tensor) -> Tensor:
        z: Tensor = self.encoder(self.normalize(x))
        return z

    def decode(self, z: Tensor) -> Tensor:
        """In the units of the data."""
        return self.normalize.inverse(self.decoder(z))

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))


def autoencoder(
    shape: tuple[int, ...],
    *,
    latent: int = 8,
    width: int = 128,
    depth: int = 2,
    mean: Channels = (),
    deviation: Channels = (),
) -> nn.Module:
    """`depth` hidden layers on either side; of images each halves the picture, and doubles the width."""
    check_sizes(latent=latent, width=width, depth=depth)
    normalize = normalization(shape, mean, deviation)
    if len(shape) == 3:
        return Autoencoder(*_convolutions(shape, latent, width, depth), normalize)
    sizes = [prod(shape), *[width] * depth, latent]
    decoder = [*perceptron(sizes[::-1], nn.SiLU), nn.Unflatten(1, shape)]
    encoder = nn.Sequential(nn.Flatten(), *perceptron(sizes, nn.SiLU))
    return Autoencoder(encoder, nn.Sequential(*decoder), normalize)


def _convolutions(
    shape: tuple[int, ...], latent: int, width: int, depth: int
) -> tuple[nn.Module, nn.Module]:
    sizes, channels = halvings(shape, depth), [shape[0], *(width << i for i in range(depth))]
    smallest = (channels[-1], *sizes[-1])
    encoder: list[nn.Module] = []
    decoder: list[nn.Module] = [nn.Linear(latent, prod(smallest)), nn.Unflatten(1, smallest)]
    for i in range(depth):
        encoder += [nn.Conv2d(channels[i], channels[i + 1], 3, stride=2, padding=1), nn.SiLU()]
    for i in reversed(range(depth)):
        upwards = nn.Upsample(sizes[i])  # and then a convolution: no checkerboard
        decoder += [nn.SiLU(), upwards, nn.Conv2d(channels[i + 1], channels[i], 3, padding=1)]
    encoder += [nn.Flatten(), nn.Linear(prod(smallest), latent)]
    return nn.Sequential(*encoder), nn.Sequential(*decoder)


def examples(shape: tuple[int, ...]) -> list[Options]:
    normal = {"mean": (0.5,) * shape[0], "deviation": (0.25,) * shape[0]}
    return [{"latent": 2, "width": 4}, {"latent": 3, "width": 3, "depth": 1, **normal}]
