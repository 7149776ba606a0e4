r"""What n samples leave of the logistic rule of two Gaussians, in closed form.

x | y ~ N(y mu, Sigma), y = +-1 alike likely: the Bayes rule is logistic, w* = 2 Sigma^{-1} mu, and so the
rule w that minimizes the mean loss over n samples is asymptotically normal about w* with the inverse
Fisher information, by Stein's lemma (see logistic_ridge; c, c', c'' are means of l'', l''', l'''')

    n Cov[w] -> (E l''(m) x x')^{-1} = (c Sigma + (c + 4 c' + 4 c'') mu mu')^{-1},   m = y w*.x.

With mu in a tangent space of dimension d and independent normal noise tau, E |Qw|^2 ~ (D - d) / (c tau^2 n).
Next orders are in kappa = D / n. Where n and D grow together (Mignacco et al. 2020, of mixtures), w is
Sigma^{-1/2} (a e + b xi) with e along Sigma^{-1/2} mu, xi uniform among unit vectors across it, and, r being
the proximal point of X ~ N(a Delta, a^2 + b^2), r + lambda l'(r) = X,

    E[lambda l''(r) / (1 + lambda l''(r))] = kappa,   lambda^2 E l'(r)^2 = kappa b^2,
    lambda Delta E l'(r) = -kappa a,                  Delta^2 = mu.Sigma^{-1} mu.

As kappa -> 0: a -> 2 Delta, b^2 -> kappa / c. From some kappa on the samples are separable, and no rule is
the best. An intercept counts as one more dimension across e: its column is independent of the rest.
"""

from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np
import scipy
import torch
from torch import Tensor

from manifoldlab.gaussian_regimes import check_pair
from manifoldlab.logistic_ridge import LogisticRidge, normal_nodes
from manifoldlab.statistics import Array

FIRST = 0.01  # kappa from which the solution is followed: there the limit is a start near enough
FACTOR = 1.5  # of kappa, a step of that
STEPS = 50  # of Newton's method, which takes 5 to 10


class Misfit(NamedTuple):
    """Of the rule beside orthonormal tangent columns: both vanish as n grows."""

    omega: float  # E |Qw|^2 / E |w|^2
    misalignment: float  # 1 - the cosine to w*


@final
@dataclass(frozen=True, eq=False)
class LogisticSamples:
    mean: Tensor  # mu, (D,)
    covariance: Tensor  # Sigma, (D, D)

    def __post_init__(self) -> None:
        check_pair(self.mean, self.covariance)

    @property
    def rule(self) -> Tensor:
        """w*, (D,)."""
        found: Tensor = 2 * torch.linalg.solve(self.covariance, self.mean)
        return found

    @property
    def separation(self) -> float:
        """Delta."""
        return (self.mean @ self.rule / 2).sqrt().item()

    def limit(self) -> Tensor:
        """Of n Cov[w], (D, D)."""
        values, vectors = torch.linalg.eigh(self.covariance)
        ridge = LogisticRidge(self.mean @ vectors, values, torch.zeros((), dtype=values.dtype))
        _, c, third, fourth = ridge.moments(self.rule @ vectors)
        spike = (c + 4 * third + 4 * fourth) * torch.outer(self.mean, self.mean)
        found: Tensor = torch.linalg.inv(c * self.covariance + spike)
        return found

    def leading(self, n: int, frame: Tensor) -> Misfit:
        """The terms of order 1/n, by the columns (D, d)."""
        limit, size = self.limit() / n, self.rule.square().sum()
        across = torch.trace(limit) - self.rule @ limit @ self.rule / size
        return Misfit((_across(limit, frame) / size).item(), (across / (2 * size)).item())

    def all_orders(self, n: int, frame: Tensor) -> Misfit:
        """By n samples and with an intercept, up to terms that vanish as D grows."""
        a, b, _ = proportional(self.separation, len(self.mean) / n)
        along = self.rule / (2 * self.separation)  # Sigma^{-1/2} e
        spread = torch.linalg.inv(self.covariance) - torch.outer(along, along)
        spread, size = b**2 / len(self.mean) * spread, along.square().sum()
        kept = a**2 * size + along @ spread @ along / size
        total = a**2 * size + torch.trace(spread)
        cosine = (kept / total).sqrt().item()
        return Misfit((_across(spread, frame) / total).item(), 1 - cosine)


def _across(covariance: Tensor, frame: Tensor) -> Tensor:
    """The trace over the normal space."""
    return torch.trace(covariance) - torch.trace(frame.mT @ covariance @ frame)


def proportional(separation: float, kappa: float) -> tuple[float, float, float]:
    """a, b and lambda at dimensions a sample, followed from where they are known."""
    nodes, weights = (t.numpy() for t in normal_nodes())
    c = float(weights @ _spread(2 * separation * (separation + nodes)))
    start = min(FIRST, kappa)
    x = np.log([2 * separation, np.sqrt(start / c), start / c])
    count = 1 + int(np.ceil(np.log(kappa / start) / np.log(FACTOR)))
    for k in np.geomspace(start, kappa, count):
        found = scipy.optimize.root(_unsolved, x, (separation, k), tol=1e-12)
        x = found.x
    if not found.success:
        raise ValueError(
            f"{kappa:g} dimensions a sample and a separation of {separation:g}: there may be no best rule"
        )
    a, b, step = np.exp(x).tolist()
    return a, b, step


def _unsolved(x: Array, separation: float, kappa: float) -> list[float]:
    """The three equations, each as a ratio less 1, at the logarithms of a, b and lambda."""
    nodes, weights = (t.numpy() for t in normal_nodes())
    a, b, step = np.exp(x)
    r = _proximal(a * separation + np.hypot(a, b) * nodes, step)
    wrong, spread = scipy.special.expit(-r), _spread(r)
    return [
        weights @ (step * spread / (1 + step * spread)) / kappa - 1,
        weights @ wrong * step * separation / (kappa * a) - 1,
        weights @ wrong**2 * step**2 / (kappa * b**2) - 1,
    ]


def _proximal(x: Array, step: float) -> Array:
    """r with r - step s(-r) = x, increasing and concave in r from above: by Newton's method."""
    r: Array = x + step * scipy.special.expit(-x)
    for _ in range(STEPS):
        change = (r - x - step * scipy.special.expit(-r)) / (1 + step * _spread(r))
        r = r - change
        if np.abs(change).max() <= 1e-14 * (1 + np.abs(r).max()):
            break
    return r


def _spread(margin: Array) -> Array:
    found: Array = scipy.special.expit(margin) * scipy.special.expit(-margin)
    return found
