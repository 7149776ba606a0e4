r"""C1. The gradient of the posterior is a difference of scores, and the posterior mean of the logit
gradients is the score: grad log p(y|x) = grad log p(x|y) - s(x), sum_y p(y|x) grad l_y = s(x).

The unweighted sum of logit gradients, a published probe, is K s plus sum_y (1 - K p(y|x)) grad l_y,
which vanishes only where the posterior is uniform. Both are sums with weights w_y, compared with
s * sum_y w_y; they differ in the head alone.
"""

import torch
from torch import Tensor

from manifoldlab.gradients import (
    input_gradient,
    log_marginal,
    log_posterior,
    logit_jacobian,
    logit_sum,
)
from manifoldlab.interfaces import Head
from manifoldlab.strategies import Case, problems
from manifoldlab.theorem import EXACT, Control, Identity, Sides, Theorem
from manifoldlab.verification import hold, reject


def posterior_weighted_sum(logits: Tensor, y: Tensor) -> Tensor:
    """sum_y w_y l_y with the posterior as weights that are not differentiated."""
    del y
    return (logits.softmax(1).detach() * logits).sum(1)


def split(case: Case, head: Head = posterior_weighted_sum, total: float = 1.0) -> Sides:
    """Both identities beside each other; `total` is the sum of the weights in `head`."""
    x, y = case.batch.x, case.batch.y
    classes = logit_jacobian(case.model, x)  # (K, n, *shape)
    score = input_gradient(case.model, x, y, log_marginal)
    own = classes.transpose(0, 1)[torch.arange(len(y)), y]
    left = [input_gradient(case.model, x, y, h) for h in (log_posterior, head)]
    right = [own - score, total * score]
    summand = total * classes.flatten(2).norm(dim=2).amax(0)
    return Sides(torch.stack(left, 1), torch.stack(right, 1), summand)


def unweighted(case: Case) -> Sides:
    return split(case, logit_sum, case.problem.num_classes)


def unweighted_gap(case: Case) -> Tensor:
    """0 for the first identity, sum_y (1 - K p(y|x)) grad l_y for the second."""
    x = case.batch.x
    posterior = case.model(x).softmax(1)
    weights = 1 - case.problem.num_classes * posterior  # (n, K)
    gap = torch.einsum("nk,kn...->n...", weights, logit_jacobian(case.model, x))
    return torch.stack([torch.zeros_like(gap), gap], 1)


LAW = Theorem(
    id="C1",
    title="Posterior gradients are differences of scores",
    statement=r"$\nabla\log p(y|x) = \nabla\log p(x|y) - s(x)$ and"
    r" $\sum_y p(y|x)\,\nabla\ell_y = s$; the unweighted sum differs from $K s$ by"
    r" $\sum_y (1 - K p(y|x))\,\nabla\ell_y$.",
    claim=Identity(),
    cases=problems,
    measure=split,
    controls=(Control("the unweighted sum", unweighted, unweighted_gap, within=EXACT),),
)


def test_holds(family: str) -> None:
    hold(LAW, family)


def test_fails_without_its_assumption(control: Control) -> None:
    reject(LAW, control)
