"""Whether points of a manifold lose their label by moves on it, along normals and any way: by search.

`Searched` takes steps along M, along normals and any way from points of M and, of each end, the nearest
point; it then finds each risk among all of these by its definition alone: distances, and the angle to
tangents made of the chart's Jacobian. What a step needs to be found is in none of the definitions.
"""

import abc
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Self, final

import torch
from torch import Tensor

from manifoldlab import calculus, linalg
from manifoldlab.interfaces import Axis
from manifoldlab.manifolds.base import Manifold, has_ends

POINTS = 8
DIRECTIONS = 16  # drawn a point, beside the steepest
LENGTHS = (0.3, 0.6, 0.9, 0.999)  # of the steps, in units of eps: none to be rounded out of a ball
NORMAL = 1e-7  # of eps: the tangent part that rounding leaves in a normal step of 1e-3 or more
Margin = Callable[[Tensor], Tensor]  # of x (m, n, D) -> (m, n), <= 0 where the label is lost


class Classifier(abc.ABC):
    @abc.abstractmethod
    def margin(self, case: "Searched") -> Margin:
        """Of the labels of the points of a case."""


class Risks(NamedTuple):
    """Of each point (n,): whether its label is lost."""

    on: Tensor  # moving at most eps on M
    normal: Tensor  # by a normal step of at most eps
    any: Tensor  # by any step of at most eps
    farther: Tensor  # moving at most 2 eps on M
    nearby: Tensor  # by a normal step of at most eps from a point of M that keeps it


@final
@dataclass(frozen=True)
class Searched:
    manifold: Manifold
    classifier: Classifier
    share: float  # eps, in units of the reach
    seed: int = 0
    n: int = POINTS
    device: str = "cpu"

    def on(self, device: str) -> Self:
        return replace(self, device=device)

    @property
    def eps(self) -> float:
        return self.share * min(self.manifold.reach, 1.0)

    def normal(self, *shape: int, stream: int = 1) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed + 2**20 * stream)
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(self.device)

    @cached_property
    def z(self) -> Tensor:
        """Coordinates (n, d) all over the chart; where an axis has an end, on it."""
        noise = self.normal(self.n, self.manifold.dim)
        columns = [
            _spread(axis, value, self.manifold)
            for axis, value in zip(self.manifold.axes, noise.unbind(1), strict=True)
        ]
        return torch.stack(columns, 1)

    @cached_property
    def x(self) -> Tensor:
        return self.embed(self.z)

    @cached_property
    def tangents(self) -> Tensor:
        """Orthonormal columns (n, D, d)."""
        return calculus.frame(self.embed, self.z).basis

    def embed(self, z: Tensor) -> Tensor:
        return self.manifold.embed(z).flatten(1)

    @cached_property
    def risks(self) -> Risks:
        margin, eps, x = self.classifier.margin(self), self.eps, self.x
        ends = x + eps * self._steps(margin)  # (m, n, D)
        z = self.manifold.coordinates(ends.reshape(-1, *self.manifold.shape))
        feet = self.embed(z).reshape(ends.shape)
        frame = calculus.frame(self.embed, z).basis.reshape(*ends.shape, -1)
        of_feet, of_ends = margin(feet), margin(ends)  # nan, past an edge: not of M, nothing lost
        away, lost = (feet - x).norm(dim=2), of_ends <= 0
        nearby = (of_feet > 0) & (away <= 2 * eps) & _normal(ends - feet, frame, eps) & lost
        inside = (ends - x).norm(dim=2) <= eps
        flips = [
            (of_feet <= 0) & (away <= eps),
            _normal(ends - x, self.tangents, eps) & lost,
            torch.cat([inside & lost, (of_feet <= 0) & (away <= eps)]),
            (of_feet <= 0) & (away <= 2 * eps),
            nearby,
        ]
        return Risks(*(found.any(0) for found in flips))

    def _steps(self, margin: Margin) -> Tensor:
        """Any way, along M and along normals, of all lengths: (m, n, D) in units of eps."""
        drawn = self.normal(DIRECTIONS, *self.x.shape, stream=2)
        steepest = -torch.func.grad(lambda x: margin(x[None]).sum())(self.x)
        vectors = torch.cat([drawn, steepest[None]])
        along = linalg.project(self.tangents, vectors)
        ways = torch.cat([vectors, along, vectors - along])
        units = linalg.unit(ways.flatten(0, 1)).reshape(ways.shape)
        return torch.cat([length * units for length in LENGTHS])


def _normal(steps: Tensor, frame: Tensor, eps: float) -> Tensor:
    """Whether steps (m, n, D) are normal to a frame (..., D, d), and of at most eps."""
    tangent: Tensor = (frame.mT @ steps[..., None]).norm(dim=(-2, -1))
    length: Tensor = steps.norm(dim=-1)
    return (tangent <= NORMAL * eps) & (length <= eps)


def _spread(axis: Axis, value: Tensor, manifold: Manifold) -> Tensor:
    if not has_ends(axis, manifold):
        return value
    share = (1 + torch.erf(value / 2**0.5)) / 2
    return axis.low + (axis.high - axis.low) * share if axis.wraps else 0 * value + axis.high


def has_edge(axis: Axis, manifold: Manifold) -> bool:
    return has_ends(axis, manifold) and not axis.wraps
