"""An autoencoder of any data, trained on the mean square of x - decode(encode(x)), kept as a checkpoint."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast, final

from torch import Tensor, nn

from manifoldlab import checkpoints, linalg, schedules
from manifoldlab.architecture import KEY, Architecture, restored
from manifoldlab.descent import Recipe
from manifoldlab.interfaces import Batch, Data, Source
from manifoldlab.models.autoencoder import Autoencoder
from manifoldlab.resuming import digest
from manifoldlab.studies.trained_denoiser import moments
from manifoldlab.training import Advance, silent, train

OWN = "autoencoder"  # the key of its facts in a checkpoint


@final
@dataclass(frozen=True)
class Apprenticeship:
    latent: int
    epochs: int = 100
    batch_size: int = 128
    lr: float = 2e-3
    width: int = 128
    depth: int = 2
    seed: int = 0


def reconstruction(model: nn.Module, batch: Batch, generator: Source) -> Tensor:
    """An `Objective`, in units of the number of coordinates."""
    del generator
    left = cast(Tensor, model(batch.x)) - batch.x
    return (linalg.squared_norm(left) / batch.x[0].numel()).mean()


def trained_autoencoder(
    data: Data, plan: Apprenticeship, *, folder: Path, advance: Advance = silent
) -> Autoencoder:
    """Found in the folder if it was trained before, and trained on from where a killed process stopped."""
    found = moments(data)
    channels = data.shape[0]
    options = {
        "latent": plan.latent,
        "width": plan.width,
        "depth": plan.depth,
        "mean": found.mean,
        "deviation": (found.deviation,) * channels,
    }
    case = Architecture("autoencoder", data.shape, None, options)
    own = {"plan": asdict(plan), "data": data.fingerprint or digest(found.first)}
    facts = {KEY: case.facts(), OWN: json.loads(json.dumps(own))}
    kept = folder / "autoencoder.safetensors"
    if kept.exists():
        there = restored(kept)
        if there.facts != facts:
            raise ValueError(f"{kept} is an autoencoder of {there.facts.get(OWN)}, not of {own}")
        model = there.model
    else:
        model = case.build(plan.seed).to(found.first)
        train(
            model,
            reconstruction,
            data,
            epochs=plan.epochs,
            batch_size=plan.batch_size,
            lr=plan.lr,
            seed=plan.seed,
            recipe=Recipe(schedule=schedules.cosine, clip=1.0),
            checkpoint=folder / "training.safetensors",
            advance=advance,
        )
        checkpoints.save(kept, model.state_dict(), facts)
    return cast(Autoencoder, model.to(found.first).eval())
