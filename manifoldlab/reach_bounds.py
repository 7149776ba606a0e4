"""The reach from Federer's quotient |q - p|^2 / (2 |P_p (q - p)|), P_p the projection on the normals at p.

Let r be not above the quotient of any pair: then |p + N - q|^2 - |N|^2 = |q - p|^2 - 2 <N, q - p> is
positive for all q other than p and all normals N at p shorter than r, so that p is the one point
nearest to p + N (Federer 1959, 4.18). Nothing here needs the manifold to be without an edge.
"""

from collections.abc import Sequence
from math import pi

import torch
from torch import Tensor

from manifoldlab.interfaces import Axis
from manifoldlab.linalg import squared_norm
from manifoldlab.nearest_point import Embed, jacobian

MOST_PAIRS = 2**19  # of arcs that await halving: then the least of their bounds is returned
SHORTEST = 1e-5  # share of the curve below which no arc is halved
SAFETY = 0.8  # of an estimate: what a search over samples may have missed


def certified_curve_reach(
    curve: Embed,
    low: float,
    high: float,
    *,
    speed: float,
    curvature: float,
    closed: bool = False,
    tolerance: float = 0.02,
) -> float:
    """A lower bound of the quotients of a curve, as a rule within `tolerance` of the least one.

    `speed` and `curvature` are upper bounds of |c'| and of the curvature k on [low, high].
    A proof, not a search, up to rounding: every pair of arcs is either near or bounded.
    Near: p and q at most pi / k apart along the curve. Prolong the piece from q to p, beyond p, by an
    arc of a circle of radius 1 / k that touches at p, to the length pi / k. The tangent at the
    distance s from the middle is turned by at most k s, so the ends are at least the integral of
    cos(k s) = 2 / k apart; the new end is on the ball with that circle as an equator, so q is not
    inside it. It may be any ball of radius 1 / k that touches at p: the quotient is at least 1 / k.
    Bounded: of two arcs of half length e about p and q, with d = |q - p| and n = |P_p (q - p)|,
    all points have a distance of at least d - 2e, and a normal part of at most
    n + e + k e (d + 2e), since P_p turns at the rate k: the quotient is at least
    (d - 2e)^2 / 2(n + e + k e (d + 2e)). Arcs for which neither will do are halved.
    """
    width = (high - low) / 64
    middles = low + width * (torch.arange(64, dtype=torch.float64) + 0.5)
    t, s = middles.repeat_interleave(64), middles.repeat(64)  # of the arcs of p and of q
    reach: float = 1 / curvature
    while len(t):
        apart = (t - s).abs()
        apart = torch.minimum(apart, high - low - apart) if closed else apart
        far = speed * (apart + width) > pi / curvature
        t, s = t[far], s[far]
        least, quotient = _arc_bounds(curve, t, s, speed * width / 2, curvature)
        reach = min([reach, *((1 - tolerance) * quotient).tolist()])
        t, s, least = (value[least < reach] for value in (t, s, least))
        if len(t) > MOST_PAIRS or width < SHORTEST * (high - low):
            return float(min([reach, *least.tolist()]))
        width /= 2
        t = torch.cat([t - width / 2, t - width / 2, t + width / 2, t + width / 2])
        s = torch.cat([s - width / 2, s + width / 2, s - width / 2, s + width / 2])
    return reach


def _arc_bounds(
    curve: Embed, t: Tensor, s: Tensor, half: float, curvature: float
) -> tuple[Tensor, Tensor]:
    """Of the quotients: a lower bound on arcs of half length `half` about t and s, the value at both."""
    chord, tangent = curve(s[:, None]) - curve(t[:, None]), jacobian(curve, t[:, None])[:, :, 0]
    tangent = tangent / tangent.norm(dim=1, keepdim=True)
    along = (chord * tangent).sum(1, keepdim=True)
    distance, normal = chord.norm(dim=1), (chord - along * tangent).norm(dim=1)
    most = normal + half + curvature * half * (distance + 2 * half)
    least = (distance - 2 * half).clamp_min(0).square() / (2 * most)
    return least, distance.square() / (2 * normal)


def estimated_reach(embed: Embed, axes: Sequence[Axis]) -> float:
    """SAFETY times the least quotient that a search finds, where all axes are finite.

    The search: quasirandom pairs, a half of them near ones, whose quotient tends to that of the
    curvature, 1 / |II(v, v)| of a unit vector v; then ever smaller changes of the best pairs.
    """
    low, high = (torch.tensor([a[i] for a in axes], dtype=torch.float64) for i in (0, 1))
    ambient = embed(low[None]).numel()
    count = max(64, min(2048, 2**20 // ambient))
    spread = _spread(2 * count + 512, 2 * len(axes))
    first, changes = spread[: 2 * count], spread[2 * count :].chunk(16)
    p, q = (1.2 * first - 0.1).clamp(0, 1).chunk(2, 1)  # in units of the box; some on its edges
    near = (p[count:] + 0.1 * (q[count:] - 0.5)).clamp(0, 1)
    pairs = torch.cat([p, torch.cat([q[:count], near])], 1)
    quotient = _quotients(embed, low, high, pairs)
    for turn, change in enumerate(changes):
        quotient, best = quotient.topk(12, largest=False)
        pairs = pairs[best]
        change = change[: max(4, count // 64), None] - 0.5
        moved = (pairs + 0.3 * 0.75**turn * change).clamp(0, 1).flatten(0, 1)
        pairs = torch.cat([pairs, moved])
        quotient = torch.cat([quotient, _quotients(embed, low, high, moved)])
    return SAFETY * float(quotient.min())


def _spread(count: int, dim: int) -> Tensor:
    """Points (count, dim) spread evenly in the unit cube (Roberts 2018), without a generator.

    A first call may come from within vmap, where random numbers are not allowed.
    """
    root = 2.0
    for _ in range(64):
        root = (1 + root) ** (1 / (dim + 1))  # of x^(dim + 1) = x + 1
    step = torch.tensor([root ** -(i + 1) for i in range(dim)], dtype=torch.float64)
    return (0.5 + torch.arange(1, count + 1)[:, None] * step).frac()


def _quotients(embed: Embed, low: Tensor, high: Tensor, pairs: Tensor) -> Tensor:
    p, q = (low + (high - low) * part for part in pairs.chunk(2, 1))
    chord = (embed(q) - embed(p)).flatten(1)[:, :, None]  # (m, D, 1)
    tangents = jacobian(embed, p)
    inverse: Tensor = torch.linalg.inv_ex(tangents.mT @ tangents).inverse
    normal = chord - tangents @ (inverse @ (tangents.mT @ chord))
    square = squared_norm(chord)
    trusted = square > 1e-6 * square.max()  # of nearer pairs the quotient is rounding
    return (square / (2 * squared_norm(normal).sqrt())).where(trusted, torch.inf)
