r"""F1. On a manifold without an edge an attack is a move along M and a normal step: with the risks at x
R_in (flipped by moving at most eps on M), R_nor (by a normal step of at most eps), R_adv (by any step
of at most eps) and NNR (some m of M with |m - x| <= 2 eps keeps the label and is flipped by a normal
step of at most eps),

    max(R_in, R_nor)(eps) <= R_adv(eps) <= R_in(2 eps) + NNR(eps),

point by point, and so for their means. For moves on M and normal steps are steps. And if |z - x| <= eps
flips, let m be the point of M nearest to z: |z - m| <= |z - x| <= eps, so |m - x| <= 2 eps, and z - m is
normal at m, for m is not on an edge. Either m is flipped, or z is by a normal step from m. (That M is
closed is enough for m to exist; eps below the reach r makes it unique, and then less than 2 eps would
do: 2 <z - m, x - m> <= |x - m|^2 |z - m| / r (Federer 1959, 4.8) leaves |m - x| <= 2 r sin(arcsin(eps / r)
/ 2) < sqrt(2) eps, which spheres attain.)

Risks are found by search (`searched_flips`): of any end of a step that flips, the nearest point is among
the candidates too, so that the left of each inequality finds nothing that the right cannot find, if the
theorem is true, and nothing else makes up for it. The classifier has stripes whose width is of the
order of eps; or those of the nearest point, as in tubes (B1t), which normal steps never flip: then
R_in(2 eps) alone covers the attacks, and R_in(eps) would not. `Caps` has no search: on a sphere of
radius r, with y = 1 above a plane v = b, v = r cos(theta), and q = eps / r, moves of chord c turn theta
by 2 arcsin(c / 2r), a normal step leads from v to v -+ q |v|, any step to v -+ eps, and NNR asks for
some v' > b with v' - q |v'| <= b, that is v' <= b / (1 -+ q), within the turn of 2 eps. Below the plane
the signs change. `Cones` has y = 1 where theta < beta, off the sphere too: there no normal step flips,
and a step turns theta by up to arcsin q.

Controls. R_in + R_nor is no bound: f = w.(X - x) + 1.2 eps with |Pw| = |Qw| = 1 falls by sqrt(2) eps, but
by eps along normals and by no more than eps + eps^2 / 2 reach on M, where the normal part of m - x is at
most |m - x|^2 / 2 reach (Federer 1959, 4.18): 0 + 0 against 1. And at an edge, with w the tangent that
leads out of M and f = eps / 2 - w.(X - x), M and its normals near x reach 0.4 eps at eps = reach / 10.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from math import asin, pi
from typing import Self, final

import torch
from torch import Tensor

from manifoldlab import linalg
from manifoldlab.manifolds.base import Manifold
from manifoldlab.nearest_point import jacobian
from manifoldlab.strategies import SEEDS, Families, Fits, manifolds
from manifoldlab.theorem import EXACT, Bound, Control, Sides, Theorem
from manifoldlab.verification import hold, reject
from theory_checks.landscapes import Ripples
from theory_checks.searched_flips import Classifier, Margin, Risks, Searched, has_edge

SHARES = (0.1, 0.3, 0.6, 0.9)  # eps, in units of the reach
STRIPE = 6.0  # width of the stripes, in units of eps and of slopes of 1
ANGLES = 2**15  # of which some are between 2 arcsin(q / 2) and arcsin q even at q = 0.1
SMALL = 0.1  # eps of the controls, likewise


@final
@dataclass(frozen=True)
class Stripes(Classifier):
    """Classes that alternate with a smooth function; one label in four is wrong."""

    of_feet: bool = False  # a function of the nearest point

    def margin(self, case: Searched) -> Margin:
        ripples = Ripples(case.x.shape[1], case.seed)
        width = STRIPE * case.eps

        def value(x: Tensor) -> Tensor:
            points = x.reshape(-1, *case.manifold.shape)
            logits = ripples.log_joint(case.manifold.nearest(points) if self.of_feet else points)
            return (pi * (logits[:, 0] - logits[:, 1]) / width).sin().reshape(x.shape[:-1])

        wrong = torch.arange(case.n, device=case.device) % 4 == 3
        label = value(case.x).sign() * torch.where(wrong, -1.0, 1.0)
        return lambda x: label * value(x)


@final
@dataclass(frozen=True)
class Oblique(Classifier):
    """1.2 eps + w.(X - x), w a unit tangent and a unit normal."""

    def margin(self, case: Searched) -> Margin:
        drawn = case.normal(*case.x.shape, stream=3)
        tangent = linalg.project(case.tangents, drawn)
        w = linalg.unit(tangent) + linalg.unit(drawn - tangent)
        return lambda x: 1.2 * case.eps + ((x - case.x) * w).sum(-1)


@final
@dataclass(frozen=True)
class PastTheEdge(Classifier):
    """eps / 2 - w.(X - x), w the unit tangent that leads out where the first axis with an edge ends."""

    def margin(self, case: Searched) -> Margin:
        k = [has_edge(axis, case.manifold) for axis in case.manifold.axes].index(True)
        columns = jacobian(case.embed, case.z)  # (n, D, d)
        order = [j for j in range(columns.shape[2]) if j != k] + [k]
        basis, triangle = torch.linalg.qr(columns[:, :, order])
        w = basis[:, :, -1] * triangle[:, -1, -1].sign()[:, None]
        return lambda x: case.eps / 2 - ((x - case.x) * w).sum(-1)


@final
@dataclass(frozen=True)
class Caps:
    """A sphere cut by a plane, at many angles, in units of its radius."""

    plane: float  # b
    share: float  # eps
    n: int = ANGLES
    device: str = "cpu"

    def on(self, device: str) -> Self:
        return replace(self, device=device)

    @property
    def risks(self) -> Risks:
        angle = (torch.arange(self.n, dtype=torch.float64, device=self.device) + 0.5) * pi / self.n
        side = (angle.cos() > self.plane).double() * 2 - 1
        angle = torch.where(side > 0, angle, pi - angle)  # below is above, with the signs changed
        b, q = side * self.plane, self.share
        v = angle.cos()
        once, twice = (
            (angle + chord(c)).clamp_max(pi).cos() for c in (q, 2 * q)
        )  # least v in reach
        kept = b / (1 - q * b.sign())  # the largest v that a normal step takes to b
        nearby = (twice <= kept) & (b < kept)
        return Risks(once <= b, v - q * v.abs() <= b, v - q <= b, twice <= b, nearby)


@final
@dataclass(frozen=True)
class Cones:
    """A sphere and the cone of half-angle beta from its centre, in units of its radius."""

    opening: float  # beta
    share: float  # eps
    n: int = ANGLES
    device: str = "cpu"

    def on(self, device: str) -> Self:
        return replace(self, device=device)

    @property
    def risks(self) -> Risks:
        angle = (torch.arange(self.n, dtype=torch.float64, device=self.device) + 0.5) * pi / self.n
        left = (angle - self.opening).abs()  # to the cone
        q, never = self.share, torch.zeros_like(left, dtype=torch.bool)
        return Risks(left <= chord(q), never, left <= asin(q), left <= chord(2 * q), never)


def chord(c: float) -> float:
    """The angle of a chord of length c, in the unit circle."""
    return 2 * asin(c / 2)


def sandwich(case: Searched | Caps | Cones, upper: Callable[[Risks], Tensor]) -> Sides:
    risks = case.risks
    left = torch.stack([risks.on | risks.normal, risks.any], 1).double()
    right = torch.stack([risks.any.double(), upper(risks)], 1)
    return Sides(left, right, torch.ones_like(left))


def farther_or_nearby(risks: Risks) -> Tensor:
    return risks.farther.double() + risks.nearby.double()


def apart(risks: Risks) -> Tensor:
    return risks.on.double() + risks.normal.double()


def nothing_against_one(case: Searched) -> Tensor:
    return case.x.new_tensor([-1.0, 1.0]).expand(case.n, 2)


def ends(manifold: Manifold) -> bool:
    return _has_normals(manifold) and any(has_edge(axis, manifold) for axis in manifold.axes)


def goes_on(manifold: Manifold) -> bool:
    return _has_normals(manifold) and not ends(manifold)


def _has_normals(manifold: Manifold) -> bool:
    """And a certain reach."""
    return manifold.ambient > manifold.dim and manifold.reach_certified


def searched(fits: Fits, shares: tuple[float, ...], *classifiers: Classifier) -> Families:
    def case(manifold: Manifold, seed: int) -> Searched:
        turn, number = divmod(seed, len(shares))
        return Searched(manifold, classifiers[turn % len(classifiers)], shares[number], seed)

    return {
        name: found.flatmap(lambda manifold: SEEDS.map(partial(case, manifold)))
        for name, found in manifolds(fits=fits).items()
    }


@cache
def cases() -> Families:
    caps = lambda seed: Caps((seed % 19 - 9) / 10, SHARES[seed % len(SHARES)])
    cones = lambda seed: Cones((1 + seed % 9) * pi / 10, SHARES[seed % len(SHARES)])
    spheres = {"caps": SEEDS.map(caps), "cones": SEEDS.map(cones)}
    return {**searched(goes_on, SHARES, Stripes(), Stripes(of_feet=True)), **spheres}


LAW = Theorem(
    id="F1",
    title="Attacks are moves on the manifold and normal steps",
    statement=r"$\max(R_\mathrm{in}, R_\mathrm{nor})(\epsilon) \leq R_\mathrm{adv}(\epsilon) \leq"
    r" R_\mathrm{in}(2\epsilon) + \mathrm{NNR}(\epsilon)$ on $M$ without boundary, $\epsilon < \rho$.",
    claim=Bound(),
    cases=cases,
    measure=partial(sandwich, upper=farther_or_nearby),
    controls=(
        Control(
            "R_in + R_nor",
            partial(sandwich, upper=apart),
            nothing_against_one,
            partial(searched, goes_on, (SMALL,), Oblique()),
            within=EXACT,
        ),
        Control(
            "an edge",
            partial(sandwich, upper=farther_or_nearby),
            nothing_against_one,
            partial(searched, ends, (SMALL,), PastTheEdge()),
            within=EXACT,
        ),
    ),
)


def test_holds(family: str) -> None:
    hold(LAW, family)


def test_fails_without_its_assumption(control: Control) -> None:
    reject(LAW, control)
