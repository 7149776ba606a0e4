"""Does it suffice to remove off-manifold sensitivity for gradients to align, and is accuracy kept?

The theory says that robust training aligns gradients because it removes what they have across the
manifold. So that alone is removed: cross-entropy plus strength |Qg|^2, g the gradient of the margin,
beside |g|^2 (the whole gradient) and |Pg|^2 (the control), on a flat with Gaussian classes and on a
sphere with mixtures of von Mises and Fisher, two classes each, blurred by isotropic noise. Networks of
several seeds, each with a small sample of its own, are probed at new points beside the exact values:
omega = |Qg|^2 / |g|^2, accuracy, changes by steps along and across the manifold, and the cosine of g
with the gradient of the Bayes margin, which is the difference of the scores of the classes (C1).

A constant has the penalized loss log 2, so the minimum has mean |Qg|^2 <= log 2 / strength, and at the
training points 1 - mean |Qg|^2 / mean |g|^2 >= 1 - log 2 / (strength mean |g|^2). If nothing else changed,
the cosine would become that of the tangential parts under cross-entropy: on flats, where Bayes gradients
are tangent (B1), it is sqrt(1 - omega) times that. An isotropic gradient has the alignment d / D. Where
networks of another strength have less of a penalized loss, training missed its minimum.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import log, sqrt
from typing import Literal

import numpy as np
import torch
from torch import nn

from manifoldlab import gradients
from manifoldlab.architecture import Architecture
from manifoldlab.comparison import Metric, at_least, at_most, compared, measured
from manifoldlab.data.in_memory import in_memory
from manifoldlab.densities.gaussians import Gaussians
from manifoldlab.densities.von_mises_fisher import VonMisesFisher
from manifoldlab.ensembles import Ensemble
from manifoldlab.geometries import Across
from manifoldlab.interfaces import Geometry, Head, Objective
from manifoldlab.manifolds.flat import Flat
from manifoldlab.manifolds.placed import Placed
from manifoldlab.manifolds.sphere import Sphere
from manifoldlab.mixtures import as_tuples
from manifoldlab.objectives.cross_entropy import cross_entropy
from manifoldlab.objectives.gradient_penalty import gradient_penalty
from manifoldlab.objectives.normal_penalty import normal_penalty
from manifoldlab.problems.base import BayesClassifier, Isotropic
from manifoldlab.problems.gaussian_subspace import GaussianSubspace
from manifoldlab.problems.von_mises_sphere import VonMisesSphere
from manifoldlab.records import Outcome, Progress
from manifoldlab.studies.beside_bayes import Array, Points, Seen, beside_bayes, points
from manifoldlab.studies.populations import populations

Found = dict[str, Seen]  # by the objective
PENALTIES = ("normal_penalty", "gradient_penalty", "tangent_penalty")
LABELS = ("bayes", "cross_entropy", *PENALTIES)
ALIGNED = 0.95  # alignment that is called full
VARIANCE, CONCENTRATION = 0.6, 4.0  # of a class; Bayes errs at about a tenth of the points
HEADS: dict[str, Head] = {"margin": gradients.margin, "cross_entropy": gradients.cross_entropy}


@dataclass(frozen=True)
class Config:
    dim: int = 2
    ambient: int = 16
    noise: float = 0.1
    """Deviation, alike in all directions; the sphere has radius 1."""
    samples: int = 200
    """To train on, of each seed."""
    points: int = 1000
    """To probe at, of each seed."""
    seeds: int = 8
    strengths: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
    head: Literal["margin", "cross_entropy"] = "margin"
    """Whose gradient is penalized; that of the loss is small where the loss is."""
    width: int = 64
    epochs: int = 150
    batch_size: int = 100
    lr: float = 3e-3
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low in {"dim": 2, "samples": 1, "points": 1, "seeds": 2, "width": 1}.items():
            if getattr(self, name) < low:
                raise ValueError(f"{name} must be {low} or more, not {getattr(self, name)}")
        if self.ambient < self.dim + 2:
            raise ValueError(f"ambient is dim + 2 = {self.dim + 2} or more, not {self.ambient}")
        if not 0 < self.noise * sqrt(self.ambient) < 0.6:
            raise ValueError(f"noise {self.noise} in R^{self.ambient} would leave the reach, 1")
        grow = list(self.strengths) == sorted({*self.strengths})
        if not grow or len(self.strengths) < 2 or not self.strengths[0] > 0:
            raise ValueError(f"strengths are two or more, positive and grow, not {self.strengths}")


FAST = Config(points=300, seeds=5, epochs=60, width=32, lr=1e-2)


def main(config: Config, progress: Progress) -> Outcome:
    found: dict[str, Found] = {}
    rows: dict[str, Metric] = {}
    for i, (name, problem) in enumerate(problems(config).items()):
        found[name], known = compared_on(name, problem, config, progress, i / 2)
        rows |= metrics(name, found[name], known, config)
    return Outcome(rows, arrays(found, config))


def problems(config: Config) -> dict[str, Isotropic]:
    """Gaussians about +-e_1 on a flat, modes at +-e_1 against +-e_2 on a sphere."""
    dim, codim, halves = config.dim, config.ambient - config.dim, (0.5, 0.5)
    axes = torch.eye(dim + 1, dtype=torch.float64)
    modes = [CONCENTRATION * torch.stack([e, -e]) for e in axes[:2]]
    means, covariance = axes[:1, :dim], VARIANCE * axes[:dim, :dim]
    gaussians = Gaussians(as_tuples(torch.cat([means, -means])), (as_tuples(covariance),), halves)
    fisher = VonMisesFisher((halves, halves), tuple(map(as_tuples, modes)), halves)
    flat = Placed(Flat(dim), codim, config.seed)
    sphere = Placed(Sphere(dim), codim - 1, config.seed)
    return {
        "flat": GaussianSubspace(flat, gaussians, config.noise),
        "sphere": VonMisesSphere(sphere, fisher, config.noise),
    }


def compared_on(
    name: str, problem: Isotropic, config: Config, progress: Progress, start: float
) -> tuple[Found, Found]:
    """What is seen at new points, and at those trained on."""
    seeds, bayes = range(config.seed, config.seed + config.seeds), BayesClassifier(problem)
    train = points(problem, config.samples, seeds, "data")
    test = points(problem, config.points, seeds, "points")
    see = partial(beside_bayes, bayes=bayes, size=config.noise)
    new, known = {"bayes": see(bayes, here=test, copies=1)}, {}
    for label, members in trained(name, train, config, progress, start).items():
        model, copies = Ensemble(members), len(members) // config.seeds
        new[label] = see(model, here=test, copies=copies)
        known[label] = see(model, here=train, copies=copies)
    return new, known


def trained(
    name: str, train: Points, config: Config, progress: Progress, start: float
) -> dict[str, list[nn.Module]]:
    """Members are strengths by seeds, or seeds alone where nothing is penalized."""
    n, seeds = config.samples, range(config.seed, config.seed + config.seeds)
    x, y = train.batch.x, train.batch.y
    rows = [slice(i * n, (i + 1) * n) for i in range(config.seeds)]
    data = [in_memory(x[own], y[own], 2, first=own.start) for own in rows]
    teach = partial(
        populations,
        architecture=Architecture("mlp", x.shape[1:], 2, {"width": config.width}),
        progress=progress,
        epochs=config.epochs,
        batch_size=config.batch_size,
        lr=config.lr,
        where=f"{name} ",
    )
    plain = teach({"cross_entropy": cross_entropy}, data=data, seeds=seeds, span=(start, start))
    copies = len(config.strengths)
    return plain | teach(
        penalties(train.geometry, config),
        data=data * copies,
        seeds=[*seeds] * copies,
        strengths=[s for s in config.strengths for _ in seeds],
        span=(start, start + 0.45),
    )


def penalties(geometry: Geometry, config: Config) -> dict[str, Objective]:
    head = HEADS[config.head]
    normal = partial(normal_penalty, head=head)
    return {
        "normal_penalty": partial(normal, geometry=geometry),
        "gradient_penalty": partial(gradient_penalty, head=head),
        "tangent_penalty": partial(normal, geometry=Across(geometry, config.ambient)),
    }


def metrics(name: str, new: Found, known: Found, config: Config) -> dict[str, Metric]:
    """At the strength that aligns gradients most at the points trained on; seed by seed."""
    trained_on, last = known["normal_penalty"], new["normal_penalty"].alignment[-1]
    share = 1 - trained_on.normal_square / trained_on.square
    best = int(share.mean(1).argmax())
    at = {label: Seen(*(v[min(best, len(v) - 1)] for v in own)) for label, own in new.items()}
    rows: dict[str, Metric] = {"strength": {"measured": config.strengths[best]}}
    rows |= effects(at) | {"alignment, largest strength": measured(last)} | controls(at)
    if config.head == "margin":  # whose squares are bounded
        least = 1 - log(2) / (config.strengths[best] * trained_on.square[best])
        excess = excesses(trained_on, config.strengths)
        worst = int(excess.mean(1).argmax())
        rows["alignment - its bound, points trained on"] = at_least(share[best] - least, 0.0)
        rows["strength that trains worst"] = {"measured": config.strengths[worst]}
        rows["penalized loss there - that of networks of another"] = measured(excess[worst])
    return {f"{name}: {what}": metric for what, metric in rows.items()}


def effects(at: Found) -> dict[str, Metric]:
    normal, plain, bayes = at["normal_penalty"], at["cross_entropy"], at["bayes"]
    gap = normal.cosine - plain.tangent_cosine
    return {
        "alignment": at_least(normal.alignment, ALIGNED),
        "alignment, cross_entropy": measured(plain.alignment),
        "accuracy - cross_entropy's": at_least(normal.accuracy - plain.accuracy, 0.0),
        "accuracy - Bayes'": measured(normal.accuracy - bayes.accuracy),
        "change along / cross_entropy's": compared(normal.on / plain.on, 1.0),
        "change along / Bayes'": compared(normal.on / bayes.on, 1.0),
        "change across / cross_entropy's": measured(normal.off / plain.off),
        "cosine with Bayes": at_least(normal.cosine, ALIGNED),
        "cosine - cross_entropy's": at_least(normal.cosine - plain.cosine, 0.0),
        "cosine - tangential one of cross_entropy": compared(gap, 0.0),
        "cosine with score - Bayes'": compared(normal.score_cosine - bayes.score_cosine, 0.0),
    }


def controls(at: Found) -> dict[str, Metric]:
    normal, whole, tangent = (at[label] for label in PENALTIES)
    plain, gain = at["cross_entropy"], tangent.alignment - at["cross_entropy"].alignment
    return {
        "tangent_penalty: alignment - cross_entropy's": at_most(gain, 0.0),
        "tangent_penalty: cosine - cross_entropy's": at_most(tangent.cosine - plain.cosine, 0.0),
        "gradient_penalty: alignment": measured(whole.alignment),
        "gradient_penalty: cosine - normal_penalty's": measured(whole.cosine - normal.cosine),
        "gradient_penalty: accuracy - normal_penalty's": measured(whole.accuracy - normal.accuracy),
    }


def excesses(known: Seen, strengths: Sequence[float]) -> Array:
    """How much larger the penalized loss is at the points trained on than for networks that were
    trained with another strength: above 0 where training missed its minimum; (strengths, seeds)."""
    weight = np.array(strengths)[:, None, None]
    losses = known.loss + weight * known.normal_square  # (strength of the loss, of training, seeds)
    others, own = losses.copy(), np.arange(len(strengths))
    others[own, own] = np.inf
    return np.asarray(losses[own, own] - others.min(1))


def arrays(found: Mapping[str, Found], config: Config) -> dict[str, Array]:
    """Fields of what is seen: problems, penalties, strengths, seeds; of others problems, seeds."""
    samples = {}
    for field in Seen._fields:
        each = {
            label: np.stack([getattr(own[label], field) for own in found.values()])
            for label in LABELS
        }
        samples[field] = np.stack([each[label] for label in PENALTIES], 1)
        for label in ("bayes", "cross_entropy"):
            samples[f"{field}_{label}"] = each[label][:, 0]
    return samples | {
        "problems": np.array(list(found)),
        "penalties": np.array(PENALTIES),
        "strengths": np.array(config.strengths),
        "alignment_null": np.array(config.dim / config.ambient),
        "score_cosine_null": np.array(config.ambient**-0.5),
    }
