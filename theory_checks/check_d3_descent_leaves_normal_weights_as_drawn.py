r"""D3. Descent on points of an affine subspace leaves the first weights across it as they were drawn.

With Pi the projector on the span of the points (offset included), a_i the gradient of the loss with
respect to the first layer's output, the gradient of the first weights is sum_i a_i x_i', and

    x_i' (I - Pi) = 0,   so   W_1(t) (I - Pi) = W_1(0) (I - Pi)

for any sum of such gradients: descent, stochastic or not, with momentum or Nesterov's, at any depth.
The normal gradient of a margin, whose own a(t) the later layers train, is thus known from the start:

    (I - Pi) g(t) = (W_1(0) (I - Pi))' a(t),

constant in linear models, where a is. Where the flat misses the origin by an offset o, the trained
gradient along o is normal to the flat, too: Q g is not constant even in linear models, only its part
across the span is. With two layers of m rectifiers, outer weights +-1/sqrt(m) fixed and inner ones
N(0, I / D), a(t) is +-1/sqrt(m) on the k active neurons, which are chosen by Pi x alone, so that

    m D |(I - Pi) g(t)|^2 / k  ~  chi^2_{D - d}   (D - d - 1 off the origin), at any time t.

Adam is no sum of gradients: it divides each coordinate by a size of its own, and the quotient leaves
the span where that lies aslant. It is not that rounding noise gets normalized: the control's prediction
repeats Adam's rule on gradients without what the points cannot see, and is met to rounding; on a flat
along axes Adam moves nothing; and its divisor, at least 1e-8, leaves 1e-9 of noise of 1e-17.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain
from typing import Any, NamedTuple, Self, final

import torch
from torch import Tensor, nn

from manifoldlab import gradients, linalg
from manifoldlab.interfaces import Batch
from manifoldlab.objectives.cross_entropy import cross_entropy
from manifoldlab.strategies import Families
from manifoldlab.theorem import EXACT, Control, Identity, Several, Sides, Statistic, Theorem
from manifoldlab.verification import hold, reject
from theory_checks.trained_on_flats import (
    Descent,
    Rectifiers,
    Task,
    built,
    chi_square_chances,
    first_layer,
    on_flats,
    signal,
    train,
)

DEPTHS, WIDTH = (1, 2, 3, 4), 16
CROWD = 256  # networks of two layers
# A weight is rounded once a step, by at most 1.1e-16 of itself, and 30 such errors add up at random.
TOLERANCE = 1e-14
METHODS = {
    "gradient descent": Descent(),
    "stochastic gradient descent": Descent(size=5),
    "momentum": Descent(size=5, momentum=0.9, rate=0.05),
    "Nesterov's momentum": Descent(size=5, momentum=0.9, nesterov=True, rate=0.05),
}


class Network(NamedTuple):
    """One of the depths, trained."""

    before: Tensor  # W_1(0)
    after: Tensor  # W_1(t)
    slopes: list[Tensor]  # of the loss along W_1, step by step
    signals: tuple[Tensor, Tensor]  # a(0) and a(t) of the margin, (n, width)
    gradient: Tensor  # of the margin after training, (n, D)


@final
@dataclass(frozen=True)
class Trained:
    task: Task
    method: Descent

    def on(self, device: str) -> Self:
        return replace(self, task=self.task.on(device))

    def model(self, depth: int) -> nn.Module:
        return built("mlp", self.task, self.task.seed, {"width": WIDTH, "depth": depth - 1})

    @cached_property
    def networks(self) -> list[Network]:
        return [self._trained(depth) for depth in DEPTHS]

    def _trained(self, depth: int) -> Network:
        model = self.model(depth)
        layer = first_layer(model)
        before, (early, _) = (
            layer.weight.detach().clone(),
            signal(model, self.seen, gradients.margin),
        )
        steps = train(model, cross_entropy, self.task, self.method)
        slopes = [g.clone() for _ in steps if (g := layer.weight.grad) is not None]
        late, gradient = signal(model, self.seen, gradients.margin)
        return Network(before, layer.weight.detach(), slopes, (early, late), gradient)

    @property
    def seen(self) -> Batch:
        """Other points of the flat."""
        x = self.task.points(self.task.n, stream=4)
        return Batch(x, torch.arange(len(x)).to(x.device) % 2)


def frozen(case: Trained, *, kept: bool = False, counted: bool = True) -> tuple[Sides, Tensor]:
    """Both sides for all depths, and the chance of the normal gradients of rectifier networks."""
    sides = [_sides(case.task, network, kept) for network in case.networks]
    return Sides(*(torch.cat(part) for part in zip(*sides, strict=True))), _chances(case, counted)


def _sides(task: Task, network: Network, kept: bool) -> Sides:
    """(I - Pi) of the first weights and of the margin's gradient, by neuron and by point."""
    normal = task.unseen(network.before)
    left = torch.cat([task.unseen(network.after), task.unseen(network.gradient)])
    right = torch.cat([normal, network.signals[0 if kept else 1] @ normal])
    size = torch.cat([network.before.norm(dim=1), network.gradient.norm(dim=1)])
    return Sides(left, right, size)


def _chances(case: Trained, counted: bool) -> Tensor:
    """p-values of m D |(I - Pi) g|^2 / k before, amid and after training."""
    task = case.task
    size, degrees = len(task.span), task.unseen_dim + (not counted)
    networks = Rectifiers(task, CROWD, WIDTH)
    x, chances = task.points(CROWD, stream=5), []
    for step, _ in enumerate(chain([None], train(networks, networks.objective, task, case.method))):
        if step % 15 == 0:
            _, gradient, active = networks.at(x)
            count = active.sum(1)
            values = WIDTH * size * linalg.squared_norm(task.unseen(gradient)) / count
            chances.append(chi_square_chances(values[count > 0], degrees))
    return torch.cat(chances)


def by_adam(case: Trained) -> Trained:
    return replace(case, method=replace(case.method, rate=0.05, adam=True))


def noisy(case: Trained) -> Trained:
    """After one step on points with noise across the flat."""
    return Trained(replace(case.task, noise=0.1), replace(case.method, steps=1))


def decayed(case: Trained) -> Trained:
    return replace(case, method=replace(case.method, decay=0.1))


def on(change: Callable[[Trained], Trained]) -> Callable[[Trained], Any]:
    return lambda case: frozen(change(case))


def moved(
    change: Callable[[Trained], Trained], rule: Callable[[Trained, int, Network], Tensor]
) -> Callable[[Trained], Tensor]:
    """By how much the normal weights of each depth move, and what that makes of the gradients."""

    def gap(case: Trained) -> Tensor:
        case, rows = change(case), []
        for depth, network in zip(DEPTHS, case.networks, strict=True):
            normal = case.task.unseen(rule(case, depth, network))
            rows += [normal, network.signals[1] @ normal]
        return torch.cat(rows)

    return gap


def adam_rule(case: Trained, depth: int, network: Network) -> Tensor:
    """- rate sum m / (sqrt(v) + 1e-8) of slopes without what the points cannot see."""
    del depth
    mean, square = torch.zeros_like(network.before), torch.zeros_like(network.before)
    total = torch.zeros_like(network.before)
    for t, slope in enumerate(network.slopes, 1):
        seen = slope - case.task.unseen(slope)
        mean, square = 0.9 * mean + 0.1 * seen, 0.999 * square + 0.001 * seen.square()
        total -= mean / (1 - 0.9**t) / ((square / (1 - 0.999**t)).sqrt() + 1e-8)
    return case.method.rate * total


def noise_rule(case: Trained, depth: int, network: Network) -> Tensor:
    """- rate sum_i a_i x_i' over the first batch; Nesterov's first step goes (1 + momentum) as far."""
    del network
    batch = next(case.task.batches(case.method.size, 1))
    a, _ = signal(case.model(depth), batch, gradients.cross_entropy)
    reach = 1 + case.method.momentum * case.method.nesterov
    return -case.method.rate * reach / len(a) * a.mT @ batch.x


def decay_rule(case: Trained, depth: int, network: Network) -> Tensor:
    """((1 - 2 rate lambda)^t - 1) W_1(0), the optimizer's decay being 2 lambda."""
    del depth
    return ((1 - case.method.rate * case.method.decay) ** case.method.steps - 1) * network.before


def trained_signal(case: Trained) -> Tensor:
    """W_1(0)' (a(t) - a(0)), nothing for one layer."""
    rows = []
    for network in case.networks:
        early, late = network.signals
        normal = case.task.unseen(network.before)
        rows += [torch.zeros_like(normal), (late - early) @ normal]
    return torch.cat(rows)


def families() -> Families:
    return {name: on_flats(partial(Trained, method=method)) for name, method in METHODS.items()}


def without_momentum() -> Families:
    return {name: case for name, case in families().items() if not METHODS[name].momentum}


def off_the_origin() -> Families:
    """In one direction more than the offset: one degree of freedom, not two."""
    case = partial(Trained, method=METHODS["gradient descent"])
    return {"gradient descent": on_flats(case, codims=(2,), shifts=(0.5,))}


LAW = Theorem(
    id="D3",
    title="Descent leaves normal weights as they were drawn",
    statement=r"On points of an affine subspace $W_1(I - \Pi)$ stays as it was, at any depth, under"
    r" descent with or without momentum, so $(I - \Pi)g = (W_1(0)(I - \Pi))^T a$; and for two layers of"
    r" rectifiers $|(I - \Pi)g|^2 \sim (k / mD)\,\chi^2_{D - d}$, $D - d - 1$ off the origin.",
    claim=Several((Identity(TOLERANCE), Statistic())),
    cases=families,
    effort=0.5,
    measure=frozen,
    controls=(
        Control("Adam", on(by_adam), moved(by_adam, adam_rule), within=EXACT),
        Control("normal noise in the points", on(noisy), moved(noisy, noise_rule), within=EXACT),
        Control(
            "weight decay", on(decayed), moved(decayed, decay_rule), without_momentum, within=EXACT
        ),
        Control("later layers at rest", partial(frozen, kept=True), trained_signal, within=EXACT),
        Control("the offset not counted", partial(frozen, counted=False), cases=off_the_origin),
    ),
)


def test_holds(family: str) -> None:
    hold(LAW, family)


def test_fails_without_its_assumption(control: Control) -> None:
    reject(LAW, control)
