"""Misclassification-aware adversarial training (Wang et al. 2020), p at the clean sample, q at x':

-log q_y - log(1 - max_{k != y} q_k) + strength (1 - p_y) KL(p || q)
"""

from functools import partial

import torch
from torch import Tensor, nn

from manifoldlab import gradients
from manifoldlab.attacks.pgd import LINF, nearby, pgd
from manifoldlab.interfaces import Attack, Batch, Source
from manifoldlab.objectives.base import Inner, Strength, check_strength, divergence

INNER = partial(pgd, ball=LINF, radius=8 / 255, step_size=2 / 255, start=nearby, best=False)


def mart(
    model: nn.Module,
    batch: Batch,
    generator: Source,
    *,
    strength: Strength = 5.0,
    inner: Inner = INNER,
    attack: Attack | None = None,
) -> Tensor:
    check_strength(strength)
    moved = (inner if attack is None else attack)(model, batch, generator)
    clean, robust = model(batch.x), model(moved)
    missed = 1 - gradients.log_posterior(clean, batch.y).exp()
    loss = boosted_cross_entropy(robust, batch.y)
    return (loss + strength * missed * divergence(clean, robust)).mean()


def boosted_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """1 - q_k is the sum of the others, so that no difference of nearly equal numbers is taken."""
    log_q = logits.log_softmax(1)
    runner_up = log_q.scatter(1, y[:, None], -torch.inf).argmax(1, keepdim=True)
    rest = log_q.scatter(1, runner_up, -torch.inf).logsumexp(1)
    return gradients.cross_entropy(logits, y) - rest
