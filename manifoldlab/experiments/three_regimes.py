r"""Robust training has three regimes (Srinivas et al. 2023): on known ground, is that so?

Claim: networks trained with little robustness are accurate and have gradients off the manifold (weak);
with more of it they are robust across the manifold rather than along it, their gradients are like those of
the Bayes classifier and they hardly lose accuracy (Bayes-aligned); with too much they lose all of that
(excessive). One network is trained by one objective over the whole range of its strengths, and by
cross-entropy as strength 0, several seeds of each; at fresh samples accuracy, changes along and across the
manifold and gradients are compared with those of the exact Bayes classifier (module measuring).

What each regime would have to show is in module regimes.
On two Gaussians a linear model is trained, too, where its rule is known in closed form (laws D5, D6):

    w_gamma = (Sigma + gamma I)^{-1} mu,    gamma = sigma^2 of noise, gamma |w_gamma| = epsilon of attacks
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, final

import numpy as np
import torch
from torch import nn

from manifoldlab import draws
from manifoldlab.data.in_memory import in_memory
from manifoldlab.descent import Recipe
from manifoldlab.ensembles import train_ensemble
from manifoldlab.interfaces import Batch, Data, Objective
from manifoldlab.models.mlp import mlp
from manifoldlab.objectives.cross_entropy import cross_entropy
from manifoldlab.records import Outcome, Progress
from manifoldlab.schedules import cosine
from manifoldlab.studies import linear_rules
from manifoldlab.studies.grounds import GROUNDS, pair
from manifoldlab.studies.measuring import Array, Gauge, tabulated
from manifoldlab.studies.regimes import claims
from manifoldlab.studies.robust_trainings import TRAININGS


@dataclass(frozen=True)
class Config:
    problem: str = "sphere"
    """Of module grounds."""
    objective: str = "adversarial"
    """Of module robust_trainings."""
    low: float | None = None
    """The least strength; that of the objective where none is given."""
    high: float | None = None
    """The greatest strength, likewise."""
    count: int = 10
    """Of strengths, at equal ratios."""
    seeds: int = 5
    seed: int = 0
    """The first of them."""
    samples: int = 2000
    """On which each network trains."""
    epochs: int = 60
    batch_size: int = 128
    lr: float = 3e-3
    width: int = 32
    depth: int = 2
    held_out: int = 1000
    """Fresh samples that are measured."""
    step: float = 0.5
    """Length of the steps along and across the manifold."""
    linear_epochs: int = 40
    """Of 4096 fresh samples each, for the linear models of the closed form."""

    def __post_init__(self) -> None:
        for name, known in (("problem", GROUNDS), ("objective", TRAININGS)):
            if getattr(self, name) not in known:
                raise ValueError(f"no {name} {getattr(self, name)!r}, but {', '.join(known)}")
        for name, least in LEAST.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be {least} or more, not {getattr(self, name)}")
        for name in ("lr", "step"):
            if not (isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        low, high = self.ends
        if not 0 < low < high < float("inf"):
            raise ValueError(f"strengths go from low to high, 0 < low < high, not {low} to {high}")

    @property
    def ends(self) -> tuple[float, float]:
        usual = TRAININGS[self.objective]
        low = usual.low if self.low is None else self.low
        return low, usual.high if self.high is None else self.high

    @property
    def strengths(self) -> list[float]:
        return [float(s) for s in np.geomspace(*self.ends, self.count)]


LEAST = {
    "count": 2,
    "seeds": 2,
    "seed": 0,
    "samples": 1,
    "epochs": 1,
    "batch_size": 1,
    "width": 1,
    "depth": 1,
    "held_out": 1,
    "linear_epochs": 1,
}
FAST = Config(count=8, width=24, samples=1000, epochs=30, held_out=300)


def main(config: Config, progress: Progress) -> Outcome:
    study = Study(config, progress)
    gauge = study.gauge
    samples: dict[str, Any] = {"strengths": np.array(config.strengths)}
    parts = {"initial": study.initial(), "weak": study.weak(), "": study.robust()}
    for part, reading in parts.items():
        samples |= {"_".join(filter(None, (part, name))): v for name, v in reading.items()}
    samples |= {f"bayes_{name}": v for name, v in gauge.read(gauge.bayes)._asdict().items()}
    samples |= {f"null_{name}": v for name, v in gauge.nulls.items()}
    metrics = claims(samples)
    curve = study.curve()
    if curve:
        samples |= curve
        metrics |= linear_rules.on_curve(curve)
    progress(1.0, "done")
    return Outcome(metrics, samples)


@final
class Study:
    """The trainings of one configuration, each with a checkpoint in the folder of the run."""

    def __init__(self, config: Config, progress: Progress):
        self.config, self.progress = config, progress
        self.problem = GROUNDS[config.problem]()
        self.training = TRAININGS[config.objective]
        self.seeds = [config.seed + k for k in range(config.seeds)]
        fresh = draws.source(config.seed, "held out")
        self.gauge = Gauge(
            self.problem, self.problem.sample(config.held_out, fresh), step=config.step
        )
        drawn = [self.problem.sample(config.samples, draws.source(s, "data")) for s in self.seeds]
        self.pool = Batch(*(torch.cat(part) for part in zip(*(b[:2] for b in drawn), strict=True)))

    def network(self, seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            shape, classes = self.problem.shape, self.problem.num_classes
            # in float64: where training is excessive, rounding decides on what is left of a network
            return mlp(shape, classes, width=self.config.width, depth=self.config.depth).double()

    def initial(self) -> dict[str, Array]:
        return self.gauge.read_all([self.network(seed) for seed in self.seeds], 1)

    def weak(self) -> dict[str, Array]:
        return self.trained(cross_entropy, None, "cross entropy", 0.0, 0.1)

    def robust(self) -> dict[str, Array]:
        objective = self.training.build(tabulated(self.problem, self.pool))
        return self.trained(objective, self.config.strengths, self.config.objective, 0.1, 0.8)

    def trained(
        self,
        objective: Objective,
        strengths: Sequence[float] | None,
        name: str,
        start: float,
        end: float,
    ) -> dict[str, Array]:
        config, rows = self.config, len(strengths or [0.0])
        models = [self.network(seed) for seed in self.seeds * rows]
        history = train_ensemble(
            models,
            objective,
            [data for _ in range(rows) for data in self.data()],
            seeds=self.seeds * rows,
            strengths=strengths and np.repeat(strengths, config.seeds).tolist(),
            epochs=config.epochs,
            batch_size=config.batch_size,
            lr=config.lr,
            recipe=Recipe(schedule=cosine),
            checkpoint=self.progress.folder / f"{name.replace(' ', '_')}.safetensors",
            every=200,
            advance=lambda done: self.progress(start + (end - start) * done, name),
        )
        if history.failed:
            raise FloatingPointError(f"members of {name} not finite: {history.failed}")
        return self.gauge.read_all(models, rows)

    def data(self) -> list[Data]:
        """Of each seed, with the index that its samples have in the pool of all."""
        n = self.config.samples
        return [
            _shifted(in_memory(x, y, self.problem.num_classes), k * n)
            for k, (x, y) in enumerate(
                zip(torch.split(self.pool.x, n), torch.split(self.pool.y, n), strict=True)
            )
        ]

    def curve(self) -> dict[str, Array]:
        """Linear models and where they end in closed form; nothing where that is not known."""
        classes = pair(self.problem)
        if classes is None or self.training.curve is None:
            return {}
        strengths = torch.tensor(self.config.strengths, dtype=torch.float64)
        strengths = strengths[self.training.curve(classes, strengths).gamma.isfinite()]
        if not len(strengths):
            return {}
        found = linear_rules.trained(
            self.problem,
            classes,
            self.training.build(self.gauge.geometry),
            strengths.tolist(),
            self.seeds,
            epochs=self.config.linear_epochs,
            checkpoint=self.progress.folder / "linear.safetensors",
            advance=lambda done: self.progress(0.8 + 0.2 * done, "linear models"),
        )
        closed = self.training.curve(classes, strengths)
        frame = self.gauge.geometry.basis[0]
        return {"linear_strengths": strengths.numpy()} | linear_rules.beside(
            classes, frame, closed, found
        )


def _shifted(data: Data, start: int) -> Data:
    def batches(size: int, seed: int | None = None) -> Iterator[Batch]:
        for batch in data.batches(size, seed):
            assert batch.index is not None
            yield batch._replace(index=batch.index + start)

    return data._replace(batches=batches)
