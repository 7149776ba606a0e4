"""What objectives share: gradients to train through, divergences, and the attack that maximizes one."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manifoldlab import gradients
from manifoldlab.attacks.base import LINF, Strength, per_sample, undisturbed
from manifoldlab.attacks.pgd import Steady, nearby, pgd
from manifoldlab.interfaces import Attack, Batch, Head, Model, Source

# An attack whose loss is still open: (model, batch, generator, *, loss) -> perturbed x.
Inner = Callable[..., Tensor]
# As published: the last of 10 steps of 2/255.
INNER = partial(pgd, ball=LINF, radius=8 / 255, step_size=Steady(), start=nearby, best=False)


def weighed(loss: Tensor, strength: Strength, penalty: Tensor) -> Tensor:
    """mean(loss + strength penalty), all of them (n,)."""
    return (loss + per_sample(strength, loss, "strength") * penalty).mean()


def logits_and_gradient(model: Model, x: Tensor, y: Tensor, head: Head) -> tuple[Tensor, Tensor]:
    """Parameters are trained through both, unless the caller wants no gradients."""
    trained = torch.is_grad_enabled()
    return gradients.logits_and_gradient(model, x, y, head, trained=trained)


def divergence(clean: Tensor, moved: Tensor) -> Tensor:
    """KL(p || q) of the softmax of two logits (n, K) -> (n,)."""
    p, q = clean.log_softmax(1), moved.log_softmax(1)
    return F.kl_div(q, p, reduction="none", log_target=True).sum(1)


def perturbed(
    model: nn.Module, batch: Batch, generator: Source, inner: Inner, attack: Attack | None
) -> Tensor:
    """By the attack as it is, or by `inner` as far as it finds from the clean prediction of eval mode."""
    if attack is not None:
        return attack(model, batch, generator)
    with torch.inference_mode(False), torch.no_grad(), undisturbed(model) as f:
        clean = f(batch.x.clone())
    return inner(model, batch, generator, loss=lambda logits, y: divergence(clean, logits))
