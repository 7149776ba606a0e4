"""The score by a denoiser: s(x) = (D(x, sigma) - x) / sigma^2 (law C2), at a stated noise level.

It is the score of the data with noise sigma added, of all or of those of the label's class, where D is
the mean of the clean data given the noisy. x itself is taken for the noisy point, as published
(Srinivas et al. 2023), though it has no noise of that size; with `draws` the field is the mean over
fresh noise, E s(x + sigma u), instead.
"""

from typing import Protocol

import torch
from torch import Tensor

from manifoldlab.interfaces import Batch, Reference


class Denoises(Protocol):
    """E[clean | x, y], without y of all classes: a network, or the truth."""

    def __call__(self, x: Tensor, sigma: float, y: Tensor | None = None) -> Tensor: ...


def denoised(
    model: Denoises,
    *,
    sigma: float,
    conditional: bool = False,
    draws: int = 0,
    seed: int = 0,
    chunk: int = 1024,
) -> Reference:
    """`sigma` is in units of x, `conditional` on batch.y; `chunk` bounds the points in one pass."""
    if not 0 < sigma < torch.inf:
        raise ValueError(f"the noise level of a score is positive and finite, not {sigma}")
    if draws < 0 or chunk < 1:
        raise ValueError(
            f"draws of noise are 0 or more, a chunk 1 or more, not {draws} and {chunk}"
        )

    @torch.no_grad()
    def score(batch: Batch) -> Tensor:
        x, y = batch.x, batch.y if conditional else None
        points = _points(x, sigma, draws, seed)  # (m, n, *shape)
        rows = torch.arange(len(x), device=x.device).repeat(len(points))
        fields = []
        for at, of in zip(
            torch.split(points.flatten(0, 1), chunk), torch.split(rows, chunk), strict=True
        ):
            clean = model(at, sigma, None if y is None else y[of])
            fields.append((clean - at) / sigma**2)
        return torch.cat(fields).reshape(points.shape).mean(0)

    return score


def _points(x: Tensor, sigma: float, draws: int, seed: int) -> Tensor:
    """Noise is drawn on the CPU, so that every device sees the same."""
    if not draws:
        return x[None]
    generator = torch.Generator().manual_seed(seed)
    return x + sigma * torch.randn((draws, *x.shape), generator=generator).to(x)
