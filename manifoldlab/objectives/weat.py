"""TRADES whose terms weigh w = 1 / log(1 + exp|E(x)|): w CE + strength w KL (Mirza et al. 2024).

The weight is that of the clean sample and is not trained through; see law E5.
"""

from torch import Tensor, nn

from manifoldlab import gradients
from manifoldlab.attacks.base import Strength
from manifoldlab.energies import marginal_energy, weat_weight
from manifoldlab.interfaces import Attack, Batch, Source
from manifoldlab.objectives.base import INNER, Inner, divergence, perturbed, weighed


def weat(
    model: nn.Module,
    batch: Batch,
    generator: Source,
    *,
    strength: Strength = 6.0,
    natural: bool = False,
    inner: Inner = INNER,
    attack: Attack | None = None,
) -> Tensor:
    """Cross-entropy at the perturbed sample, or at the clean one for the `natural` variant."""
    moved = perturbed(model, batch, generator, inner, attack)
    clean, robust = model(batch.x), model(moved)
    weight = weat_weight(marginal_energy(clean).detach())
    loss = gradients.cross_entropy(clean if natural else robust, batch.y)
    return weighed(weight * loss, strength, weight * divergence(clean, robust))
