"""Misclassification-aware adversarial training (Wang et al. 2020), p at the clean sample, q at x':

-log q_y - log(1 - max_{k != y} q_k) + strength (1 - p_y) KL(p || q)

The published code adds 1e-4 to 1 - q_k, which bounds that term; the formula has no such constant.
"""

import torch
from torch import Tensor, nn

from manifoldlab import gradients
from manifoldlab.attacks.base import Strength
from manifoldlab.interfaces import Attack, Batch, Source
from manifoldlab.objectives.base import INNER, Inner, divergence, weighed


def mart(
    model: nn.Module,
    batch: Batch,
    generator: Source,
    *,
    strength: Strength = 5.0,
    inner: Inner = INNER,
    attack: Attack | None = None,
) -> Tensor:
    moved = (inner if attack is None else attack)(model, batch, generator)
    clean, robust = model(batch.x), model(moved)
    missed = -gradients.log_posterior(clean, batch.y).expm1()  # 1 - p_y
    loss = boosted_cross_entropy(robust, batch.y)
    return weighed(loss, strength, missed * divergence(clean, robust))


def boosted_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """1 - q_k is the sum of the others, so that no difference of nearly equal numbers is taken."""
    log_q = logits.log_softmax(1)
    runner_up = log_q.scatter(1, y[:, None], -torch.inf).argmax(1, keepdim=True)
    rest = log_q.scatter(1, runner_up, -torch.inf).logsumexp(1)
    return gradients.cross_entropy(logits, y) - rest
