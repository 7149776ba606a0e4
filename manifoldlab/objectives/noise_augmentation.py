"""Cross-entropy at x + strength u, u ~ N(0, I): the training side of randomized smoothing (law D2)."""

import torch
from torch import Tensor, nn

from manifoldlab import draws, gradients
from manifoldlab.interfaces import Batch, Source
from manifoldlab.objectives.base import Strength, check_strength


def noise_augmentation(
    model: nn.Module, batch: Batch, generator: Source, *, strength: Strength = 0.1
) -> Tensor:
    """The strength is the deviation of the noise."""
    x = batch.x
    deviation = torch.as_tensor(check_strength(strength), dtype=x.dtype, device=x.device)
    deviation = deviation.expand(len(x)).reshape(-1, *[1] * (x.ndim - 1))
    noisy = x + deviation * draws.normal(x, generator)
    return gradients.cross_entropy(model(noisy), batch.y).mean()
