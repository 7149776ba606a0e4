"""Pictures of a decoder with a few latent coordinates and noise, x = G(z) + tau xi: exact by quadrature.

    log p(x, y) = log int q_y(z) N(x; G(z), tau^2 I) dz

with q_y Gaussians or mixtures of them in the latent space: the problem is that of `quadrature`, which refuses
where halving its panels changes a logit by more than 1e-10 of its scale, on the manifold `decoded`, whose
tangents are exact. The decoder is drawn at random, or that of an autoencoder's checkpoint.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import NamedTuple, final

import torch
from torch import Tensor, nn

from manifoldlab import checkpoints
from manifoldlab.architecture import options_of, restored
from manifoldlab.data.in_memory import fingerprint
from manifoldlab.densities.gaussian_mixtures import GaussianMixtures, random_gaussian_mixtures
from manifoldlab.densities.gaussians import Gaussians, random_gaussians
from manifoldlab.manifolds.decoded import Decoded, Decoder, RandomDecoder
from manifoldlab.models.autoencoder import Autoencoder
from manifoldlab.problems.base import Problem
from manifoldlab.problems.quadrature import Quadrature


@final
@dataclass(frozen=True)
class Trained:
    """The decoder of an `autoencoder` in a checkpoint; other weights than `digest` names are refused.

    A decoder of vectors makes pictures of the shape `picture`, if one is given: in float64 on a CPU
    perceptrons are far quicker than convolutions, and quadrature asks for many thousand pictures.
    """

    path: str
    digest: str = ""
    picture: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        own = self._here().shape
        if self.picture and prod(self.picture) != prod(own):
            raise ValueError(f"the decoder makes {own}, not pictures {self.picture}: {self!r}")

    @property
    def latent(self) -> int:
        return self._here().latent

    @property
    def shape(self) -> tuple[int, ...]:
        return self.picture or self._here().shape

    def __call__(self, z: Tensor) -> Tensor:
        x = self._loaded(z.dtype, z.device).model.decode(z)
        return x.reshape(len(z), *self.shape)

    def named(self) -> "Trained":
        """With the digest of the weights that are in the file now."""
        return replace(self, digest=self._here().digest)

    def _here(self) -> "Loaded":
        return self._loaded(torch.float64, torch.device("cpu"))

    def _loaded(self, dtype: torch.dtype, device: torch.device) -> "Loaded":
        found = _loaded(self.path, checkpoints.written(Path(self.path)), dtype, device)
        if self.digest not in ("", found.digest):
            raise ValueError(f"the decoder in {self.path} has the digest {found.digest}: {self!r}")
        return found


@final
class Swish(nn.Module):
    """nn.SiLU, whose backward pass of its own has no forward derivative (torch 2.13): curvatures need it."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x.sigmoid()


def _twice_differentiable(model: nn.Module) -> None:
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.SiLU):
                setattr(parent, name, Swish())


class Loaded(NamedTuple):
    model: Autoencoder
    shape: tuple[int, ...]  # of a picture
    latent: int
    digest: str  # of the decoder's weights, as they lie in the file


@lru_cache(maxsize=8)
def _loaded(path: str, written: int, dtype: torch.dtype, device: torch.device) -> Loaded:
    """In another dtype than it was trained in: quadrature is in float64."""
    del written  # a key of the cache
    architecture, model, _ = restored(Path(path))
    if not isinstance(model, Autoencoder):
        raise ValueError(f"a decoder is an autoencoder's, not of the {architecture.name} in {path}")
    digest = fingerprint(*model.decoder.state_dict().values())
    options = options_of(architecture.name) | dict(architecture.options)
    _twice_differentiable(model)
    return Loaded(
        model.requires_grad_(False).to(device, dtype), architecture.shape, options["latent"], digest
    )


def decoded(
    decoder: Decoder,
    densities: Gaussians | GaussianMixtures,
    noise: float,
    *,
    extent: float = 4.0,
) -> Quadrature:
    return Quadrature(Decoded(decoder, extent), densities, noise)


def examples(seed: int) -> list[Problem]:
    """With noise small beside the reach, 0.7 or more: samples have a nearest point."""
    line, plane = (RandomDecoder((1, 3, 3), latent, seed) for latent in (1, 2))
    return [
        decoded(line, random_gaussian_mixtures(1, (2, 1, 3)[: 2 + seed % 2], seed), 0.1),
        decoded(plane, random_gaussians(2, 2, seed), 0.1),
    ]
