"""The range of a map's Jacobian J at points z (n, k), and projection on it without a basis.

    P v = J W W' J' v,   W = U_d / s_d of J'J = U s^2 U',   so P = J (J'J)^{-1} J' where d = k:

a backward product, two small ones with the factor W (k, d), and a forward product. With J'J summed in
float64 the error of P in float32 is a fifth of eps times the condition of J (measured up to 3e4): W is
right, and a second pass, P v + P (v - P v), would remove nothing. Where a basis J W (D, d) fits into
memory it is 5 to 600 times as fast as these products with a network.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import Any, final

import torch
from torch import Tensor
from torch.func import jvp, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from manifoldlab.interfaces import Geometry

Map = Callable[[Tensor], Tensor]  # z (n, *) -> x (n, *shape), samples not coupled
Linear = Callable[[Tensor], Tensor]


def forward_product(function: Map, z: Tensor, chunk: int) -> Linear:
    """Steps u (m, n, *) of z -> J u (m, n, *shape), so many of the m at a time."""
    moved: Linear = vmap(lambda u: jvp(function, (z,), (u,))[1], chunk_size=max(1, chunk))

    def product(steps: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):  # fused attention has no forward derivative, nor batches
            return moved(steps)

    return product


def backward_product(function: Map, z: Tensor, chunk: int) -> Linear:
    """v (m, n, *shape) -> J'v (m, n, *); the pass through the map itself is made once."""
    with sdpa_kernel(SDPBackend.MATH):
        back = vjp(function, z)[1]
    pulled: Linear = vmap(lambda v: back(v)[0], chunk_size=max(1, chunk))
    return pulled


def columns(function: Map, z: Tensor, ambient: int, chunk: int) -> Tensor:
    """J (n, D, k), by blocks of columns of `chunk` numbers."""
    n, k = z.shape
    size = max(1, chunk // max(1, n * ambient))
    product = forward_product(function, z, size)
    eye = torch.eye(k, dtype=z.dtype, device=z.device)
    found = z.new_empty(n, ambient, k)
    for i in range(0, k, size):
        steps = eye[i : i + size, None].expand(-1, n, -1)
        found[:, :, i : i + size] = product(steps).flatten(2).movedim(0, 2)
    return found


def gram(columns: Tensor, chunk: int) -> Tensor:
    """J'J (n, k, k), in float64: what J in float32 has lost is its rounding, not that squared."""
    n, _, k = columns.shape
    total = torch.zeros(n, k, k, dtype=torch.float64, device=columns.device)
    for rows in torch.split(columns, max(1, chunk // max(1, n * k)), 1):
        wide = rows.double()
        total += wide.mT @ wide
    return total


@final
@dataclass(frozen=True, eq=False)
class JacobianRange(Geometry):
    """At the points of one batch, whose factors are known."""

    function: Map
    z: Tensor = field(repr=False)  # (n, k)
    factor: Tensor = field(repr=False)  # (n, k, d) W
    chunk: int = 2**19  # numbers of x in one pass of the map

    @property
    def dim(self) -> int:
        return self.factor.shape[2]

    def to_tangent(self, x: Tensor, v: Tensor) -> Tensor:
        """Differentiable in v; P is its own derivative's transpose."""
        project = partial(self._projected, tuple(x.shape[1:]))
        found: Tensor = _Symmetric.apply(v, project)  # type: ignore[no-untyped-call]
        return found

    @torch.no_grad()
    def _projected(self, shape: tuple[int, ...], v: Tensor) -> Tensor:
        n, ambient = len(self.z), prod(shape)
        stacked = v.reshape(v.numel() // max(1, n * ambient), n, *shape).to(self.z)
        size = max(1, self.chunk // max(1, len(stacked) * ambient))
        parts = zip(
            torch.split(self.z, size),
            torch.split(self.factor.to(self.z), size),
            torch.split(stacked, size, 1),
            strict=True,
        )
        found = torch.cat([self._of(*part) for part in parts], 1)
        return found.reshape(v.shape).to(v)

    def _of(self, z: Tensor, factor: Tensor, v: Tensor) -> Tensor:
        """v (m, n, *shape)"""
        size = self.chunk // max(1, v[:1].numel())
        push = forward_product(self.function, z, size)
        pull = backward_product(self.function, z, size)
        slope = pull(v).movedim(0, 2)  # (n, k, m)
        return push((factor @ (factor.mT @ slope)).movedim(2, 0))


class _Symmetric(torch.autograd.Function):
    """A symmetric linear map, whose derivative is itself: no graph goes through the network."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, linear: Linear) -> Tensor:
        ctx.linear = linear
        return linear(v)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        found: Tensor = _Symmetric.apply(gradient, ctx.linear)  # type: ignore[no-untyped-call]
        return found, None
