"""Cross-entropy at x plus strength KL(p(.|x) || p(.|x')), x' where it is largest (Zhang et al. 2019)."""

from torch import Tensor, nn

from manifoldlab import gradients
from manifoldlab.attacks.base import Strength
from manifoldlab.interfaces import Attack, Batch, Source
from manifoldlab.objectives.base import INNER, Inner, divergence, perturbed, weighed


def trades(
    model: nn.Module,
    batch: Batch,
    generator: Source,
    *,
    strength: Strength = 6.0,
    inner: Inner = INNER,
    attack: Attack | None = None,
) -> Tensor:
    """Both forward passes in the mode of the caller, hence each with its own batch statistics."""
    moved = perturbed(model, batch, generator, inner, attack)
    clean, robust = model(batch.x), model(moved)
    return weighed(gradients.cross_entropy(clean, batch.y), strength, divergence(clean, robust))
