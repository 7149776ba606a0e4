"""What objectives share: checks of a strength, divergences, and gradients to train through."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from manifoldlab.interfaces import Head, Model

Strength = float | Tensor  # one number, or one a sample (n,)
Inner = Callable[
    ..., Tensor
]  # an attack whose loss is still open: (model, batch, generator, loss=)


def check_strength(strength: Strength) -> Strength:
    """Refuses a negative number; a tensor is not looked at, for that would wait for the device."""
    if not isinstance(strength, Tensor) and not 0 <= strength < torch.inf:
        raise ValueError(f"strength must be finite and not negative, not {strength}")
    return strength


def trained_gradient(model: Model, x: Tensor, y: Tensor, head: Head) -> Tensor:
    """The input gradient of a head, through which the parameters are trained."""
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(head(model(x), y).sum(), x, create_graph=True)
    return gradient


def divergence(clean: Tensor, moved: Tensor) -> Tensor:
    """KL(p || q) of the softmax of two logits (n, K) -> (n,)."""
    p, q = clean.log_softmax(1), moved.log_softmax(1)
    return F.kl_div(q, p, reduction="none", log_target=True).sum(1)


def divergence_from(clean: Tensor) -> Head:
    """As a head to attack: it rises as the prediction leaves the clean one."""
    fixed = clean.detach()
    return lambda logits, y: divergence(fixed, logits)
