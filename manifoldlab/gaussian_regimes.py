r"""Two Gaussians of one covariance, and the linear rules that robust trainings find, in closed form.

x | y ~ N(y mu, Sigma), y = +-1 alike likely; the rule w says sign(w.x). With l(m) = log(1 + e^{-m})
all of the following minimize to a multiple of w_gamma = (Sigma + gamma I)^{-1} mu:

    E l(y w.(x + sigma u)), u ~ N(0, I)    gamma = sigma^2                  w = 2 w_gamma
    E (y - w.x)^2 + lambda |w|^2           gamma = lambda                   w = w_gamma / (1 + mu.w_gamma)
    E l(y w.x - eps |w|), eps < |mu|       gamma |w_gamma| = eps            w = 2 w_gamma
    E l(y w.x) + lambda |w|^2              gamma = 2 lambda / E l''         w = -E l' / E l'' w_gamma

The third is the loss at the worst l2 steps. With z* = gamma w_gamma, the point of the ball |z| <= eps
nearest to mu in the norm of Sigma^{-1}, w_gamma is Sigma^{-1} (mu - z*), and its robust risk
Phi(-|Sigma^{-1/2} (mu - z*)|) is the least of all rules, linear or not: no rule tells the classes apart
any better once they have been moved by -y z*. From |mu| on nothing is better than w = 0 (laws D5, D6).
Two logits W x have w = W_1 - W_0: the objective `gradient_penalty` of the margin is the last with lambda its
strength, and an optimizer that decays weights, decay / 2 |W|^2, ends with W_0 = -W_1 and lambda = decay / 4.

No inverse is formed, but quotients in the eigenbasis of Sigma; the means E l', E l'' are exact to
rounding while the deviation of w.x is below 20.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeAlias, final

import torch
from torch import Tensor

from manifoldlab.logistic_ridge import LogisticRidge

STEPS = 200  # of Newton's method, which takes 5 to 15
ENOUGH = 1e-14  # a step that changes less, relatively, is rounding

Numbers: TypeAlias = Tensor | float  # of any shape (...)


class Trained(NamedTuple):
    gamma: Tensor  # (...)
    rule: Tensor  # (..., D)


@final
@dataclass(frozen=True, eq=False)
class GaussianRegimes:
    mean: Tensor  # mu, (D,)
    covariance: Tensor  # Sigma, (D, D)

    def __post_init__(self) -> None:
        check_pair(self.mean, self.covariance)

    def rule(self, gamma: Numbers) -> Tensor:
        """w_gamma, (..., D): of Bayes at 0, zero at infinity."""
        weight = 1 / (self._values + self._given("gamma", gamma)[..., None])
        rule: Tensor = (weight * self._mean) @ self._vectors.mT
        return rule

    def direction(self, gamma: Numbers) -> Tensor:
        """w_gamma / |w_gamma|, (..., D): mu / |mu| at infinity."""
        gamma = self._given("gamma", gamma)[..., None]
        weight = (self._values[0] + gamma) / (self._values + gamma)  # nan at infinity
        scaled = weight.where(gamma.isfinite(), 1.0) * self._mean
        unit: Tensor = (scaled / scaled.norm(dim=-1, keepdim=True)) @ self._vectors.mT
        return unit

    def radius(self, gamma: Numbers) -> Tensor:
        """gamma |w_gamma|, (...): from 0 up to |mu| at infinity."""
        gamma = self._given("gamma", gamma)[..., None]
        share = (gamma / (self._values + gamma)).where(gamma.isfinite(), 1.0)
        radius: Tensor = (share * self._mean).norm(dim=-1)
        return radius

    def gamma_of_radius(self, radius: Numbers) -> Tensor:
        """The inverse of `radius`; infinite from |mu| on.

        With z(t) = (I + t Sigma)^{-1} mu and t = 1 / gamma, 1 / |z(t)| is increasing and concave, so that
        Newton's steps to 1 / radius come from below; the bracket keeps rounding from leaving it.
        """
        radius = self._given("radius", radius)
        size = self._mean.norm()
        inside = (radius > 0) & (radius < size)
        ratio = (size / radius.where(inside, size / 2))[..., None]
        low, high = (ratio - 1) / self._values[-1], (ratio - 1) / self._values[0]
        t = low
        for _ in range(STEPS):
            after = torch.clamp(t + self._newton(t, ratio / size), low, high)
            done, t = ((after - t).abs() <= ENOUGH * after).all(), after
            if done:
                break
        beyond = torch.full_like(radius, torch.inf).where(radius > 0, 0.0)
        gamma: Tensor = (1 / t[..., 0]).where(inside, beyond)
        return gamma

    def noise(self, sigma: Numbers) -> Trained:
        """Logistic training on x + sigma u."""
        gamma = self._given("sigma", sigma).square()
        return Trained(gamma, 2 * self.rule(gamma))

    def squared_ridge(self, strength: Numbers) -> Trained:
        """Least squares to the labels +-1, plus strength |w|^2."""
        gamma = self._given("strength", strength)
        rule = self.rule(gamma)
        return Trained(gamma, rule / (1 + rule @ self.mean)[..., None])

    def adversarial(self, radius: Numbers) -> Trained:
        """Logistic training at the worst l2 steps of this length."""
        gamma = self.gamma_of_radius(radius)
        return Trained(gamma, 2 * self.rule(gamma))

    def logistic_ridge(self, strength: Numbers) -> Trained:
        """Logistic training, plus strength |w|^2."""
        strength = self._given("strength", strength)
        if strength.isinf().any():
            raise ValueError("strength must be finite, not inf")
        ridge = LogisticRidge(self._mean, self._values, strength)
        wrong, curvature, *_ = ridge.moments(ridge.minimum())
        gamma = 2 * strength / curvature
        return Trained(gamma, (wrong / curvature)[..., None] * self.rule(gamma))

    def clean_risk(self, rule: Tensor) -> Tensor:
        """P(y w.x < 0), (..., D) -> (...); 1/2 for w = 0."""
        return self.robust_risk(rule, 0.0)

    def robust_risk(self, rule: Tensor, radius: Numbers) -> Tensor:
        """Phi(-(mu.w - radius |w|) / |Sigma^{1/2} w|), of the worst steps; 1/2 for w = 0, a guess."""
        radius = self._given("radius", radius)
        deviation = ((rule @ self._vectors).square() * self._values).sum(-1).sqrt()
        margin = rule @ self.mean - radius * rule.norm(dim=-1)
        guess = deviation == 0
        risk: Tensor = torch.special.ndtr(-margin / deviation.where(~guess, 1.0))
        return risk.where(~guess, 0.5)

    def _newton(self, t: Tensor, target: Tensor) -> Tensor:
        """The step from t (..., 1) towards 1 / |z(t)| = target."""
        weight = 1 / (1 + t * self._values)
        square = (weight * self._mean).square()
        length = square.sum(-1, keepdim=True).sqrt()
        slope = (square * weight * self._values).sum(-1, keepdim=True)  # of 1 / |z|, times |z|^3
        return (target * length - 1) * length.square() / slope

    @cached_property
    def _spectrum(self) -> tuple[Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(self.covariance)
        return values, vectors

    @property
    def _values(self) -> Tensor:
        """Of Sigma, ascending (D,)."""
        return self._spectrum[0]

    @property
    def _vectors(self) -> Tensor:
        return self._spectrum[1]

    @cached_property
    def _mean(self) -> Tensor:
        """mu in the eigenbasis."""
        return self.mean @ self._vectors

    def _given(self, name: str, numbers: Numbers) -> Tensor:
        found = torch.as_tensor(numbers, dtype=self.mean.dtype, device=self.mean.device)
        if not (found >= 0).all():  # nor nan
            raise ValueError(f"{name} must be 0 or more, not {found.min().item()}")
        return found


def omega(rule: Tensor, frame: Tensor) -> Tensor:
    """|Qw|^2 / |w|^2 beside orthonormal tangent columns (D, d): (..., D) -> (...)."""
    normal = rule - rule @ frame @ frame.mT
    return normal.square().sum(-1) / rule.square().sum(-1)


def check_pair(mean: Tensor, covariance: Tensor) -> None:
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise ValueError(
            f"a mean of shape {tuple(mean.shape)} with a covariance of shape {tuple(covariance.shape)}"
        )
    if not mean.dtype == covariance.dtype == torch.float64:
        raise ValueError(f"mean of {mean.dtype}, covariance of {covariance.dtype}: not float64")
    if not (mean.isfinite().all() and mean.any()):
        raise ValueError(f"the mean must be finite and not zero, not {mean.tolist()}")
    skew = (covariance - covariance.mT).abs().max().item()
    if not skew <= 1e-12 * covariance.abs().max().item():
        raise ValueError(f"the covariance must be finite and symmetric, not by {skew} apart")
    lowest = torch.linalg.eigvalsh(covariance)[0].item()
    if not lowest > 0:
        raise ValueError(f"the covariance must be positive definite, not of eigenvalue {lowest}")
