r"""A4. A tangent space of the same dimension, tilted by the largest principal angle theta, errs by no
more than sin(theta), and by just that in the worst case:

    | |P^g| - |Pg| | <= sin(theta) |g|,      |omega^ - omega| <= sin(theta).

|P^ - P| = sin(theta) for projections of one rank, which gives the second, |omega^ - omega| =
|g'(P - P^)g| / |g|^2. For the first |P^g| <= |P^Pg| + |P^Qg| <= |Pg| + sin(theta) |Qg|, and likewise
with P and P^ exchanged. Equality: let n be the unit normal and p the unit vector of the span of P^
at the largest angle. g = n has Pg = 0, |P^n| = sin(theta); g = n + p bisects their angle and is the
top eigenvector of P^ - P. So the bounds are turned around for these two: nothing smaller will do.
If P^ holds P and one normal more, theta, between the smaller space and the larger, is 0: no bound.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from manifoldlab import linalg
from manifoldlab.theorem import EXACT, Bound, Control, Sides, Theorem
from manifoldlab.verification import hold, reject
from theory_checks.landscapes import Landscape, landscapes

ANGLES = (1e-6, 1e-3, 0.1, 1.0)  # the largest ones
RANDOM = 4  # gradients
Estimate = Callable[[Landscape, float], Tensor]  # columns (n, D, k)


def errors(case: Landscape, estimate: Estimate) -> Sides:
    """Of random gradients and of the two worst, against the sine; of the worst the other way too."""
    x = case.batch.x
    estimates = [estimate(case, angle) for angle in ANGLES]
    random = random_gradients(case)
    gradients = [torch.cat([random, worst_gradients(case, columns)]) for columns in estimates]
    tangents = case.manifold.to_tangent(x, torch.stack(gradients))
    left, right = [], []
    for columns, gradient, tangent in zip(estimates, gradients, tangents, strict=True):
        found = _differences(gradient, tangent, linalg.project(columns, gradient))
        sine = linalg.principal_angles(case.frame, columns)[:, -1].sin()
        equal = torch.stack([found[0, -2], found[1, -1]])  # the worst: of the norms, of omega
        left += [found.flatten(0, 1), sine.expand_as(equal)]
        right += [sine.expand_as(left[-2]), equal]
    return Sides(torch.cat(left).T, torch.cat(right).T, torch.ones_like(x.flatten(1)[:, :1]))


def random_gradients(case: Landscape) -> Tensor:
    """(m, n, *shape), one of them the landscape's own."""
    random = case.normal(RANDOM, *case.batch.x.shape, stream=4)
    return torch.cat([random, case.gradient[None]])


def worst_gradients(case: Landscape, columns: Tensor) -> Tensor:
    """n and n + p, (2, n, *shape)"""
    normal, _, turn = torch.linalg.svd(case.across(columns), full_matrices=False)
    n, p = case.across(normal[..., :1]), columns @ turn.mT[..., :1]  # rid of rounding twice
    return torch.cat([n, n + p], 2).movedim(2, 0).reshape(2, *case.batch.x.shape)


def _differences(gradient: Tensor, exact: Tensor, estimated: Tensor) -> Tensor:
    """Of the norms of two projections and of their shares, (2, m, n)."""
    whole, a, b = (v.flatten(2).norm(dim=2) for v in (gradient, exact, estimated))
    a, b = a / whole, b / whole
    return torch.stack([(a - b).abs(), (a.square() - b.square()).abs()])


def tilted(case: Landscape, angle: float) -> Tensor:
    """The tangent space with some of its directions turned towards normals by angles up to this."""
    frame = case.frame  # (n, D, d)
    n, size, dim = frame.shape
    count = min(dim, size - dim)
    normals = torch.linalg.qr(case.across(case.normal(n, size, count, stream=5))).Q
    mixed = frame @ torch.linalg.qr(case.normal(n, dim, dim, stream=6)).Q
    angles = angle / torch.arange(1, count + 1).to(frame)
    turned = mixed[..., :count] * angles.cos() + normals * angles.sin()
    return torch.cat([turned, mixed[..., count:]], 2)


def nested(case: Landscape, angle: float) -> Tensor:
    """The tangent space and one normal more."""
    del angle
    return torch.cat([case.frame, _extra(case)], 2)


def _extra(case: Landscape) -> Tensor:
    """A unit normal, (n, D, 1)."""
    return linalg.unit(case.across(case.normal(case.n, case.manifold.ambient, 1, stream=5)))


def nested_gap(case: Landscape) -> Tensor:
    """What one normal more adds to |Pg| and to |Pg|^2; the worst gradients are that normal."""
    g = random_gradients(case).flatten(2)
    tangent, extra = (
        torch.einsum("mnD,nDk->mnk", g, columns).square().sum(2) / g.square().sum(2)
        for columns in (case.frame, _extra(case))
    )
    worst = torch.ones(2, case.n).to(g)
    norms = (tangent + extra).sqrt() - tangent.sqrt()
    gaps = torch.cat([norms, worst, extra, worst, -worst])
    return gaps.repeat(len(ANGLES), 1).T


LAW = Theorem(
    id="A4",
    title="Tilted tangent spaces err by the sine of the angle",
    statement=r"If $\mathrm{rank}\,\hat P = \mathrm{rank}\,P$ and $\theta$ is the largest principal"
    r" angle, $|\,|\hat P g| - |P g|\,| \leq \sin\theta\,|g|$ and"
    r" $|\hat\omega - \omega| \leq \sin\theta$, with equality for some $g$.",
    claim=Bound(1e-9),
    cases=landscapes,
    measure=partial(errors, estimate=tilted),
    controls=(
        Control(
            "one dimension too many", partial(errors, estimate=nested), nested_gap, within=EXACT
        ),
    ),
)


def test_holds(family: str) -> None:
    hold(LAW, family)


def test_fails_without_its_assumption(control: Control) -> None:
    reject(LAW, control)
