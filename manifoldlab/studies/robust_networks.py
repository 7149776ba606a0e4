"""Standard and robust networks of several seeds on the same images, for what compares a few of them.

Strength 0 is training by cross-entropy. Not by objectives that need tangent spaces: these are a
matter of experiment regimes_on_images.
"""

from collections.abc import Sequence
from math import isfinite, prod
from pathlib import Path

import torch
from torch import nn

from manifoldlab import catalog
from manifoldlab.architecture import Architecture
from manifoldlab.geometries import Everything
from manifoldlab.interfaces import Batch, Data
from manifoldlab.objectives.cross_entropy import cross_entropy
from manifoldlab.studies.image_networks import Course, networks
from manifoldlab.studies.image_trainings import IMAGE_TRAININGS
from manifoldlab.training import Advance

STANDARD = 0.0  # the strength that stands for cross-entropy


def check(objective: str, strengths: Sequence[float]) -> None:
    known = [name for name, training in IMAGE_TRAININGS.items() if not training.tangents]
    if objective not in known:
        raise ValueError(catalog.unknown("objective", objective, known))
    if not strengths or not all(0 < one < torch.inf for one in strengths):
        raise ValueError(f"strengths are one or more, positive and finite, not {strengths}")
    if list(strengths) != sorted(set(strengths)):
        raise ValueError(f"strengths ascend, once each, not {strengths}")


def check_numbers(fields: dict[str, float], least: dict[str, int], positive: Sequence[str]) -> None:
    """Of a configuration, its fields by name."""
    for name, smallest in least.items():
        if fields[name] < smallest:
            raise ValueError(f"{name} must be {smallest} or more, not {fields[name]}")
    for name in positive:
        if not (isfinite(fields[name]) and fields[name] > 0):
            raise ValueError(f"{name} must be positive and finite, not {fields[name]}")


def by_strength(
    architecture: Architecture,
    objective: str,
    data: Data,
    course: Course,
    *,
    strengths: Sequence[float],
    seeds: Sequence[int],
    steps: int,
    radius: float,
    folder: Path,
    advance: Advance,
) -> dict[float, list[nn.Module]]:
    """Of STANDARD and of each strength the networks of all seeds; `steps` and `radius` are of attacks."""
    check(objective, strengths)
    build = IMAGE_TRAININGS[objective].build
    robust = build(Everything(prod(architecture.shape)), steps, radius)
    share = 1 / (1 + (steps + 1) * len(strengths))  # of the passes that all need
    standard = networks(
        architecture,
        cross_entropy,
        data,
        course,
        strengths=None,
        seeds=seeds,
        folder=folder,
        name="cross_entropy",
        advance=lambda done: advance(share * done),
    )
    others = networks(
        architecture,
        robust,
        data,
        course,
        strengths=strengths,
        seeds=seeds,
        folder=folder,
        name=objective,
        advance=lambda done: advance(share + (1 - share) * done),
    )
    rows = [others[k : k + len(seeds)] for k in range(0, len(others), len(seeds))]
    return {STANDARD: standard} | dict(zip(strengths, rows, strict=True))


def indexed(data: Data, held_out: int) -> Batch:
    """The first so many of test images, indexed from 0, on their device."""
    batch = next(data.batches(held_out, None))
    return batch._replace(index=torch.arange(len(batch.y), device=batch.y.device))


def parts(batch: Batch, size: int = 250) -> list[Batch]:
    """The batch in smaller ones, for passes that bound the memory."""
    starts = range(0, len(batch.y), size)
    return [_rows(batch, slice(start, start + size)) for start in starts]


def _rows(batch: Batch, rows: slice) -> Batch:
    index = None if batch.index is None else batch.index[rows]
    region = None if batch.region is None else batch.region[rows]
    return Batch(batch.x[rows], batch.y[rows], index, region)
