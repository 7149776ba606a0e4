"""Cross-entropy plus strength |f(x + deviation u) - f(x)|^2 of the logits f, u ~ N(0, I)."""

from torch import Tensor, nn

from manifoldlab import draws, gradients
from manifoldlab.attacks.base import Strength
from manifoldlab.interfaces import Batch, Source
from manifoldlab.objectives.base import weighed


def smoothness_penalty(
    model: nn.Module,
    batch: Batch,
    generator: Source,
    *,
    strength: Strength = 1.0,
    deviation: float = 0.1,
) -> Tensor:
    """The deviation is 0.1 in Srinivas et al. 2023; small ones penalize the logits' gradients (D1)."""
    if not deviation > 0:
        raise ValueError(f"the deviation of the noise must be positive, not {deviation}")
    logits = model(batch.x)
    moved = model(batch.x + deviation * draws.normal(batch.x, generator))
    change = (moved - logits).square().sum(1)
    return weighed(gradients.cross_entropy(logits, batch.y), strength, change)
