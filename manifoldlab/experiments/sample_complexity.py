r"""How the gradients of trained networks come to those of Bayes with n samples, and at what rate in n, d, D.

Measured are omega and the misalignment to Bayes of the field of margin gradients (gradient_fields), at
points of the manifold.

`gaussian`: two Gaussians on a d-flat in R^D with isotropic noise, linear logistic models trained to the
minimum. Their law is known (logistic_samples): omega ~ (D - d) / (c noise^2 |w*|^2 n), hence the rates -1 in
n, 1 in D - d and 0 in d; likewise for the misalignment, and what the next orders add.
`sphere`: von Mises-Fisher mixtures on a d-sphere, networks trained for so many steps. The claim is only
that the excess of omega over Bayes and the misalignment fall in n and do not fall in D - d. It fails as
stated: with few samples both rise in n before they fall steeply, and with many dimensions both fall in D.

Three scans meet in (dim, ambient, size): of n, of D, and of d at one D - d. Each network has data of its
own. A rate is the slope of the mean curve over seeds, its interval from the jackknife.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from manifoldlab import comparison, draws, schedules
from manifoldlab.architecture import Architecture
from manifoldlab.comparison import Metric
from manifoldlab.data.samples import samples
from manifoldlab.descent import Recipe
from manifoldlab.ensembles import train_ensemble
from manifoldlab.interfaces import Batch
from manifoldlab.objectives.cross_entropy import cross_entropy
from manifoldlab.problems.base import BayesClassifier, Isotropic
from manifoldlab.records import Outcome, Progress
from manifoldlab.statistics import Array, Values, fit_power
from manifoldlab.studies import gradient_fields
from manifoldlab.studies.leave_one_out import best, jackknife
from manifoldlab.studies.scaled_problems import PROBLEMS, Law, Point, gaussian_law
from manifoldlab.training import Advance

ENOUGH = 8  # samples a dimension, from which such Gaussians are not separable but by rare chance
LINEAR_STEPS, LINEAR_RATE = 200, 0.1  # of Adam on all samples: within 0.3 % of Newton's minimum
RATE = 0.005  # of Adam on batches
NAMES = "omega", "misalignment"


@dataclass(frozen=True)
class Config:
    problem: Literal["gaussian", "sphere"] = "gaussian"
    noise: float = 0.6
    """Below 1; the sphere has radius 2."""
    dim: int = 4
    ambient: int = 32
    size: int = 6400
    """Samples where d and D vary."""
    sizes: tuple[int, ...] = (400, 800, 1600, 3200, 6400, 12800, 25600)
    ambients: tuple[int, ...] = (8, 16, 32, 64, 128)
    dims: tuple[int, ...] = (2, 4, 8, 16, 32)
    """At one D - d."""
    seeds: int = 16
    width: int = 64
    """Of the two hidden layers of networks on the sphere."""
    steps: int = 1500
    batch: int = 256
    probes: int = 1000
    """Points at which gradients are compared."""

    def __post_init__(self) -> None:
        for name in ("sizes", "ambients", "dims"):
            if len(set(getattr(self, name))) < 3:
                raise ValueError(f"a rate needs 3 {name} or more, not {getattr(self, name)}")
        for name, least in {"seeds": 2, "width": 1, "steps": 1, "batch": 1, "probes": 1}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be {least} or more, not {getattr(self, name)}")
        if not 0 < self.noise < 1:
            raise ValueError(f"noise lies between 0 and 1, not at {self.noise}")
        self._check_points()

    def _check_points(self) -> None:
        for point in self.points():
            if not 1 <= point.dim < point.ambient:
                raise ValueError(f"no manifold of dimension {point.dim} in R^{point.ambient}")
            if self.problem == "gaussian" and point.size < ENOUGH * point.ambient:
                raise ValueError(
                    f"{point.size} samples in R^{point.ambient} may be separable: "
                    f"{ENOUGH} a dimension are needed"
                )

    def scans(self) -> dict[str, list[Point]]:
        """By what varies in them."""
        codim = self.ambient - self.dim
        return {
            "n": [Point(self.dim, self.ambient, n) for n in sorted(self.sizes)],
            "D - d": [Point(self.dim, D, self.size) for D in sorted(self.ambients)],
            "d": [Point(d, d + codim, self.size) for d in sorted(self.dims)],
        }

    def points(self) -> list[Point]:
        return sorted({point for scan in self.scans().values() for point in scan})


class Found(NamedTuple):
    """At one point of the scans: of the networks, by seeds (S,), and of the Bayes classifier."""

    omega: Array
    misalignment: Array
    accuracy: Array
    bayes_omega: float
    bayes_accuracy: float


Founds: TypeAlias = Mapping[Point, Found]
Laws: TypeAlias = Mapping[Point, Law]

FAST = Config(
    size=1600,
    sizes=(400, 1600, 6400),
    ambients=(8, 32, 128),
    dims=(2, 8, 32),
    seeds=8,
    steps=600,
)


def main(config: Config, progress: Progress) -> Outcome:
    points, found = config.points(), dict[Point, Found]()
    for i, point in enumerate(points):
        what = f"n = {point.size}, d = {point.dim}, D = {point.ambient}"
        advance = partial(_advance, progress, what, i, len(points))
        problem = PROBLEMS[config.problem](point.dim, point.codim, config.noise)
        found[point] = measured(
            problem, trained(config, problem, point, progress.folder, advance), config.probes
        )
    laws = (
        {p: gaussian_law(p, config.noise) for p in points} if config.problem == "gaussian" else {}
    )
    metrics = linear_metrics(config, found, laws) if laws else curved_metrics(config, found)
    return Outcome(metrics | at_most_samples(config, found), arrays(found, laws))


def _advance(progress: Progress, what: str, before: int, count: int, done: float) -> None:
    progress((before + done) / count, what)


def trained(
    config: Config, problem: Isotropic, point: Point, folder: Path, advance: Advance
) -> list[nn.Module]:
    """One network a seed, each on samples of its own."""
    linear, n = config.problem == "gaussian", point.size
    options = {"depth": 0} if linear else {"width": config.width, "depth": 2}
    plan = Architecture("mlp", problem.shape, problem.num_classes, options)
    seeds = [draws.number(seed, *point) for seed in range(config.seeds)]
    networks = [plan.build(draws.number(seed, "network")) for seed in seeds]
    batch = n if linear else min(n, config.batch)
    steps, lr = (LINEAR_STEPS, LINEAR_RATE) if linear else (config.steps, RATE)
    train_ensemble(
        networks,
        cross_entropy,
        [samples(problem, n, seed=draws.number(seed, "data")) for seed in seeds],
        seeds=seeds,
        epochs=max(1, round(steps / ceil(n / batch))),
        batch_size=batch,
        lr=lr,
        recipe=Recipe(schedule=schedules.cosine),
        checkpoint=folder / f"n{n}-d{point.dim}-D{point.ambient}.safetensors",
        advance=advance,
    )
    return networks


def measured(problem: Isotropic, networks: Sequence[nn.Module], count: int) -> Found:
    """Gradients at points of the manifold, accuracies at ten times as many samples."""
    generator = draws.source(0, "probes")
    z, y = problem.densities.sample(count, generator)
    points, fresh = Batch(problem.manifold.embed(z), y), problem.sample(10 * count, generator)
    classifiers = [BayesClassifier(problem), *(network.double() for network in networks)]
    fields = gradient_fields.compared(classifiers, points, problem.geometry(points))
    with torch.no_grad():
        hits = torch.stack([c(fresh.x).argmax(1) == fresh.y for c in classifiers])
    bayes_omega, *omega = fields.omega.tolist()
    bayes_accuracy, *accuracy = hits.double().mean(1).tolist()
    misalignment = fields.misalignment[1:].numpy()
    return Found(np.array(omega), misalignment, np.array(accuracy), bayes_omega, bayes_accuracy)


def curved_metrics(config: Config, found: Founds) -> dict[str, Metric]:
    """What is claimed is monotony: on the whole, and from each point to later ones."""
    claims: dict[str, Callable[[Array], Metric]] = {
        "n": partial(comparison.at_most, predicted=0.0),
        "D - d": partial(comparison.at_least, predicted=0.0),
        "d": comparison.measured,
    }
    metrics = {}
    for scan, points in config.scans().items():
        for name in NAMES:
            values = rates(name, scan, points, found)
            metrics[f"{name}: rate in {scan}"] = claims[scan](values)
    for name in NAMES:
        points = config.scans()["n"]
        last = rates(name, "n", points[-3:], found)
        metrics[f"{name}: rate in n, last three"] = comparison.measured(last)
        rise = against(name, points, found)
        metrics[f"{name}: largest rise in n"] = comparison.at_most(rise, 0)
        fall = against(name, config.scans()["D - d"][::-1], found)
        metrics[f"{name}: largest fall in D - d"] = comparison.at_most(fall, 0)
    return metrics


def against(name: str, points: Sequence[Point], found: Founds) -> Array:
    """The largest step up from one point to a later one; which it is, the other seeds say."""
    excess = np.stack([excess_of(found[p], name) for p in points])  # (points, S)
    first, later = np.triu_indices(len(points), 1)
    steps = excess[later] - excess[first]
    chosen: Array = steps[best(steps), np.arange(steps.shape[1])]
    return chosen


def linear_metrics(config: Config, found: Founds, laws: Laws) -> dict[str, Metric]:
    """With leading terms, as far as the next orders leave them, and with all orders at once."""
    metrics = {}
    for scan, points in config.scans().items():
        for name in NAMES:
            leading = slope(scan, points, [getattr(laws[p].leading, name) for p in points])
            whole = slope(scan, points, [getattr(laws[p].all_orders, name) for p in points])
            metrics[f"{name}: rate in {scan}"] = comparison.compared(
                rates(name, scan, points, found), leading, within=abs(whole - leading)
            )
    last = config.scans()["n"][-1]
    for name in NAMES:
        leading, whole = (last.size * getattr(term, name) for term in laws[last])
        metrics[f"{name}: times n, at most samples"] = comparison.compared(
            last.size * getattr(found[last], name), leading, within=abs(whole - leading)
        )
        shares = [getattr(found[p], name) / getattr(laws[p].all_orders, name) for p in found]
        metrics[f"{name}: over all orders, all points"] = comparison.compared(np.mean(shares, 0), 1)
    return metrics


def rates(name: str, scan: str, points: Sequence[Point], found: Founds) -> Array:
    """Of the mean over seeds of what is in excess of Bayes, one for each seed that is left out."""
    runs = np.stack([excess_of(found[p], name) for p in points], 1)  # (S, points)
    of: Callable[[Tensor], Tensor] = lambda mean: mean.new_tensor([slope(scan, points, mean[0])])
    each: Array = jackknife(of, torch.from_numpy(runs)[None])[0].numpy()
    return each


def excess_of(found: Found, name: str) -> Array:
    """Over Bayes."""
    return found.omega - found.bayes_omega if name == "omega" else found.misalignment


def slope(scan: str, points: Sequence[Point], values: Values) -> float:
    return fit_power([point.scale(scan) for point in points], values).slope


def at_most_samples(config: Config, found: Founds) -> dict[str, Metric]:
    last = found[config.scans()["n"][-1]]
    lost = last.bayes_accuracy - last.accuracy
    return {
        "omega: in excess of Bayes, at most samples": comparison.measured(excess_of(last, "omega")),
        "accuracy: lost against Bayes, at most samples": comparison.measured(lost),
    }


def arrays(found: Founds, laws: Laws) -> dict[str, Any]:
    """By points (P,), and by points and seeds (P, S)."""
    points = list(found)
    columns = {name: np.stack([getattr(f, name) for f in found.values()]) for name in Found._fields}
    terms = {
        f"{order}_{name}": np.array([getattr(getattr(laws[p], order), name) for p in points])
        for order in (Law._fields if laws else ())
        for name in NAMES
    }
    places = dict(zip(("d", "D", "n"), np.array(points).T, strict=True))
    null = np.array([point.codim / point.ambient for point in points])
    return places | columns | {"null_omega": null} | terms
