r"""G2. Feature leakage (Shah et al. 2021): points are +-e_j of class +-1, j one of m >= 3 relevant
coordinates; others are noise. Networks are means of w relu(r.x + b) with w^2 + |r|^2 + b^2 = 1. With
s the sum of the relevant coordinates, w^2 = 1/2 and (m + 1) c^2 = 1/2,

    f = w/2 [relu(c s + c) - relu(-c s + c)]   has the margin w c = 1 / (2 sqrt(m + 1)),

the largest there is: under even weights on the 2m points no neuron of this size earns more than

    max w/2m sum_j [relu(r_j + b) - relu(-r_j + b)],  in which w sqrt(|r|^2 + b^2) <= 1/2.

The sum is linear on each cone of (r, b) given by the signs of b and r_j +- b, and the maximum of a.v
over unit vectors v of a cone is the length of the projection of a (Moreau), found here by
non-negative least squares, cone by cone. At |s| < 1, f = w c s: one gradient on all relevant
coordinates. The worst steps of length eps in each coordinate leave the margin w c (1 - m eps); at
eps = 1/m they take e_j and -e_k to the same s, so that no function of s is robust beyond. One
thresholded neuron a coordinate, sum_j relu(x_j - 1/2) - relu(-x_j - 1/2), keeps 1/2 - eps > 0 up to
1/2, where e_j and -e_k themselves meet, in (1/2, -1/2). One neuron a coordinate with r = b = 1/2 does
best among neurons of one coordinate each, by the same cones, and reaches (1/sqrt 2) / 2m only: margins
and gradient fall in proportion. Noise coordinates z of mean 0 and mean square at most 1 in all
directions help no neuron: it has b + n.z for b, its sum is at most a multiple of |(r, b + n.z)|, and the
mean of this length is at most |(r, b, n)|.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from math import sqrt
from typing import NamedTuple, Self, final

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from manifoldlab.strategies import SEEDS, Families
from manifoldlab.theorem import EXACT, Control, Identity, Sides, Theorem
from manifoldlab.verification import hold, reject

SHARES = (0.3, 0.9, 1.0, 1.2)  # of 1 / m: lengths of the steps against f
STEPS = (0.1, 0.4, 0.49)  # and against the thresholded neurons


class Network(NamedTuple):
    """The sum of share w relu(r.x + b)."""

    share: float
    outer: Tensor  # (k,) w
    inner: Tensor  # (k, D) r
    bias: float  # b

    def __call__(self, x: Tensor) -> Tensor:
        hidden = (x @ self.inner.mT + self.bias).relu()
        return self.share * (hidden @ self.outer)


@final
@dataclass(frozen=True)
class Block:
    relevant: int  # m
    noise: int  # coordinates
    seed: int = 0
    device: str = "cpu"

    def on(self, device: str) -> Self:
        return replace(self, device=device)

    @property
    def margin(self) -> float:
        return 1 / (2 * sqrt(self.relevant + 1))

    @property
    def margin_of_one(self) -> float:
        """Of neurons of one coordinate each."""
        return sqrt(0.5) / (2 * self.relevant)

    def coordinates(self) -> Tensor:
        """e_1, ..., e_m, (m, D)"""
        size = self.relevant + self.noise
        return torch.eye(self.relevant, size, dtype=torch.float64, device=self.device)

    def points(self) -> tuple[Tensor, Tensor]:
        """The 2m points, whatever their noise coordinates are, and labels +-1."""
        y = torch.ones(2 * self.relevant, dtype=torch.float64, device=self.device)
        y[self.relevant :] = -1
        x = y[:, None] * self.coordinates().repeat(2, 1)
        x[:, self.relevant :] = self._drawn(len(x), self.noise)
        return x, y

    def inside(self) -> Tensor:
        """Points between those, sum of |x_j| below 1, where no neuron is at its kink."""
        x = self._drawn(8, self.relevant + self.noise)
        size = x[:, : self.relevant].abs().sum(1, keepdim=True)
        return torch.cat([0.9 * x[:, : self.relevant] / size, x[:, self.relevant :]], 1)

    def _drawn(self, *shape: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(self.device)


def two_neurons(case: Block) -> Network:
    c = 1 / sqrt(2 * (case.relevant + 1))
    along = c * case.coordinates().sum(0)
    return Network(0.5, *_pairs(along[None]), c)


def one_a_coordinate(case: Block) -> Network:
    return Network(0.5 / case.relevant, *_pairs(case.coordinates() / 2), 0.5)


def _pairs(inner: Tensor) -> tuple[Tensor, Tensor]:
    """Neurons along +-r with outer weights +-1 / sqrt 2."""
    outer = torch.full_like(inner[:, 0], sqrt(0.5))
    return torch.cat([outer, -outer]), torch.cat([inner, -inner])


def thresholded(case: Block) -> Network:
    outer, inner = _pairs(case.coordinates())
    return Network(sqrt(2), outer, inner, -0.5)


def facts(case: Block, build: Callable[[Block], Network] = two_neurons) -> Sides:
    """What a network does, then what holds for all of them, against the formulas."""
    network, margin = build(case), case.margin
    x, y = case.points()
    left = [(y * network(x)).min(), *gradients(case, network)]
    right = [margin, *(margin * case.coordinates().sum(0)).tolist()]
    for share in SHARES:
        left.append(worst(case, network, share / case.relevant))
        right.append(margin * (1 - share))
    neurons = network.outer.square() + network.inner.square().sum(1) + network.bias**2
    left += [neurons.min(), neurons.max()]
    left += [x.new_tensor(largest(case.relevant, spread)) for spread in (case.relevant, 1)]
    right += [1.0, 1.0, margin, case.margin_of_one]
    left += [worst(case, thresholded(case), step) for step in STEPS] + collisions(case)
    right += [0.5 - step for step in STEPS] + [0.0, 0.0]
    return Sides(torch.stack(left), x.new_tensor(right), torch.full((len(left),), margin).to(x))


def gradients(case: Block, network: Network) -> list[Tensor]:
    """Coordinate by coordinate, where it is farthest from its mean over the points inside."""
    x = case.inside().requires_grad_()
    (rows,) = torch.autograd.grad(network(x).sum(), x)
    apart = (rows - rows.mean(0)).abs().argmax(0)
    return list(rows.gather(0, apart[None])[0])


def worst(case: Block, network: Network, size: float) -> Tensor:
    """The least margin under steps of at most `size` a coordinate: at a corner, f being monotone."""
    x, y = case.points()
    signs = torch.cartesian_prod(*[x.new_tensor([-1.0, 1.0])] * case.relevant)
    corners = torch.cat([signs, signs.new_zeros(len(signs), case.noise)], 1)
    moved = x[:, None] + size * corners  # (2m, 2^m, D)
    return (y[:, None] * network(moved)).min()


def collisions(case: Block) -> list[Tensor]:
    """How far apart e_1 and -e_2 are in s after steps of 1/m, and altogether after steps of 1/2."""
    first, second = case.coordinates()[:2]
    step = case.coordinates().sum(0) / case.relevant
    corner = (first + second) / 2
    return [((first - step) - (step - second)).sum(), ((first - corner) - (corner - second)).norm()]


@cache
def largest(relevant: int, spread: int) -> float:
    """What a neuron that sees `spread` of the coordinates can earn under even weights."""
    lengths = [
        nnls(-cone.T, slope)[1]  # the residual: what the polar cone leaves of the slope
        for cone, slope in cones(spread)
    ]
    return float(0.5 * max(lengths) / (2 * relevant))


def cones(spread: int) -> Iterator[tuple["np.ndarray", "np.ndarray"]]:
    """G and a: sum_j relu(r_j + b) - relu(-r_j + b) = a.v on G v >= 0, v = (r, b), up to order of r."""
    for sign in (1.0, -1.0):  # of b
        for above in range(spread + 1):
            for below in range(spread + 1 - above):
                kinds = [1] * above + [-1] * below + [0] * (spread - above - below)
                rows = [np.append(np.zeros(spread), sign)]
                slope = np.zeros(spread + 1)
                for j, kind in enumerate(kinds):
                    unit, last = np.eye(spread + 1)[j], np.eye(spread + 1)[-1]
                    if kind:  # |r_j| > |b|: one of the two is active
                        rows.append(kind * unit - sign * last)
                        slope += unit + kind * last
                    else:  # both are where b > 0, none where b < 0
                        rows += [sign * last + unit, sign * last - unit]
                        slope += (1 + sign) * unit
                yield np.stack(rows), slope


def proportion(case: Block) -> Tensor:
    """Of the first rows: all that is missing with neurons of one coordinate each."""
    law = facts(case)
    gap = (case.margin_of_one / case.margin - 1) * law.right
    gap[1 + case.relevant + case.noise + len(SHARES) :] = 0
    return gap


def blocks() -> Families:
    build = lambda seed: Block(3 + seed % 5, seed % 4, seed)
    return {"blocks": SEEDS.map(build)}


LAW = Theorem(
    id="G2",
    title="Max-margin networks leak to all relevant coordinates",
    statement=r"$f = \frac{w}{2}[\phi(cs+c) - \phi(-cs+c)]$, $s = \sum_{j\leq m} x_j$, $w^2 = (m+1)c^2 ="
    r" \frac{1}{2}$, has the margin $1/(2\sqrt{m+1})$, which is the dual bound, and one gradient on all"
    r" relevant coordinates; no function of $s$ is robust beyond $1/m$, thresholded neurons are up to"
    r" $\frac{1}{2}$.",
    claim=Identity(),
    cases=blocks,
    effort=3.0,
    measure=facts,
    controls=(
        Control(
            "one neuron a coordinate",
            partial(facts, build=one_a_coordinate),
            proportion,
            within=EXACT,
        ),
    ),
)


def test_holds(family: str) -> None:
    hold(LAW, family)


def test_fails_without_its_assumption(control: Control) -> None:
    reject(LAW, control)
