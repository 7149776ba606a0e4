r"""A1. Under small noise the mean squared changes of a function across the manifold and in all
directions have the ratio omega = |Qg|^2 / |g|^2 (Srinivas, Bordt and Lakkaraju 2023, Theorem 1).

f(x + sigma L u) - f(x) = sigma g.Lu + O(sigma^2) has the mean square sigma^2 g'LL'g + O(sigma^4) for
u ~ N(0, I), odd powers having no mean: for L = Q and L = I the ratio is omega + O(sigma^2). For
u ~ N(0, Sigma) it tends to g'Q Sigma Qg / g' Sigma g instead.
The left side is the limit of the ratios of expectations at three sigma, the right one is what the
probe `tangent_alignment` finds; Q and the gradient are the landscape's own on the left.
"""

from functools import partial

import torch
from torch import Tensor

from manifoldlab import expectations, linalg
from manifoldlab.probes.tangent_alignment import tangent_alignment
from manifoldlab.theorem import EXACT, Control, Identity, Sides, Theorem
from manifoldlab.verification import hold, reject
from theory_checks.landscapes import Landscape, everywhere, landscapes

SCALES = (5e-4, 1e-3, 2e-3)


def share_of_changes(case: Landscape, deviations: Tensor | None = None) -> Sides:
    """For u ~ N(0, Sigma), Sigma diagonal with these deviations (D,), 1 by default."""
    x = case.batch.x
    size = torch.ones(x[0].numel()).to(x) if deviations is None else deviations
    stretch = size[:, None]
    around = expectations.directions(lambda c: stretch * c, lambda c: stretch * c, case.columns)
    across = expectations.directions(
        lambda c: case.across(stretch * c), lambda c: stretch * case.across(c), case.columns
    )
    change = partial(expectations.mean_squared_change, case.margin, x)
    ratios = torch.stack([change(across, s) / change(around, s) for s in SCALES])
    omega = tangent_alignment(case.model, case.batch, case.manifold).omega
    return Sides(expectations.limit(ratios), omega, torch.ones_like(omega))


def uneven(case: Landscape) -> Tensor:
    """Deviations about 1/2 to 2, (D,)."""
    return (case.normal(case.manifold.ambient, stream=3) / 2).exp()


def uneven_gap(case: Landscape) -> Tensor:
    """g'Q Sigma Qg / g' Sigma g - omega"""
    whole = case.gradient.flatten(1)
    normal = case.across(whole[:, :, None]).squeeze(2)
    sizes = (torch.ones_like(whole[0]), uneven(case))
    even, gap = (
        linalg.squared_norm(size * normal) / linalg.squared_norm(size * whole) for size in sizes
    )
    return gap - even


LAW = Theorem(
    id="A1",
    title="Squared changes show the normal share of the gradient",
    statement=r"$\lim_{\sigma\to 0} E(f(x+\sigma Qu)-f(x))^2 \,/\, E(f(x+\sigma u)-f(x))^2"
    r" = \omega = |Qg|^2/|g|^2$ for $u \sim N(0, I)$, $g = \nabla f(x) \neq 0$.",
    claim=Identity(),
    cases=everywhere,
    measure=share_of_changes,
    controls=(
        Control(
            "noise that is not isotropic",
            lambda case: share_of_changes(case, uneven(case)),
            uneven_gap,
            landscapes,
            within=EXACT,
        ),
    ),
)


def test_holds(family: str) -> None:
    hold(LAW, family)


def test_fails_without_its_assumption(control: Control) -> None:
    reject(LAW, control)
