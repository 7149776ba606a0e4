"""The cases of D2: problems whose points get more noise, and a classifier trained on those points."""

from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Self, final

import torch
from torch import Tensor, nn

from manifoldlab.densities.gaussians import Gaussians
from manifoldlab.gradients import input_gradient
from manifoldlab.interfaces import Batch
from manifoldlab.objectives.noise_augmentation import noise_augmentation
from manifoldlab.problems.base import BayesClassifier, Problem
from manifoldlab.problems.correlated_noise import CorrelatedNoise
from manifoldlab.problems.gaussian_subspace import GaussianSubspace
from manifoldlab.problems.quadrature import Quadrature
from manifoldlab.strategies import Families, problems

SIGMAS = (0.5, 1.0)
POINTS, FEW = 6000, 1000  # of samples; where quadrature finds the posterior
PLACES = 6  # of gradients
CHEAP = ("gaussian_subspace", "von_mises_sphere")
APART = 300  # what the points must be expected to tell of sigma / 2, in nats, for a control
ITERATIONS = 40  # of the quasi-Newton method, after which the loss is at its minimum to 1e-6


@final
@dataclass(frozen=True)
class Noisy:
    problem: Problem
    sigma: float
    seed: int = 0
    device: str = "cpu"

    def on(self, device: str) -> Self:
        return self if device == self.device else replace(self, device=device)

    @cached_property
    def clean(self) -> Batch:
        count = FEW if isinstance(self.problem, Quadrature) else POINTS
        drawn = self.problem.sample(count, self.generator(0))
        return Batch(drawn.x.to(self.device), drawn.y.to(self.device))

    @cached_property
    def batch(self) -> Batch:
        """X + sigma u"""
        x, y = self.clean[:2]
        noise = torch.randn(x.shape, generator=self.generator(1), dtype=x.dtype)
        return Batch(x + self.sigma * noise.to(x), y)

    def generator(self, stream: int) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed + 2**20 * stream)

    def log_posterior(self, factor: float) -> Tensor:
        """Of Bayes for the noise factor * sigma, at the noisy points, (n, K)."""
        if factor not in self._found:
            logits = self.problem.noisier(factor * self.sigma).log_joint(self.batch.x)
            self._found[factor] = logits.log_softmax(1)
        return self._found[factor]

    def gradients(self, sigma: float) -> Tensor:
        """Of the first margin of Bayes for the noise sigma, at a few points, (n, D)."""
        x, y = (t[:PLACES] for t in self.clean[:2])
        model = BayesClassifier(self.problem.noisier(sigma))
        return input_gradient(model, x, y, lambda logits, y: logits[:, 0] - logits[:, 1]).flatten(1)

    @cached_property
    def _found(self) -> dict[float, Tensor]:
        return {}


@final
class QuadraticLogits(nn.Module):
    def __init__(self, size: int, num_classes: int):
        super().__init__()
        self.rows, self.columns = torch.triu_indices(size, size)
        self.linear = nn.Linear(size + len(self.rows), num_classes).double()
        nn.init.zeros_(self.linear.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        logits: Tensor = self.linear(torch.cat([x, x[:, self.rows] * x[:, self.columns]], 1))
        return logits


def trained(case: Noisy, batch: Batch) -> nn.Module:
    """At its least cross-entropy with noise that is drawn once."""
    model = QuadraticLogits(batch.x[0].numel(), case.problem.num_classes).to(batch.x.device)
    search = torch.optim.LBFGS(
        model.parameters(), max_iter=ITERATIONS, history_size=20, line_search_fn="strong_wolfe"
    )

    def closure() -> float:
        search.zero_grad()
        loss = noise_augmentation(model, batch, case.generator(3), strength=case.sigma)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()

    search.step(closure)  # type: ignore[no-untyped-call]
    return model


def is_curved(case: Noisy) -> bool:
    """Whether gradients differ at all: those of Gaussians that share a covariance do not."""
    found = case.gradients(0.0)
    return bool((found - found.mean(0)).norm() > 1e-9 * found.norm())


def is_closed(problem: Problem) -> bool:
    """Whether it has a closed form with more noise, or is a curve's by quadrature."""
    if isinstance(problem, Quadrature) and problem.manifold.dim > 1:
        return False
    try:
        problem.noisier(1.0)
    except ValueError:
        return False
    return True


def is_in_model(problem: Problem) -> bool:
    """Whether the logits of Bayes are quadratic: those of one Gaussian a class."""
    if not isinstance(problem, CorrelatedNoise | GaussianSubspace):
        return False
    return isinstance(problem.densities, Gaussians)


def is_apart(case: Noisy) -> bool:
    """Whether sigma / 2 makes a difference: the divergence of its posterior, summed over the points."""
    own, other = case.log_posterior(1.0), case.log_posterior(0.5)
    return bool((own.exp() * (own - other)).sum() > APART)


@cache
def noisy() -> Families:
    return _with_noise(problems(is_closed))


@cache
def apart() -> Families:
    found = {name: strategy.filter(is_apart) for name, strategy in noisy().items()}
    for name in ("quadrature", "decoded"):
        del found[name]  # noise makes smooth densities too alike for few points to tell
    return found


@cache
def curved() -> Families:
    """Of families that cost little."""
    return {name: noisy()[name].filter(is_curved) for name in CHEAP}


@cache
def in_model() -> Families:
    found = _with_noise(problems(is_in_model))
    return {name: strategy.filter(is_apart) for name, strategy in found.items()}


def _with_noise(families: Families) -> Families:
    build = lambda case: Noisy(case.problem, SIGMAS[case.seed % len(SIGMAS)], case.seed)
    return {name: strategy.map(build) for name, strategy in families.items()}
