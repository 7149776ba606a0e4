"""Cross-entropy plus strength |Qg|^2: only what the gradient has across the manifold is penalized.

The causal intervention that the theory suggests: nothing is asked of the part along the manifold.
"""

import torch
from torch import Tensor, nn

from manifoldlab import gradients, linalg
from manifoldlab.attacks.base import Strength
from manifoldlab.interfaces import Batch, Geometry, Head, Objective, Source
from manifoldlab.objectives.base import logits_and_gradient, weighed


def normal_penalty(
    model: nn.Module,
    batch: Batch,
    generator: Source,
    *,
    geometry: Geometry,
    strength: Strength = 0.1,
    head: Head = gradients.cross_entropy,
) -> Tensor:
    """Q being an orthogonal projector, d|Qg|^2 = 2 <Qg, dg>: no geometry has to be differentiated."""
    del generator
    logits, gradient = logits_and_gradient(model, batch.x, batch.y, head)
    with torch.no_grad():
        here = gradient.detach()
        normal = here - geometry.at(batch).to_tangent(batch.x, here)
    change = gradient - here  # zero, but with a slope
    square = linalg.squared_norm(normal) + 2 * linalg.inner(normal, change)
    return weighed(gradients.cross_entropy(logits, batch.y), strength, square)


def example(geometry: Geometry) -> Objective:
    def objective(model: nn.Module, batch: Batch, generator: Source) -> Tensor:
        return normal_penalty(model, batch, generator, geometry=geometry)

    return objective
