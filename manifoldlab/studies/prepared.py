"""Networks of data sets, each trained once and kept in the cache for all runs."""

from dataclasses import asdict

from torch import nn

from manifoldlab import checkpoints
from manifoldlab.architecture import KEY, Architecture, restored
from manifoldlab.interfaces import Data, Objective
from manifoldlab.models.autoencoder import Autoencoder
from manifoldlab.models.denoiser import Denoiser
from manifoldlab.resuming import described
from manifoldlab.studies import cache
from manifoldlab.studies.image_networks import Course, networks
from manifoldlab.studies.trained_autoencoder import Apprenticeship, trained_autoencoder
from manifoldlab.studies.trained_denoiser import Schooling, trained_denoiser
from manifoldlab.training import Advance, silent


def denoiser(data: Data, schooling: Schooling, *, advance: Advance = silent) -> Denoiser:
    facts = {"data": data.fingerprint, **asdict(schooling)}
    with cache.place("denoiser", facts) as folder:
        return trained_denoiser(data, schooling, folder=folder, advance=advance)


def autoencoder(data: Data, plan: Apprenticeship, *, advance: Advance = silent) -> Autoencoder:
    facts = {"data": data.fingerprint, **asdict(plan)}
    with cache.place("autoencoder", facts) as folder:
        return trained_autoencoder(data, plan, folder=folder, advance=advance)


def classifier(
    case: Architecture,
    objective: Objective,
    data: Data,
    course: Course,
    *,
    seed: int,
    advance: Advance = silent,
) -> nn.Module:
    facts = {
        "data": data.fingerprint,
        "architecture": case.facts(),
        "objective": described(objective),
        "course": asdict(course),
        "seed": seed,
    }
    with cache.place("classifier", facts) as folder:
        kept = folder / "classifier.safetensors"
        if kept.exists():
            return restored(kept).model.to(course.device)
        (model,) = networks(
            case,
            objective,
            data,
            course,
            strengths=None,
            seeds=[seed],
            folder=folder,
            name="training",
            advance=advance,
        )
        checkpoints.save(kept, model.state_dict(), {KEY: case.facts()})
        return model.eval()
