"""Cross-entropy, -log p(y|x), of labels that may be smoothed."""

import torch.nn.functional as F
from torch import Tensor, nn

from manifoldlab.interfaces import Batch, Source


def cross_entropy(
    model: nn.Module, batch: Batch, generator: Source, *, label_smoothing: float = 0.0
) -> Tensor:
    """With smoothing s the target is (1 - s) of the label and s / K of every class."""
    del generator
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing lies in [0, 1], not at {label_smoothing}")
    logits, y = model(batch.x), batch.y
    return F.cross_entropy(logits, y, label_smoothing=label_smoothing, reduction="none").mean()
