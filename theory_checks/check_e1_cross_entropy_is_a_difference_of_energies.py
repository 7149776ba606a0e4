"""E1. Cross-entropy is a difference of energies: CE(x, y) = E(x, y) - E(x), E(x, y) = -l_y(x) and
E(x) = -log sum_y exp l_y(x).

The left side is summed from the exact joint density as -log(p(x, y) / p(x)), taken relative to
the largest class, and from the head `cross_entropy`; both must equal the difference.
"""

import torch
from torch import Tensor

from manifoldlab.gradients import cross_entropy, log_marginal, logit
from manifoldlab.strategies import Case, problems
from manifoldlab.theorem import EXACT, Control, Identity, Sides, Theorem
from manifoldlab.verification import hold, reject


def energies(case: Case, marginal: float = 1.0) -> Sides:
    """CE, twice, against E(x, y) - marginal * E(x)."""
    logits, y = case.model(case.batch.x), case.batch.y
    joint, total = -logit(logits, y), -log_marginal(logits, y)
    relative = (logits - logits.amax(1, keepdim=True)).exp()
    ratio = relative.sum(1) / logit(relative, y)
    left = torch.stack([ratio.log(), cross_entropy(logits, y)], 1)
    right = (joint - marginal * total)[:, None].expand_as(left)
    return Sides(left, right, torch.maximum(joint.abs(), total.abs()))


def without_marginal(case: Case) -> Sides:
    return energies(case, marginal=0.0)


def marginal_energy(case: Case) -> Tensor:
    """-E(x), what is missing when E(x) is dropped."""
    logits = case.model(case.batch.x)
    return log_marginal(logits, case.batch.y)[:, None].expand(-1, 2)


LAW = Theorem(
    id="E1",
    title="Cross-entropy is a difference of energies",
    statement=r"$-\log p(y|x) = E(x, y) - E(x)$ with $E(x, y) = -\ell_y(x)$ and"
    r" $E(x) = -\log\sum_y e^{\ell_y(x)}$.",
    claim=Identity(),
    cases=problems,
    measure=energies,
    controls=(Control("without E(x)", without_marginal, marginal_energy, within=EXACT),),
)


def test_holds(family: str) -> None:
    hold(LAW, family)


def test_fails_without_its_assumption(control: Control) -> None:
    reject(LAW, control)
