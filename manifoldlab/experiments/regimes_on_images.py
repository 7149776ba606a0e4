r"""Robust training of image classifiers has three regimes (Srinivas et al. 2023, Figure 3): is that so here?

Claim: as training is made more robust, gradients become more like the score of the data and the network
more robust off the manifold than on it, at a small cost of accuracy; beyond, all of it is lost. One
network is trained by one objective over the range of its strengths, and by cross-entropy, several seeds of
each; test images are measured by the probes that were verified on known manifolds (module image_gauge),
with estimated tangent spaces and the score of a denoiser that was trained on the same images at the
noise level `sigma`. The published grids of strengths are the defaults (module image_trainings).

What each regime would have to show is in module image_regimes. The published tangent spaces and scores
have no error bars; how far these here are to be trusted is what experiment calibrate measures.
"""

from dataclasses import dataclass
from math import isfinite, prod
from typing import Any, final

import numpy as np

from manifoldlab import catalog
from manifoldlab.architecture import Architecture
from manifoldlab.comparison import Metric, measured
from manifoldlab.objectives.cross_entropy import cross_entropy
from manifoldlab.problems.base import BayesClassifier
from manifoldlab.records import Outcome, Progress
from manifoldlab.studies import calibration, estimators
from manifoldlab.studies.image_gauge import ImageGauge
from manifoldlab.studies.image_ground import ImageGround
from manifoldlab.studies.image_networks import Course, networks
from manifoldlab.studies.image_regimes import at_best, claims
from manifoldlab.studies.image_sets import image_set
from manifoldlab.studies.image_trainings import IMAGE_TRAININGS

PUBLISHED_STEP = 2.64  # of pixels in [0, 1], in D = 3072


@dataclass(frozen=True)
class Config:
    data: str = "digits"
    """A data set of the catalog: digits, mnist, cifar10, ...; or SET_twin, of which all is known exactly."""
    root: str = ""
    """Its folder; by default that of MANIFOLDLAB_DATA."""
    objective: str = "adversarial"
    """Of module image_trainings."""
    low: float | None = None
    """The least strength; that of the objective where none is given."""
    high: float | None = None
    """The greatest strength, likewise."""
    count: int = 30
    """Of strengths, at equal ratios."""
    seeds: int = 5
    seed: int = 0
    """The first of them."""
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
    estimators: tuple[str, ...] = ("local_pca_64",)
    """Of tangent spaces (module estimators); on and off are by the first."""
    dim: int = 0
    """Tangent directions; 0 for the estimated dimension, rounded, and for a twin of 6 factors."""
    blur: float = 0.1
    """Noise of a twin, which makes its classes overlap."""
    sigma: float = 0.25
    """Noise level of the score, pixels in [0, 1]: published as 0.5 of pixels in [-1, 1]."""
    denoiser_epochs: int = 100
    denoiser_width: int = 32
    step: float = 0.0
    """Length of the steps; 0 for the published 2.64 in 3072 dimensions, alike in each pixel."""
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.objective not in IMAGE_TRAININGS:
            raise ValueError(catalog.unknown("objective", self.objective, list(IMAGE_TRAININGS)))
        for name, least in LEAST.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be {least} or more, not {getattr(self, name)}")
        for name in ("lr", "sigma", "radius"):
            if not (isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        low, high = self.ends
        if not 0 < low < high < float("inf"):
            raise ValueError(f"strengths go from low to high, 0 < low < high, not {low} to {high}")
        estimators.check(self.estimators)

    @property
    def ends(self) -> tuple[float, float]:
        usual = IMAGE_TRAININGS[self.objective]
        low = usual.low if self.low is None else self.low
        return low, usual.high if self.high is None else self.high

    @property
    def strengths(self) -> list[float]:
        return [float(s) for s in np.geomspace(*self.ends, self.count)]


LEAST = {
    "count": 2,
    "seeds": 2,
    "seed": 0,
    "samples": 0,
    "held_out": 1,
    "width": 1,
    "epochs": 1,
    "batch_size": 1,
    "steps": 1,
    "dim": 0,
    "blur": 0.0,
    "denoiser_epochs": 1,
    "denoiser_width": 1,
    "step": 0.0,
}
FAST = Config(  # of any data set a few minutes on two cores
    low=1e-2,
    high=10.0,
    count=6,
    seeds=3,
    samples=750,
    width=8,
    epochs=16,
    steps=3,
    denoiser_epochs=30,
)


def main(config: Config, progress: Progress) -> Outcome:
    study = Study(config, progress)
    found = study.weak() | study.robust()
    means = {name: values.mean(-1) for name, values in found.items()}
    arrays = {name: values.astype(np.float32) for name, values in found.items()}
    facts = {f"null_{name}": np.array(value) for name, value in study.gauge.nulls.items()}
    facts |= {f"bayes_{name}": values for name, values in study.bayes().items()}
    progress(1.0, "done")
    return Outcome(
        study.ground_metrics() | claims(means) | study.calibrated(means),
        {"strengths": np.array(config.strengths), **arrays, **facts, **study.bands(means)},
    )


@final
class Study:
    """Images, what they are measured by, and the networks of one configuration."""

    def __init__(self, config: Config, progress: Progress):
        self.config, self.progress = config, progress
        images = image_set(
            config.data,
            root=config.root,
            device=config.device,
            count=config.samples,
            held_out=config.held_out,
            dim=config.dim,
            blur=config.blur,
        )
        self.course = Course(config.epochs, config.batch_size, config.lr, config.device)
        self.ground = ImageGround(
            images,
            config.estimators,
            estimators.Training(config.denoiser_epochs, config.denoiser_width),
            config.sigma,
            self.course,
            config.dim,
            lambda done, what: progress(0.3 * done, what),
        )
        step = config.step or PUBLISHED_STEP * (prod(images.train.shape) / 3072) ** 0.5
        ground = self.ground
        self.gauge = ImageGauge(
            ground.batch, ground.geometries, ground.score, features=ground.features, step=step
        )

    def weak(self) -> dict[str, Any]:
        found = self._trained(cross_entropy, None, "cross_entropy", 0.3, 0.35)
        return {f"weak_{name}": values for name, values in found.items()}

    def robust(self) -> dict[str, Any]:
        config, training = self.config, IMAGE_TRAININGS[self.config.objective]
        ground = self.ground
        first = next(iter(ground.geometries.values()))
        geometry = ground.training_geometry if training.tangents else first
        objective = training.build(geometry, config.steps, config.radius)
        return self._trained(objective, config.strengths, config.objective, 0.35, 0.98)

    def bayes(self) -> dict[str, Any]:
        """By image, where the Bayes classifier is known."""
        truth = self.ground.images.truth
        if truth is None:
            return {}
        found = self.gauge.gradients(BayesClassifier(truth))
        return {name: values.float().cpu().numpy() for name, values in found.items()}

    def _trained(
        self, objective: Any, strengths: list[float] | None, name: str, start: float, end: float
    ) -> dict[str, Any]:
        """Of each field of the gauge its values, (strengths, seeds, images)."""
        config, train, rows = self.config, self.ground.train, list[dict[str, Any]]()
        options = {"width": config.width}
        models = networks(
            Architecture(config.network, train.shape, train.num_classes, options),
            objective,
            train,
            self.course,
            strengths=strengths,
            seeds=[config.seed + k for k in range(config.seeds)],
            folder=self.progress.folder,
            name=name,
            advance=lambda done: self.progress(start + (end - start) * 0.8 * done, name),
        )
        for k, model in enumerate(models):
            rows.append({n: v.double().cpu().numpy() for n, v in self.gauge.read(model).items()})
            share = start + (end - start) * (0.8 + 0.2 * (k + 1) / len(models))
            self.progress(share, f"{name}, measured")
        shape = (-1, config.seeds, config.held_out)
        return {field: np.stack([row[field] for row in rows]).reshape(shape) for field in rows[0]}

    def ground_metrics(self) -> dict[str, Metric]:
        found, left = self.ground.dimension, self.ground.noise_left
        value, error = found.dimension, 1.96 * found.error
        size: Metric = {"measured": value, "low": value - error, "high": value + error}
        noise = {} if left is None else {"noise left by the denoiser": measured(left.cpu().numpy())}
        return {"intrinsic dimension": size} | noise

    def calibrated(self, means: dict[str, Any]) -> dict[str, Any]:
        """The tangent shares by cross-entropy and at the best strength, as module calibration reads them."""
        table, found = calibration.read(), dict[str, Any]()
        for name in self.config.estimators if table else ():
            facts = self.ground.facts[name]
            for when, omega in at_best(means, f"omega_{name}").items():
                by, metric = calibration.quoted(table, facts, 1 - float(omega.mean()))
                found[f"{when} tangent share, {name}, by {by}"] = metric
        return found

    def bands(self, means: dict[str, Any]) -> dict[str, Any]:
        """Of each estimator the calibrated tangent share by cross-entropy, then at each strength."""
        table, found = calibration.read(), dict[str, Any]()
        for name in self.config.estimators if table else ():
            omega = np.concatenate([means[f"weak_omega_{name}"], means[f"omega_{name}"]])
            shares = (1 - omega.mean(1)).tolist()
            found[f"calibrated_{name}"] = calibration.quotes(table, self.ground.facts[name], shares)
        return found
