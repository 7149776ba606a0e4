r"""The score of a stationary Gaussian with the mean and the cross spectrum of images: no network, any size.

    s(x) = -F* (P(f) + sigma^2 I)^{-1} F (x - m),   P(f) = E F(x - m) F(x - m)*, C x C a frequency f,

F the orthonormal Fourier transform over height and width: the exact score of N(m, circulant P) with noise
sigma added. Of images it has the correlations of pixels and channels and nothing else, and it is of all
classes: where a trained denoiser is at hand, that is the better score.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from manifoldlab.interfaces import Batch, Reference

SPACE = (-2, -1)


class Spectrum(NamedTuple):
    mean: Tensor  # (C,)
    power: Tensor  # (H, W, C, C) complex, Hermitian
    images: int


def spectrum(batches: Iterable[Batch]) -> Spectrum:
    """In one pass, whose memory does not grow with the number of images."""
    total, power, count = torch.zeros(()), torch.zeros(()), 0
    for batch in batches:
        if batch.x.ndim != 4:
            raise ValueError(f"a spectrum is of images (n, C, H, W), not {tuple(batch.x.shape)}")
        x = batch.x.double()
        total = total + x.mean(SPACE).sum(0).cpu()
        f = _transformed(x)
        power = power + torch.einsum("nhwc,nhwd->hwcd", f, f.conj()).cpu()
        count += len(x)
    if not count:
        raise ValueError("no images to take a spectrum of")
    mean, power = total / count, power / count
    pixels = power.shape[0] * power.shape[1]
    power[0, 0] -= pixels * torch.outer(mean, mean)  # E F(x - m) F(x - m)*, for m has f = 0 only
    return Spectrum(mean, power, count)


def stationary(known: Spectrum, *, sigma: float) -> Reference:
    """`sigma` is in units of x."""
    if not 0 < sigma < torch.inf:
        raise ValueError(f"the noise level of a score is positive and finite, not {sigma}")
    noise = sigma**2 * torch.eye(len(known.mean), dtype=known.power.dtype)
    inverse = torch.linalg.inv(known.power + noise)  # (H, W, C, C)

    @torch.no_grad()
    def score(batch: Batch) -> Tensor:
        x = batch.x
        if x.shape[1:] != (len(known.mean), *known.power.shape[:2]):
            size = (len(known.mean), *known.power.shape[:2])
            raise ValueError(f"the spectrum of images {size} for images {tuple(x.shape[1:])}")
        centred = _transformed(x - known.mean.to(x).reshape(-1, 1, 1))
        own = inverse.to(centred)
        field = torch.einsum("hwcd,nhwd->nchw", own, centred)
        found: Tensor = -torch.fft.ifft2(field, dim=SPACE, norm="ortho").real
        return found

    return score


def _transformed(x: Tensor) -> Tensor:
    """(n, C, H, W) -> (n, H, W, C)"""
    f: Tensor = torch.fft.fft2(x, dim=SPACE, norm="ortho")
    return f.permute(0, 2, 3, 1)
