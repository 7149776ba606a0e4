"""The training loss of a denoiser (Karras et al. 2022, section 5): its error, weighed by noise level.

    E (s^2 + d^2) / (s d)^2 |D(x + s u, s) - x|^2 / D,    ln s ~ N(ln median, spread^2),  u ~ N(0, I),

d the model's sigma_data and D the number of coordinates. The weight is 1 / c_out^2: a network that
starts at zero has a loss of 1 a coordinate at every noise level, where d is the deviation of the data.
The minimizer is E[clean | x], and (D(x, s) - x) / s^2 the score of the data with noise s (law C2).

No member of objectives/: those are the losses of classifiers, cross-entropy at strength 0, and tests
and experiments go over all of them. Scores and tangent spaces are both made of denoisers, and below
both is where their loss is.
"""

from math import exp
from typing import cast

import torch
from torch import Tensor, nn

from manifoldlab import draws, linalg
from manifoldlab.interfaces import Batch, Source
from manifoldlab.models.denoiser import NONE, Denoiser

MEDIAN = exp(-1.2)  # as published, for pictures in [-1, 1] and sigma_data 0.5
SPREAD = 1.2


def denoising(
    model: nn.Module,
    batch: Batch,
    generator: Source,
    *,
    median: float = MEDIAN,
    spread: float = SPREAD,
    dropped: float = 0.1,
) -> Tensor:
    """An `Objective`. Spread 0 is one noise level; `dropped` is the share of labels not told."""
    _check(median, spread, dropped)
    classes, sigma_data = _facts(model)
    one = batch.x.flatten(1)[:, 0]
    sigma = median * (spread * draws.normal(one, generator)).exp()
    noisy = batch.x + _wide(sigma, batch.x) * draws.normal(batch.x, generator)
    labels = None
    if classes:
        told = draws.uniform(one, generator) >= dropped
        labels = torch.where(told, batch.y, NONE)
    error = linalg.squared_norm(model(noisy, sigma, labels) - batch.x) / batch.x[0].numel()
    weight = sigma.square().reciprocal() + sigma_data**-2
    return (weight * error).mean()


def _facts(model: nn.Module) -> tuple[int, float]:
    """Not asked by type: a compiled denoiser is of another."""
    own = cast(Denoiser, model)
    try:
        return own.classes, own.sigma_data
    except AttributeError as error:
        name = type(model).__name__
        raise ValueError(f"denoising is the loss of denoisers, not of {name}") from error


def _wide(values: Tensor, x: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (x.ndim - 1))


def _check(median: float, spread: float, dropped: float) -> None:
    if not 0 < median < torch.inf:
        raise ValueError(f"the median of noise levels is positive and finite, not {median}")
    if not 0 <= spread < torch.inf:
        raise ValueError(f"the spread of noise levels is finite and not negative, not {spread}")
    if not 0 <= dropped <= 1:
        raise ValueError(f"the share of dropped labels is in [0, 1], not {dropped}")
