"""Cross-entropy at x plus strength KL(p(.|x) || p(.|x')), x' where it is largest (Zhang et al. 2019)."""

from functools import partial

from torch import Tensor, nn

from manifoldlab import gradients
from manifoldlab.attacks.pgd import LINF, evaluating, nearby, pgd
from manifoldlab.interfaces import Attack, Batch, Source
from manifoldlab.objectives.base import (
    Inner,
    Strength,
    check_strength,
    divergence,
    divergence_from,
)

INNER = partial(pgd, ball=LINF, radius=8 / 255, step_size=2 / 255, start=nearby, best=False)


def perturbed(
    model: nn.Module, batch: Batch, generator: Source, inner: Inner, attack: Attack | None
) -> Tensor:
    """Of the attack as it is, or of `inner` that leads away from the clean prediction, in eval mode."""
    if attack is not None:
        return attack(model, batch, generator)
    with evaluating(model):
        clean = model(batch.x).detach()
    return inner(model, batch, generator, loss=divergence_from(clean))


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
    check_strength(strength)
    moved = perturbed(model, batch, generator, inner, attack)
    clean, robust = model(batch.x), model(moved)
    loss = gradients.cross_entropy(clean, batch.y)
    return (loss + strength * divergence(clean, robust)).mean()
