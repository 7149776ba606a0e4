r"""Gradients of robust networks look like the score of the data (Srinivas et al. 2023, Figure 1): do they?

Claim: the input gradient of a robust network is like the score of the image's class, that of a standard
network is not, and that of an excessively robust network is less so again. Networks of several seeds are
trained by cross-entropy, and by one objective at two strengths that are given, not chosen by what they
show. The score is that of a denoiser trained on the same images, (D(x, sigma, y) - x) / sigma^2 at the
noise level `sigma`; gradients are of the label's logit. Of all test images their cosine is measured,
and of the first image of each of the first classes the fields themselves are kept as pictures.
"""

from dataclasses import asdict, dataclass
from functools import partial
from math import prod
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from manifoldlab.architecture import Architecture
from manifoldlab.comparison import Metric, at_least, measured
from manifoldlab.data.base import load
from manifoldlab.data.subset import subset
from manifoldlab.evaluation import evaluate
from manifoldlab.geometries import Everything
from manifoldlab.gradients import input_gradient, logit
from manifoldlab.interfaces import Batch, Data
from manifoldlab.probes.score_alignment import score_alignment
from manifoldlab.records import Outcome, Progress
from manifoldlab.scores.denoised import denoised
from manifoldlab.studies import robust_networks
from manifoldlab.studies.image_networks import Course
from manifoldlab.studies.prepared import denoiser
from manifoldlab.studies.together import answers, together
from manifoldlab.studies.trained_denoiser import Schooling

KINDS = ("standard", "robust", "excessive")


@dataclass(frozen=True)
class Config:
    data: str = "digits"
    """A data set of the catalog: digits, mnist, cifar10, ..."""
    root: str = ""
    """Its folder; by default that of MANIFOLDLAB_DATA."""
    objective: str = "adversarial"
    """Of module image_trainings, but for those that need tangent spaces."""
    strength: float = 0.5
    """Of the robust networks."""
    excess: float = 3.0
    """Of the excessively robust ones."""
    shown: int = 5
    """Images that are shown, one a class."""
    seeds: int = 5
    seed: int = 0
    """The first of them, whose networks' gradients are shown."""
    samples: int = 0
    """Images to train on; 0 for all there are."""
    held_out: int = 1000
    """Test images that are measured."""
    network: str = "small_cnn"
    width: int = 16
    epochs: int = 60
    batch_size: int = 32
    lr: float = 3e-3
    steps: int = 10
    """Of attacks in training."""
    radius: float = 0.5
    """Of the l2 attacks whose weight is the strength."""
    sigma: float = 0.25
    """Noise level of the score, pixels in [0, 1]: published as 0.5 of pixels in [-1, 1]."""
    denoiser_epochs: int = 100
    denoiser_width: int = 32
    device: str = "cpu"

    def __post_init__(self) -> None:
        robust_networks.check_numbers(asdict(self), LEAST, ("lr", "radius", "sigma"))
        robust_networks.check(self.objective, self.strengths)

    @property
    def strengths(self) -> tuple[float, float]:
        return self.strength, self.excess


LEAST = {
    "shown": 1,
    "seeds": 2,
    "seed": 0,
    "samples": 0,
    "held_out": 1,
    "width": 1,
    "epochs": 1,
    "batch_size": 1,
    "steps": 1,
    "denoiser_epochs": 1,
    "denoiser_width": 1,
}
FAST = Config(seeds=3, width=8, epochs=40, steps=3, denoiser_epochs=30)


def main(config: Config, progress: Progress) -> Outcome:
    study = Study(config, progress)
    found = {
        kind: study.read(models)
        for kind, models in zip(KINDS, study.networks().values(), strict=True)
    }
    arrays = {f"{kind}_{name}": v for kind, fields in found.items() for name, v in fields.items()}
    progress(1.0, "done")
    return Outcome(claims(arrays), study.pictures | arrays)


def claims(arrays: dict[str, Any]) -> dict[str, Metric]:
    """Of KIND_cosine and KIND_right (seeds, images); networks of one seed are compared."""
    cosine = {kind: arrays[f"{kind}_cosine"].mean(1) for kind in KINDS}
    found = {f"{kind} score": measured(cosine[kind]) for kind in KINDS}
    found |= {f"{kind} accuracy": measured(arrays[f"{kind}_right"].mean(1)) for kind in KINDS}
    return found | {
        "robust score, gained": at_least(cosine["robust"] - cosine["standard"], 0.0),
        "excessive score, lost": at_least(cosine["robust"] - cosine["excessive"], 0.0),
    }


@final
class Study:
    """Data, score and networks of one configuration."""

    def __init__(self, config: Config, progress: Progress):
        self.config, self.progress = config, progress
        get = partial(load, config.data, root=config.root, device=config.device)
        self.train: Data = get(train=True)
        if config.samples:
            self.train = subset(self.train, config.samples)
        tests = subset(get(train=False), config.held_out)
        self.batch = robust_networks.indexed(tests, config.held_out)
        self.rows = shown(self.batch.y, config.shown)
        self.score = self._score()
        self.pictures: dict[str, Any] = {
            "image": _array(self.batch.x[self.rows]),
            "label": self.batch.y[self.rows].cpu().numpy(),
            "classes": np.array(self.train.classes),
            "score": _array(self.score[self.rows]),
        }

    def networks(self) -> dict[float, list[nn.Module]]:
        config = self.config
        return robust_networks.by_strength(
            Architecture(
                config.network, self.train.shape, self.train.num_classes, {"width": config.width}
            ),
            config.objective,
            self.train,
            Course(config.epochs, config.batch_size, config.lr, config.device),
            strengths=config.strengths,
            seeds=[config.seed + k for k in range(config.seeds)],
            steps=config.steps,
            radius=config.radius,
            folder=self.progress.folder,
            advance=lambda done: self.progress(0.3 + 0.65 * done, "networks"),
        )

    def read(self, models: list[nn.Module]) -> dict[str, Any]:
        """Of each image the cosine and whether it is classified, (seeds, images); gradients of the first
        network at the images that are shown."""
        reference = lambda batch: self.score[batch.index]
        probe = together(
            {
                "score": partial(score_alignment, reference=reference, head=logit),
                "answers": answers,
            }
        )
        whole, batches = Everything(prod(self.train.shape)), robust_networks.parts(self.batch)
        found = [evaluate(probe, model, batches, whole) for model in models]
        here = Batch(self.batch.x[self.rows], self.batch.y[self.rows])
        return {
            "cosine": np.stack([_array(one.score_cosine) for one in found]),
            "right": np.stack([_array(one.answers_right) for one in found]),
            "gradient": _array(input_gradient(models[0], here.x, here.y, logit)),
        }

    def _score(self) -> Tensor:
        config = self.config
        schooling = Schooling(epochs=config.denoiser_epochs, width=config.denoiser_width)
        told = lambda done: self.progress(0.3 * done, "denoiser")
        model = denoiser(self.train, schooling, advance=told)
        return denoised(model, sigma=config.sigma, conditional=True)(self.batch)


def shown(y: Tensor, count: int) -> Tensor:
    """Rows of the first image of each of the first classes, in the order of labels."""
    present = torch.unique(y)[:count]
    if len(present) < count:
        raise ValueError(f"{count} images are shown, one a class, of {len(present)} classes")
    return torch.stack([(y == label).nonzero()[0, 0] for label in present])


def _array(values: Tensor) -> Any:
    return values.detach().cpu().numpy().astype(np.float32)
