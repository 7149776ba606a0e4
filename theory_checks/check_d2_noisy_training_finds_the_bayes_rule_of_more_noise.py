r"""D2. The population minimizer of cross-entropy on X + sigma u is the Bayes classifier of the noise
sqrt(tau^2 + sigma^2), tau the problem's own.

With p that classifier's posterior, E -log q(y|x) = E H(p(.|x)) + E KL(p(.|x), q(.|x)) over noisy x, so

* the risk is stationary along every path softmax(log p + t phi): E phi_y(x) = E sum_k p(k|x) phi_k(x);
* whatever was trained, E log q(y|x) / p(y|x) <= 0 on other points.

Both are held to noisy points as drawn, exactly at any number of them. Given x, the terms of
S = sum_i phi_y - sum_k p phi_k are independent, of variances that add up to a known V, and none exceeds M:
P(|S| >= s) <= 2 exp(-s^2 / (2 V + 2 M s / 3)) (Bernstein); phi are waves and, where other noises would be
seen best, tanh(log p' - log p), p' of half and twice sigma. And the product of q / p over points that q has
not seen has the mean 1, so that it exceeds 1 / alpha with probability alpha at most (Wasserman, Ramdas,
Balakrishnan 2020); q has quadratic logits, as Bayes has for Gaussian classes, and the objective
`noise_augmentation` trains it and says what q and p lose.
What smoothing does to gradients is thus what B2 says of the noise sqrt(tau^2 + sigma^2).
"""

from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from math import exp
from typing import Self, final

import torch
from torch import Tensor, nn

from manifoldlab.densities.gaussians import Gaussians
from manifoldlab.interfaces import Batch
from manifoldlab.objectives.noise_augmentation import noise_augmentation
from manifoldlab.problems.base import BayesClassifier, Problem
from manifoldlab.problems.correlated_noise import CorrelatedNoise
from manifoldlab.problems.gaussian_subspace import GaussianSubspace
from manifoldlab.problems.quadrature import Quadrature
from manifoldlab.strategies import Families, problems
from manifoldlab.theorem import Control, Statistic, Theorem
from manifoldlab.verification import hold, reject

SIGMAS = (0.5, 1.0)
POINTS, FEW = 2**13, 2**10  # of samples; where quadrature finds the posterior
APART = 300  # what the points must be expected to tell of sigma / 2, in nats, for a control
WAVES = 16
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


def stationary(case: Noisy, factor: float = 1.0) -> Tensor:
    """Bounds on the p of all S at the posterior for factor * sigma."""
    own = case.log_posterior(factor)
    other = torch.stack([case.log_posterior(factor * turn) for turn in (0.5, 2.0)])
    phi = torch.cat([(other - own).tanh(), waves(case)])  # (m, n, K)
    p = own.exp()
    mean = (p * phi).sum(2)
    total = (phi.gather(2, case.batch.y.expand(len(phi), -1)[..., None])[..., 0] - mean).sum(1)
    variance = ((p * phi.square()).sum(2) - mean.square()).sum(1)
    largest = (phi.amax(2) - phi.amin(2)).amax(1)
    exponent = total.square() / (2 * variance + 2 * largest * total.abs() / 3)
    return (2 * (-exponent).exp()).clamp_max(1)


def waves(case: Noisy) -> Tensor:
    """cos(w_k.x + b_k) of all sorts of lengths, (m, n, K)."""
    x = case.batch.x.flatten(1)
    shape = (WAVES, case.problem.num_classes)
    drawn = torch.randn(*shape, x.shape[1] + 1, generator=case.generator(2), dtype=x.dtype).to(x)
    turns = torch.einsum("mkD,nD->mnk", drawn[..., 1:], x) / x.std()
    found: Tensor = (turns + 4 * drawn[..., :1].mT).cos()
    return found


def unbeaten(case: Noisy, factor: float = 1.0) -> Tensor:
    """Bound on the p of how much less a trained classifier loses than that posterior, on other points."""
    x, y = case.clean[:2]
    half = len(x) // 2
    bayes = BayesClassifier(case.problem.noisier(factor * case.sigma))
    others, model = Batch(x[half:], y[half:]), trained(case, Batch(x[:half], y[:half]))
    with torch.no_grad():
        fitted, least = (
            noise_augmentation(m, others, case.generator(1), strength=case.sigma)
            for m in (model, bayes)
        )
    gained = len(others.x) * (least - fitted).item()
    return x.new_tensor([exp(-max(gained, 0.0))])


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


def chances(case: Noisy, factor: float = 1.0) -> Tensor:
    return torch.cat([stationary(case, factor), unbeaten(case, factor)])


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
    del found[
        "quadrature"
    ]  # of smooth densities, which noise makes too alike to be told by few points
    return found


@cache
def in_model() -> Families:
    found = _with_noise(problems(is_in_model))
    return {name: strategy.filter(is_apart) for name, strategy in found.items()}


def _with_noise(families: Families) -> Families:
    build = lambda case: Noisy(case.problem, SIGMAS[case.seed % len(SIGMAS)], case.seed)
    return {name: strategy.map(build) for name, strategy in families.items()}


LAW = Theorem(
    id="D2",
    title="Training on noise finds the Bayes rule of more noise",
    statement=r"The minimizer of $E[-\log q(y|X + \sigma u)]$ is the Bayes classifier of the noise"
    r" $\sqrt{\tau^2 + \sigma^2}$.",
    claim=Statistic(),
    cases=noisy,
    measure=chances,
    controls=(
        Control("compared with sigma / 2", partial(stationary, factor=0.5), cases=apart),
        Control("trained, compared with sigma / 2", partial(unbeaten, factor=0.5), cases=in_model),
    ),
)


def test_holds(family: str) -> None:
    hold(LAW, family)


def test_fails_without_its_assumption(control: Control) -> None:
    reject(LAW, control)
