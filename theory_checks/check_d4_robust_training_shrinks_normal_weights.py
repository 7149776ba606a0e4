r"""D4. What robust training takes from the weights across the data, exactly, step by step of size eta.

Weight decay or a ridge lambda |W|^2 adds 2 lambda W to the gradient, of which D3 leaves nothing else
across the span: W_1 (I - Pi) shrinks by 1 - 2 eta lambda, at any depth.

A linear logistic model, loss log(1 + e^{-m}) at m = y f(x), f = w.x + b, has the slope -s(-m) y x, s
the logistic function. Let w_n = (I - Pi) w, and Pi x = x.
* The worst l2 step is x - eps y w / |w|, with m = y f(x) - eps |w|: across the span the slope is
  eps s(-m) w_n / |w|, and a step takes w_n times 1 - eta eps E s(-m) / |w|: less, while positive.
* Noise sigma u gives m = y f(x + sigma u), and the slope -sigma y E s(-m) u across the span, which by
  Stein's lemma, E h(u) u = E grad h(u), is sigma^2 E s(m) s(-m) w_n: w_n shrinks by
  1 - eta sigma^2 E s(m) s(-m), the margins being those of the noisy points.

The measured side takes the expectation by quadrature over u along w_n and along Pi w; m does not
depend on the rest of u, which has mean zero. The predicted side has one dimension, w / |w|. And the
slope of `noise_augmentation`, with noise as drawn, has that expectation too: with Z = u.w_n / |w_n|
each sample adds X with |X| <= sigma |Z|, E |Z|^k <= k! / 2, so that (Bernstein) the mean of N of them
is farther than t from its own with probability at most 2 exp(-N t^2 / (2 sigma^2 + 2 sigma t)).
"""

from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from math import exp
from typing import Self, final

import torch
from torch import Tensor, nn

from manifoldlab import gradients, linalg
from manifoldlab.expectations import gauss_hermite
from manifoldlab.interfaces import Batch, Model, Source
from manifoldlab.objectives.adversarial import adversarial
from manifoldlab.objectives.cross_entropy import cross_entropy
from manifoldlab.objectives.noise_augmentation import noise_augmentation
from manifoldlab.strategies import Families
from manifoldlab.theorem import EXACT, Control, Identity, Several, Sides, Statistic, Theorem
from manifoldlab.verification import hold, reject
from theory_checks.trained_on_flats import (
    Descent,
    Logistic,
    Task,
    built,
    first_layer,
    on_flats,
    train,
)

DEPTHS = (1, 2, 3, 4)
LAMBDA = 0.05
RADIUS = 0.4
NOISE = 0.8
ORDER = 48  # of the quadrature
DRAWN = 2**16  # noisy points
METHOD = Descent(rate=0.5, steps=10)
SHRUNK = (1 - 2 * METHOD.rate * LAMBDA) ** METHOD.steps
Measured = tuple[Sides, Tensor | None]


def farthest(model: Model, batch: Batch, generator: Source, *, radius: float) -> Tensor:
    """The worst step, exactly, where the gradient of the loss has one direction all over the ball."""
    del generator
    gradient = gradients.input_gradient(model, batch.x, batch.y, gradients.cross_entropy)
    return batch.x + radius * linalg.unit(gradient)


@final
@dataclass(frozen=True)
class Decayed:
    """Networks of every depth; the decay is the optimizer's, or a ridge in the loss."""

    task: Task
    ridge: bool

    def on(self, device: str) -> Self:
        return replace(self, task=self.task.on(device))

    def objective(self, model: nn.Module, batch: Batch, generator: Source) -> Tensor:
        squares = sum(p.square().sum() for p in model.parameters())
        return cross_entropy(model, batch, generator) + (LAMBDA * squares if self.ridge else 0.0)

    def shrunk(self, *, plain: bool = False) -> Measured:
        """Both sides, at the end, by neuron; or of a plain training."""
        decay = 0.0 if self.ridge or plain else 2 * LAMBDA
        method, after = replace(METHOD, decay=decay), []
        for model in self.models:
            for _ in train(model, cross_entropy if plain else self.objective, self.task, method):
                pass
            after.append(first_layer(model).weight.detach())
        left, right = self.task.unseen(torch.cat(after)), SHRUNK * self.normal
        return Sides(left, right, self.normal.norm(dim=1)), None

    def taken(self) -> Tensor:
        return (1 - SHRUNK) * self.normal

    @property
    def models(self) -> list[nn.Module]:
        options = [{"width": 8, "depth": depth - 1} for depth in DEPTHS]
        return [built("mlp", self.task, self.task.seed, o) for o in options]

    @property
    def normal(self) -> Tensor:
        """W_1 (I - Pi) at first, neuron by neuron of every depth."""
        return self.task.unseen(torch.cat([first_layer(m).weight.detach() for m in self.models]))


@final
@dataclass(frozen=True)
class Attacked:
    radius: float = RADIUS

    def objective(self, model: nn.Module, batch: Batch, generator: Source, *, task: Task) -> Tensor:
        del task
        worst = partial(farthest, radius=self.radius)
        return adversarial(model, batch, generator, strength=self.radius, attack=worst)

    def factor(self, model: Logistic, batch: Batch, clean: bool) -> Tensor:
        """1 - eta eps E s(-m) / |w|"""
        margins, size = model.margins(batch)
        m = margins - self.radius * size * (not clean)
        return 1 - METHOD.rate * self.radius * (-m).sigmoid().mean() / size

    def chances(self, case: "Linear") -> None:
        """Nothing is drawn."""


@final
@dataclass(frozen=True)
class Noised:
    noise: float = NOISE

    def objective(self, model: nn.Module, batch: Batch, generator: Source, *, task: Task) -> Tensor:
        """Expected over u along w_n and Pi w."""
        del generator
        w = first_layer(model).weight.detach()
        across = task.unseen(w)
        plane = torch.cat([linalg.unit(across), linalg.unit(w - across)])
        nodes = gauss_hermite(2, ORDER)
        x = batch.x + self.noise * (nodes.points.to(w) @ plane)[:, None]  # (nodes, n, D)
        y = batch.y.expand(len(x), -1)
        losses = gradients.cross_entropy(model(x.flatten(0, 1)), y.flatten()).reshape(y.shape)
        return (nodes.weights.to(w) @ losses).mean()

    def factor(self, model: Logistic, batch: Batch, clean: bool) -> Tensor:
        """1 - eta sigma^2 E s(m) s(-m)"""
        nodes, (margins, size) = gauss_hermite(1, ORDER), model.margins(batch)
        m = margins + self.noise * size * nodes.points.to(size) * (not clean)  # (nodes, n)
        mean = nodes.weights.to(size) @ (m.sigmoid() * (-m).sigmoid()).mean(1)
        return 1 - METHOD.rate * self.noise**2 * mean

    def chances(self, case: "Linear") -> Tensor:
        """Bound on the p of the slope along w_n / |w_n| with noise as drawn, before any step."""
        model, batch = Logistic(case.task), case.task.batch
        times = DRAWN // case.task.n
        drawn = Batch(batch.x.repeat(times, 1), batch.y.repeat(times))
        generator = torch.Generator().manual_seed(case.task.seed + 2**23)  # a stream of its own
        value = noise_augmentation(model, drawn, generator, strength=self.noise)
        (slope,) = torch.autograd.grad(value, model.linear.weight)
        across = case.task.unseen(model.linear.weight.detach())
        expected = (1 - self.factor(model, batch, clean=False)) / METHOD.rate * across.norm()
        miss = (slope @ linalg.unit(across).mT - expected).abs().item()
        rate = miss**2 / (2 * self.noise**2 + 2 * self.noise * miss)
        return torch.tensor([min(1.0, 2 * exp(-len(drawn.x) * rate))], dtype=torch.float64)


@final
@dataclass(frozen=True)
class Linear:
    task: Task
    training: Attacked | Noised

    def on(self, device: str) -> Self:
        return replace(self, task=self.task.on(device))

    def path(self, plain: bool) -> list[Logistic]:
        """The model at first and after each step."""
        model = Logistic(self.task)
        robust = partial(self.training.objective, task=self.task)
        steps = train(model, cross_entropy if plain else robust, self.task, METHOD)
        return [deepcopy(model), *(deepcopy(model) for _ in steps)]

    def taken(self) -> Tensor:
        """By what robust training would take from the path of a plain one."""
        path = self.path(plain=True)
        normal = self.task.unseen(path[0].linear.weight.detach())
        return (1 - self.product(path, clean=False))[:, None] * normal

    def product(self, path: list[Logistic], clean: bool) -> Tensor:
        """Of the factors of the steps so far, (steps,)."""
        factors = [self.training.factor(model, self.task.batch, clean) for model in path[:-1]]
        return torch.stack(factors).cumprod(0)

    def shrunk(self, *, plain: bool = False, clean: bool = False) -> Measured:
        """Both sides after each step; or of a plain training, or predicted from clean margins."""
        path = self.path(plain)
        weights = torch.cat([model.linear.weight.detach() for model in path])
        across = self.task.unseen(weights)
        right = self.product(path, clean)[:, None] * across[0]
        return Sides(across[1:], right, weights[1:].norm(dim=1)), self.training.chances(self)


def clean_gap(case: Linear) -> Tensor:
    path = case.path(plain=False)
    change = case.product(path, clean=False) - case.product(path, clean=True)
    return change[:, None] * case.task.unseen(path[0].linear.weight.detach())


def linear() -> Families:
    return {
        "adversarial training": on_flats(partial(Linear, training=Attacked())),
        "noise training": on_flats(partial(Linear, training=Noised())),
    }


def families() -> Families:
    decayed = {
        "weight decay": on_flats(partial(Decayed, ridge=False)),
        "ridge": on_flats(partial(Decayed, ridge=True)),
    }
    return {**decayed, **linear()}


LAW = Theorem(
    id="D4",
    title="Robust training shrinks normal weights",
    statement=r"A step of size $\eta$ multiplies weights across the data by $1 - 2\eta\lambda$ under weight"
    r" decay (any depth); in linear logistic models by"
    r" $1 - \eta\epsilon\,E[s(-m)]/|w|$ under attacks of radius $\epsilon$, and by"
    r" $1 - \eta\sigma^2 E[s(m)s(-m)]$ under noise $\sigma$, $m$ the margin of attacked or noisy points.",
    claim=Several((Identity(), Statistic())),
    cases=families,
    measure=lambda case: case.shrunk(),
    controls=(
        Control(
            "standard training",
            lambda case: case.shrunk(plain=True),
            lambda case: case.taken(),
            within=EXACT,
        ),
        Control(
            "clean margins", lambda case: case.shrunk(clean=True), clean_gap, linear, within=EXACT
        ),
    ),
)


def test_holds(family: str) -> None:
    hold(LAW, family)


def test_fails_without_its_assumption(control: Control) -> None:
    reject(LAW, control)
