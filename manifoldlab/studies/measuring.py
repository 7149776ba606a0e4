"""What probes say of each member of an ensemble at the same fresh samples, in one number each.

Of the gradient g of a head, here and of Bayes, with the projections P and Q of the manifold:

    accuracy     share of samples that are told right
    on, off      root mean square change of the class probabilities, for steps of one length along
                 the manifold and across it
    alignment    sum |Pg|^2 / sum |g|^2 = 1 - omega, every sample weighed by its gradient: where a
                 gradient vanishes its direction says nothing
    truth        mean cosine of g and the gradient of the same head of the Bayes classifier
    score        mean cosine along the manifold of the gradient of the label's logit and the score
                 of its class, grad log p(x|y): what a network knows of the density of its data
    marginal     root mean square cosine along the manifold of g and the score grad log p(x), which
                 has no sign in common with a margin

Scores are compared along the manifold, without their normal part -Qx / tau^2, which the noise of the
data makes.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from manifoldlab.evaluation import evaluate
from manifoldlab.geometries import Tabulated
from manifoldlab.gradients import input_gradient, log_marginal, logit, margin
from manifoldlab.interfaces import Batch, Head, Model, Probe, Reference
from manifoldlab.manifolds.base import Manifold
from manifoldlab.probes.on_off_robustness import on_off_robustness, softmax_change
from manifoldlab.probes.score_alignment import ScoreAlignment, score_alignment
from manifoldlab.probes.tangent_alignment import tangent_alignment
from manifoldlab.problems.base import BayesClassifier, Problem

Array = npt.NDArray[np.float64]


def tabulated(problem: Problem, batch: Batch) -> Tabulated:
    manifold = problem.geometry(batch)
    if not isinstance(manifold, Manifold):
        raise ValueError(f"tangent bases are those of one manifold, not of {manifold!r}")
    return Tabulated(manifold, manifold.tangent_basis(batch.x.double()))


class Reading(NamedTuple):
    accuracy: float
    on: float
    off: float
    alignment: float
    truth: float
    score: float
    marginal: float
    norm: float  # root mean square of |g|


@final
class Gauge:
    """Reads models at the same samples; the fields of Bayes are computed once."""

    def __init__(self, problem: Problem, batch: Batch, *, head: Head = margin, step: float = 0.5):
        self.batch = batch._replace(x=batch.x.double(), index=torch.arange(len(batch.x)))
        self.head, self.step = head, step
        self.geometry = tabulated(problem, self.batch)
        self.bayes = BayesClassifier(problem)
        x, y = self.batch[:2]
        self.truth = input_gradient(self.bayes, x, y, head)
        self.score = input_gradient(self.bayes, x, y, logit)
        self.marginal = input_gradient(self.bayes, x, y, log_marginal)

    def read(self, model: Model) -> Reading:
        """Of a model in float64: what robust networks do is little."""
        moved = partial(on_off_robustness, sizes=(self.step,), change=softmax_change(2))
        steps = self._evaluated(moved, model)
        tangent = self._evaluated(partial(tangent_alignment, head=self.head), model)
        truth = self._compared(model, self.head, self.truth)
        score = self._compared(model, logit, self.score)
        marginal = self._compared(model, self.head, self.marginal)
        weight = tangent.norm.square() / tangent.norm.square().sum()
        with torch.no_grad():
            right = model(self.batch.x).argmax(1) == self.batch.y
        return Reading(
            right.double().mean().item(),
            _root_mean_square(steps.on),
            _root_mean_square(steps.off),
            (weight * tangent.alignment).sum().item(),
            truth.cosine.mean().item(),
            score.tangent_cosine.mean().item(),
            _root_mean_square(marginal.tangent_cosine),
            _root_mean_square(tangent.norm),
        )

    def read_all(self, models: Sequence[nn.Module], rows: int) -> dict[str, Array]:
        """Of each field the values of members in so many equal rows, (rows, members / rows)."""
        found = [self.read(model.double()) for model in models]
        columns = zip(Reading._fields, zip(*found, strict=True), strict=True)
        return {name: np.array(values).reshape(rows, -1) for name, values in columns}

    @property
    def nulls(self) -> dict[str, float]:
        """Of gradients of isotropic direction, beside those that are 0."""
        dim, ambient = self.geometry.dim, self.batch.x[0].numel()
        return {"alignment": dim / ambient, "truth": 0.0, "score": 0.0, "marginal": dim**-0.5}

    def _compared(self, model: Model, head: Head, field: Tensor) -> ScoreAlignment:
        reference: Reference = lambda batch: field
        probe = partial(score_alignment, reference=reference, head=head)
        found: ScoreAlignment = self._evaluated(probe, model)
        return found

    def _evaluated(self, probe: Probe, model: Model) -> Any:
        return evaluate(probe, model, [self.batch], self.geometry)


def _root_mean_square(values: Tensor) -> float:
    return values.square().mean().sqrt().item()
