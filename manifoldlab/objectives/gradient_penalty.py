"""Cross-entropy plus strength |g|^2, g the input gradient of a head: of the loss, a logit or the margin."""

from torch import Tensor, nn

from manifoldlab import gradients, linalg
from manifoldlab.attacks.base import Strength
from manifoldlab.interfaces import Batch, Head, Source
from manifoldlab.objectives.base import logits_and_gradient, weighed


def gradient_penalty(
    model: nn.Module,
    batch: Batch,
    generator: Source,
    *,
    strength: Strength = 0.1,
    head: Head = gradients.cross_entropy,
) -> Tensor:
    del generator
    logits, gradient = logits_and_gradient(model, batch.x, batch.y, head)
    loss = gradients.cross_entropy(logits, batch.y)
    return weighed(loss, strength, linalg.squared_norm(gradient))


def published_strength(c: float, batch_size: int = 128) -> float:
    """Of the code of Srinivas et al. 2023, which penalizes 1e5 sum |grad of the mean loss|^2 / B.

    The gradient of the mean loss at a sample is that of its loss over B, hence 1e5 c / B^2.
    """
    return 1e5 * c / batch_size**2
