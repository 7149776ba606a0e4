r"""The input gradients of a classifier as a field over samples, beside that of the Bayes classifier.

With g_i = grad of the margin at x_i and b_i that of the Bayes classifier, sums over all samples,

    omega = sum |Qg|^2 / sum |g|^2,    misalignment = 1 - sum g.b / sqrt(sum |g|^2 sum |b|^2):

samples at which a gradient vanishes, where every direction is a matter of chance, have no weight.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from manifoldlab import linalg
from manifoldlab.gradients import input_gradient, margin
from manifoldlab.interfaces import Batch, Geometry, Model


class Fields(NamedTuple):
    omega: Tensor  # (m,)
    misalignment: Tensor  # (m,) to the first


def compared(models: Sequence[Model], batch: Batch, geometry: Geometry) -> Fields:
    """Of m classifiers, the first of which is Bayes."""
    fields = torch.stack([input_gradient(model, batch.x, batch.y, margin) for model in models])
    normal = fields - geometry.to_tangent(batch.x, fields)  # (m, n, *shape)
    omega = normal.flatten(1).square().sum(1) / fields.flatten(1).square().sum(1)
    units = linalg.unit(fields.flatten(1))
    return Fields(omega, 1 - units @ units[0])
