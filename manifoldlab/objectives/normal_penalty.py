"""Cross-entropy plus strength |Qg|^2: only what the gradient has across the manifold is penalized.

The causal intervention that the theory suggests: nothing is asked of the part along the manifold.
"""

from torch import Tensor, nn

from manifoldlab import gradients, linalg
from manifoldlab.interfaces import Batch, Geometry, Head, Objective, Source
from manifoldlab.objectives.base import Strength, check_strength, trained_gradient


def normal_penalty(
    model: nn.Module,
    batch: Batch,
    generator: Source,
    *,
    geometry: Geometry,
    strength: Strength = 0.1,
    head: Head = gradients.cross_entropy,
) -> Tensor:
    del generator
    check_strength(strength)
    loss = gradients.cross_entropy(model(batch.x), batch.y)
    gradient = trained_gradient(model, batch.x, batch.y, head)
    normal = gradient - geometry.at(batch).to_tangent(batch.x, gradient)
    return (loss + strength * linalg.squared_norm(normal)).mean()


def example(geometry: Geometry) -> Objective:
    def objective(model: nn.Module, batch: Batch, generator: Source) -> Tensor:
        return normal_penalty(model, batch, generator, geometry=geometry)

    return objective
