r"""Weights as large in every dimension bring the flip across the data nearer, as (D - d)^{-1/2} (law F2).

Two layers of m rectifiers, f = sum +-max(0, w_j.x) / sqrt(m), inner weights N(0, s0^2 I) with s0
independent of D, learn two classes on a d-flat through the origin of R^D. To first order f flips
across the flat at

    |f| / |Qg| = |f| sqrt(m) / (s0 sqrt(k) chi),    chi^2 ~ chi^2_{D-d},   k active neurons,

before and after training, as no step of descent moves weights across the points (D3). So the mean of
log chi, (psi((D-d)/2) + log 2) / 2, gives the slope of the distance in units of |f| sqrt(m / k), in
which all margins weigh alike. The true distance, the nearest root of f that `flips` finds, should have
the slope -1/2 +- 0.1 from D - d = 128 on. Along the flat, f does not know D.

Controls: variance s0^2 / D makes the first order sqrt(D) times as long, which leaves no dependence on
D; weights a quarter as large make it 4 times as long; weight decay 2 lambda over t steps of rate eta
(1 - 2 eta lambda)^-t times. What attacks and noise in training make of it is measured. Of the means
that are compared, one in twenty misses its interval of 95 % by chance; the identities never may.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import numpy as np
import torch
from scipy.special import digamma
from torch import Tensor

from manifoldlab import checkpoints, draws
from manifoldlab.architecture import Architecture
from manifoldlab.attacks.pgd import at_rest, pgd
from manifoldlab.comparison import Metric, compared, measured, never_above
from manifoldlab.data.in_memory import in_memory
from manifoldlab.descent import Recipe
from manifoldlab.ensembles import train_ensemble
from manifoldlab.interfaces import Objective
from manifoldlab.objectives.adversarial import adversarial
from manifoldlab.objectives.cross_entropy import cross_entropy
from manifoldlab.objectives.noise_augmentation import noise_augmentation
from manifoldlab.records import Outcome, Progress
from manifoldlab.statistics import fit_power
from manifoldlab.studies.flats import Flats
from manifoldlab.studies.flips import Rectifiers, flips
from manifoldlab.training import Advance

WIDE = 128  # from this D - d on the true distance has the slope -1/2
SLOPE_WITHIN = 0.1  # for the law claims no constant, and the next order bends the line
IDENTITY = 1e-9  # of quantities in float64 through a few hundred steps


@final
@dataclass(frozen=True)
class Config:
    dim: int = 4
    codims: tuple[int, ...] = (8, 16, 32, 64, 128, 256, 512, 1024, 2048)
    """D - d."""
    width: int = 32
    deviation: float = 1.0
    """s0, of the inner weights."""
    separation: float = 1.0
    """Of the means of the classes from their middle, in deviations."""
    seeds: int = 16
    samples: int = 32
    points: int = 16
    """Others of each flat, at which flips are looked for."""
    steps: int = 200
    rate: float = 0.5
    decay: float = 0.005
    """lambda of the ridge lambda |W|^2."""
    radius: float = 0.3
    noise: float = 0.3

    def __post_init__(self) -> None:
        for name, least in (("dim", 1), ("width", 1), ("seeds", 2), ("samples", 2), ("points", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be {least} or more, not {getattr(self, name)}")
        if sum(codim >= WIDE for codim in set(self.codims)) < 3 or min(self.codims) < 1:
            raise ValueError(f"a slope needs three codims from {WIDE} on, not {self.codims}")
        if not self.deviation > 0:
            raise ValueError(f"the deviation of weights is positive, not {self.deviation}")


FAST = Config(codims=(8, 32, 128, 256, 512, 1024), seeds=6, steps=40)


Array = np.ndarray[Any, Any]


@final
@dataclass(frozen=True)
class Variant:
    """`factor`, a function of D, is by what the first order is longer than the law says."""

    objective: Objective = cross_entropy
    decay: float = 0.0
    steps: int | None = None  # in place of those of the configuration
    smaller: Callable[[int], float] = lambda size: 1.0  # what s0 is divided by
    factor: Callable[[int], float] = lambda size: np.nan
    claimed: bool = False  # that the true distance has the slope -1/2

    def factors(self, config: Config) -> Array:
        return np.array([self.factor(config.dim + codim) for codim in config.codims])

    def law(self, config: Config) -> Array:
        """factor exp(-E log chi) / s0, (codims,), in units of |f| sqrt(m / k)."""
        log_chi = (digamma(np.array(config.codims) / 2) + np.log(2)) / 2
        law: Array = self.factors(config) * np.exp(-log_chi) / config.deviation
        return law


def variants(config: Config) -> dict[str, Variant]:
    one: Callable[[int], float] = lambda size: 1.0
    root: Callable[[int], float] = lambda size: size**0.5
    quarter: Callable[[int], float] = lambda size: 4.0
    decay = 2 * config.decay
    grown: Callable[[int], float] = lambda size: (1 - config.rate * decay) ** -config.steps
    attack = partial(pgd, steps=3, start=at_rest, best=False)
    attacked = partial(adversarial, strength=config.radius, inner=attack)
    noisy = partial(noise_augmentation, strength=config.noise)
    return {
        "before training": Variant(steps=0, factor=one, claimed=True),
        "descent": Variant(factor=one, claimed=True),
        "variance 1/D": Variant(smaller=root, factor=root),
        "small weights": Variant(smaller=quarter, factor=quarter, claimed=True),
        "weight decay": Variant(decay=decay, factor=grown, claimed=True),
        "attacks": Variant(attacked),
        "noise": Variant(noisy),
    }


def trained(config: Config, variant: Variant, codim: int, advance: Advance) -> dict[str, Tensor]:
    """At each point, (seeds, points); nan where no neuron is active."""
    seeds, size = tuple(range(config.seeds)), config.dim + codim
    flats = Flats.drawn(size, config.dim, 0.0, seeds)
    deviation = config.deviation / variant.smaller(size)
    options = {"width": config.width, "scale": deviation}
    built = Architecture("two_layer_relu", (size,), 2, options)
    models = [built.build(draws.number(seed, "model")).double() for seed in seeds]
    start = Rectifiers.of(models)
    seen = flats.points(config.samples, config.separation, seeds, "seen")
    others = flats.points(config.points, config.separation, seeds, "others")
    train_ensemble(
        models,
        variant.objective,
        [in_memory(x, y, 2) for x, y in flats.blocks(seen)],
        seeds=seeds,
        epochs=config.steps if variant.steps is None else variant.steps,
        batch_size=config.samples,
        lr=config.rate,
        recipe=Recipe(optimizer=partial(torch.optim.SGD, weight_decay=variant.decay)),
        advance=advance,
    )
    x = others.x.reshape(len(seeds), -1, size)
    networks, standard = Rectifiers.of(models), start.inner / deviation
    return flips(networks, standard, x, across=flats.unseen, along=flats.along)


def main(config: Config, progress: Progress) -> Outcome:
    known = variants(config)
    pairs = [(name, codim) for name in known for codim in config.codims]
    found: dict[str, list[Mapping[str, Tensor]]] = {name: [] for name in known}
    for i, (name, codim) in enumerate(pairs):
        what = f"{name}, D - d = {codim}"
        tell = lambda done, i=i, what=what: progress((i + done) / len(pairs), what)
        file = progress.folder / f"{i}.safetensors"
        if not file.exists():
            checkpoints.save(file, trained(config, known[name], codim, tell), {})
        found[name].append(checkpoints.load(file)[0])
    arrays = {name: summary(config, known[name], rows) for name, rows in found.items()}
    return Outcome(metrics(config, arrays), samples(config, arrays))


def summary(config: Config, variant: Variant, rows: list[Mapping[str, Tensor]]) -> dict[str, Array]:
    """Of the points of each network, (codims, seeds); a few of them never flip, so medians of those."""
    every = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    unit, codims = every["unit"], torch.tensor(config.codims, dtype=torch.float64)
    law = unit / every["chi_square"].sqrt() / config.deviation
    ratio = every["linear"] / law
    factors = torch.from_numpy(variant.factors(config))[:, None, None]
    found = {
        "linear_in_units": (every["linear"] / unit).log().nanmean(2).exp(),
        "across_in_units": (every["across"] / unit).nanmedian(2).values,
        "over_law": ratio.nanmean(2),
        "off_law": (ratio / factors - 1).abs().nan_to_num(0.0).amax(2),  # nan: none is active
        "chi_square": every["chi_square"].nanmean(2) / codims[:, None],
        **{name: every[name].nanmedian(2).values for name in ("linear", "across", "along")},
    }
    return {name: value.numpy() for name, value in found.items()}


def samples(config: Config, found: Mapping[str, Mapping[str, Array]]) -> dict[str, Array]:
    """Arrays (variants, codims, seeds), and the first order's law (variants, codims)."""
    known = variants(config)
    return {
        "variants": np.array(list(known)),
        "codims": np.array(config.codims),
        "law_in_units": np.array([variant.law(config) for variant in known.values()]),
    } | {name: np.array([found[key][name] for key in known]) for name in found["descent"]}


def slopes(config: Config, values: Array, least: int = 1) -> Array:
    """In log-log against D - d from `least` on, of each seed: (codims, seeds) -> (seeds,)."""
    codims = np.array(config.codims, dtype=float)
    chosen = codims >= least
    return np.array([fit_power(codims[chosen], column[chosen]).slope for column in values.T])


def metrics(config: Config, found: Mapping[str, Mapping[str, Array]]) -> dict[str, Metric]:
    made: dict[str, Metric] = {}
    for name, variant in variants(config).items():
        law, own = variant.law(config), found[name]
        linear = slopes(config, own["linear_in_units"])
        across = slopes(config, own["across_in_units"], WIDE)
        made[f"slope of the first order, {name}"] = measured(linear)
        made[f"slope of the true distance, {name}"] = measured(across)
        if np.isfinite(law).all():
            exact = float(slopes(config, law[:, None])[0])
            made[f"slope of the first order, {name}"] = compared(linear, exact)
            made |= _identity(config, name, variant, own)
        if variant.claimed:
            half = compared(across, -0.5, within=SLOPE_WITHIN)
            made[f"slope of the true distance, {name}"] = half
    return made | _gap(config, found)


def _identity(
    config: Config, name: str, variant: Variant, own: Mapping[str, Array]
) -> dict[str, Metric]:
    """The first order over |f| sqrt(m) / (s0 sqrt(k) chi), chi of the numbers that were drawn."""
    last = int(np.argmax(config.codims))
    factor, ratio = float(variant.factors(config)[last]), own["over_law"][last]
    return {
        f"first order over the law, {name}": compared(ratio, factor, within=IDENTITY * factor),
        f"first order off that at any point, {name}": never_above(own["off_law"], IDENTITY),
        f"chi^2 / (D - d), {name}": compared(own["chi_square"].mean(0), 1),
    }


def _gap(config: Config, found: Mapping[str, Mapping[str, Array]]) -> dict[str, Metric]:
    """Along the flat D is not known; how much nearer is the flip across it, where D is largest?"""
    made = {}
    for name in ("before training", "descent"):
        slope = slopes(config, found[name]["along"])
        made[f"slope along the flat, {name}"] = compared(slope, 0)
    last = int(np.argmax(config.codims))
    for name, own in found.items():
        ratio = own["along"][last] / own["across"][last]
        made[f"distance along over across at the largest D, {name}"] = measured(ratio)
    return made
