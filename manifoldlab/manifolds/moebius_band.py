"""The ruled Moebius band c + v e, c = R (cos u, sin u, 0), e = (cos(u/2) cos u, cos(u/2) sin u, sin(u/2)).

(u + 2 pi, v) and (u, -v) are the same point: what is to be smooth on the band and is given by the
coordinates has to be even in v where u wraps.
"""

from dataclasses import dataclass
from functools import cached_property
from math import ceil, inf, pi
from typing import final

import torch
from torch import Tensor

from manifoldlab.interfaces import Axis
from manifoldlab.manifolds.base import Manifold
from manifoldlab.nearest_point import coarse, newton


@final
@dataclass(frozen=True)
class MoebiusBand(Manifold):
    """Coordinates: u in [0, 2 pi), which wraps with a flip, and v from -half_width to half_width."""

    radius: float = 1.0
    half_width: float = 0.3

    def __post_init__(self) -> None:
        if not 0 < self.half_width < self.radius < inf:
            raise ValueError(
                f"a Moebius band has 0 < half_width < radius < inf, for they meet at its axis: {self!r}"
            )

    @property
    def dim(self) -> int:
        return 2

    @property
    def shape(self) -> tuple[int, ...]:
        return (3,)

    @property
    def axes(self) -> tuple[Axis, ...]:
        return (Axis(0.0, 2 * pi, wraps=True), Axis(-self.half_width, self.half_width))

    @cached_property
    def reach(self) -> float:
        """A certified lower bound of the least quotient |q - p|^2 / (2 |<n, q - p>|), n normal at p.

        Let p = (u, v), q = (u', v') with |u' - u| <= pi (one of the two names of q), s the sine of
        (u' - u) / 2, e = v' - v cos((u' - u) / 2), a = R + v cos(u/2) and b = R + v' cos(u'/2) the
        distances from the axis and A = sqrt(a^2 + v^2 / 4) the speed of u at p. Then
            |q - p|^2 = e^2 + H s^2,                  H = v^2 + 4 a b,
            A <n, q - p> = s (R e + G s),             G = v v' sin(u'/2) + 2 a b sin(u/2),
        so that the quotient is at least A (sqrt(G^2 + R^2 H) - |G|) / R^2, its least value over all
        e / s. It grows with A and H and falls with |G| <= |v| sqrt(w^2 - (b - R)^2) + 2 a b |sin(u/2)|;
        it knows u by cos(u/2) and |sin(u/2)| only, and (u, v) is (u + 2 pi, -v), so that u/2 in [0, pi]
        and v >= 0 will do. The bound is taken on each cell of a grid of v, u and b.
        """
        return self.radius * _least_quotient(self.half_width / self.radius)

    def embed(self, z: Tensor) -> Tensor:
        u, v = z.unbind(1)
        distance = self.radius + v * (u / 2).cos()
        return torch.stack([distance * u.cos(), distance * u.sin(), v * (u / 2).sin()], 1)

    def coordinates(self, x: Tensor) -> Tensor:
        around = 2 + ceil(2 * pi * (self.radius + self.half_width) * 8 / self.reach)
        across = 2 + ceil(2 * self.half_width * 8 / self.reach)
        width = self.half_width
        u = torch.linspace(0, 2 * pi, around, dtype=x.dtype, device=x.device)
        v = torch.linspace(-width, width, across, dtype=x.dtype, device=x.device)
        start = coarse(self.embed, x, torch.cartesian_prod(u, v))
        return self.confirmed(x, _reduced(newton(self.embed, x, start)))


def _reduced(z: Tensor) -> Tensor:
    u, v = z.unbind(1)
    turns = (u.detach() / (2 * pi)).floor()
    return torch.stack([u - 2 * pi * turns, v * (1 - 2 * turns.remainder(2))], 1)


def _least_quotient(width: float, steps: int = 48) -> float:
    """The bound of `reach` for R = 1, w = width: each term at the worst corner of each cell."""
    marks = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    v1, v2 = ((width * part)[:, None, None] for part in (marks[:-1], marks[1:]))
    angle = (pi * marks)[:, None]  # u / 2
    b1, b2 = (1 + width * (2 * part - 1) for part in (marks[:-1], marks[1:]))
    right, left = angle[:-1].cos(), angle[1:].cos()
    a1 = 1 + torch.minimum(v1 * left, v2 * left)
    a2 = 1 + torch.maximum(v1 * right, v2 * right)
    sine = torch.maximum(angle[:-1].sin(), angle[1:].sin())
    height = (width**2 - torch.minimum((b1 - 1).abs(), (b2 - 1).abs()).square()).sqrt()
    g = v2 * height + 2 * a2 * b2 * sine
    root = (g.square() + v1.square() + 4 * a1 * b1).sqrt()
    return float(((a1.square() + v1.square() / 4).sqrt() * (root - g)).min()) * (1 - 1e-9)


def examples(dim: int, seed: int) -> list[Manifold]:
    return [MoebiusBand(1.0 + seed % 2, (2 + seed % 3) / 10)] if dim == 2 else []
