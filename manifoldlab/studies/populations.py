"""Populations: what an experiment compares, an ensemble of networks for each of several objectives.

They are in float64, as their data: what rounding does to float32 is seen in what an attack overshoots.
"""

from collections.abc import Mapping, Sequence
from functools import partial

from torch import nn

from manifoldlab.architecture import Architecture
from manifoldlab.ensembles import train_ensemble
from manifoldlab.interfaces import Data, Objective
from manifoldlab.records import Progress


def populations(
    objectives: Mapping[str, Objective],
    architecture: Architecture,
    data: Sequence[Data],
    progress: Progress,
    *,
    seeds: Sequence[int],
    strengths: Sequence[float] | None = None,
    epochs: int,
    batch_size: int,
    lr: float,
    span: tuple[float, float] = (0.0, 1.0),
    where: str = "",
) -> dict[str, list[nn.Module]]:
    """Of each objective a network for each seed, with the strength and the data at its place.

    A run that was killed goes on from its checkpoints, named after `where` too; `span` is the part
    of the run that this is.
    """
    found: dict[str, list[nn.Module]] = {}
    for i, (name, objective) in enumerate(objectives.items()):
        part = (span[1] - span[0]) / len(objectives)
        found[name] = [architecture.build(seed).double() for seed in seeds]
        train_ensemble(
            found[name],
            objective,
            data,
            seeds=seeds,
            strengths=strengths,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            checkpoint=progress.folder / f"{where}{name}.safetensors",
            advance=partial(_told, progress, span[0] + i * part, part, where + name),
        )
    return found


def _told(progress: Progress, start: float, part: float, name: str, done: float) -> None:
    progress(start + part * done, f"trains {name}")
