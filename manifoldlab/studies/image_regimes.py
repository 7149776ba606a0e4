"""What the three regimes would show on images (Srinivas et al. 2023), as metrics over seeds.

    weak        cross-entropy: changes more across the manifold than along it, off / on >= 1
    aligned     at the strength where gradients are most like the score of the class: more like it than
                before, off / on <= 1, and accuracy no more than COST lower
    excessive   at the largest strength: accuracy, and likeness to the score, LOSS below their best

The same is asked at the strength where gradients are most tangent, by each geometry.

Each seed is shown at the strength that is best for the other seeds: the choice flatters nobody. On
and off are the published measurement, by which off / on <= 1 asks for less than tangent gradients do
(module on_off_robustness).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from manifoldlab.comparison import Metric, at_least, at_most, measured
from manifoldlab.studies.leave_one_out import best

Array = npt.NDArray[np.float64]
COST = 0.09  # of accuracy at the best strength: the published curves lose 3 to 9 points
LOSS = 0.02  # what the largest strength must lose


def claims(means: Mapping[str, Array]) -> dict[str, Metric]:
    """Of NAME (strengths, seeds) and weak_NAME (1, seeds)."""
    rows = best(means["score"])
    at: Any = lambda name: means[name][rows, np.arange(len(rows))]
    weak: Any = lambda name: means[f"weak_{name}"][0]
    omegas = [name for name in means if name.startswith("omega_")]
    return {
        "weak accuracy": measured(weak("right")),
        "weak score": measured(weak("score")),
        "weak off / on": at_least(weak("off") / weak("on"), 1.0),
        "best accuracy": measured(at("right")),
        "best score, gained": at_least(at("score") - weak("score"), 0.0),
        "weak perceptual": measured(weak("perceptual")),
        "best perceptual, gained": at_least(at("perceptual") - weak("perceptual"), 0.0),
        "best tangent score, gained": at_least(at("tangent_score") - weak("tangent_score"), 0.0),
        **{f"best {name}, lost": at_least(weak(name) - at(name), 0.0) for name in omegas},
        "best off / on": at_most(at("off") / at("on"), 1.0),
        "best accuracy, lost": at_most(weak("right") - at("right"), COST),
        "excessive score, lost": at_least(at("score") - means["score"][-1], LOSS),
        "excessive accuracy, lost": at_least(at("right") - means["right"][-1], LOSS),
    } | {what: metric for name in omegas for what, metric in most_tangent(means, name).items()}


def most_tangent(means: Mapping[str, Array], omega: str) -> dict[str, Metric]:
    """At the strength of the largest tangent share 1 - omega, and beyond."""
    share, weak, right = 1 - means[omega], 1 - means[f"weak_{omega}"][0], means["right"]
    rows = best(share)
    columns = np.arange(len(rows))
    found = {
        "share, gained": at_least(share[rows, columns] - weak, 0.0),
        "accuracy, lost": at_most(means["weak_right"][0] - right[rows, columns], COST),
        "share, lost beyond": at_least(share[rows, columns] - share[-1], LOSS),
        "accuracy, lost beyond": at_least(right[rows, columns] - right[-1], LOSS),
    }
    return {f"most tangent, {omega.removeprefix('omega_')}: {what}": m for what, m in found.items()}


def at_best(means: Mapping[str, Array], name: str) -> dict[str, Array]:
    """Of cross-entropy, and of each seed at its strength."""
    rows = best(means["score"])
    return {
        "weak": means[f"weak_{name}"][0],
        "best": means[name][rows, np.arange(len(rows))],
    }
