r"""E5. The weight w(E) = 1 / log(1 + exp|E|) of WEAT is positive, decreasing in |E| and finite for any
energy: 1 / log 2 at 0 and 1 / |E| far from it, for

    log(1 + exp a) = a + log(1 + exp(-a)),    a = |E|,

whose second term is in (0, log 2]. By this formula decimal numbers of 50 digits give the reference,
positive and falling. The weight differs from it by no more than four roundings of the energy's dtype
(of two functions, a sum and a reciprocal) and the least number above 0, and it never rises with |E|.
The energies are those of Bayes classifiers, plus any constant (E2: they are known up to one), and of
every scale of a dtype, up to its largest number. The naive form is 0 at |E| = 800, for exp 800 is
infinite: all of 1 / 800 is missing.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Context, Decimal
from functools import cache, partial
from math import log
from typing import Self, final

import torch
from torch import Tensor

from manifoldlab.energies import marginal_energy, weat_weight
from manifoldlab.strategies import SEEDS, Case, Families, problems
from manifoldlab.theorem import EXACT, Bound, Control, Sides, Theorem
from manifoldlab.verification import hold, reject

DIGITS = Context(prec=50)
ROUNDINGS = 4
SHIFTS = (0.0, 1e2, -1e4, 1e12, 1e100, -1e300)
DTYPES = ("float64", "float32", "bfloat16", "float16")
COUNT = 48  # energies of one case: spread over all scales, and evenly up to ORDINARY
ORDINARY = 40.0  # beyond, exp(-|E|) is lost in rounding
OVERFLOWING = 800.0
Weight = Callable[[Tensor], Tensor]


@final
@dataclass(frozen=True)
class Scales:
    """Energies of both signs and of all scales of a dtype, moved a little by the seed."""

    dtype: str
    seed: int = 0
    device: str = "cpu"

    def on(self, device: str) -> Self:
        return replace(self, device=device)

    @property
    def energies(self) -> Tensor:
        """0 is among them, and the largest number of the dtype."""
        dtype: torch.dtype = getattr(torch, self.dtype)
        least, most = torch.finfo(dtype).tiny, torch.finfo(dtype).max
        share = (torch.arange(COUNT, dtype=torch.float64) + self.seed % 97 / 97) / COUNT
        scales = (log(least) + (log(most) - log(least)) * share).exp()
        sizes = torch.cat([scales, ORDINARY * share, share.new_tensor([0.0, most])])
        signs = 1 - 2 * (torch.arange(len(sizes)) % 2)
        return (sizes.sort().values * signs).to(self.device, dtype)


@final
@dataclass(frozen=True)
class Shifted:
    """Energies of a Bayes classifier, plus constants."""

    case: Case

    def on(self, device: str) -> Self:
        return replace(self, case=self.case.on(device))

    @property
    def energies(self) -> Tensor:
        energy = marginal_energy(self.case.model(self.case.batch.x))
        return torch.cat([energy + shift for shift in SHIFTS])


@final
@dataclass(frozen=True)
class Overflowing:
    size: float = OVERFLOWING
    device: str = "cpu"

    def on(self, device: str) -> Self:
        return replace(self, device=device)

    @property
    def energies(self) -> Tensor:
        return torch.tensor([self.size, -self.size], dtype=torch.float64, device=self.device)


def bounds(case: Scales | Shifted | Overflowing, weight: Weight = weat_weight) -> Sides:
    """Above and below the reference, and no more than at the next smaller |E|, or at 0."""
    energies = case.energies[case.energies.abs().argsort()]
    found, exact = weight(energies).double(), reference(energies)
    error = rounding(energies, exact)
    before = torch.cat([1 / exact.new_tensor([2.0]).log() + error[:1], found[:-1]])
    left = torch.stack([exact - error, found, found], 1)
    right = torch.stack([found, exact + error, before], 1)
    return Sides(left, right, exact[:, None])


def reference(energies: Tensor) -> Tensor:
    sizes = [Decimal(size) for size in energies.abs().tolist()]
    logs = [DIGITS.add(a, DIGITS.ln(DIGITS.add(1, DIGITS.exp(-a)))) for a in sizes]
    exact = [float(DIGITS.divide(1, value)) for value in logs]
    return torch.tensor(exact, dtype=torch.float64, device=energies.device)


def rounding(energies: Tensor, exact: Tensor) -> Tensor:
    limits = torch.finfo(energies.dtype)
    return ROUNDINGS * limits.eps * exact + limits.smallest_normal * limits.eps


def naive(energies: Tensor) -> Tensor:
    return 1 / (1 + energies.abs().exp()).log()


def naive_gap(case: Overflowing) -> Tensor:
    """Of a weight of 0."""
    exact, nothing = 1 / case.energies.abs(), torch.zeros_like(case.energies)
    error = rounding(case.energies, exact)
    at_zero = nothing.clone()
    at_zero[0] = 1 / log(2)
    return torch.stack([exact - error, -exact - error, -at_zero], 1)


def overflowing() -> Families:
    return {"|E| = 800": SEEDS.map(lambda seed: Overflowing())}


@cache
def cases() -> Families:
    scales = {name: SEEDS.map(partial(Scales, name)) for name in DTYPES}
    return {name: found.map(Shifted) for name, found in problems().items()} | scales


LAW = Theorem(
    id="E5",
    title="The WEAT weight is finite for any energy",
    statement=r"$w(E) = 1 / \log(1 + e^{|E|})$ is positive, decreasing in $|E|$ and finite for any"
    r" energy, as $1 / (|E| + \log(1 + e^{-|E|}))$ in floating point.",
    claim=Bound(),
    cases=cases,
    measure=bounds,
    controls=(
        Control(
            "the naive form", partial(bounds, weight=naive), naive_gap, overflowing, within=EXACT
        ),
    ),
)


def test_holds(family: str) -> None:
    hold(LAW, family)


def test_fails_without_its_assumption(control: Control) -> None:
    reject(LAW, control)
