r"""E3. The divergence between the posteriors at two points is made of energies:
KL(p(.|x) || p(.|x')) = sum_y p(y|x) [E(x', y) - E(x, y)] + E(x) - E(x').
"""

import torch
from torch import Tensor
from torch.nn.functional import kl_div

from manifoldlab.gradients import log_marginal
from manifoldlab.strategies import Case, problems
from manifoldlab.theorem import EXACT, Control, Identity, Sides, Theorem
from manifoldlab.verification import hold, reject


def divergence(case: Case, marginal: float = 1.0) -> Sides:
    """KL between each point and the next one of the batch; `marginal` weighs E(x) - E(x')."""
    here = case.model(case.batch.x)
    there = here.roll(1, 0)
    left = kl_div(there.log_softmax(1), here.log_softmax(1), log_target=True, reduction="none").sum(
        1
    )
    joint = (here.softmax(1) * (here - there)).sum(1)
    total = marginal * _marginal_change(here, there)
    summand = torch.maximum(here.abs().amax(1), there.abs().amax(1))
    return Sides(left, joint + total, summand)


def _marginal_change(here: Tensor, there: Tensor) -> Tensor:
    """E(x) - E(x')"""
    unused = here.new_zeros(len(here), dtype=torch.long)
    return log_marginal(there, unused) - log_marginal(here, unused)


def without_marginal(case: Case) -> Sides:
    return divergence(case, marginal=0.0)


def marginal_change(case: Case) -> Tensor:
    here = case.model(case.batch.x)
    return _marginal_change(here, here.roll(1, 0))


LAW = Theorem(
    id="E3",
    title="The divergence of posteriors is made of energies",
    statement=r"$\mathrm{KL}(p(\cdot|x)\,\|\,p(\cdot|\hat{x})) ="
    r" \sum_y p(y|x)\,[E(\hat{x}, y) - E(x, y)] + E(x) - E(\hat{x})$.",
    claim=Identity(),
    cases=problems,
    measure=divergence,
    controls=(Control("without E(x) - E(x')", without_marginal, marginal_change, within=EXACT),),
)


def test_holds(family: str) -> None:
    hold(LAW, family)


def test_fails_without_its_assumption(control: Control) -> None:
    reject(LAW, control)
