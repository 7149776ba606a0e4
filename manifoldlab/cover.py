"""Which panels of a manifold matter to which points: branch and bound.

A panel is measured on a lattice of its points p. Along M the function |x - m|^2 has second derivatives
of at most 2 (1 + dist / reach), and no point of the panel is farther than r from the lattice, so

    dist(x, panel)^2 >= min_p |x - p|^2 - (1 + dist / reach) r^2      where r is below the reach,
    dist(x, panel)   >= min_p |x - p| - r                             in any case,
    dist(x, M)       <= min_p |x - p|.

(The first bound is that of a minimum inside, where the slope vanishes; faces belong to the lattice.)
A panel with dist^2 above dist(x, M)^2 + 2 tau^2 NATS carries less than e^-NATS of the weight
exp(-|x - m|^2 / 2 tau^2) at the nearest point, and is dropped; the others are halved along their
longest edge until it is short enough for the point. Only indices come out: no gradient is needed.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from manifoldlab import panels

# exp(-45) = 3e-20: of a thousand panels, and of densities that differ tenfold, what is dropped
# stays below 1e-16 of the sum
NATS = 45.0
LATTICE = 3  # points an axis on which the radius and the edges of a panel are measured
SLACK = 1.5  # what r is raised by: a panel bends between the points of its lattice


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
    longest = torch.stack([step.reshape(len(low), -1).amax(1) for step in steps], 1)
    spread = SLACK * longest.norm(dim=1) / 2
    return Panels(patch, low, high, points, spread, 2 * longest)


def halved(embed: Embed, cover: Panels) -> Panels:
    """Every panel halved along its longest edge: the m lower halves, then the m upper ones."""
    low, high = panels.split(cover.low, cover.high, cover.edges.argmax(1))
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


@torch.no_grad()
def select(
    embed: Embed,
    cover: Panels,
    x: Tensor,
    *,
    noise: float,
    reach: float,
    longest: Callable[[Tensor], Tensor],
) -> Selection:
    """For samples (n, D); `longest` gives the longest edge one can bear, from its distance to M."""

    def near(pairs: Pairs, distance: Tensor) -> Tensor:
        spread, here = cover.spread[pairs.panel], nearest[pairs.sample]
        first = (distance - spread).clamp_min(0).square()
        second = distance.square() - (1 + here / reach) * spread.square()
        lower = torch.where(spread < reach / 4, torch.maximum(first, second), first)
        return lower <= here.square() + 2 * NATS * noise**2

    every = torch.cdist(x, cover.lattice.flatten(0, 1))
    every = torch.unflatten(every, 1, cover.lattice.shape[:2]).amin(2)  # (n, m)
    nearest = every.amin(1)
    index = torch.cartesian_prod(*(torch.arange(k, device=x.device) for k in every.shape))
    pairs = Pairs(index[:, 0], index[:, 1])
    pairs = pairs.pick(near(pairs, every.flatten()))
    done: list[Pairs] = []
    while True:
        long = cover.edges.amax(1)[pairs.panel] > longest(nearest)[pairs.sample]
        done.append(pairs.pick(~long))
        pairs = pairs.pick(long)
        if not len(pairs.sample):
            break
        parents, place = torch.unique(pairs.panel, return_inverse=True)
        children = torch.cat([place, place + len(parents)]) + len(cover.patch)
        cover = cover.join(halved(embed, cover.pick(parents)))
        pairs = Pairs(pairs.sample.repeat(2), children)
        distance = _distance(x, cover, pairs)
        nearest = nearest.scatter_reduce(0, pairs.sample, distance, "amin")
        pairs = pairs.pick(near(pairs, distance))
    pairs = Pairs(*(torch.cat(t) for t in zip(*done, strict=True)))
    pairs = pairs.pick(near(pairs, _distance(x, cover, pairs)))
    return Selection(cover, pairs.pick(pairs.sample.argsort(stable=True)), nearest)


def _distance(x: Tensor, cover: Panels, pairs: Pairs) -> Tensor:
    """From the sample to the lattice of the panel, (p,)."""
    every: Tensor = (x[pairs.sample][:, None] - cover.lattice[pairs.panel]).norm(dim=2)
    return every.amin(1)
