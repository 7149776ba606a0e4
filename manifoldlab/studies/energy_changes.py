"""What attacks do to the energy E(x) = -logsumexp of the logits, beside the first order of law E4.

A short step of length r against or towards a label k changes E by r times + or - <s, u>, with

    s = -grad E,    u = steepest(grad log(p_k / (1 - p_k))):  g / |g| in l2, sign(g) / sqrt(D) in linf,

so that steps of both balls are as long. E is known up to a function h(x) that all logits share (E2),
and h does not move an attack: two choices of it are shown side by side.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from manifoldlab import draws, gradients, linalg
from manifoldlab.attacks.base import L2, LINF, Ball, anywhere
from manifoldlab.attacks.pgd import pgd
from manifoldlab.energies import marginal_energy
from manifoldlab.gradients import input_gradient
from manifoldlab.interfaces import Batch, Model

Gauge = Callable[[Tensor], Tensor]  # logits to logits of the same posterior


def as_they_are(logits: Tensor) -> Tensor:
    return logits


def of_mean_zero(logits: Tensor) -> Tensor:
    return logits - logits.mean(1, keepdim=True)


class Kind(NamedTuple):
    name: str
    ball: Ball
    targeted: bool


KINDS = (
    Kind("untargeted l2", L2, False),
    Kind("targeted l2", L2, True),
    Kind("untargeted linf", LINF, False),
    Kind("targeted linf", LINF, True),
)
GAUGES: dict[str, Gauge] = {"as they are": as_they_are, "of mean 0": of_mean_zero}


class EnergyChanges(NamedTuple):
    """Of every kind of attack, in both gauges."""

    slope: Tensor  # (kinds, gauges, n) change of E by a unit of length, as E4 gives it
    change: Tensor  # (kinds, lengths, gauges, n) of E, where attacks of these lengths end
    success: (
        Tensor  # (kinds, lengths, n) 1 where another class was wanted and is found, or the target
    )
    balance: Tensor  # (gauges, n) <grad E, grad CE>

    def agreement(self) -> Tensor:
        """1 where the sign of the change is that of the slope, (kinds, lengths, gauges, n)."""
        return (self.change.sign() == self.slope.sign()[:, None]).double()

    def lowered(self) -> Tensor:
        """1 where E is lower, (kinds, lengths, gauges, n)."""
        return (self.change < 0).double()

    def predicted(self) -> Tensor:
        """1 where E4 lets short steps lower E, (kinds, gauges, n)."""
        return (self.slope < 0).double()


def energy_changes(
    model: Model, batch: Batch, target: Tensor, lengths: tuple[float, ...], *, steps: int = 10
) -> EnergyChanges:
    before = energies(model, batch.x)
    slope, change, success = [], [], []
    for kind in KINDS:
        label = target if kind.targeted else batch.y
        moved = [attacked(model, batch, label, kind, r, steps=steps) for r in lengths]
        slope.append(slopes(model, batch.x, label, kind))
        change.append(torch.stack([energies(model, x) - before for x in moved]))
        success.append(torch.stack([arrived(model, x, label, kind) for x in moved]))
    ascent = input_gradient(model, batch.x, batch.y, gradients.cross_entropy)
    balance = [-linalg.inner(score(model, batch.x, gauge), ascent) for gauge in GAUGES.values()]
    return EnergyChanges(*map(torch.stack, (slope, change, success, balance)))


@torch.no_grad()
def energies(model: Model, x: Tensor) -> Tensor:
    """In every gauge, (gauges, n)."""
    logits = model(x)
    return torch.stack([marginal_energy(gauge(logits)) for gauge in GAUGES.values()])


def attacked(
    model: Model, batch: Batch, label: Tensor, kind: Kind, length: float, *, steps: int = 10
) -> Tensor:
    """The worst point seen by PGD that starts at rest, against the label or targeted at it."""
    still = draws.source(0)  # of which nothing is drawn
    radius, target = length * share(kind, batch.x), label if kind.targeted else None
    here = batch._replace(y=label)
    return pgd(model, here, still, ball=kind.ball, radius=radius, steps=steps, target=target)


def share(kind: Kind, x: Tensor) -> float:
    """The norm in the ball of a step of length 1."""
    return 1.0 if kind.ball is L2 else x[0].numel() ** -0.5


@torch.no_grad()
def arrived(model: Model, x: Tensor, label: Tensor, kind: Kind) -> Tensor:
    there = (model(x).argmax(1) == label) == kind.targeted
    return there.to(x.dtype)


def slopes(model: Model, x: Tensor, label: Tensor, kind: Kind) -> Tensor:
    """By E4, of the log-odds of one label: (gauges, n)."""
    step = kind.ball.steepest(input_gradient(model, x, label, log_odds), anywhere)
    sign = -1 if kind.targeted else 1
    found = [linalg.inner(score(model, x, gauge), step) for gauge in GAUGES.values()]
    return torch.stack(found) * sign * share(kind, x)


def score(model: Model, x: Tensor, gauge: Gauge = as_they_are) -> Tensor:
    """-grad E, shaped like x."""
    zero = torch.zeros(len(x), dtype=torch.long, device=x.device)
    return input_gradient(model, x, zero, lambda logits, y: gauge(logits).logsumexp(1))


def log_odds(logits: Tensor, y: Tensor) -> Tensor:
    """log(p_y / (1 - p_y))"""
    others = logits.scatter(1, y[:, None], -torch.inf)
    return gradients.logit(logits, y) - others.logsumexp(1)
