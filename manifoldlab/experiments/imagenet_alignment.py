r"""Gradients of a classifier over a folder of large images, in one pass (Srinivas et al. 2023, Figure 4).

Of each image: whether the network is right; the norm of the gradient of the margin; of the gradient of
`head` its cosine with a score at the noise level `sigma`, and the shares of its energy by octaves of
spatial frequency beside those of the score. The score is that of a denoiser, a checkpoint of this package,
or where none is given that of a stationary Gaussian with the spectrum of the images (scores.stationary),
which is of all classes. Tangent spaces are estimated from a reference set of the training part, if an
estimator is asked for: one image a class has no tangent space to be estimated from.

Nothing is predicted: one network is one network. Memory does not grow with the number of images, which
torchrun shares out batch by batch; the record is that of one process. Means are over images, with 95 %
intervals. Without weights a network is random, and what is measured says nothing but that it can be.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from math import isfinite, prod
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from manifoldlab import catalog
from manifoldlab.architecture import restored
from manifoldlab.comparison import measured
from manifoldlab.data.base import load
from manifoldlab.data.subset import subset
from manifoldlab.evaluation import evaluate
from manifoldlab.frozen import frozen
from manifoldlab.geometries import Everything
from manifoldlab.gradients import HEADS
from manifoldlab.interfaces import Batch, Data, Geometry, Probe, Reference
from manifoldlab.models.denoiser import Denoiser
from manifoldlab.probes.on_off_robustness import on_off_robustness, softmax_change
from manifoldlab.probes.score_alignment import score_alignment
from manifoldlab.probes.spectral_alignment import spectral_alignment
from manifoldlab.probes.tangent_alignment import tangent_alignment
from manifoldlab.records import Outcome, Progress
from manifoldlab.scores.denoised import denoised
from manifoldlab.scores.stationary import spectrum, stationary
from manifoldlab.studies import calibration, estimators, image_models
from manifoldlab.studies.calibration import Facts
from manifoldlab.studies.robust_networks import check_numbers, parts
from manifoldlab.studies.together import answers, together

SAME = 100  # images at most at which spaces by halves of the reference set are compared
PUBLISHED_STEP = 2.64  # of pixels in [0, 1], in D = 3072
OF_TANGENTS = (  # fields that say nothing where every direction is tangent
    "gradient_alignment",
    "gradient_omega",
    "gradient_omega_null",
    "score_tangent_cosine",
    "score_tangent_cosine_null",
    "score_reference_omega",
)
BY_NAME = {head.__name__: head for head in HEADS}


@dataclass(frozen=True)
class Config:
    data: str = "imagenet"
    """A data set of the catalog, of which the test part is measured."""
    root: str = ""
    """Its folder; by default that of MANIFOLDLAB_DATA."""
    images: int = 0
    """So many, drawn by the seed; 0 for all there are, in their order."""
    model: str = "manifoldlab:resnet18"
    """FILE.safetensors, a checkpoint of this package; or manifoldlab:, torchvision: or timm:NAME."""
    weights: str = ""
    """Of a model by its name: a file .safetensors, or .pth of tensors only; none is a random network."""
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    """Of each channel, for models by their name; a checkpoint has its own."""
    deviation: tuple[float, ...] = (0.229, 0.224, 0.225)
    head: str = "logit"
    """Of module gradients: whose gradient is compared with the score."""
    denoiser: str = ""
    """FILE.safetensors of this package; none is the stationary Gaussian."""
    fitted: int = 500
    """Images that the stationary Gaussian has its spectrum of."""
    sigma: float = 0.25
    """Noise level of the score, pixels in [0, 1]: published as 0.5 of pixels in [-1, 1]."""
    estimator: str = ""
    """Of tangent spaces (module estimators); none for none."""
    reference: int = 1000
    """Training images, held in memory, from which it estimates."""
    dim: int = 16
    """Tangent directions."""
    batch_size: int = 16
    seed: int = 0
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the network; gradients and scores are float32."""
    compiled: bool = False
    """Whether torch compiles the network."""
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_numbers(asdict(self), LEAST, ("sigma",))
        image_models.check(self.model, self.weights)
        if self.head not in BY_NAME:
            raise ValueError(catalog.unknown("head", self.head, list(BY_NAME)))
        if self.estimator:
            estimators.check((self.estimator,))
        if not all(isfinite(number) for number in (*self.mean, *self.deviation)):
            raise ValueError(f"means {self.mean} and deviations {self.deviation} are not finite")


LEAST = {"images": 0, "fitted": 1, "reference": 1, "dim": 1, "batch_size": 1, "seed": 0}
FAST = Config(images=32, fitted=32)


def main(config: Config, progress: Progress) -> Outcome:
    study = Study(config, progress)
    start = perf_counter()
    found = evaluate(study.probe(), study.model, study.batches(), study.geometry)
    seconds = perf_counter() - start
    fields = {name: v.float().cpu().numpy() for name, v in found._asdict().items()}
    arrays = {name: v for name, v in fields.items() if config.estimator or name not in OF_TANGENTS}
    progress(1.0, "done")
    if len(found.answers_right) < 2:
        raise ValueError(f"2 images or more have an interval, {config.data} has 1")
    metrics = summed(arrays) | study.rate(len(found.answers_right), seconds)
    return Outcome(metrics | study.calibrated(arrays), arrays)


def summed(arrays: dict[str, Any]) -> dict[str, Any]:
    """Means over images, of a field of several columns by each; nulls are left to the samples."""
    found = dict[str, Any]()
    for name, values in arrays.items():
        if not name.endswith("_null"):
            columns = values.reshape(len(values), -1).T
            for k, column in enumerate(columns):
                words = name.replace("_", " ") + (f" {k}" if len(columns) > 1 else "")
                found[words] = measured(column)
    return found


@final
class Study:
    """The images, network, score and tangent spaces of one configuration."""

    def __init__(self, config: Config, progress: Progress):
        self.config, self.progress = config, progress
        get = partial(load, config.data, root=config.root, device=config.device)
        self.data: Data = get(train=False)
        self.model = prepared(
            image_models.classifier(
                config.model,
                config.weights,
                self.data,
                config.mean,
                config.deviation,
                seed=config.seed,
            ),
            config,
        )
        self.reference = self._reference()
        self.geometry: Geometry = Everything(prod(self.data.shape))
        if config.estimator:
            self.near = subset(get(train=True), config.reference, seed=config.seed)
            self.geometry = estimators.estimator(config.estimator, self.near, dim=config.dim)

    def batches(self) -> Iterator[Batch]:
        """Those to be measured, one at a time."""
        return self._some(self.config.images)

    def probe(self) -> Probe:
        head, reference = BY_NAME[self.config.head], self.reference
        probes: dict[str, Probe] = {
            "answers": answers,
            "gradient": tangent_alignment,
            "score": partial(score_alignment, reference=reference, head=head),
            "spectrum": partial(spectral_alignment, reference=reference, head=head),
        }
        if self.config.estimator:
            step = PUBLISHED_STEP * (prod(self.data.shape) / 3072) ** 0.5
            moved = partial(on_off_robustness, sizes=(step,), directions=4)
            probes["steps"] = partial(moved, change=softmax_change(2))
        return together(probes)

    def rate(self, images: int, seconds: float) -> dict[str, float]:
        return {"images": images, "images per second": images / seconds}

    def calibrated(self, arrays: dict[str, Any]) -> dict[str, Any]:
        """The mean tangent share as module calibration reads it, where there is an estimator."""
        config, table = self.config, calibration.read()
        if not (config.estimator and table):
            return {}
        self.progress(0.95, "tangent spaces by halves")
        some = next(self.data.batches(SAME, config.seed))
        same = estimators.agreement(
            config.estimator, self.near, some, dim=config.dim, training=estimators.USUAL
        )
        sizes = config.dim, prod(self.data.shape), config.reference
        facts = Facts(config.estimator, *sizes, same, pictures=True)
        by, metric = calibration.quoted(table, facts, float(arrays["gradient_alignment"].mean()))
        return {f"tangent share, {config.estimator}, by {by}": metric}

    def _some(self, images: int) -> Iterator[Batch]:
        size, seed = self.config.batch_size, self.config.seed
        if not images:
            return self.data.batches(size, None)
        return _first(self.data.batches(size, seed), images)

    def _reference(self) -> Reference:
        config = self.config
        if not config.denoiser:
            self.progress(0.0, "spectrum")
            return stationary(spectrum(self._some(config.fitted)), sigma=config.sigma)
        there = restored(Path(config.denoiser))
        if not isinstance(there.model, Denoiser) or there.architecture.shape != self.data.shape:
            own = there.architecture
            line = f"the denoiser {config.denoiser} is a {own.name} of {own.shape}"
            raise ValueError(f"{line}, the data have {self.data.shape}")
        classes = there.model.classes
        if classes not in (0, self.data.num_classes):
            line = f"the denoiser {config.denoiser} is of {classes} classes"
            raise ValueError(f"{line}, the data are of {self.data.num_classes}")
        model = there.model.to(config.device)
        return denoised(model, sigma=config.sigma, conditional=classes > 0)


def _first(batches: Iterator[Batch], images: int) -> Iterator[Batch]:
    """Batches until there are so many images, the last one cut."""
    for batch in batches:
        yield parts(batch, images)[0]
        images -= len(batch.y)
        if images <= 0:
            return


def prepared(model: nn.Module, config: Config) -> nn.Module:
    """On its device, as probes ask it, in its precision."""
    placed = frozen(model).to(config.device)
    run = torch.compile(placed) if config.compiled else placed
    return Precise(run, torch.bfloat16 if config.precision == "bfloat16" else None)


@final
class Precise(nn.Module):
    """A network in a precision of its own between float32 pictures and float32 logits."""

    def __init__(self, model: Any, kind: torch.dtype | None):
        super().__init__()
        self.model, self.kind = model, kind

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, self.kind, enabled=self.kind is not None):
            logits: Tensor = self.model(x)
        return logits.float()
