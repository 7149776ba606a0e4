"""Which panels of a manifold matter to which points: branch and bound.

A panel is measured on a lattice of its points p. Along M the function |x - m|^2 has second derivatives
of at most 2 (1 + dist / reach), and no point of the panel is farther than r from the lattice, so

    dist(x, panel)^2 >= min_p |x - p|^2 - (1 + dist / reach) r^2      where r is below the reach,
    dist(x, panel)   >= min_p |x - p| - r                             in any case,
    dist(x, M)       <= min_p |x - p|.

(The first bound is that of a minimum inside, where the slope vanishes; faces belong to the lattice.)
A panel with dist^2 above dist(x, M)^2 + 2 tau^2 NATS carries less than e^-NATS of the weight
exp(-|x - m|^2 / 2 tau^2) at the nearest point, and is dropped; the others are halved until their
edges are at most edge tau / sqrt(1 + dist / reach). Across such a panel the exponent e, whose second
derivatives are at most (1 + dist / reach) / tau^2, changes by at most

    edge^2 / 2 + edge sqrt(2 (e - min e))

where min e is a minimum inside. At a point of the edge of M it is not: there e falls to its minimum with
a slope of up to dist / tau^2, and the weight lies where the density, which vanishes at the edge, has
grown. For a sample that meets a panel across which e changes by more, all panels are halved until it
changes by no more than GENTLE. Only indices come out: no gradient is needed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from torch import Tensor

from manifoldlab import panels

# exp(-45) = 3e-20: of a thousand panels, and of densities that differ tenfold, what is dropped
# stays below 1e-16 of the sum
NATS = 45.0
LATTICE = 3  # points an axis on which the radius and the edges of a panel are measured
SLACK = 1.5  # what r is raised by: a panel bends between the points of its lattice
MISSED = 0.5  # nats by which min e on the lattices may be too large: their steps are below tau
# nats, at an edge: ten Gauss-Legendre nodes leave 1e-18 of the integral of exp(-u) over [0, 4], and
# at most 1e-11 of that of u^6 exp(-u)
GENTLE = 4.0


class Panels(NamedTuple):
    patch: Tensor  # (m,) which patch of the manifold
    low: Tensor  # (m, d)
    high: Tensor  # (m, d)
    lattice: Tensor  # (m, 3^d, D)
    spread: Tensor  # (m,) r: distance of any point of the panel from the lattice
    edges: Tensor  # (m, d) lengths in R^D

    def pick(self, index: Tensor) -> "Panels":
        return Panels(*(field[index] for field in self))

    def join(self, other: "Panels") -> "Panels":
        return Panels(*(torch.cat(pair) for pair in zip(self, other, strict=True)))


Embed = Callable[[Tensor, Tensor], Tensor]  # patch (m,), parameters (m, d) -> points (m, D)


def measured(embed: Embed, patch: Tensor, low: Tensor, high: Tensor) -> Panels:
    """Panels with their points, spreads and edges, from a lattice that is open at the faces."""
    dim = low.shape[1]
    # 1e-9 off the exact middle and faces: a chart may have a pole there, as that of the sphere
    ticks = torch.linspace(1e-9, 1 - 2e-9, LATTICE, dtype=low.dtype, device=low.device)
    lattice = torch.cartesian_prod(*[ticks] * dim).reshape(-1, dim)
    s = low[:, None] + (high - low)[:, None] * lattice
    points = embed(patch.repeat_interleave(len(lattice)), s.flatten(0, 1))
    points = torch.unflatten(points, 0, s.shape[:2])  # (m, 3^d, D)
    grid = torch.unflatten(points, 1, (LATTICE,) * dim)
    steps = [(grid.narrow(1 + a, 1, 2) - grid.narrow(1 + a, 0, 2)).norm(dim=-1) for a in range(dim)]
    longest = torch.stack([step.flatten(1).amax(1) for step in steps], 1)
    spread = SLACK * longest.norm(dim=1) / 2
    return Panels(patch, low, high, points, spread, 2 * longest)


def halved(embed: Embed, cover: Panels, axis: Tensor) -> Panels:
    """Every panel halved along its own axis (m,): the m lower halves, then the m upper ones."""
    low, high = panels.split(cover.low, cover.high, axis)
    return measured(embed, cover.patch.repeat(2), low, high)


def regular_axes(found: Panels) -> Tensor:
    """(m, d) whether the chart's speed changes at most fourfold along an axis of a panel.

    An axis that ends at infinity is not regular on its last panel, however often that is halved.
    """
    dim = found.low.shape[1]
    grid = torch.unflatten(found.lattice, 1, (LATTICE,) * dim)
    regular = []
    for axis in range(1, dim + 1):
        first, second = grid.diff(dim=axis).norm(dim=-1).unbind(axis)
        near = (first <= 4 * second) & (second <= 4 * first)
        regular.append(near.reshape(len(near), -1).all(1))
    return torch.stack(regular, 1)


class Pairs(NamedTuple):
    sample: Tensor  # (p,)
    panel: Tensor  # (p,) index into the panels

    def pick(self, index: Tensor) -> "Pairs":
        return Pairs(self.sample[index], self.panel[index])


class Selection(NamedTuple):
    panels: Panels
    pairs: Pairs  # of samples and the panels that matter to them, in the order of samples
    nearest: Tensor  # (n,) distances to M

    def of(self, sample: int) -> "Selection":
        """What one sample needs."""
        panel = self.pairs.panel[self.pairs.sample == sample]
        alone = Pairs(torch.zeros_like(panel), panel)
        return Selection(self.panels, alone, self.nearest[sample : sample + 1])


@final
@dataclass(frozen=True)
class Limits:
    """Which panels matter to a point, and how long and how steep they may be for it."""

    noise: float
    reach: float
    edge: float  # longest edge of a panel, in units of the noise

    def matter(self, spread: Tensor, squares: Tensor, nearest: Tensor) -> Tensor:
        """Of pairs (p,), from |x - m|^2 on the lattice of the panel (p, 3^d) and dist(x, M)^2."""
        least, bend = squares.amin(1), 1 + nearest.sqrt() / self.reach
        first = (least.sqrt() - spread).clamp_min(0).square()
        second = least - bend * spread.square()
        lower = torch.where(spread < self.reach / 4, torch.maximum(first, second), first)
        return lower <= nearest + 2 * NATS * self.noise**2

    def lengths(self, edges: Tensor, nearest: Tensor) -> Tensor:
        """How many times too long panels are along each axis, (p, d)."""
        longest = self.edge * self.noise / (1 + nearest.sqrt() / self.reach).sqrt()
        return edges / longest[:, None]

    def changes(self, squares: Tensor, nearest: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        """By how much e changes along each axis of panels (p, d), and may where e is flat (p, 1)."""
        exponents = squares / (2 * self.noise**2)
        grid = torch.unflatten(exponents, 1, (LATTICE,) * dim)
        ranges = (
            grid.amax(a, keepdim=True) - grid.amin(a, keepdim=True) for a in range(1, dim + 1)
        )
        above = exponents.amin(1) - nearest / (2 * self.noise**2)
        flat = self.edge**2 / 2 + self.edge * (2 * (above + MISSED)).sqrt()
        return torch.stack([t.flatten(1).amax(1) for t in ranges], 1), flat[:, None]


@torch.no_grad()
def select(embed: Embed, cover: Panels, x: Tensor, limits: Limits) -> Selection:
    """The panels that matter to samples (n, D), halved as far as each sample needs."""
    dim = cover.low.shape[1]
    squares = torch.cdist(x, cover.lattice.flatten(0, 1)).square()
    nearest, sees_edge = squares.amin(1), torch.zeros(len(x), dtype=torch.bool, device=x.device)
    every = (torch.arange(k, device=x.device) for k in (len(x), len(cover.patch)))
    pairs = Pairs(*torch.cartesian_prod(*every).unbind(1))
    squares = squares.reshape(len(pairs.sample), LATTICE**dim)
    while True:
        nearest = nearest.scatter_reduce(0, pairs.sample, squares.amin(1), "amin")
        kept = limits.matter(cover.spread[pairs.panel], squares, nearest[pairs.sample])
        pairs, squares = pairs.pick(kept), squares[kept]
        excess = limits.lengths(cover.edges[pairs.panel], nearest[pairs.sample])
        change, flat = limits.changes(squares, nearest[pairs.sample], dim)
        steep = ((change > flat) & (excess <= 1).all(1, keepdim=True)).any(1)
        sees_edge[pairs.sample[steep]] = True
        gentle = change.where(sees_edge[pairs.sample, None], 0) / GENTLE
        worst, axis = torch.maximum(excess, gentle).max(1)
        again = worst > 1
        if not again.any():
            break
        cover, children = _children(embed, cover, pairs.pick(again), axis[again])
        near = (x[children.sample][:, None] - cover.lattice[children.panel]).square().sum(2)
        pairs = Pairs(*(torch.cat(t) for t in zip(pairs.pick(~again), children, strict=True)))
        squares = torch.cat([squares[~again], near])
    return Selection(cover, pairs.pick(pairs.sample.argsort(stable=True)), nearest.sqrt())


def _children(embed: Embed, cover: Panels, pairs: Pairs, axis: Tensor) -> tuple[Panels, Pairs]:
    """The panels with the halves of those of the pairs, and the pairs with these instead."""
    dim = cover.low.shape[1]
    cuts, place = torch.unique(pairs.panel * dim + axis, return_inverse=True)
    parts = halved(embed, cover.pick(cuts // dim), cuts % dim)
    children = torch.cat([place, place + len(cuts)]) + len(cover.patch)
    return cover.join(parts), Pairs(pairs.sample.repeat(2), children)
