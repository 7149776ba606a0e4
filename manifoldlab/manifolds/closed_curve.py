"""The closed curve sum over k of a_k cos(kt) + b_k sin(kt) in R^D; a_k and b_k come from the seed.

The first harmonic is a circle of the given radius, the k-th has vectors of length
roughness x radius / k^2.
"""

from dataclasses import dataclass
from functools import cached_property
from math import ceil, inf, pi
from typing import NamedTuple, final

import torch
from torch import Tensor

from manifoldlab import linalg
from manifoldlab.interfaces import Axis
from manifoldlab.manifolds.base import Manifold
from manifoldlab.nearest_point import coarse, newton
from manifoldlab.reach_bounds import certified_curve_reach


class Bounds(NamedTuple):
    """Upper bounds of |c'| and of the curvature, a lower bound of |c'|."""

    speed: float
    curvature: float
    least_speed: float


@final
@dataclass(frozen=True)
class ClosedCurve(Manifold):
    ambient: int = 3  # D
    harmonics: int = 3
    seed: int = 0
    radius: float = 1.0
    roughness: float = 0.3

    def __post_init__(self) -> None:
        if self.ambient < 2 or self.harmonics < 1:
            raise ValueError(f"a closed curve has ambient >= 2 and harmonics >= 1, not {self!r}")
        if not (0 < self.radius < inf and 0 <= self.roughness < inf):
            raise ValueError(f"a closed curve has radius > 0 and roughness >= 0, not {self!r}")
        if not self._bounds.least_speed > 0:
            raise ValueError(
                f"the curve stands still or nearly so: |c'| > 0 is not certain, only "
                f"|c'| >= {self._bounds.least_speed:.3g}: {self!r}"
            )
        if not self.reach > 0:
            raise ValueError(f"the curve crosses itself or nearly so: {self!r}")

    @property
    def dim(self) -> int:
        return 1

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.ambient,)

    @property
    def axes(self) -> tuple[Axis, ...]:
        return (Axis(0.0, 2 * pi, wraps=True),)

    @cached_property
    def reach(self) -> float:
        """A certified lower bound: that of `certified_curve_reach` with the constants of `_bounds`."""
        speed, curvature, _ = self._bounds
        return certified_curve_reach(
            self._short, 0.0, 2 * pi, speed=speed, curvature=curvature, closed=True
        )

    @cached_property
    def _frame(self) -> tuple[Tensor, Tensor]:
        """Orthonormal columns Q (D, m) and coefficients R (m, 2 harmonics): the curve is Q R basis(t)."""
        generator = torch.Generator().manual_seed(self.seed)
        shape = (self.ambient, 2 * self.harmonics)
        vectors = torch.randn(shape, generator=generator, dtype=torch.float64)
        vectors = vectors / vectors.norm(dim=0)
        vectors[:, :2] = linalg.random_frame(self.ambient, 2, self.seed)
        order = torch.arange(1, self.harmonics + 1, dtype=torch.float64)
        size = self.radius * (self.roughness / order.square()).where(order > 1, 1.0)
        frame, coefficients = torch.linalg.qr(vectors * size.repeat_interleave(2))
        return frame, coefficients

    @cached_property
    def _bounds(self) -> Bounds:
        """From a grid of step 2h, where |c^(j)| <= B_j = sum of k^j |[a_k, b_k]|.

        |c'| changes at most at the rate B_2, and the normal part of c'' at B_3 + B_2^2 / min |c'|,
        for the tangent turns at most at B_2 / min |c'|. The curvature is that part over |c'|^2.
        """
        order = torch.arange(1, self.harmonics + 1, dtype=torch.float64)
        blocks = self._frame[1].reshape(-1, self.harmonics, 2).transpose(0, 1)
        sizes = torch.linalg.matrix_norm(blocks, 2)
        second, third = float((order**2 * sizes).sum()), float((order**3 * sizes).sum())
        count = 512 * self.harmonics
        half = pi / count
        t = torch.arange(count, dtype=torch.float64)[:, None] * (2 * half)
        velocity, acceleration = self._derivative(t, 1), self._derivative(t, 2)
        speed = velocity.norm(dim=1)
        least = speed - half * second
        tangent = velocity / speed[:, None]
        along = (acceleration * tangent).sum(1, keepdim=True)
        normal = (acceleration - along * tangent).norm(dim=1)
        slowest = float(least.min())
        bend = (normal + half * (third + second**2 / slowest)) / least.square()
        return Bounds(float(speed.max()) + half * second, float(bend.max()), slowest)

    def _derivative(self, t: Tensor, times: int) -> Tensor:
        """The derivative of the curve in the columns of Q, (n, m), at t (n, 1)."""
        order = torch.arange(1, self.harmonics + 1, dtype=t.dtype, device=t.device)
        angle = t * order + times * pi / 2
        basis = torch.stack([angle.cos(), angle.sin()], 2) * (order**times)[:, None]
        return basis.flatten(1) @ self._frame[1].to(t).mT

    def _short(self, z: Tensor) -> Tensor:
        return self._derivative(z, 0)

    def embed(self, z: Tensor) -> Tensor:
        return self._short(z) @ self._frame[0].to(z).mT

    def coordinates(self, x: Tensor) -> Tensor:
        count = ceil(16 * 2 * pi * self._bounds.speed / self.reach)
        grid = torch.arange(count, dtype=x.dtype, device=x.device)[:, None] * (2 * pi / count)
        part = x @ self._frame[0].to(x)  # the rest of x is as far from all points
        z = newton(self._short, part, coarse(self._short, part, grid))
        return self.confirmed(x, z - 2 * pi * (z.detach() / (2 * pi)).floor())


def examples(dim: int, seed: int) -> list[Manifold]:
    return [ClosedCurve(2 + seed % 4, 2 + seed % 3, seed)] if dim == 1 else []
