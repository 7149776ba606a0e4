r"""C5. Smoothing f_s(x) = E f(x + s u), u ~ N(0, I), has the gradient E[f(x + s u) u] / s, whatever f is
(Stein). If 0 <= f <= 1, of all f with f_s = p the half-space gains most along a direction (Neyman and
Pearson), so that with the normal density phi and distribution Phi

    s |grad f_s| <= phi(Phi^{-1}(f_s)), that is, Phi^{-1} o f_s is 1/s-Lipschitz,

with equality for half-spaces n.x > b, f_s = Phi((n.x - b) / s). Of classes p_A, p_B, ... the first thus
stays first within R = s/2 (Phi^{-1}(p_A) - Phi^{-1}(p_B)) (Cohen et al. 2019), which for the half-space
and its complement is the distance to the plane.

Soft classifiers are Bayes classifiers and networks, at a temperature; hard ones are half-spaces and sets
with a wavy boundary (`smoothed_classifiers`). Gradients are those of the sums that give f_s, which know
nothing of Stein. First are classes at the ends of all steps of length R, the steepest among them, and no
probit changes by more than R / s there. With uniform noise of the same deviation, u in (-sqrt 3, sqrt 3)
along n, a half-space has p = 1/2 + t / (2 sqrt 3) at distance s t, the slope 1 / (2 sqrt 3 s phi(Phi^{-1}
(p))) in probits, and E[f u] = (3 - t^2) / (4 sqrt 3).
"""

from functools import cache, partial

import torch
from torch import Tensor

from manifoldlab import linalg
from manifoldlab.problems.base import Problem
from manifoldlab.problems.quadrature import Quadrature
from manifoldlab.problems.tube import Tube
from manifoldlab.strategies import SEEDS, Case, Families, problems
from manifoldlab.theorem import EXACT, Bound, Control, Identity, Several, Sides, Theorem
from manifoldlab.verification import hold, reject
from theory_checks.smooth_network import SmoothNetwork
from theory_checks.smoothed_classifiers import ROOT, Hard, Soft, density

NOISES = (0.25, 0.5, 1.0)  # s; that of a soft classifier may be smaller
WAVES = (0.3, 1.0)  # a
STEPS = 4  # of length R a point, beside the steepest


def claims(case: Soft | Hard) -> tuple[Sides, Sides]:
    """Stein, and what is equal for half-spaces; then what is bounded for all."""
    t = case.origin.requires_grad_()
    found = case.at(t)
    columns = found.probabilities.unbind(1)
    rows = [torch.autograd.grad(c.sum(), t, retain_graph=True)[0] for c in columns]
    gradients, p = torch.stack(rows, 1), found.probabilities.detach()  # (n, K, k), (n, K)
    probits = torch.special.ndtri(p)
    slopes = gradients.norm(dim=2) / density(probits)
    radius = (probits.topk(2, dim=1).values @ p.new_tensor([1.0, -1.0])) / 2
    lead, change = attacked(case, p, gradients, radius)
    left, right = [gradients.flatten(1)], [found.moments.detach().flatten(1)]
    if isinstance(case, Hard) and case.wave == 0:
        left += [slopes, lead.amax(0)[:, None], radius[:, None]]
        right += [torch.ones_like(slopes), 0 * radius[:, None], case.far.abs()[:, None]]
    ones = torch.ones_like(radius)
    bounded = torch.cat([slopes - 1, lead.mT, (change - radius).mT], 1)
    return (
        Sides(torch.cat(left, 1), torch.cat(right, 1), ones),
        Sides(bounded, torch.zeros_like(bounded), ones[:, None]),
    )


def attacked(
    case: Soft | Hard, p: Tensor, gradients: Tensor, radius: Tensor
) -> tuple[Tensor, Tensor]:
    """By how much another class leads after steps of length R, and the largest change of a probit:
    (m, n) each."""
    order, rows = p.argsort(dim=1, descending=True), torch.arange(len(p), device=p.device)
    steepest = gradients[rows, order[:, 1]] - gradients[rows, order[:, 0]]
    ways = torch.cat([case.normal(STEPS, *steepest.shape), steepest[None]])
    leads, changes = [], []
    for way in ways:
        after = case.at(radius[:, None] * linalg.unit(way)).probabilities
        first = after.gather(1, order[:, :1])
        leads.append(after.scatter(1, order[:, :1], -torch.inf).amax(1) - first[:, 0])
        changes.append((torch.special.ndtri(after) - torch.special.ndtri(p)).abs().amax(1))
    return torch.stack(leads), torch.stack(changes)


def uniform_gap(case: Hard) -> Tensor:
    """Of the identities of half-spaces."""
    t, far = case.far, case.far.abs()
    probit = torch.special.ndtri(0.5 + t / (2 * ROOT))
    stein = 1 / (2 * ROOT) - (3 - t.square()) / (4 * ROOT)
    along = torch.stack([0 * t, stein, 0 * t, -stein], 1)
    slope = (1 / (2 * ROOT * density(probit)) - 1)[:, None].expand(-1, 2)
    radius = probit.abs()
    lead = (radius - far)[:, None] / ROOT  # p_B - p_A at s (t - radius) from the plane
    return torch.cat([along, slope, lead, (radius - far)[:, None]], 1)


def is_soft(problem: Problem) -> bool:
    """In closed form, and smooth everywhere."""
    return not isinstance(problem, Quadrature | Tube)


def half_spaces(uniform: bool = False) -> Families:
    build = lambda seed: Hard(0.0, NOISES[seed % len(NOISES)], uniform, seed)
    return {"half_spaces": SEEDS.map(build)}


@cache
def cases() -> Families:
    network = lambda seed: Case(SmoothNetwork(2 + seed % 4, 4, seed), seed)
    cases = {**problems(is_soft), "smooth_network": SEEDS.map(network)}
    soft = lambda case: Soft(case, NOISES[case.seed % len(NOISES)])
    wavy = lambda seed: Hard(WAVES[seed % len(WAVES)], NOISES[seed % len(NOISES)], False, seed)
    families = {name: found.map(soft) for name, found in cases.items()}
    return {**families, **half_spaces(), "wavy_sets": SEEDS.map(wavy)}


LAW = Theorem(
    id="C5",
    title="Smoothed classifiers are Lipschitz in probits",
    statement=r"$\nabla f_\sigma = E[f(x + \sigma u)\,u]/\sigma$; for $0 \leq f \leq 1$,"
    r" $\Phi^{-1} \circ f_\sigma$ is $1/\sigma$-Lipschitz, and the first class stays first within"
    r" $\sigma\,(\Phi^{-1}(p_A) - \Phi^{-1}(p_B))/2$; half-spaces attain both.",
    claim=Several((Identity(), Bound(1e-9))),
    cases=cases,
    measure=claims,
    controls=(
        Control(
            "uniform noise", claims, uniform_gap, partial(half_spaces, uniform=True), within=EXACT
        ),
    ),
)


def test_holds(family: str) -> None:
    hold(LAW, family)


def test_fails_without_its_assumption(control: Control) -> None:
    reject(LAW, control)
