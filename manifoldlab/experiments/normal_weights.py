r"""Descent leaves the weights across the data as drawn, and robust training takes them away (laws D3, D4).

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
from torch import Tensor, nn

from manifoldlab import checkpoints, draws, gradients, linalg
from manifoldlab.architecture import Architecture
from manifoldlab.attacks.pgd import at_rest, pgd
from manifoldlab.comparison import Metric, at_most, compared, measured
from manifoldlab.data.in_memory import in_memory
from manifoldlab.descent import Recipe
from manifoldlab.ensembles import Ensemble, train_ensemble
from manifoldlab.expectations import gauss_hermite
from manifoldlab.flats import Flats
from manifoldlab.interfaces import Batch, Objective
from manifoldlab.objectives.adversarial import adversarial
from manifoldlab.objectives.cross_entropy import cross_entropy
from manifoldlab.objectives.noise_augmentation import noise_augmentation
from manifoldlab.probes.tangent_alignment import tangent_alignment
from manifoldlab.records import Outcome, Progress
from manifoldlab.watching import Factor, Watch, Watched

PARTS = 4  # batches of an epoch with momentum
ORDER = 48  # of the quadrature over noisy margins
ROUNDING = 2.0**-52


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
    steps: int = 2000
    looks: int = 24
    """How often the networks are measured, at steps that are even in the logarithm."""
    rate: float = 0.1
    decay: float = 0.01
    """lambda of the ridge lambda |W|^2."""
    radius: float = 0.3
    noise: float = 0.5
    adam_rate: float = 0.003
    spread: float = 0.1
    """Of the noise across the flat in points that have some."""

    def __post_init__(self) -> None:
        if not 0 < self.dim < self.ambient - 1:
            raise ValueError(
                f"a flat of dim {self.dim} and its offset leave nothing of {self.ambient} dimensions"
            )
        for name, least in (("width", 1), ("seeds", 2), ("looks", 2), ("steps", PARTS)):
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
    factor: Factor | None  # of N in a step, where a law predicts it for networks of any depth
    linear: Factor | None = None  # likewise for one layer
    parts: int = 1  # batches an epoch
    flats: Callable[..., Flats] = Flats.drawn
    spread: float = 0.0

    def factors(self, architecture: Architecture) -> Factor:
        one_layer = architecture.options.get("depth") == 0
        return self.factor or (self.linear if one_layer else None) or unknown


def trainings(config: Config) -> dict[str, Training]:
    sgd, adam = torch.optim.SGD, torch.optim.Adam
    decay = 2 * config.decay
    attack = partial(pgd, steps=3, start=at_rest, best=False)
    attacked = partial(adversarial, strength=config.radius, inner=attack)
    noisy = partial(noise_augmentation, strength=config.noise)
    rate = config.rate
    return {
        "gradient descent": Training(cross_entropy, sgd, rate, constant(1.0)),
        "momentum": Training(
            cross_entropy, partial(sgd, momentum=0.9), rate / 10, constant(1.0), parts=PARTS
        ),
        "weight decay": Training(
            cross_entropy, partial(sgd, weight_decay=decay), rate, constant(1 - rate * decay)
        ),
        "attacks": Training(attacked, sgd, rate, None, partial(of_attacks, config)),
        "noise": Training(noisy, sgd, rate, None, partial(of_noise, config)),
        "Adam": Training(cross_entropy, adam, config.adam_rate, None),
        "Adam, along axes": Training(
            cross_entropy, adam, config.adam_rate, constant(1.0), flats=Flats.along_axes
        ),
        "normal noise in the points": Training(
            cross_entropy, sgd, rate, None, spread=config.spread
        ),
    }


def constant(value: float) -> Factor:
    return lambda model, batch: torch.tensor(value, dtype=torch.float64)


unknown = constant(torch.nan)


def margins(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """m = y f of networks of one layer (E, n), and |w| (E, 1)."""
    w = row_difference(model)
    found: Tensor = gradients.margin(model(batch.x), batch.y)
    return found.unflatten(0, (len(w), -1)), w.flatten(1).norm(dim=1, keepdim=True)


def of_attacks(config: Config, model: nn.Module, batch: Batch) -> Tensor:
    m, size = margins(model, batch)
    hit = (config.radius * size - m).sigmoid().mean(1, keepdim=True)  # s(-(m - eps |w|))
    return (1 - 2 * config.rate * config.radius * hit / size)[:, 0]


def of_noise(config: Config, model: nn.Module, batch: Batch) -> Tensor:
    m, size = margins(model, batch)
    nodes = gauss_hermite(1, ORDER)
    noisy = m + config.noise * size * nodes.points[:, :, None]  # (nodes, E, n)
    mean = nodes.weights @ (noisy.sigmoid() * (-noisy).sigmoid()).mean(2)
    return 1 - 2 * config.rate * config.noise**2 * mean


def networks(config: Config) -> dict[str, Architecture]:
    mlp = {
        f"depth {depth}": Architecture(
            "mlp", (config.ambient,), 2, {"width": config.width, "depth": depth - 1}
        )
        for depth in (1, 2, 3, 4)
    }
    two = Architecture("two_layer_relu", (config.ambient,), 2, {"width": config.width})
    return {**mlp, "two layers of rectifiers": two}


def first_weights(model: nn.Module) -> Tensor:
    """W_1 of every member, (E, width, D)."""
    return next(m for m in model.modules() if isinstance(m, nn.Linear)).weight.detach()


def row_difference(model: nn.Module) -> Tensor:
    """w of networks of one layer, (E, 1, D); no step moves the sum of the two rows, but decay."""
    return first_weights(model).diff(dim=1)


@final
@dataclass(frozen=True, eq=False)
class Looking:
    """What is measured of the networks at a step, (E,) each."""

    flats: Flats
    batch: Batch  # other points, without noise
    weights: Callable[[nn.Module], Tensor]
    start: Tensor  # N(0), (E, width, D)
    rectifiers: bool

    def __call__(self, model: nn.Module, product: Tensor) -> dict[str, Tensor]:
        normal = self.flats.unseen(self.weights(model))
        factor = product.expand(len(normal))
        omega = tangent_alignment(model, self.batch, self.flats).omega
        g = gradients.input_gradient(model, self.batch.x, self.batch.y, gradients.margin)
        square = self.flats.unseen(g.unflatten(0, (len(normal), -1))).square().sum(2)  # (E, n)
        return {
            "moved": self._distance(normal, torch.ones_like(factor)),
            "off": self._distance(normal, factor),
            "size": normal.flatten(1).norm(dim=1) / self.start.flatten(1).norm(dim=1),
            "kept": linalg.inner(normal, self.start) / linalg.squared_norm(self.start),
            "predicted": factor,
            "omega": omega.unflatten(0, (len(normal), -1)).nanmean(1),
            "gradient": square.mean(1),
            "chi_square": self._in_law(model, square),
        }

    def _distance(self, normal: Tensor, factor: Tensor) -> Tensor:
        """max |N(t) - factor N(0)| / max |N(0)|"""
        change = (normal - factor[:, None, None] * self.start).abs()
        return change.amax((1, 2)) / self.start.abs().amax((1, 2))

    def _in_law(self, model: nn.Module, square: Tensor) -> Tensor:
        """m D |(I - Pi) g|^2 / k over its mean in the law of two layers of rectifiers."""
        if not self.rectifiers:
            return torch.full_like(square[:, 0], torch.nan)
        weights, x = first_weights(model), self.batch.x.unflatten(0, (len(square), -1))
        active = (x @ weights.mT > 0).sum(2)
        _, width, ambient = weights.shape
        degrees = ambient - self.flats.span.shape[2]
        return (width * ambient * square / active / degrees).nanmean(1)


def trained(
    config: Config, training: Training, architecture: Architecture, advance: Callable[[float], None]
) -> dict[str, Tensor]:
    """Curves (seeds, times)."""
    seeds = tuple(range(config.seeds))
    flats = training.flats(config.ambient, config.dim, config.shift, seeds)
    draw = lambda use: tuple(draws.source(seed, use) for seed in seeds)
    seen = flats.points(config.samples, config.separation, draw("points"))
    noise = draws.normal(seen.x, draw("normal noise")).unflatten(0, (len(seeds), -1))
    seen = seen._replace(x=seen.x + training.spread * flats.unseen(noise).flatten(0, 1))
    models = [architecture.build(draws.number(seed, "model")).double() for seed in seeds]
    weights = row_difference if architecture.options.get("depth") == 0 else first_weights
    look = Looking(
        flats,
        flats.points(config.samples, config.separation, draw("other points")),
        weights,
        flats.unseen(weights(Ensemble(models))),
        architecture.name == "two_layer_relu",
    )
    ones = torch.ones(len(seeds), dtype=torch.float64)
    watch = Watch(look, training.factors(architecture), config.times, ones)
    blocks = zip(seen.x.chunk(len(seeds)), seen.y.chunk(len(seeds)), strict=True)
    train_ensemble(
        models,
        Watched(training.objective, watch),
        [in_memory(x, y, 2) for x, y in blocks],
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


Curves = Mapping[tuple[str, str], Mapping[str, np.ndarray[Any, Any]]]


def samples(config: Config, found: Curves) -> dict[str, np.ndarray[Any, Any]]:
    """Every curve is (trainings, networks, seeds, times)."""
    ways, kinds = list(trainings(config)), list(networks(config))
    names = found[ways[0], kinds[0]]
    stacked = {
        name: np.array([[found[way, kind][name] for kind in kinds] for way in ways])
        for name in names
    }
    return {
        "trainings": np.array(ways),
        "networks": np.array(kinds),
        "times": np.array(config.times),
        "omega_null": np.array(1 - config.dim / config.ambient),
        "omega_bayes": np.array(0.0),
        **stacked,
    }


def metrics(config: Config, found: Curves) -> dict[str, Metric]:
    """A weight and its gradient are rounded once a step, by 2^-53 at most; were all errors of one sign,
    they would add up to `bound`."""
    bound = config.steps * ROUNDING
    kinds, made = list(networks(config)), {}
    one, two = kinds[0], kinds[-1]
    for kind in kinds:
        for way in ("gradient descent", "momentum"):
            made[f"moved by {way}, {kind}"] = at_most(found[way, kind]["moved"].max(1), bound)
        still = found["Adam, along axes", kind]["moved"].max(1)
        made[f"moved by Adam on a flat along axes, {kind}"] = at_most(still, 0.0)
    for kind in kinds:
        left = (1 - 2 * config.rate * config.decay) ** config.steps
        kept = found["weight decay", kind]["kept"][:, -1]
        made[f"left by weight decay, {kind}"] = compared(kept, left, within=bound)
    for way, kind in [("weight decay", kind) for kind in kinds] + [("attacks", one)]:
        made[f"off the factors of {way}, {kind}"] = at_most(found[way, kind]["off"].max(1), bound)
    made[f"left by noise over its factors, {one}"] = compared(
        _of_martingale(found["noise", one]), 1
    )
    for when, time in (("before", 0), ("after", -1)):
        ratio = found["gradient descent", two]["chi_square"][:, time]
        made[f"|(I - Pi) g|^2 over its law {when} descent"] = compared(ratio, 1)
    return made | _effects(found, kinds)


def _of_martingale(curves: Mapping[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """At the last look at which 1/e or more should be left: later it is the noise that is seen."""
    time = np.flatnonzero(curves["predicted"].mean(0) >= np.exp(-1))[-1]
    ratio: np.ndarray[Any, Any] = curves["kept"][:, time] / curves["predicted"][:, time]
    return ratio


def _effects(found: Curves, kinds: list[str]) -> dict[str, Metric]:
    """What is not predicted, and whether robust training aligns gradients more than plain training does."""
    made = {}
    for way in ("Adam", "normal noise in the points"):
        for kind in kinds:
            made[f"moved by {way}, {kind}"] = measured(found[way, kind]["moved"][:, -1])
    for way in ("attacks", "noise"):
        for kind in kinds:
            curves, plain = found[way, kind], found["gradient descent", kind]
            made[f"left by {way}, {kind}"] = measured(curves["size"][:, -1])
            ratio = curves["omega"][:, -1] / plain["omega"][:, -1]
            made[f"omega by {way} over that by descent, {kind}"] = at_most(ratio, 1)
    return made
