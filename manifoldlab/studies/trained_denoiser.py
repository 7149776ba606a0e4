"""A denoiser of any data: sized by their moments, trained once, kept as a checkpoint.

The network is centred at the mean and scaled by the deviation d of the data; ln sigma of its noise is
drawn from N(ln (ratio d), spread^2), as published by EDM (Karras et al. 2022) in units of d, and it may
be asked for levels within two deviations of that median: 95 % of those that it has seen.
"""

import json
from dataclasses import asdict, dataclass
from functools import partial
from math import exp, sqrt
from pathlib import Path
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from manifoldlab import checkpoints, schedules
from manifoldlab.architecture import KEY, Architecture, restored
from manifoldlab.denoising import MEDIAN, SPREAD, denoising
from manifoldlab.descent import Recipe
from manifoldlab.interfaces import Data
from manifoldlab.models.denoiser import Denoiser
from manifoldlab.resuming import digest
from manifoldlab.training import Advance, silent, train

RANGE = 2.0  # deviations of ln sigma, on either side of the median
OWN = "denoiser"  # the key of its facts in a checkpoint


@final
@dataclass(frozen=True)
class Schooling:
    epochs: int = 100
    batch_size: int = 256
    lr: float = 2e-3
    width: int = 64
    depth: int = 2
    conditional: bool = True
    """Takes labels, of which the share `dropped` is not told: it gives both kinds of score."""
    dropped: float = 0.5  # of digits, both are as good then; 0.1, as for guidance, favours one
    ratio: float = 2 * MEDIAN  # EDM's sigma_data is one half
    """The median of the noise levels in units of the deviation of the data."""
    spread: float = SPREAD
    """The deviation of the logarithm of noise levels."""
    sigma: float = 0.0
    """The only noise level, in units of the data, instead; 0 for many."""
    memory: float = 0.05
    """The share of all steps over which the parameters are averaged in the end."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.sigma < torch.inf:
            raise ValueError(f"sigma is 0, for many noise levels, or one of them, not {self.sigma}")
        if not 0 < self.memory <= 1:
            raise ValueError(f"memory is a share of all steps in (0, 1], not {self.memory}")


class Moments(NamedTuple):
    samples: int
    mean: tuple[float, ...]  # of a channel, or a coordinate of vectors
    deviation: float  # root mean square of all coordinates about it
    first: Tensor  # samples of the first batch


def moments(data: Data) -> Moments:
    count, total, square, first = 0, torch.zeros(()), torch.zeros(()), None
    for batch in data.batches(1024, None):
        first = batch.x if first is None else first
        values = batch.x.double().reshape(len(batch.x), data.shape[0], -1)  # (n, C, the rest)
        total, square = total + values.sum(0).mean(1).cpu(), square + values.square().sum().cpu()
        count += len(values)
    if first is None:
        raise ValueError("no samples to train a denoiser on")
    mean = total / count
    variance = square.item() / (count * first[0].numel()) - mean.square().mean().item()
    if not variance > 1e-12 * mean.square().mean().item():
        raise ValueError(
            f"all samples of shape {data.shape} are the same: there is nothing to denoise"
        )
    return Moments(count, tuple(mean.tolist()), sqrt(variance), first)


def trained_denoiser(
    data: Data, schooling: Schooling, *, folder: Path, advance: Advance = silent
) -> Denoiser:
    """On the device and in the dtype of the data; found in the folder if it was trained before, and
    trained on from where a killed process stopped."""
    found = moments(data)
    case = _architecture(data, schooling, found)
    own = {"schooling": asdict(schooling), "data": data.fingerprint or digest(found.first)}
    facts: dict[str, Any] = {KEY: case.facts(), OWN: json.loads(json.dumps(own))}
    kept = folder / "denoiser.safetensors"
    if kept.exists():
        model = _kept(kept, facts)
    else:
        model = case.build(schooling.seed)
        _train(model.to(found.first), data, schooling, found, folder, advance)
        checkpoints.save(kept, model.state_dict(), facts)
    assert isinstance(model, Denoiser)
    return model.to(found.first).eval()


def _architecture(data: Data, schooling: Schooling, found: Moments) -> Architecture:
    median, reach = schooling.ratio * found.deviation, exp(RANGE * schooling.spread)
    levels = (
        (schooling.sigma, schooling.sigma) if schooling.sigma else (median / reach, median * reach)
    )
    options = {
        "sigma_data": found.deviation,
        "mean": found.mean,
        "width": schooling.width,
        "depth": schooling.depth,
        "classes": data.num_classes if schooling.conditional else 0,
        "levels": levels,
    }
    return Architecture("denoiser", data.shape, None, options)


def _kept(path: Path, facts: dict[str, Any]) -> torch.nn.Module:
    there = restored(path)
    if there.facts != facts:
        wrong = next(k for k in (OWN, KEY) if there.facts.get(k) != facts[k])
        raise ValueError(
            f"{path} is a denoiser of other data or training: {wrong} is {there.facts.get(wrong)} "
            f"there, {facts[wrong]} here"
        )
    return there.model


def _train(
    model: torch.nn.Module,
    data: Data,
    schooling: Schooling,
    found: Moments,
    folder: Path,
    advance: Advance,
) -> None:
    steps = schooling.epochs * -(-found.samples // schooling.batch_size)
    median, spread = schooling.ratio * found.deviation, schooling.spread
    if schooling.sigma:
        median, spread = schooling.sigma, 0.0
    train(
        model,
        partial(denoising, median=median, spread=spread, dropped=schooling.dropped),
        data,
        epochs=schooling.epochs,
        batch_size=schooling.batch_size,
        lr=schooling.lr,
        seed=schooling.seed,
        recipe=Recipe(
            schedule=schedules.cosine, clip=1.0, ema=1 - 1 / max(1.0, schooling.memory * steps)
        ),
        checkpoint=folder / "training.safetensors",
        advance=advance,
    )
