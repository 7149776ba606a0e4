"""Cross-entropy at the perturbed samples (Madry et al. 2018)."""

from functools import partial

from torch import Tensor, nn

from manifoldlab import gradients
from manifoldlab.attacks.base import Strength, per_sample
from manifoldlab.attacks.pgd import Steady, in_ball, pgd
from manifoldlab.interfaces import Attack, Batch, Source
from manifoldlab.objectives.base import Inner

# l2, the last of 10 steps from somewhere in the ball
INNER = partial(pgd, step_size=Steady(), start=in_ball, best=False)


def adversarial(
    model: nn.Module,
    batch: Batch,
    generator: Source,
    *,
    strength: Strength = 0.5,
    inner: Inner = INNER,
    attack: Attack | None = None,
) -> Tensor:
    """The strength is the radius of `inner`. An `attack` is used as it is, and the strength is not."""
    per_sample(strength, batch.x, "strength")  # refuses a wrong one by its name
    find = partial(inner, radius=strength) if attack is None else attack
    moved = find(model, batch, generator)
    return gradients.cross_entropy(model(moved), batch.y).mean()
