"""Input gradients of a classifier, through a choice of scalar head.

With Bayes logits log p(x, y): log_marginal gives the score, log_posterior - cross_entropy.
"""

import torch
from torch import Tensor

from manifoldlab.interfaces import Head, Model


def logit(logits: Tensor, y: Tensor) -> Tensor:
    return logits.gather(1, y[:, None]).squeeze(1)


def logit_sum(logits: Tensor, y: Tensor) -> Tensor:
    """The unweighted sum over classes, the published CIFAR-10 probe; see law C1."""
    del y
    return logits.sum(1)


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Logit of the label minus the best other logit."""
    return logit(logits, y) - _others(logits, y).amax(1)


def log_marginal(logits: Tensor, y: Tensor) -> Tensor:
    """log p(x), if the logits are log p(x, y)."""
    del y
    return logits.logsumexp(1)


def log_posterior(logits: Tensor, y: Tensor) -> Tensor:
    """-log(1 + exp z), z = logsumexp of the others - logit of the label.

    log_softmax has the gradient 1 - p at the label, which is rounding where p is near 1: in float32
    from z = -16 on. Here it is a product of two factors that are exact to rounding.
    """
    z = _others(logits, y).logsumexp(1) - logit(logits, y)
    return -torch.logaddexp(z, torch.zeros_like(z))


def _others(logits: Tensor, y: Tensor) -> Tensor:
    """All logits, that of the label -inf."""
    return logits.scatter(1, y[:, None], -torch.inf)


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return -log_posterior(logits, y)


HEADS: tuple[Head, ...] = (logit, logit_sum, margin, log_marginal, log_posterior, cross_entropy)


def input_gradient(model: Model, x: Tensor, y: Tensor, head: Head) -> Tensor:
    """d head(model(x), y) / dx, one gradient a sample, shaped like x; one backward pass."""
    return logits_and_gradient(model, x, y, head)[1]


def logits_and_gradient(
    model: Model, x: Tensor, y: Tensor, head: Head, *, trained: bool = False
) -> tuple[Tensor, Tensor]:
    """From one forward pass; where they are `trained`, parameters have gradients through both.

    Asks autograd for x alone, so nothing accumulates in parameters; the model's mode is not touched.
    """
    with torch.enable_grad(), torch.inference_mode(False):
        x, y = x.detach().clone().requires_grad_(), y.clone()  # clones: neither an inference tensor
        logits = model(x)
        (gradient,) = torch.autograd.grad(head(logits, y).sum(), x, create_graph=trained)
    return logits if trained else logits.detach(), gradient


def logit_jacobian(model: Model, x: Tensor) -> Tensor:
    """d logit_k / dx for every class, (K, n, *shape): one forward pass and a backward pass a class."""
    with torch.enable_grad(), torch.inference_mode(False):
        x = x.detach().clone().requires_grad_()
        logits = model(x)
        rows = [torch.autograd.grad(c.sum(), x, retain_graph=True)[0] for c in logits.unbind(1)]
    return torch.stack(rows)
