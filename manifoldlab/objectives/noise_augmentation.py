"""Cross-entropy at x + strength u, u ~ N(0, I): the training side of randomized smoothing (law D2)."""

from torch import Tensor, nn

from manifoldlab import draws, gradients
from manifoldlab.attacks.base import Strength, per_sample
from manifoldlab.interfaces import Batch, Source


def noise_augmentation(
    model: nn.Module, batch: Batch, generator: Source, *, strength: Strength = 0.1
) -> Tensor:
    """The strength is the deviation of the noise."""
    deviation = per_sample(strength, batch.x, "strength")
    noisy = batch.x + deviation * draws.normal(batch.x, generator)
    return gradients.cross_entropy(model(noisy), batch.y).mean()
