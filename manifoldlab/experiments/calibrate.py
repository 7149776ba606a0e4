r"""Estimated tangent spaces and scores beside the truth: how far may a number on images be trusted?

On a ground of known tangent spaces samples are drawn, every estimator is fitted to them alone, and at
fresh samples its spaces and scores are compared with the exact ones. With projections P (rank d) and P^:

    capture      tr(P^ P) / d, the mean squared cosine of the principal angles; 1 is exact
    angle        the largest of these angles, in degrees
    agreement    tr(P^_1 P^_2) / d of the spaces by either half of the samples: known without the truth
    bias, spread mean and deviation over samples of an estimated less the exact number of a probe:
                 tangent share of the gradient, share implied by steps on and off, cosine with the Bayes
                 gradient along the manifold, rank of the logits' tangential Jacobian, each for a network that
                 was trained on the samples
    A4           |omega^ - omega| - sin(angle) where ranks are equal: never positive
    score        cosine of a denoiser's score with the exact one of the same noise level

`true` and `estimated` tangent shares of gradients from Bayes to random (module calibration_grounds) are
what module calibration makes error bars of.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import isfinite
from typing import Any, NamedTuple, final

import numpy as np
import torch
from torch import Tensor, nn

from manifoldlab import catalog, draws, linalg
from manifoldlab.architecture import Architecture
from manifoldlab.comparison import measured, never_above
from manifoldlab.data.in_memory import in_memory
from manifoldlab.descent import Recipe
from manifoldlab.gradients import input_gradient, log_marginal, margin
from manifoldlab.interfaces import Batch, Geometry
from manifoldlab.objectives.cross_entropy import cross_entropy
from manifoldlab.probes.gradient_rank import gradient_rank
from manifoldlab.probes.on_off_robustness import on_off_robustness
from manifoldlab.probes.score_alignment import score_alignment
from manifoldlab.probes.tangent_alignment import tangent_alignment
from manifoldlab.problems.base import BayesClassifier, Problem
from manifoldlab.records import Outcome, Progress
from manifoldlab.schedules import cosine
from manifoldlab.scores.denoised import denoised
from manifoldlab.studies import estimators
from manifoldlab.studies.calibration_grounds import fields, ground, grounds
from manifoldlab.studies.prepared import denoiser
from manifoldlab.studies.trained_denoiser import Schooling, moments
from manifoldlab.training import train

ROUNDING = 1e-9  # of projections in float64


@dataclass(frozen=True)
class Config:
    ground: str = "sphere"
    """A manifold family, or SET_twin of a data set (module calibration_grounds)."""
    dim: int = 2
    """Its dimension; of a twin that of its factors."""
    rank: int = 0
    """Tangent directions that are estimated: 0 for as many as there are."""
    ambient: int = 20
    """D of a manifold; pictures have their own."""
    noise: float = 0.1
    """In units of the smaller of reach and 1."""
    blur: float = 0.0
    """Noise that is added to a twin, which makes its classes overlap."""
    samples: int = 2000
    """From which tangent spaces and scores are estimated."""
    held_out: int = 64
    seeds: int = 2
    seed: int = 0
    """The first of them: of ground, samples and networks."""
    estimators: tuple[str, ...] = (
        "local_pca_16",
        "local_pca_64",
        "local_pca_256",
        "autoencoder",
        "denoiser_0.2",
        "denoiser_0.5",
    )
    """Of tangent spaces (module estimators)."""
    epochs: int = 100
    width: int = 64
    sigma: float = 0.2
    """Noise level of the score, in units of the deviation of the data."""
    step: float = 1e-3
    """Of on and off, in the same units: small, so that they are those of the gradient."""
    root: str = ""
    """The folder of a twin's data; by default that of MANIFOLDLAB_DATA."""

    def __post_init__(self) -> None:
        if self.ground not in grounds():
            raise ValueError(catalog.unknown("ground", self.ground, grounds()))
        for name, least in LEAST.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be {least} or more, not {getattr(self, name)}")
        for name in ("noise", "sigma", "step"):
            if not (isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        estimators.check(self.estimators)


LEAST: dict[str, float] = {
    "dim": 1,
    "ambient": 2,
    "samples": 4,
    "held_out": 2,
    "seeds": 2,
    "seed": 0,
}
LEAST |= {"rank": 0, "epochs": 1, "width": 1, "blur": 0.0}
FAST = Config(
    samples=500,
    held_out=32,
    epochs=40,
    width=32,
    estimators=("local_pca_16", "local_pca_64", "autoencoder", "denoiser_0.2"),
)

PROBES = ("alignment", "step share", "tangent cosine", "tangent rank")


def main(config: Config, progress: Progress) -> Outcome:
    found = []
    for k in range(config.seeds):
        told = partial(_told, progress, k, config.seeds)
        found.append(Seed(config, config.seed + k, told).measured())
    arrays = {name: np.array([one[name] for one in found]) for name in found[0]}
    progress(1.0, "done")
    return Outcome(_metrics(config, arrays), arrays)


def _told(progress: Progress, k: int, count: int, done: float, what: str) -> None:
    progress((k + done) / count, f"seed {k}: {what}")


def _metrics(config: Config, arrays: Mapping[str, Any]) -> dict[str, Any]:
    metrics = {}
    for e, name in enumerate(config.estimators):
        for what in ("capture", "angle", "agreement"):
            metrics[f"{name} {what}"] = measured(arrays[what][:, e])
        for p, probe in enumerate(PROBES):
            metrics[f"{name} {probe}, bias"] = measured(arrays["bias"][:, e, p])
        metrics[f"{name} A4"] = never_above(arrays["A4"][:, e], ROUNDING)
    if np.isfinite(arrays["score"]).all():
        metrics["score cosine"] = measured(arrays["score"])
    return metrics


class _Truth(NamedTuple):
    batch: Batch
    geometry: Geometry
    basis: Tensor  # (n, D, d)
    fields: dict[str, Tensor]
    model: nn.Module
    reference: Tensor


@final
class Seed:
    """One ground, one draw of samples, and all estimators on it."""

    def __init__(self, config: Config, seed: int, told: Any):
        self.config, self.seed, self.told = config, seed, told
        self.problem: Problem = ground(
            config.ground,
            dim=config.dim,
            ambient=config.ambient,
            noise=config.noise,
            blur=config.blur,
            seed=config.seed,
            root=config.root,
        )
        drawn = self.problem.sample(config.samples, draws.source(seed, "fit"))
        # float32, as images are
        self.data = in_memory(drawn.x.float(), drawn.y, self.problem.num_classes)
        self.scale = moments(self.data).deviation

    def measured(self) -> dict[str, Any]:
        truth = self._truth()
        rows = [self._estimated(name, k, truth) for k, name in enumerate(self.config.estimators)]
        columns = {key: np.array([row[key] for row in rows]) for key in rows[0]}
        return columns | {
            "pictures": len(self.problem.shape) > 1,
            "true": np.array(
                [_share(truth.geometry, truth.batch, g) for g in truth.fields.values()]
            ),
            "score": self._score_cosine(truth.batch),
            "dim": truth.geometry.dim,
            "ambient": truth.batch.x[0].numel(),
        }

    def _truth(self) -> _Truth:
        self.told(0.0, "the Bayes classifier")
        config = self.config
        batch = _inside(self.problem, config.held_out, draws.source(self.seed, "held out"))
        geometry = self.problem.geometry(batch).at(batch)
        model = self._network()
        found = fields(self.problem, batch, self.seed)
        found["network"] = input_gradient(model, batch.x, batch.y, margin)
        return _Truth(
            batch, geometry, estimators.basis(geometry, batch.x), found, model, found["mixed 0"]
        )

    def _network(self) -> nn.Module:
        """Trained on the samples, read in float64."""
        case = Architecture("mlp", self.problem.shape, self.problem.num_classes, {"width": 64})
        model = case.build(self.seed)
        train(
            model,
            cross_entropy,
            self.data,
            epochs=20,
            batch_size=64,
            lr=3e-3,
            seed=self.seed,
            recipe=Recipe(schedule=cosine),
        )
        return model.double()

    def _estimated(self, name: str, k: int, truth: _Truth) -> dict[str, Any]:
        config, points = self.config, truth.batch._replace(x=truth.batch.x.float())
        self.told(0.1 + 0.8 * k / len(config.estimators), name)
        training = estimators.Training(config.epochs, config.width, self.seed)
        chosen = config.rank or config.dim
        fitted = partial(estimators.estimator, name, dim=chosen, training=training)
        here = fitted(self.data).at(points)
        basis = estimators.basis(here, truth.batch.x)
        angles = linalg.principal_angles(basis, truth.basis)
        exact, estimated = (self._probed(truth, g) for g in (truth.geometry, here))
        shift = {probe: estimated[probe] - exact[probe] for probe in PROBES}
        bound = shift["alignment"].abs() - angles[:, -1].sin()
        rank = truth.geometry.dim
        return {
            "capture": estimators.overlap(basis, truth.basis) / rank,
            "angle": angles[:, -1].rad2deg().mean().item(),
            "agreement": estimators.agreement(
                name, self.data, points, dim=chosen, training=training
            ),
            "estimated": [_share(here, truth.batch, g) for g in truth.fields.values()],
            "bias": [shift[probe].mean().item() for probe in PROBES],
            "spread": [shift[probe].std().item() for probe in PROBES],
            "A4": bound.max().item() if here.dim == rank else -1.0,
            "rank": here.dim,
        }

    def _probed(self, truth: _Truth, geometry: Geometry) -> dict[str, Tensor]:
        model, batch = truth.model, truth.batch
        steps = on_off_robustness(model, batch, geometry, sizes=(self.config.step * self.scale,))
        cosine = score_alignment(model, batch, geometry, reference=lambda batch: truth.reference)
        return {
            "alignment": tangent_alignment(model, batch, geometry).alignment,
            "step share": 1 - steps.omega_steps[:, 0],
            "tangent cosine": cosine.tangent_cosine,
            "tangent rank": gradient_rank(model, batch, geometry).tangent_rank,
        }

    def _score_cosine(self, batch: Batch) -> float:
        """nan where the exact score of noisier data has no closed form."""
        sigma = self.config.sigma * self.scale
        try:
            noisier = self.problem.noisier(sigma)
        except ValueError:
            return float("nan")
        self.told(0.92, "score")
        plan = Schooling(self.config.epochs, width=self.config.width, seed=self.seed)
        field = denoised(denoiser(self.data, plan), sigma=sigma)
        noise = draws.normal(batch.x, draws.source(self.seed, "noise"))
        moved = batch._replace(x=batch.x + sigma * noise)
        exact = input_gradient(BayesClassifier(noisier), moved.x, moved.y, log_marginal)
        found = field(moved._replace(x=moved.x.float())).double()
        return linalg.inner(linalg.unit(exact), linalg.unit(found)).mean().item()


def _inside(problem: Problem, n: int, source: Any) -> Batch:
    """n fresh samples; not those past an edge of the manifold, which have no nearest point on it."""
    drawn = problem.sample(4 * n, source)
    v = torch.ones_like(drawn.x)
    along = problem.geometry(drawn).at(drawn).to_tangent(drawn.x, v)
    rows = along.flatten(1).isfinite().all(1).nonzero().flatten()[:n]
    if len(rows) < n:
        raise ValueError(f"only {len(rows)} of {4 * n} samples have a nearest point: {problem!r}")
    return Batch(drawn.x[rows], drawn.y[rows])


def _share(geometry: Geometry, batch: Batch, gradient: Tensor) -> float:
    along = geometry.to_tangent(batch.x, gradient)
    return (linalg.squared_norm(along) / linalg.squared_norm(gradient)).mean().item()
