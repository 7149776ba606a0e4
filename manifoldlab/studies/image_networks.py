"""Networks of one architecture trained by one objective at several strengths and seeds.

All at once where they can be stacked and that is faster, else one after the other; either way each ends as
it would alone, and a killed run goes on from its checkpoints.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, final

from torch import nn

from manifoldlab.architecture import Architecture
from manifoldlab.descent import Recipe
from manifoldlab.ensembles import stackable, train_ensemble
from manifoldlab.interfaces import Data, Objective
from manifoldlab.schedules import cosine
from manifoldlab.training import Advance, train

LARGE = 1024  # numbers of a picture


@final
@dataclass(frozen=True)
class Course:
    """How each network is trained."""

    epochs: int
    batch_size: int
    lr: float
    device: str = "cpu"


def networks(
    architecture: Architecture,
    objective: Objective,
    data: Data,
    course: Course,
    *,
    strengths: Sequence[float] | None,
    seeds: Sequence[int],
    folder: Path,
    name: str,
    advance: Advance,
) -> list[nn.Module]:
    """Strengths by seeds, seeds fastest; without strengths a row of the seeds."""
    each = [None] if strengths is None else list(strengths)
    models = [architecture.build(seed).to(course.device) for _ in each for seed in seeds]
    pairs = [(strength, seed) for strength in each for seed in seeds]
    bind: Callable[..., Objective] = partial  # the protocol does not name the option
    if stackable(models[0]) and _faster(models[0], prod(data.shape), course.device):
        _together(models, objective, data, course, pairs, folder / f"{name}.safetensors", advance)
        return models
    for k, (model, (strength, seed)) in enumerate(zip(models, pairs, strict=True)):
        train(
            model,
            objective if strength is None else bind(objective, strength=strength),
            data,
            seed=seed,
            checkpoint=folder / f"{name}_{k}.safetensors",
            advance=partial(_part, advance, k, len(models)),
            **_recipe(course, stacked=False),
        )
    return models


def _faster(model: nn.Module, size: int, device: str) -> bool:
    """Stacked convolutions of larger pictures leave the caches of a CPU: at 24 networks of width 16 on
    3 x 32 x 32, a step of an image takes 0.9 ms stacked and 0.4 ms alone."""
    convolves = any(isinstance(layer, nn.Conv2d) for layer in model.modules())
    return device != "cpu" or not convolves or size <= LARGE


def _together(
    models: list[nn.Module],
    objective: Objective,
    data: Data,
    course: Course,
    pairs: Sequence[tuple[float | None, int]],
    checkpoint: Path,
    advance: Advance,
) -> None:
    given = [strength for strength, _ in pairs if strength is not None]
    history = train_ensemble(
        models,
        objective,
        data,
        seeds=[seed for _, seed in pairs],
        strengths=given or None,
        checkpoint=checkpoint,
        every=200,
        advance=advance,
        **_recipe(course, stacked=True),
    )
    if history.failed:
        lost = {str(pairs[member]): step for member, step in history.failed.items()}
        raise FloatingPointError(f"networks (strength, seed) not finite from step: {lost}")


def _part(advance: Advance, k: int, count: int, done: float) -> None:
    advance((k + done) / count)


def _recipe(course: Course, *, stacked: bool) -> dict[str, Any]:
    """On a GPU in bfloat16 and channels_last; stacked networks have weights of a dimension more."""
    fast = course.device != "cpu" and not stacked
    return {
        "epochs": course.epochs,
        "batch_size": course.batch_size,
        "lr": course.lr,
        "recipe": Recipe(schedule=cosine, amp=fast, channels_last=fast),
    }
