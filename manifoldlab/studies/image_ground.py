"""What image classifiers are measured by: test images, estimated tangent spaces, a score, and a witness.

All of it is made of the training images alone (but for twins, whose spaces and score are exact and stand
first): their intrinsic dimension by maximum likelihood, spaces by
estimators, the score of each class by a denoiser at one noise level, and the features of a network of
another seed, by which pictures are compared. Nothing depends on the networks that are measured.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from manifoldlab import draws, linalg
from manifoldlab.architecture import Architecture
from manifoldlab.interfaces import Batch, Data, Geometry
from manifoldlab.intrinsic_dimension import IntrinsicDimension, maximum_likelihood
from manifoldlab.models.denoiser import Denoiser
from manifoldlab.objectives.cross_entropy import cross_entropy
from manifoldlab.perception import Features, hidden
from manifoldlab.problems.base import BayesClassifier
from manifoldlab.scores.denoised import denoised
from manifoldlab.scores.implied import implied
from manifoldlab.studies import cache, estimators
from manifoldlab.studies.calibration import Facts
from manifoldlab.studies.estimators import Training
from manifoldlab.studies.image_networks import Course
from manifoldlab.studies.image_sets import Exact, ImageSet
from manifoldlab.studies.prepared import classifier, denoiser
from manifoldlab.studies.trained_denoiser import Schooling
from manifoldlab.tangent_cache import Cached, cached
from manifoldlab.training import Advance

EXACT = "exact"  # the name of true tangent spaces
LAYERS = ("2", "4", "6")  # of small_cnn, behind each activation
WITNESS_SEED = 10**6  # no network that is measured has it
BATCH = 64  # of the denoiser's training: many steps count for more than large ones here
SAME = 100  # test images at which spaces by halves of the data are compared
Told = Callable[[float, str], None]


@final
@dataclass(frozen=True)
class ImageGround:
    images: ImageSet
    names: tuple[str, ...]  # of estimators
    training: Training  # of their networks, and of the denoiser
    sigma: float
    course: Course  # of the witness
    given: int  # tangent directions, 0 for the estimated dimension
    told: Told

    @property
    def train(self) -> Data:
        return self.images.train

    @cached_property
    def batch(self) -> Batch:
        """Of all test images."""
        return next(self.images.tests.batches(10**9, None))

    @cached_property
    def dimension(self) -> IntrinsicDimension:
        return maximum_likelihood(self.batch.x, estimators.images(self.train), leave_out=False)

    @property
    def dim(self) -> int:
        return self.given or max(1, round(self.dimension.dimension))

    @cached_property
    def geometries(self) -> Mapping[str, Geometry]:
        found: dict[str, Geometry] = {
            name: self._kept(name, self.images.tests) for name in self.names
        }
        exact = self._exact
        return found if exact is None else {EXACT: exact} | found

    @cached_property
    def training_geometry(self) -> Geometry:
        """The first of them, at the training images."""
        return self._exact or self._kept(self.names[0], self.train).held()

    @cached_property
    def _exact(self) -> Geometry | None:
        truth = self.images.truth
        if truth is None:
            return None
        return Exact(truth, truth.geometry(self.batch).at(self.batch).dim, self.batch)

    def _kept(self, name: str, data: Data) -> Cached:
        """Bases of a data set, computed once for all runs."""
        told = self._telling(f"tangent spaces: {name}")
        estimator = estimators.estimator(
            name, self.train, dim=self.dim, training=self.training, advance=told
        )
        return cached(estimator, data, cache.root() / "tangents")

    @cached_property
    def facts(self) -> Mapping[str, Facts]:
        """Of each estimator, by which its calibration is found."""
        some = Batch(self.batch.x[:SAME], self.batch.y[:SAME])
        count, found = sum(len(b.y) for b in self.train.batches(4096, None)), {}
        for name in self.names:
            self.told(0.5, f"tangent spaces by halves: {name}")
            same = estimators.agreement(
                name, self.train, some, dim=self.dim, training=self.training
            )
            sizes = self.dim, some.x[0].numel(), count
            found[name] = Facts(name, *sizes, same, pictures=some.x.ndim > 2)
        return found

    @cached_property
    def score(self) -> Tensor:
        """Of each image's class, at the noise level."""
        if self.images.truth is not None:
            exact = BayesClassifier(self.images.truth.noisier(self.sigma))
            return implied(exact, conditional=True)(self.batch)
        return denoised(self._denoiser, sigma=self.sigma, conditional=True)(self.batch)

    @cached_property
    def noise_left(self) -> Tensor | None:
        """|D(x + sigma u) - x|^2 / |sigma u|^2 of each test image: what the score is worth, if not exact."""
        if self.images.truth is not None:
            return None
        x, y = self.batch.x, self.batch.y
        noise = self.sigma * draws.normal(x, draws.source(0, "noise left"))
        with torch.no_grad():
            left = self._denoiser(x + noise, self.sigma, y) - x
        return linalg.squared_norm(left) / linalg.squared_norm(noise)

    @cached_property
    def _denoiser(self) -> Denoiser:
        plan = Schooling(self.training.epochs, BATCH, width=self.training.width)
        return denoiser(self.train, plan, advance=self._telling("denoiser"))

    @cached_property
    def features(self) -> Features:
        case = Architecture("small_cnn", self.train.shape, self.train.num_classes, {"width": 16})
        told = self._telling("a network that compares pictures")
        model = classifier(
            case, cross_entropy, self.train, self.course, seed=WITNESS_SEED, advance=told
        )
        return hidden(model, LAYERS)

    def _telling(self, what: str) -> Advance:
        return lambda done: self.told(done, what)
