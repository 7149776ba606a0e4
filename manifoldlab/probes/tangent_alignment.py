"""How much of the input gradient g lies in the tangent space: omega = |Qg|^2 / |g|^2."""

from typing import NamedTuple

import torch
from torch import Tensor

from manifoldlab import linalg
from manifoldlab.gradients import input_gradient, margin
from manifoldlab.interfaces import Batch, Geometry, Head, Model, Probe


class TangentAlignment(NamedTuple):
    alignment: Tensor  # (n,) 1 - omega, 1 if the gradient is tangent
    omega: Tensor  # (n,) off-manifold share of the squared gradient
    norm: Tensor  # (n,) |g|
    omega_null: Tensor  # (n,) (D - d) / D, the mean of omega for an isotropic random gradient


def tangent_alignment(
    model: Model, batch: Batch, geometry: Geometry, *, head: Head = margin
) -> TangentAlignment:
    gradient = input_gradient(model, batch.x, batch.y, head)
    square = linalg.squared_norm(gradient)
    # from Qg itself: 1 - |Pg|^2 / |g|^2 knows no omega below 1e-16
    normal = gradient - geometry.to_tangent(batch.x, gradient)
    omega = linalg.squared_norm(normal) / square
    null = torch.full_like(omega, 1 - geometry.dim / batch.x[0].numel())
    return TangentAlignment(1 - omega, omega, square.sqrt(), null)


def example(model: Model) -> Probe:
    del model
    return tangent_alignment
