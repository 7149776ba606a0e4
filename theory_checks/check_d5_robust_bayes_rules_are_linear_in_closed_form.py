r"""D5. The robust Bayes rule of two Gaussians N(+-mu, Sigma), alike likely, for l2 steps up to eps < |mu|:

    w* = Sigma^{-1} (mu - z*),    z* = argmin_{|z| <= eps} (mu - z)' Sigma^{-1} (mu - z) = h^2 at z*.

Its robust risk is Phi(-h), and no rule has less: an adversary who moves every point by -y z* leaves two
Gaussians that are h deviations from their middle. z* lies on the sphere, so that for some lambda > 0

    Sigma^{-1} (mu - z*) = lambda z*,    z* = (Sigma^{-1} + lambda I)^{-1} Sigma^{-1} mu,    w* = lambda z*.

The attacked margins of a linear rule are m ~ N(w.mu - eps |w|, w.Sigma w), of a mean h |Sigma^{1/2} w| at
most, because eps |w| >= z*.w; w* attains it. So w* has the best direction for every loss that falls in m.
For w = c w* mean and variance of m are c h^2 and c^2 h^2: E e^{-m} is least at c = 1, and
E log(1 + e^{-m}) at c = 2, where m is the log-odds of those two Gaussians. For eps >= |mu| no mean is
positive, and a convex loss that falls is least at w = 0.

`gaussian_regimes` is held against population risks minimized by descent, against linear solves with a
lambda found by bisection, and against the risks of other rules.
"""

import torch
from scipy.optimize import brentq
from torch import Tensor
from torch.nn.functional import softplus

from manifoldlab import linalg
from manifoldlab.gaussian_regimes import GaussianRegimes
from manifoldlab.theorem import EXACT, Bound, Control, Identity, Several, Sides, Theorem
from manifoldlab.verification import hold, reject
from theory_checks.gaussian_pairs import Pair, pairs, turned

SHARES = (0.2, 0.8)  # of |mu|: the radii
BEYOND = (1.0, 1.3)
OTHERS = 64  # rules to compare with


def logistic(margin: Tensor) -> Tensor:
    return softplus(-margin)


def exponential(margin: Tensor) -> Tensor:
    return (-margin).exp()


def squared(margin: Tensor) -> Tensor:
    return softplus(-margin).square()


LOSSES = (logistic, exponential, squared)


def radii(case: Pair, shares: tuple[float, ...] = SHARES) -> Tensor:
    found: Tensor = case.mean.norm() * case.mean.new_tensor(shares)
    return found


def compared(case: Pair, model: GaussianRegimes) -> tuple[Sides, Sides]:
    """What is found against the closed form of a model; and bounds, of the robust risk and beyond."""
    left, right = found(case), closed(case, model)
    return Sides(left, right, torch.ones_like(left[:, 0])), bounds(case, model)


def found(case: Pair) -> Tensor:
    """Directions, weights and risks for each radius, (m, q); the weights in units of those at eps = 0."""
    trained, z = _trained(case), _nearest(case)
    w = torch.linalg.solve(case.covariance, (case.mean - z).mT).mT
    margin = ((case.mean - z) * w).sum(1).sqrt()
    risks = torch.stack([torch.special.ndtr(-margin), error(case, w)], 1)
    directions = [linalg.unit(rule) for rule in trained]
    weights = torch.stack([trained[0], trained[1], w], 1) / _bayes(case).norm()
    attacked = error(case, trained[0], radii(case))[:, None]
    return torch.cat([*directions, weights.flatten(1), z / case.mean.norm(), risks, attacked], 1)


def closed(case: Pair, model: GaussianRegimes) -> Tensor:
    radius = radii(case)
    gamma = model.gamma_of_radius(radius)
    w, direction = model.rule(gamma), model.direction(gamma)
    weights = torch.stack([2 * w, w, w], 1) / _bayes(case).norm()
    z = gamma[:, None] * w / case.mean.norm()
    robust, clean = model.robust_risk(w, radius), model.clean_risk(w)
    risks = torch.stack([robust, clean, robust], 1)
    return torch.cat([direction, direction, direction, weights.flatten(1), z, risks], 1)


def error(case: Pair, w: Tensor, radius: Tensor | float = 0.0) -> Tensor:
    """The robust risk of rules (..., D)."""
    deviation = ((w @ case.covariance) * w).sum(-1).sqrt()
    risk: Tensor = torch.special.ndtr((radius * w.norm(dim=-1) - w @ case.mean) / deviation)
    return risk


def bounds(case: Pair, model: GaussianRegimes) -> Sides:
    """No other rule has less robust risk; beyond |mu| none has less of a loss than that of the model."""
    others = linalg.unit(case.mean[None]) + case.normal(OTHERS, len(case.mean))
    left, right = [], []
    for radius in radii(case):
        best = model.rule(model.gamma_of_radius(radius))
        near = linalg.unit(best[None]) + others / 100
        right.append(error(case, torch.cat([others, near]), radius))
        left.append(model.robust_risk(best, radius).expand(2 * OTHERS))
    for radius in radii(case, BEYOND):
        nothing = model.rule(model.gamma_of_radius(radius))
        shrunk = torch.cat([others, others / 1e3, 0 * others[:1]])
        for loss in LOSSES:
            right.append(case.risk(loss, case.seen(shrunk), radius))
            left.append(case.risk(loss, case.seen(nothing), radius).expand(len(shrunk)))
    smaller, larger = torch.cat(left), torch.cat(right)
    return Sides(smaller, larger, larger)


def _trained(case: Pair) -> Tensor:
    """The rules of least attacked risk of each loss, (losses, m, D); all of them at once."""
    radius = radii(case)

    def risk(seen: Tensor) -> Tensor:
        each = zip(LOSSES, seen.chunk(len(LOSSES)), strict=True)
        return torch.cat([case.risk(loss, part, radius) for loss, part in each])

    return case.minimize(risk, len(LOSSES) * len(radius)).reshape(len(LOSSES), len(radius), -1)


def _nearest(case: Pair) -> Tensor:
    """z*, (m, D)"""
    precision = torch.linalg.inv(case.covariance)
    eye = torch.eye(len(precision)).to(precision)

    def point(multiplier: float) -> Tensor:
        z: Tensor = torch.linalg.solve(precision + multiplier * eye, precision @ case.mean)
        return z

    def excess(multiplier: float, radius: float) -> float:
        return float(point(multiplier).norm()) / radius - 1

    roots = [brentq(excess, 0, 1e6, (radius,), xtol=1e-14) for radius in radii(case).tolist()]
    return torch.stack([point(root) for root in roots])


def _bayes(case: Pair) -> Tensor:
    """Sigma^{-1} mu, (D,)"""
    w: Tensor = torch.linalg.solve(case.covariance, case.mean)
    return w


def law(case: Pair) -> tuple[Sides, Sides]:
    return compared(case, case.regimes)


def isotropic(case: Pair) -> tuple[Sides, None]:
    return compared(case, _isotropic(case))[0], None


def isotropic_gap(case: Pair) -> Tensor:
    return closed(case, case.regimes) - closed(case, _isotropic(case))


def _isotropic(case: Pair) -> GaussianRegimes:
    return GaussianRegimes(case.mean, torch.eye(len(case.mean)).to(case.mean))


LAW = Theorem(
    id="D5",
    title="The robust Bayes rule of two Gaussians has a closed form",
    statement=r"$x|y \sim N(y\mu, \Sigma)$, $\epsilon < |\mu|$: $w^* = \Sigma^{-1}(\mu - z^*)$,"
    r" $z^* = \mathrm{argmin}_{|z| \leq \epsilon} (\mu-z)^T\Sigma^{-1}(\mu-z)$ has the robust risk"
    r" $\Phi(-\sqrt{(\mu-z^*)^T\Sigma^{-1}(\mu-z^*)})$, the least of all, and is the direction of"
    r" adversarial logistic training; $w^* = 0$ for $\epsilon \geq |\mu|$.",
    claim=Several((Identity(), Bound())),
    cases=pairs,
    measure=law,
    controls=(
        Control("the covariance replaced by I", isotropic, isotropic_gap, turned, within=EXACT),
    ),
)


def test_holds(family: str) -> None:
    hold(LAW, family)


def test_fails_without_its_assumption(control: Control) -> None:
    reject(LAW, control)
