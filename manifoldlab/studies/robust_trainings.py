"""Robust trainings by name: an objective, the range of its strengths, and where linear models end.

On two Gaussians a linear model ends in closed form (law D6, `gaussian_regimes`): with f the difference
of its logits and w that of their weights, half of each in a logit,

    noise_augmentation   sigma = strength
    adversarial          radius = strength
    smoothness_penalty   sum of squared changes of the logits = deviation^2 |w|^2 / 2 on average, so that
                         the ridge is strength deviation^2 / 2
    margin_penalty       the gradient of the margin is +-w, so that the ridge is the strength
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from torch import Tensor

from manifoldlab.attacks.base import LINF
from manifoldlab.attacks.pgd import nearby, pgd
from manifoldlab.gaussian_regimes import GaussianRegimes, Trained
from manifoldlab.gradients import margin
from manifoldlab.interfaces import Geometry, Objective
from manifoldlab.objectives.adversarial import adversarial
from manifoldlab.objectives.gradient_penalty import gradient_penalty
from manifoldlab.objectives.mart import mart
from manifoldlab.objectives.noise_augmentation import noise_augmentation
from manifoldlab.objectives.normal_penalty import normal_penalty
from manifoldlab.objectives.score_matching import score_matching
from manifoldlab.objectives.smoothness_penalty import smoothness_penalty
from manifoldlab.objectives.trades import trades
from manifoldlab.objectives.weat import weat

DEVIATION = 0.1  # of the noise of smoothness_penalty and score_matching
RADIUS = 0.5  # of the l2 attacks whose weight is the strength
# From beside the sample, where the divergence from the clean prediction has a gradient.
PGD = partial(pgd, steps=5, start=nearby, best=False)

Curve = Callable[[GaussianRegimes, Tensor], Trained]  # of linear models, at strengths (m,)


class Training(NamedTuple):
    build: Callable[[Geometry], Objective]
    low: float
    high: float
    curve: Curve | None = None


def _plain(objective: Objective) -> Callable[[Geometry], Objective]:
    return lambda geometry: objective


def _smoothed(pair: GaussianRegimes, strength: Tensor) -> Trained:
    return pair.logistic_ridge(strength * DEVIATION**2 / 2)


TRAININGS: Mapping[str, Training] = {
    "gradient_penalty": Training(_plain(gradient_penalty), 1e-3, 1e2),
    "margin_penalty": Training(
        _plain(partial(gradient_penalty, head=margin)), 1e-5, 1e1, GaussianRegimes.logistic_ridge
    ),
    "smoothness_penalty": Training(
        _plain(partial(smoothness_penalty, deviation=DEVIATION)), 1e-2, 1e4, _smoothed
    ),
    "noise_augmentation": Training(_plain(noise_augmentation), 2e-2, 5.0, GaussianRegimes.noise),
    "adversarial": Training(
        _plain(partial(adversarial, inner=PGD)), 1e-2, 3.0, GaussianRegimes.adversarial
    ),
    "adversarial_linf": Training(
        _plain(partial(adversarial, inner=partial(PGD, ball=LINF))), 3e-3, 1.0
    ),
    "trades": Training(_plain(partial(trades, inner=partial(PGD, radius=RADIUS))), 1e-2, 1e3),
    "weat": Training(
        _plain(partial(weat, natural=True, inner=partial(PGD, radius=RADIUS))), 1e-2, 1e3
    ),
    "mart": Training(_plain(partial(mart, inner=partial(PGD, radius=RADIUS))), 1e-2, 1e3),
    "normal_penalty": Training(
        lambda geometry: partial(normal_penalty, geometry=geometry), 1e-3, 1e2
    ),
    "score_matching": Training(_plain(partial(score_matching, deviation=DEVIATION)), 1e-3, 1e1),
}
