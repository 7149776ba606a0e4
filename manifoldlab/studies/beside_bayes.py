"""What probes see of networks of several seeds beside the exact Bayes classifier of their problem.

Each seed has points of its own; the members of an ensemble are strengths by seeds, seeds fastest.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor

from manifoldlab import draws, gradients
from manifoldlab.geometries import Tabulated
from manifoldlab.gradients import input_gradient
from manifoldlab.interfaces import Batch, Head, Model
from manifoldlab.probes.on_off_robustness import on_off_robustness
from manifoldlab.probes.score_alignment import score_alignment
from manifoldlab.probes.tangent_alignment import tangent_alignment
from manifoldlab.problems.base import BayesClassifier, Isotropic

Array = NDArray[Any]


class Points(NamedTuple):
    """Of all seeds in turn; the index is the row, by which the geometry knows its tangent spaces."""

    batch: Batch
    geometry: Tabulated
    seeds: int

    def times(self, copies: int) -> Batch:
        x, y, index, _ = self.batch
        assert index is not None
        return Batch(x.repeat(copies, 1), y.repeat(copies), index.repeat(copies))


def points(problem: Isotropic, n: int, seeds: Sequence[int], what: str) -> Points:
    """n of each seed, others for other words."""
    parts = [problem.sample(n, draws.source(seed, what)) for seed in seeds]
    x, y = torch.cat([b.x for b in parts]), torch.cat([b.y for b in parts])
    geometry = Tabulated(problem.manifold, problem.manifold.tangent_basis(x))
    return Points(Batch(x, y, torch.arange(len(x))), geometry, len(seeds))


class Seen(NamedTuple):
    """Of each member (strengths, seeds), by its points; g is the gradient of the margin."""

    accuracy: Array
    loss: Array  # mean cross-entropy
    square: Array  # mean |g|^2
    normal_square: Array  # mean |Qg|^2
    alignment: Array  # mean 1 - omega
    cosine: Array  # mean cosine of g with the gradient of the Bayes margin
    tangent_cosine: Array  # of their tangential parts
    score_cosine: Array  # root mean square cosine of g with the score of x
    on: Array  # root mean square change of the margin by steps along the manifold
    off: Array  # and across it


def beside_bayes(
    model: Model, bayes: BayesClassifier, here: Points, *, copies: int, size: float
) -> Seen:
    """The model takes the points of all seeds `copies` times, and steps have the length `size`."""
    batch = here.times(copies)
    geometry = here.geometry.at(batch)
    own = tangent_alignment(model, batch, geometry)
    exact, score = (
        score_alignment(
            model, batch, geometry, reference=partial(repeated, bayes, here.batch, copies, head)
        )
        for head in (gradients.margin, gradients.log_marginal)
    )
    # no two copies of the batch in a pass, for an ensemble gives blocks of it to its members
    steps = on_off_robustness(model, batch, geometry, sizes=(size,), chunk=1)
    with torch.no_grad():
        logits = model(batch.x)
        right, loss = logits.argmax(1) == batch.y, gradients.cross_entropy(logits, batch.y)
    square = own.norm.square()
    squares = (square, square * own.omega, own.alignment, exact.cosine, exact.tangent_cosine)
    roots = (score.cosine, steps.on, steps.off)
    rows = [right, loss, *squares, *(root.square() for root in roots)]
    means = [r.detach().double().reshape(copies, here.seeds, -1).mean(2).numpy() for r in rows]
    return Seen(*means[:-3], *(mean**0.5 for mean in means[-3:]))


def repeated(bayes: Model, batch: Batch, copies: int, head: Head, many: Batch) -> Tensor:
    """A gradient of the Bayes classifier at a batch that was repeated."""
    del many
    return input_gradient(bayes, batch.x, batch.y, head).repeat(copies, 1)
