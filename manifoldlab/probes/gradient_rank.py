"""Effective number of independent logit gradients: participation ratio of the Jacobian's spectrum.

With singular values s_i of J (K x D): (sum s_i^2)^2 / sum s_i^4 = (tr G)^2 / |G|_F^2, G = JJ', which
needs no decomposition. It lies between 1 and the rank.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from manifoldlab.gradients import logit_jacobian
from manifoldlab.interfaces import Batch, Geometry, Model, Probe


class GradientRank(NamedTuple):
    rank: Tensor  # (n,) of the logit Jacobian
    tangent_rank: Tensor  # (n,) of its tangential part
    rank_null: Tensor  # (n,) of isotropic random logit gradients, as a ratio of expectations
    tangent_rank_null: Tensor  # (n,)


def gradient_rank(
    model: Model, batch: Batch, geometry: Geometry, *, centred: bool = False
) -> GradientRank:
    """`centred` takes the mean over classes off, which leaves what the posterior depends on."""
    jacobian = logit_jacobian(model, batch.x)  # (K, n, *shape)
    if centred:
        jacobian = jacobian - jacobian.mean(0)
    rank = _participation(jacobian)
    tangent_rank = _participation(geometry.to_tangent(batch.x, jacobian))
    null: Callable[[int], Tensor] = lambda size: torch.full_like(
        rank, _isotropic(len(jacobian) - centred, size)
    )
    return GradientRank(rank, tangent_rank, null(batch.x[0].numel()), null(geometry.dim))


def _participation(jacobian: Tensor) -> Tensor:
    rows = jacobian.flatten(2).transpose(0, 1)  # (n, K, D)
    gram = rows @ rows.mT
    return gram.diagonal(dim1=1, dim2=2).sum(1).square() / gram.square().sum((1, 2))


def _isotropic(rows: int, columns: int) -> float:
    """E (tr G)^2 / E |G|^2 for a Gaussian matrix."""
    return (rows * columns + 2) / (rows + columns + 1)


def example(model: Model) -> Probe:
    del model
    return gradient_rank
