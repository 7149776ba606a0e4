"""The cases of A1 to A4: a smooth function about points near a manifold.

The function is a margin of two classes, smooth because there is no other runner-up to change to.
The frame and the gradient are found here by themselves, and not by what the laws put to the test.
"""

from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from math import pi, prod
from typing import Any, Self, final

import torch
from torch import Tensor

from manifoldlab import calculus, linalg
from manifoldlab.interfaces import Axis, Batch
from manifoldlab.manifolds.base import Manifold, has_ends
from manifoldlab.problems.base import Problem
from manifoldlab.problems.quadrature import Quadrature
from manifoldlab.problems.tube import Tube
from manifoldlab.strategies import SEEDS, Case, Families, manifolds, problems

LINEAR = ((1.2, -0.8), (0.3, -0.2))  # of s_i in logit k
MIXING = ((1.0, 0.6), (-0.6, 1.0))  # of s_i in wave j
WAVES = ((0.4, -0.2), (0.1, -0.4))  # of wave j in logit k: their slopes stay below the linear ones
TURNS = (0.6180339887, 0.4142135624)  # by which the phase of wave j grows with the seed
SHARE = 0.2  # of the reach: how far from the manifold the points are


@final
@dataclass(frozen=True)
class Ripples:
    """Two logits a_k.s + sum_j c_jk sin(b_j.s + phase_j) of s = C'x, C of two orthonormal columns.

    The gradient of their difference is nowhere smaller than 0.7, its derivatives are of order 1.
    """

    size: int  # D
    seed: int = 0

    @cached_property
    def columns(self) -> Tensor:
        """C, (D, 2); not of the numbers that place a manifold with the same seed."""
        return linalg.random_frame(self.size, 2, self.seed + 2**18)

    def log_joint(self, x: Tensor) -> Tensor:
        phases = [2 * pi * (self.seed * turn % 1) for turn in TURNS]
        linear, mixing, waves, shift = (
            x.new_tensor(rows) for rows in (LINEAR, MIXING, WAVES, phases)
        )
        s = x.flatten(1) @ self.columns.to(x)
        return s @ linear + (s @ mixing + shift).sin() @ waves


@final
@dataclass(frozen=True)
class Landscape:
    manifold: Manifold
    function: Ripples | Problem  # of two classes
    seed: int = 0
    n: int = 4
    device: str = "cpu"

    def on(self, device: str) -> Self:
        return replace(self, device=device)

    def model(self, x: Tensor) -> Tensor:
        return self.function.log_joint(x)

    @cached_property
    def batch(self) -> Batch:
        return Batch(*(t[self._steep] for t in self._candidates[1:]))

    @cached_property
    def frame(self) -> Tensor:
        """Orthonormal tangent columns (n, D, d) at the points."""
        return self._frame(self._candidates[0][self._steep])

    def across(self, columns: Tensor) -> Tensor:
        """The normal part of columns (n, D, k)."""
        return columns - self.frame @ (self.frame.mT @ columns)

    @property
    def columns(self) -> Tensor:
        """C (n, D, k) such that the function depends on C'x alone."""
        if isinstance(self.function, Ripples):
            columns = self.function.columns
        else:
            columns = torch.eye(self.manifold.ambient, dtype=torch.float64)
        return columns.to(self.device).expand(self.n, -1, -1)

    def margin(self, x: Tensor) -> Tensor:
        """(m, n, *shape) -> (m, n)"""
        return self._margin(x, self.batch.y)

    @cached_property
    def gradient(self) -> Tensor:
        """Of the margin, (n, *shape)."""
        return self._gradient(*self.batch[:2])

    def normal(self, *shape: int, stream: int = 1) -> Tensor:
        """Standard normal numbers that belong to this landscape; another stream, other numbers."""
        generator = torch.Generator().manual_seed(self.seed + 2**20 * stream)
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(self.device)

    @cached_property
    def _candidates(self) -> tuple[Tensor, Tensor, Tensor]:
        """Coordinates all over the chart, points off the manifold, labels."""
        many = 4 * self.n
        noise = self.normal(many, self.manifold.dim)
        axes = zip(self.manifold.axes, noise.unbind(1), strict=True)
        z = torch.stack([self._spread(axis, value) for axis, value in axes], 1)
        basis, offset = self._frame(z), self.normal(many, self.manifold.ambient, 1, stream=2)
        offset = (offset - basis @ (basis.mT @ offset)).squeeze(2)
        x = self.manifold.embed(z)
        length = SHARE * min(self.manifold.reach, 1.0)
        return (
            z,
            x + length * linalg.unit(offset).reshape(x.shape),
            torch.arange(many).to(z.device) % 2,
        )

    @cached_property
    def _steep(self) -> Tensor:
        """The quarter of the candidates with the largest gradients: the laws need one."""
        steepness = linalg.squared_norm(self._gradient(*self._candidates[1:]))
        return steepness.argsort(descending=True)[: self.n]

    def _spread(self, axis: Axis, value: Tensor) -> Tensor:
        """A standard normal number spread over an axis, evenly and not near its ends if it has any."""
        if not has_ends(axis, self.manifold):
            return value
        share = (1 + torch.erf(value / 2**0.5)) / 2
        return axis.low + (axis.high - axis.low) * (share if axis.wraps else 0.1 + 0.8 * share)

    def _frame(self, z: Tensor) -> Tensor:
        return calculus.frame(lambda z: self.manifold.embed(z).flatten(1), z).basis

    def _margin(self, x: Tensor, y: Tensor) -> Tensor:
        logits = self.model(x.flatten(0, 1)).reshape(*x.shape[:2], 2)
        return (logits[..., 0] - logits[..., 1]) * (1 - 2 * y)

    def _gradient(self, x: Tensor, y: Tensor) -> Tensor:
        gradient: Tensor = torch.func.grad(lambda x: self._margin(x[None], y).sum())(x)
        return gradient


def has_normals(manifold: Manifold) -> bool:
    return manifold.ambient > manifold.dim


@cache
def landscapes() -> Families:
    """A function of two directions about every manifold that has normals."""

    def ripples(manifold: Manifold, number: int) -> Landscape:
        return Landscape(manifold, Ripples(manifold.ambient, number), number)

    families = manifolds(fits=has_normals).items()
    return {
        name: strategy.flatmap(lambda manifold: SEEDS.map(partial(ripples, manifold)))
        for name, strategy in families
    }


def is_smooth(problem: Problem) -> bool:
    """Whether the margin is in closed form, smooth everywhere, about one manifold with normals."""
    if problem.num_classes != 2 or isinstance(problem, Quadrature | Tube):
        return False
    geometry = _geometry(problem)
    return isinstance(geometry, Manifold) and has_normals(geometry)


def _geometry(problem: Problem) -> Any:
    return problem.geometry(Case(problem, n=1).batch)


@cache
def bayes_landscapes(ambient: int = 3) -> Families:
    """The margin of Bayes classifiers, in so few dimensions that quadrature needs no other."""
    families = problems(lambda problem: prod(problem.shape) <= ambient and is_smooth(problem))
    bayes = lambda case: Landscape(_geometry(case.problem), case.problem, case.seed)
    return {name: strategy.map(bayes) for name, strategy in families.items()}


def everywhere() -> Families:
    return {**landscapes(), **bayes_landscapes()}
