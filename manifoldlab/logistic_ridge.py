r"""The minimum of E log(1 + e^{-m}) + strength |w|^2 over w, the margin m = y w.x being normal.

x | y ~ N(y mu, Sigma) gives m ~ N(mu.w, w.Sigma w). By Stein's lemma, with v = Sigma w,

    E g(m) yx = E g mu + E g' v,    E g(m) xx' = E g (Sigma + mu mu') + E g' (mu v' + v mu') + E g'' v v':

gradient and Hessian need the means of four derivatives of the loss only.
"""

from dataclasses import dataclass
from functools import cache
from typing import final

import torch
from torch import Tensor
from torch.nn.functional import softplus

STEPS = 100  # of Newton's method, which takes 5 to 15
ENOUGH = 1e-14  # a step that changes less, relatively, is rounding
WIDEST, SPACING = 16.0, 1 / 64  # of the nodes


@final
@dataclass(frozen=True, eq=False)
class LogisticRidge:
    """In the eigenbasis of Sigma."""

    mean: Tensor  # mu, (D,)
    values: Tensor  # of Sigma, (D,)
    strength: Tensor  # (...)

    def minimum(self) -> Tensor:
        """By Newton's method, (..., D): the function is convex and smooth."""
        w = self.mean.new_zeros(*self.strength.shape, len(self.mean))
        for _ in range(STEPS):
            after = self._descended(w, self._step(w))
            done, w = (after - w).norm(dim=-1) <= ENOUGH * after.norm(dim=-1), after
            if done.all():
                break
        return w

    def moments(self, w: Tensor) -> tuple[Tensor, ...]:
        """Means of minus the first derivative of the loss, and of the second, third and fourth: (...)."""
        nodes, weights = normal_nodes()
        wrong = torch.sigmoid(-self._margins(w, nodes.to(w)))
        spread = wrong * (1 - wrong)
        third = -spread * (1 - 2 * wrong)
        fourth = spread * (1 - 2 * wrong).square() - 2 * spread.square()
        return tuple(term @ weights.to(w) for term in (wrong, spread, third, fourth))

    def value(self, w: Tensor) -> Tensor:
        nodes, weights = normal_nodes()
        loss = softplus(-self._margins(w, nodes.to(w))) @ weights.to(w)
        return loss + self.strength * w.square().sum(-1)

    def _margins(self, w: Tensor, nodes: Tensor) -> Tensor:
        deviation = (w.square() * self.values).sum(-1).sqrt()
        return (w @ self.mean)[..., None] + deviation[..., None] * nodes

    def _step(self, w: Tensor) -> Tensor:
        wrong, curvature, third, fourth = (t[..., None] for t in self.moments(w))
        v, shrink = self.values * w, 2 * self.strength[..., None]
        gradient = curvature * v - wrong * self.mean + shrink * w
        sides = torch.stack([self.mean.expand_as(v), v], -1)  # (..., D, 2)
        inner = torch.stack([torch.cat([curvature, third], -1), torch.cat([third, fourth], -1)], -1)
        hessian = torch.diag_embed(curvature * self.values + shrink) + sides @ inner @ sides.mT
        step: Tensor = torch.linalg.solve(hessian, gradient[..., None])[..., 0]
        return step

    def _descended(self, w: Tensor, step: Tensor) -> Tensor:
        """A step, halved where it leads up."""
        before, share = self.value(w), torch.ones_like(self.strength)
        for _ in range(STEPS):
            up = self.value(w - share[..., None] * step) > before * (1 + ENOUGH)
            if not up.any():
                break
            share = share.where(~up, share / 2)
        return w - share[..., None] * step


@cache
def normal_nodes() -> tuple[Tensor, Tensor]:
    """Nodes and weights (m,) for the mean over N(0, 1), equally spaced.

    An analytic integrand errs by exp(-2 pi s / spacing) then, s the width of the strip about the real
    line where it is so: pi over the deviation of the margin. Gauss and Hermite's rule is far slower.
    """
    nodes = torch.arange(-WIDEST, WIDEST + SPACING, SPACING, dtype=torch.float64)
    weights = (-nodes.square() / 2).exp()
    return nodes, weights / weights.sum()
