r"""Descent leaves the weights across the data as drawn, robust training takes what margins see (D3, D4).

Networks of one to four layers, and two layers of rectifiers with fixed outer weights, learn two
classes on a flat of R^D from noiseless points. With Pi the projector on the span of the points,
N = W_1 (I - Pi) and eta the rate, a step takes N

    gradient descent, momentum        times 1, to rounding: x_i' (I - Pi) = 0
    weight decay 2 lambda             times 1 - 2 eta lambda, at any depth
    l2 attacks of radius eps          times 1 - 2 eta eps E s(-m) / |w|, one layer, m = y f - eps |w|
    noise sigma                       times 1 - 2 eta sigma^2 E s(m) s(-m) in the mean, m the noisy margin
    Adam, a flat along axes           times 1, exactly: 0 / (0 + 1e-8)
    Adam, a flat aslant; normal noise in the points; deeper networks under attack or noise: measured

where f = w.x + b, w = W_1[1] - W_1[0], moves twice as fast as each of the two rows. N(t) over the
product of the factors of noise along its own path is a martingale, so its mean is N(0) at any time.
The normal gradient (I - Pi) g of two layers of rectifiers has m D |(I - Pi) g|^2 / k of mean D - d - 1.
The Bayes margin has omega = 0; an isotropic gradient has omega = (D - d) / D.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from manifoldlab import checkpoints, draws
from manifoldlab.architecture import Architecture
from manifoldlab.attacks.pgd import at_rest, pgd
from manifoldlab.comparison import Metric, at_most, compared, measured, never_above
from manifoldlab.data.in_memory import in_memory
from manifoldlab.descent import Recipe
from manifoldlab.ensembles import Ensemble, train_ensemble
from manifoldlab.interfaces import Objective
from manifoldlab.objectives.adversarial import adversarial
from manifoldlab.objectives.cross_entropy import cross_entropy
from manifoldlab.objectives.noise_augmentation import noise_augmentation
from manifoldlab.records import Outcome, Progress
from manifoldlab.studies import normal_motion
from manifoldlab.studies.flats import Flats
from manifoldlab.studies.watching import Factor, Watch, Watched
from manifoldlab.training import Advance

PARTS = 4  # batches of an epoch with momentum
ROUNDING = 2.0**-52
FROZEN = ("gradient descent", "momentum", "Adam, along axes")


@final
@dataclass(frozen=True)
class Config:
    dim: int = 4
    ambient: int = 64
    shift: float = 0.5
    """How far the flat is from the origin."""
    separation: float = 1.0
    """Of the means of the classes from their middle, in deviations."""
    width: int = 32
    seeds: int = 8
    samples: int = 128
    steps: int = 1000
    looks: int = 24
    """How often the networks are measured, at steps that are even in the logarithm."""
    rate: float = 0.2
    decay: float = 0.01
    """lambda of the ridge lambda |W|^2."""
    radius: float = 0.3
    noise: float = 0.5
    adam_rate: float = 0.003
    spread: float = 0.1
    """Of the noise across the flat in points that have some."""

    def __post_init__(self) -> None:
        if not 0 < self.dim < self.ambient - 1:
            what = f"a flat of dim {self.dim} and its offset leave nothing"
            raise ValueError(f"{what} of {self.ambient} dimensions")
        for name, least in (("width", 1), ("seeds", 2), ("looks", 3), ("steps", PARTS)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be {least} or more, not {getattr(self, name)}")
        for name in ("samples", "steps"):
            if getattr(self, name) % PARTS or getattr(self, name) < PARTS:
                raise ValueError(f"{name} must be a multiple of {PARTS}, not {getattr(self, name)}")
        if self.shift < 0:
            raise ValueError(f"the shift is a distance, not {self.shift}")

    @property
    def times(self) -> list[int]:
        """Steps before which the networks are measured, the first 0."""
        grid = np.geomspace(1, self.steps, self.looks - 1)
        return sorted({0, *(int(round(t)) for t in grid)})


FAST = Config(ambient=32, width=16, seeds=6, samples=64, steps=200, looks=12)


@final
@dataclass(frozen=True)
class Training:
    objective: Objective
    optimizer: Callable[..., torch.optim.Optimizer]
    rate: float
    factor: Factor = normal_motion.unknown
    one_layer: bool = False  # whether the factor is of one layer only
    parts: int = 1  # batches an epoch
    flats: Callable[..., Flats] = Flats.drawn
    spread: float = 0.0


def trainings(config: Config) -> dict[str, Training]:
    sgd, adam, plain, rate = torch.optim.SGD, torch.optim.Adam, cross_entropy, config.rate
    one, decay = normal_motion.constant(1.0), 2 * config.decay
    momentum, decayed = partial(sgd, momentum=0.9), partial(sgd, weight_decay=decay)
    attack = partial(pgd, steps=3, start=at_rest, best=False)
    attacked = partial(adversarial, strength=config.radius, inner=attack)
    noisy = partial(noise_augmentation, strength=config.noise)
    by_attacks = partial(normal_motion.of_attacks, rate=rate, radius=config.radius)
    by_noise = partial(normal_motion.of_noise, rate=rate, noise=config.noise)
    return {
        "gradient descent": Training(plain, sgd, rate, one),
        "momentum": Training(plain, momentum, rate / 10, one, parts=PARTS),
        "weight decay": Training(plain, decayed, rate, normal_motion.constant(1 - rate * decay)),
        "attacks": Training(attacked, sgd, rate, by_attacks, one_layer=True),
        "noise": Training(noisy, sgd, rate, by_noise, one_layer=True),
        "Adam": Training(plain, adam, config.adam_rate),
        "Adam, along axes": Training(plain, adam, config.adam_rate, one, flats=Flats.along_axes),
        "normal noise in the points": Training(plain, sgd, rate, spread=config.spread),
    }


def networks(config: Config) -> dict[str, Architecture]:
    mlp = {
        f"depth {depth}": Architecture(
            "mlp", (config.ambient,), 2, {"width": config.width, "depth": depth - 1}
        )
        for depth in (1, 2, 3, 4)
    }
    two = Architecture("two_layer_relu", (config.ambient,), 2, {"width": config.width})
    return {**mlp, "two layers of rectifiers": two}


def trained(
    config: Config, training: Training, architecture: Architecture, advance: Advance
) -> dict[str, Tensor]:
    """Curves (seeds, times)."""
    seeds = tuple(range(config.seeds))
    flats = training.flats(config.ambient, config.dim, config.shift, seeds)
    draw = partial(flats.points, config.samples, config.separation, seeds)
    seen, others = draw("seen", spread=training.spread), draw("others")
    models = [architecture.build(draws.number(seed, "model")).double() for seed in seeds]
    weights = normal_motion.weights_of(architecture)
    start = flats.unseen(weights(Ensemble(models)))
    two = architecture.name == "two_layer_relu"
    look = normal_motion.NormalMotion(flats, others, weights, start, two)
    known = normal_motion.is_linear(architecture) or not training.one_layer
    factor = training.factor if known else normal_motion.unknown
    watch = Watch(look, factor, config.times, torch.ones(len(seeds), dtype=torch.float64))
    train_ensemble(
        models,
        Watched(training.objective, watch),
        [in_memory(x, y, 2) for x, y in flats.blocks(seen)],
        seeds=seeds,
        epochs=config.steps // training.parts,
        batch_size=config.samples // training.parts,
        lr=training.rate,
        recipe=Recipe(optimizer=training.optimizer),
        advance=advance,
    )
    watch(Ensemble(models), seen)
    return watch.curves()


def main(config: Config, progress: Progress) -> Outcome:
    ways, kinds = trainings(config), networks(config)
    pairs = [(way, kind) for way in ways for kind in kinds]
    found = {}
    for i, (way, kind) in enumerate(pairs):
        tell = lambda done, i=i, what=f"{way}, {kind}": progress((i + done) / len(pairs), what)
        file = progress.folder / f"{i}.safetensors"
        if not file.exists():
            checkpoints.save(file, trained(config, ways[way], kinds[kind], tell), {})
        found[way, kind] = {name: t.numpy() for name, t in checkpoints.load(file)[0].items()}
    return Outcome(metrics(config, found), samples(config, found))


Array = np.ndarray[Any, Any]
Curves = Mapping[tuple[str, str], Mapping[str, Array]]


def samples(config: Config, found: Curves) -> dict[str, Array]:
    """Every curve is (trainings, networks, seeds, times)."""
    ways, kinds = list(trainings(config)), list(networks(config))
    return {
        "trainings": np.array(ways),
        "networks": np.array(kinds),
        "times": np.array(config.times),
        "omega_null": np.array(1 - config.dim / config.ambient),
        "omega_bayes": np.array(0.0),
    } | {
        name: np.array([[found[way, kind][name] for kind in kinds] for way in ways])
        for name in found[ways[0], kinds[0]]
    }


def metrics(config: Config, found: Curves) -> dict[str, Metric]:
    one, *_, two = networks(config)
    made = _exact(config, found, list(networks(config)))
    ratio = _of_martingale(found["noise", one])
    made[f"left by noise over its factors, {one}"] = compared(ratio, 1)
    for when, time in (("before", 0), ("after", -1)):
        ratio = found["gradient descent", two]["chi_square"][:, time]
        made[f"|(I - Pi) g|^2 over its law {when} descent"] = compared(ratio, 1)
    return made | _effects(found, list(networks(config)))


def _exact(config: Config, found: Curves, kinds: list[str]) -> dict[str, Metric]:
    """A weight and its gradient are rounded once a step, by 2^-53 at most; were all errors of one sign,
    they would add up to `bound`."""
    bound, made = config.steps * ROUNDING, {}
    left = (1 - 2 * config.rate * config.decay) ** config.steps
    for kind in kinds:
        for way, most in zip(FROZEN, (bound, bound, 0.0), strict=True):
            made[f"moved by {way}, {kind}"] = never_above(found[way, kind]["moved"], most)
        kept = found["weight decay", kind]["kept"][:, -1]
        made[f"left by weight decay, {kind}"] = compared(kept, left, within=bound)
    for way, kind in [*(("weight decay", kind) for kind in kinds), ("attacks", kinds[0])]:
        made[f"off the factors of {way}, {kind}"] = never_above(found[way, kind]["off"], bound)
    return made


def _of_martingale(curves: Mapping[str, Array]) -> Array:
    """At the last look at which 1/e or more should be left: later it is the noise that is seen."""
    time = np.flatnonzero(curves["predicted"].mean(0) >= np.exp(-1))[-1]
    ratio: Array = curves["kept"][:, time] / curves["predicted"][:, time]
    return ratio


def _effects(found: Curves, kinds: list[str]) -> dict[str, Metric]:
    """What is not predicted, and whether robust training aligns gradients more than plain training does."""
    made = {}
    for kind in kinds:
        for way in ("Adam", "normal noise in the points"):
            made[f"moved by {way}, {kind}"] = measured(found[way, kind]["moved"][:, -1])
        plain = found["gradient descent", kind]["omega"][:, -1]
        for way in ("attacks", "noise"):
            curves = found[way, kind]
            made[f"left by {way}, {kind}"] = measured(curves["size"][:, -1])
            ratio = curves["omega"][:, -1] / plain
            made[f"omega by {way} over that by descent, {kind}"] = at_most(ratio, 1)
    return made
