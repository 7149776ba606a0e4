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

What smoothing does to gradients is thus what B2 says of the noise sqrt(tau^2 + sigma^2), and beyond all
reaches and gaps, with sigma^2 grad l_y = E[X | x, y] - x of C2 and E[X | x, y] = E[X | y] + O(1 / sigma^2),

    sigma^2 grad(l_a - l_b) = E[X | a] - E[X | b] + O(1 / sigma^2):

one vector, wherever x is, and a manifold shows no more than it does to any fixed vector: 1 / n of it is
normal to a sphere in R^n in the mean over the sphere. That is excessive robustness.
"""

from math import exp

import torch
from torch import Tensor

from manifoldlab.interfaces import Batch
from manifoldlab.objectives.noise_augmentation import noise_augmentation
from manifoldlab.problems.base import BayesClassifier
from manifoldlab.theorem import Control, Several, Slope, Statistic, Sweep, Theorem
from manifoldlab.verification import hold, reject
from theory_checks.noisy_problems import Noisy, apart, curved, in_model, is_curved, noisy, trained

BEYOND, WITHIN = (16.0, 32.0, 64.0, 128.0), (0.05, 0.1, 0.2, 0.4)  # what problems measure, about 1
WAVES = 8
Measured = tuple[Tensor | None, Sweep | None]


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


def differing(case: Noisy, sigmas: tuple[float, ...] = BEYOND) -> Sweep:
    """sigma^2 times the gradients of a margin at a few points, less their mean."""
    slopes = torch.stack([sigma**2 * case.gradients(sigma) for sigma in sigmas])
    scales = 1 / slopes.new_tensor(sigmas)
    return Sweep(scales, slopes - slopes.mean(1, keepdim=True), torch.zeros_like(slopes))


def law(case: Noisy) -> Measured:
    chances = torch.cat([stationary(case), unbeaten(case)])
    return chances, differing(case) if is_curved(case) else None


def halved(case: Noisy) -> Measured:
    return stationary(case, factor=0.5), None


def trained_and_halved(case: Noisy) -> Measured:
    return unbeaten(case, factor=0.5), None


def near(case: Noisy) -> Measured:
    return None, differing(case, WITHIN)


LAW = Theorem(
    id="D2",
    title="Training on noise finds the Bayes rule of more noise",
    statement=r"The minimizer of $E[-\log q(y|X + \sigma u)]$ is the Bayes classifier of the noise"
    r" $\sqrt{\tau^2 + \sigma^2}$; for large $\sigma$ its margins have the same gradient everywhere,"
    r" up to $O(\sigma^{-4})$: excessive robustness.",
    claim=Several((Statistic(), Slope(power=2))),
    cases=noisy,
    measure=law,
    controls=(
        Control("compared with sigma / 2", halved, cases=apart),
        Control("trained, compared with sigma / 2", trained_and_halved, cases=in_model),
        Control("noise within the reach", near, cases=curved),
    ),
)


def test_holds(family: str) -> None:
    hold(LAW, family)


def test_fails_without_its_assumption(control: Control) -> None:
    reject(LAW, control)
