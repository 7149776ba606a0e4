"""Robust trainings of image classifiers by name, and the strengths over which each is swept.

Strengths are those of this package: by one image, pixels in [0, 1]. The grids of Srinivas et al. 2023
are the ranges of the four methods that they have, converted where their code means something else:

    noise_augmentation  10^-3 .. 10^2, the deviation of the noise ("randomized smoothing")
    gradient_penalty    1e5 c / 128^2, c of 10^-5 .. 10^2 (objectives.gradient_penalty)
    smoothness_penalty  10^-4 .. 10^4, noise of deviation 0.1
    adversarial         e / sqrt(128), e of 10^-5 .. 10^4: their l2 ball is that of a batch of 128,
                        in which an image moves by as much in the root mean square; 10 steps

The others have ranges of the same kind: from no effect to a classifier that has lost its classes.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from torch import Tensor

from manifoldlab.attacks.base import LINF
from manifoldlab.attacks.pgd import nearby, pgd
from manifoldlab.gradients import margin
from manifoldlab.interfaces import Geometry, Objective
from manifoldlab.objectives.adversarial import adversarial
from manifoldlab.objectives.gradient_penalty import gradient_penalty, published_strength
from manifoldlab.objectives.mart import mart
from manifoldlab.objectives.noise_augmentation import noise_augmentation
from manifoldlab.objectives.normal_penalty import normal_penalty
from manifoldlab.objectives.score_matching import score_matching
from manifoldlab.objectives.smoothness_penalty import smoothness_penalty
from manifoldlab.objectives.trades import trades
from manifoldlab.objectives.weat import weat

BATCH = 128**0.5  # of the published batch, by whose l2 norm its attack is bounded
DEVIATION = 0.1  # of the noise of smoothness_penalty and score_matching
Build = Callable[[Geometry, int, float], Objective]  # tangent spaces, steps and radius of attacks


class ImageTraining(NamedTuple):
    build: Build
    low: float
    high: float
    published: bool = False  # whether the range is
    tangents: bool = False  # whether it asks for tangent spaces


def _plain(objective: Objective) -> Build:
    return lambda geometry, steps, radius: objective


def _attack(steps: int) -> partial[Tensor]:
    """From beside the image, where the divergence from the clean prediction has a gradient."""
    return partial(pgd, steps=steps, start=nearby, best=False, bounds=(0, 1))


def _adversarial(geometry: Geometry, steps: int, radius: float) -> Objective:
    del geometry, radius
    return partial(adversarial, inner=_attack(steps))


def _adversarial_linf(geometry: Geometry, steps: int, radius: float) -> Objective:
    del geometry, radius
    return partial(adversarial, inner=partial(_attack(steps), ball=LINF))


def _beside(objective: Callable[..., Tensor]) -> Build:
    """One whose strength weighs the loss at attacks of the radius."""
    return lambda geometry, steps, radius: partial(
        objective, inner=partial(_attack(steps), radius=radius)
    )


IMAGE_TRAININGS: Mapping[str, ImageTraining] = {
    "noise_augmentation": ImageTraining(_plain(noise_augmentation), 1e-3, 1e2, True),
    "gradient_penalty": ImageTraining(
        _plain(gradient_penalty), published_strength(1e-5), published_strength(1e2), True
    ),
    "smoothness_penalty": ImageTraining(
        _plain(partial(smoothness_penalty, deviation=DEVIATION)), 1e-4, 1e4, True
    ),
    "adversarial": ImageTraining(_adversarial, 1e-5 / BATCH, 1e4 / BATCH, True),
    "adversarial_linf": ImageTraining(_adversarial_linf, 1e-4, 1.0),
    "margin_penalty": ImageTraining(_plain(partial(gradient_penalty, head=margin)), 1e-5, 1e2),
    "trades": ImageTraining(_beside(trades), 1e-2, 1e3),
    "weat": ImageTraining(_beside(partial(weat, natural=True)), 1e-2, 1e3),
    "mart": ImageTraining(_beside(mart), 1e-2, 1e3),
    "normal_penalty": ImageTraining(
        lambda geometry, steps, radius: partial(normal_penalty, geometry=geometry),
        1e-4,
        1e2,
        tangents=True,
    ),
    "score_matching": ImageTraining(
        _plain(partial(score_matching, deviation=DEVIATION)), 1e-4, 1e1
    ),
}
