"""Do attacks lower the energy E(x) = -logsumexp of the logits? The exact sign, beside learned models.

Untargeted attacks are said to lower it and targeted ones to raise it, and training against attacks to
let it be (Mirza et al. 2024). Law E4 gives the change that a short step makes: a length times

    <s, u> or, targeted, - <s, u>,    s = -grad E,  u = steepest(grad log(p_k / (1 - p_k))),

k the label to leave or to reach. Classes of von Mises and Fisher on a sphere, their modes evenly on a
great circle, are attacked through the exact Bayes classifier, E = -log p(x), and through networks of
several seeds, each with data and points of its own, in attacks of growing length; E is mapped, too.

E is known up to a function h(x) (E2): the logits of Bayes are log p(x, y), those of a network as its
start and training left them, and beside both stand logits of mean 0. For labels that the posterior draws
sum_k p_k <grad E, grad CE_k> = <s, sum_k p_k grad l_k> - |s|^2 is 0 (C1): weighed by |grad CE|, first-order
changes through the Bayes classifier average to 0 whatever h is. With two classes the attack that is
targeted at the other one is the untargeted attack: no claim that they differ can hold.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import cos, pi, sin, sqrt
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from manifoldlab import draws
from manifoldlab.architecture import Architecture
from manifoldlab.attacks.pgd import Steady, in_ball, nearby, pgd
from manifoldlab.comparison import Metric, at_least, at_most, compared, measured
from manifoldlab.data.samples import samples
from manifoldlab.densities.von_mises_fisher import VonMisesFisher
from manifoldlab.ensembles import Ensemble
from manifoldlab.interfaces import Batch, Model, Objective
from manifoldlab.manifolds.placed import Placed
from manifoldlab.manifolds.sphere import Sphere
from manifoldlab.objectives.adversarial import adversarial
from manifoldlab.objectives.cross_entropy import cross_entropy
from manifoldlab.objectives.trades import trades
from manifoldlab.objectives.weat import weat
from manifoldlab.problems.base import BayesClassifier
from manifoldlab.problems.von_mises_sphere import VonMisesSphere
from manifoldlab.records import Outcome, Progress
from manifoldlab.studies.energy_changes import GAUGES, KINDS, EnergyChanges, energy_changes
from manifoldlab.studies.energy_maps import EnergyMap, Plane, energy_map
from manifoldlab.studies.populations import populations

Array = NDArray[Any]
# Of signs, for the shortest attack: they differ where a slope is below length x curvature / 2, and
# 5e-4 times a curvature of 1 / noise^2 = 44 is 1 % of the slopes' own size, which is about 1.
AGREE = 0.99
SLACK = 1 - AGREE
HOLDS = 0.9  # of signs, as far as E4 is said to tell them
STARTS = 12  # of the attacks on the maps


@dataclass(frozen=True)
class Config:
    dim: int = 1
    """Of the sphere."""
    codim: int = 0
    """Dimensions beside those of its own space."""
    classes: int = 3
    concentration: float = 4.0
    """Of a class on the circle; on the d-sphere times sqrt((d + 1) / 2)."""
    noise: float = 0.15
    samples: int = 1000
    """To train on, of each seed."""
    points: int = 400
    """To attack, of each seed."""
    seeds: int = 8
    lengths: tuple[float, ...] = (5e-4, 5e-3, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.2, 1.6)
    """Of attacks; the modes of three classes on the circle are 1.73 apart."""
    radius: float = 0.3
    """One of the lengths: what networks are trained against, and the claims are about."""
    steps: int = 10
    width: int = 64
    epochs: int = 60
    batch_size: int = 125
    lr: float = 3e-3
    strength: float = 6.0
    """Of the divergence in trades and weat."""
    grid: int = 81
    """Points a side of the maps."""
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"dim": 1, "codim": 0, "classes": 2, "seeds": 2, "points": 1, "steps": 1, "grid": 2}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ValueError(f"{name} must be {low} or more, not {getattr(self, name)}")
        if list(self.lengths) != sorted({*self.lengths}) or not min(self.lengths, default=0) > 0:
            raise ValueError(f"lengths are positive and grow, not {self.lengths}")
        if self.radius not in self.lengths:
            raise ValueError(f"the radius {self.radius} must be one of the lengths {self.lengths}")


FAST = Config(samples=500, points=200, seeds=5, epochs=40, steps=5, grid=41)


def main(config: Config, progress: Progress) -> Outcome:
    problem = landscape(config)
    networks = trained(config, problem, progress)
    batch, target = to_attack(config, problem)
    found: dict[str, EnergyChanges] = {}
    views: dict[str, EnergyMap] = {}
    for i, name in enumerate(("bayes", *networks)):
        progress(0.7 + 0.3 * i / (1 + len(networks)), f"attacks {name}")
        members = networks.get(name, [BayesClassifier(problem)])
        model = Ensemble(members) if name in networks else members[0]
        found[name] = energy_changes(model, batch, target, config.lengths, steps=config.steps)
        views[name] = view(members[0], problem, batch.x[: config.points], config)
    return Outcome(metrics(found, config), arrays(found, views, config))


def landscape(config: Config) -> VonMisesSphere:
    size = config.concentration * sqrt((config.dim + 1) / 2)
    angles = [2 * pi * k / config.classes for k in range(config.classes)]
    rest = (0.0,) * (config.dim - 1)
    modes = tuple(((size * cos(a), size * sin(a), *rest),) for a in angles)
    weights, priors = ((1.0,),) * config.classes, (1 / config.classes,) * config.classes
    place = Placed(Sphere(config.dim), config.codim, config.seed)
    return VonMisesSphere(place, VonMisesFisher(weights, modes, priors), config.noise)


def trained(
    config: Config, problem: VonMisesSphere, progress: Progress
) -> dict[str, list[nn.Module]]:
    """A network a seed by each objective."""
    seeds = range(config.seed, config.seed + config.seeds)
    return populations(
        objectives(config),
        Architecture("mlp", problem.shape, config.classes, {"width": config.width}),
        [
            samples(problem, config.samples, seed=draws.number(s, "data"), dtype=torch.float64)
            for s in seeds
        ],
        progress,
        seeds=seeds,
        epochs=config.epochs,
        batch_size=config.batch_size,
        lr=config.lr,
        span=(0.0, 0.7),
    )


def objectives(config: Config) -> dict[str, Objective]:
    """Their attacks move by the radius at most."""
    climb = partial(pgd, step_size=Steady(), steps=config.steps, best=False)
    start, inner = partial(climb, start=in_ball), partial(climb, radius=config.radius, start=nearby)
    return {
        "cross_entropy": cross_entropy,
        "adversarial": partial(adversarial, strength=config.radius, inner=start),
        "trades": partial(trades, strength=config.strength, inner=inner),
        "weat": partial(weat, strength=config.strength, natural=True, inner=inner),
    }


def to_attack(config: Config, problem: VonMisesSphere) -> tuple[Batch, Tensor]:
    """Points of every seed in turn, and another class for each, drawn evenly."""
    seeds = range(config.seed, config.seed + config.seeds)
    drawn = [problem.sample(config.points, draws.source(s, "points")) for s in seeds]
    batch = Batch(torch.cat([b.x for b in drawn]), torch.cat([b.y for b in drawn]))
    source = draws.source(config.seed, "targets")
    step = torch.randint(1, config.classes, batch.y.shape, generator=source)
    return batch, (batch.y + step) % config.classes


def view(model: Model, problem: VonMisesSphere, data: Tensor, config: Config) -> EnergyMap:
    """On the plane of the modes, from points of their circle, each with its most likely class."""
    assert isinstance(problem.manifold, Placed)
    frame = problem.manifold.frame[:, :2]
    angle = 2 * pi * (torch.arange(STARTS, dtype=torch.float64) + 0.5) / STARTS
    x = torch.stack([angle.cos(), angle.sin()], 1) @ frame.mT
    starts = Batch(x, problem.log_joint(x).argmax(1))
    target = (starts.y + 1) % config.classes
    lengths = tuple(2 * config.radius * i / 12 for i in range(13))
    edge = 1 + 4 * config.noise
    axis = torch.linspace(-edge, edge, config.grid, dtype=torch.float64)
    return energy_map(model, Plane(frame, axis, lengths), data, starts, target, steps=config.steps)


def metrics(found: Mapping[str, EnergyChanges], config: Config) -> dict[str, Metric]:
    """Of l2 attacks, and of the logits as they are if not said otherwise."""
    rows: dict[str, Metric] = {}
    for name, own in found.items():
        agree = averaged(own.agreement(), config)  # (kinds, lengths, gauges, seeds)
        reached = reaches(agree[0, :, 0], config.lengths)
        rows[f"{name}: signs of E4"] = at_least(agree[:, 0].mean((0, 1)), AGREE)
        rows[f"{name}: length up to which E4 gives {HOLDS:.0%} of the signs"] = measured(reached)
        rows |= of_kind(f"{name}: ", 0, own, config) | of_kind(f"{name}: ", 1, own, config)
    near = config.lengths.index(config.radius)
    size = {name: abs(averaged(own.change, config)[0, near, 0]) for name, own in found.items()}
    for name in ("adversarial", "trades", "weat"):
        more = size[name] - size["cross_entropy"]
        rows[f"{name}: E changes no more than with cross_entropy"] = at_most(more, 0.0)
    balance = averaged(found["bayes"].balance, config)
    rows["bayes: mean of <grad E, grad CE>"] = compared(balance[0], 0.0)
    return rows


def of_kind(name: str, k: int, own: EnergyChanges, config: Config) -> dict[str, Metric]:
    judge, word, claim = at_most, "untargeted", "lower"
    if KINDS[k].targeted:
        judge, word, claim = at_least, "targeted", "raise"
    share = averaged(own.lowered(), config)[k, 0]  # (gauges, seeds)
    expected = float(averaged(own.predicted(), config)[k, 0].mean())
    change = averaged(own.change, config)[k, :, 0]  # (lengths, seeds)
    near, far = config.lengths.index(config.radius), config.lengths[-1]
    return {
        f"{name}share that short {word} steps lower": compared(share[0], expected, within=SLACK),
        f"{name}share that they lower, logits of mean 0, {word}": measured(share[1]),
        f"{name}{word} attacks {claim} E": judge(change[near], 0.0),
        f"{name}{word} attacks of length {far:g} {claim} E": judge(change[-1], 0.0),
    }


def averaged(values: Tensor, config: Config) -> Array:
    """Over the points of each seed: (..., seeds points) -> (..., seeds)."""
    return np.asarray(values.unfold(-1, config.points, config.points).mean(-1))


def reaches(agree: Array, lengths: tuple[float, ...]) -> Array:
    """Of each seed the length up to which no other has less agreement, 0 if the first has."""
    count = np.cumprod(agree >= HOLDS, axis=0).sum(0).astype(int)  # (lengths, seeds) -> (seeds,)
    found: Array = np.array([0.0, *lengths])[count]
    return found


def arrays(
    found: Mapping[str, EnergyChanges], views: Mapping[str, EnergyMap], config: Config
) -> dict[str, Array]:
    """Means over points; axes are models, kinds, lengths, gauges, seeds, each where it applies."""
    rows = {
        "change": [own.change for own in found.values()],
        "lowered": [own.lowered() for own in found.values()],
        "lowered_by_e4": [own.predicted() for own in found.values()],
        "agreement": [own.agreement() for own in found.values()],
        "success": [own.success for own in found.values()],
        "balance": [own.balance for own in found.values()],
    }
    return {name: averaged(torch.stack(values), config) for name, values in rows.items()} | {
        "energy": np.stack([own.energy.float().numpy() for own in views.values()]),
        "path": np.stack([own.path.numpy() for own in views.values()]),
        "models": np.array(list(found)),
        "kinds": np.array([kind.name for kind in KINDS]),
        "gauges": np.array(list(GAUGES)),
        "lengths": np.array(config.lengths),
        "axis": views["bayes"].axis.numpy(),
    }
