"""Linear models trained on two Gaussians, beside the rules that they find in closed form (laws D5, D6).

Every batch is of fresh samples, so that they descend the risk itself. Of a rule w of length 1:

    accuracy     exact, 1 - Phi(-mu.w / |Sigma^{1/2} w|)
    alignment    |Pw|^2 / |w|^2
    cosine       of w and the closed form, which is 1 of the closed form itself
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from manifoldlab import linalg
from manifoldlab.comparison import Metric
from manifoldlab.data.fresh_samples import fresh_samples
from manifoldlab.descent import Recipe
from manifoldlab.ensembles import train_ensemble
from manifoldlab.gaussian_regimes import GaussianRegimes, Trained, omega
from manifoldlab.interfaces import Objective
from manifoldlab.problems.base import Problem
from manifoldlab.schedules import cosine
from manifoldlab.statistics import mean_interval
from manifoldlab.studies.leave_one_out import jackknife
from manifoldlab.training import Advance

Array = npt.NDArray[np.float64]
EPOCH = 4096  # fresh samples
KINDS = ("accuracy", "alignment", "cosine")


def trained(
    problem: Problem,
    pair: GaussianRegimes,
    objective: Objective,
    strengths: Sequence[float],
    seeds: Sequence[int],
    *,
    epochs: int,
    checkpoint: Path,
    advance: Advance,
) -> Tensor:
    """Directions of the weights, (strengths, seeds, D)."""
    rows, axes = len(strengths), torch.linalg.eigh(pair.covariance).eigenvectors
    rules = [nn.Linear(len(axes), 2, dtype=axes.dtype) for _ in range(rows * len(seeds))]
    models = [_model(axes, rule) for rule in rules]
    train_ensemble(
        models,
        objective,
        [fresh_samples(problem, EPOCH, seed=seed, dtype=torch.float64) for seed in seeds] * rows,
        seeds=list(seeds) * rows,
        strengths=np.repeat(strengths, len(seeds)).tolist(),
        epochs=epochs,
        lr=0.3,
        recipe=Recipe(schedule=cosine),
        checkpoint=checkpoint,
        every=200,
        advance=advance,
    )
    weights = torch.stack([rule.weight.detach() for rule in rules])
    turned: Tensor = linalg.unit(weights[:, 1] - weights[:, 0]) @ axes.mT
    return turned.reshape(rows, len(seeds), -1)


def _model(axes: Tensor, rule: nn.Linear) -> nn.Module:
    """A linear model that begins at zero, on coordinates x.v_k along the eigenvectors of Sigma.

    Adam adapts its steps to each coordinate: across the subspace, where little happens, to that.
    """
    size = len(axes)
    turn = nn.Linear(size, size, bias=False, dtype=axes.dtype)
    with torch.no_grad():
        turn.weight.copy_(axes.mT)
        nn.init.zeros_(rule.weight)
        nn.init.zeros_(rule.bias)
    return nn.Sequential(turn.requires_grad_(False), rule)


def beside(
    pair: GaussianRegimes, frame: Tensor, closed: Trained, found: Tensor
) -> dict[str, Array]:
    """Of each kind the closed form (strengths,), and jackknifed values of the models (strengths, seeds)."""
    rule = linalg.unit(closed.rule)
    kinds: dict[str, Callable[[Tensor], Tensor]] = {
        "accuracy": lambda w: 1 - pair.clean_risk(w),
        "alignment": lambda w: 1 - omega(w, frame),
        "cosine": lambda w: torch.cosine_similarity(w, rule, dim=-1),
    }
    values = {"linear_gamma": closed.gamma}
    for name, of in kinds.items():
        values |= {f"closed_{name}": of(rule), f"linear_{name}": jackknife(of, found)}
    return {name: value.numpy() for name, value in values.items()}


def on_curve(values: Mapping[str, Array]) -> dict[str, Metric]:
    """Of each kind at the strength that is farthest from the closed form in its own error."""
    found = {name: (values[f"linear_{name}"], values[f"closed_{name}"]) for name in KINDS}
    return {f"linear {name}": _farthest(*pair) for name, pair in found.items()}


def _farthest(values: Array, curve: Array) -> Metric:
    """With the intervals of all strengths together holding with 95 %, by Bonferroni."""
    interval = partial(mean_interval, level=1 - 0.05 / len(values))
    bounds = np.array([interval(row) for row in values])  # (strengths, 2)
    centre, radius = bounds.mean(1), np.diff(bounds)[:, 0] / 2
    at = int((abs(centre - curve) / radius).argmax())
    return {
        "predicted": float(curve[at]),
        "measured": float(centre[at]),
        "low": float(bounds[at, 0]),
        "high": float(bounds[at, 1]),
        "agrees": bool(abs(centre[at] - curve[at]) <= radius[at]),
    }
