"""What B1, B1t and B3 measure: the part of a Bayes gradient across the manifold, against zero."""

import torch
from torch import Tensor

from manifoldlab.gradients import input_gradient, logit_jacobian, margin
from manifoldlab.interfaces import Head
from manifoldlab.strategies import Case
from manifoldlab.theorem import Sides


def normal_gradient(case: Case, head: Head = margin) -> Sides:
    """Q grad head(log p(x, .)), held against the largest gradient of a logit."""
    x, y = case.batch.x, case.batch.y
    gradient = input_gradient(case.model, x, y, head)
    normal = gradient - case.problem.geometry(case.batch).to_tangent(x, gradient)
    largest = logit_jacobian(case.model, x).flatten(2).norm(dim=2).amax(0)
    return Sides(normal, torch.zeros_like(normal), largest)


def runner_up(case: Case) -> Tensor:
    """The class that the margin of the label is taken to, (n,)."""
    logits: Tensor = case.model(case.batch.x)
    return logits.scatter(1, case.batch.y[:, None], -torch.inf).argmax(1)
