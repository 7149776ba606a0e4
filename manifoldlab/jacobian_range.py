"""The range of a map's Jacobian J at points z (n, k), and projection on it without a basis.

    P v = J W W' J' v,   W = U_d / s_d of J'J = U s^2 U',   so P = J (J'J)^{-1} J' where d = k:

a backward product, two small ones with the factor W (k, d), and a forward product. With J'J summed in
float64 the error of P in float32 is a fifth of eps times the condition of J (measured up to 3e4): W is
right, and a second pass, P v + P (v - P v), would remove nothing. Where a basis J W (D, d) fits into
memory it is 5 to 600 times as fast as these products with a network.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import Any, final

import torch
from torch import Tensor
from torch.autograd.graph import Node
from torch.func import jvp, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from manifoldlab.interfaces import Geometry

Map = Callable[[Tensor], Tensor]  # z (n, *) -> x (n, *shape), samples not coupled
Linear = Callable[[Tensor], Tensor]


def forward_product(function: Map, z: Tensor, chunk: int) -> Linear:
    """Steps u (m, n, *) of z -> J u (m, n, *shape), so many of the m at a time.

    J u is the derivative of J'w in w, whose graph has one product a layer and nothing of weights. The
    backward pass of a convolution's backward pass makes gradients of weights that nobody reads: where
    there are convolutions, and where no graph can be had, forward derivatives are faster.
    """
    with _mathematical(), torch.enable_grad(), torch.inference_mode(False):
        at = z.detach().clone().requires_grad_()
        image = function(at)
        if image.grad_fn is not None and not _convolves(image.grad_fn):
            return _in_blocks(_transposed(image, at), chunk)
    return _in_blocks(vmap(lambda u: jvp(function, (z,), (u,))[1]), chunk)


def backward_product(function: Map, z: Tensor, chunk: int) -> Linear:
    """v (m, n, *shape) -> J'v (m, n, *); the pass through the map itself is made once."""
    with _mathematical():
        back = vjp(function, z)[1]
    return _in_blocks(vmap(lambda v: back(v)[0]), chunk)


def _mathematical() -> AbstractContextManager[None]:
    """Fused attention has no forward derivative, no second backward pass, and no batches."""
    found: AbstractContextManager[None] = sdpa_kernel(SDPBackend.MATH)
    return found


def _in_blocks(product: Linear, size: int) -> Linear:
    def whole(steps: Tensor) -> Tensor:
        with _mathematical():
            parts = [product(part) for part in torch.split(steps, max(1, size))]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    return whole


def _transposed(image: Tensor, z: Tensor) -> Linear:
    weight = torch.zeros_like(image, requires_grad=True)
    (slope,) = torch.autograd.grad(image, z, weight, create_graph=True)

    def product(steps: Tensor) -> Tensor:
        found: Tensor = torch.autograd.grad(
            slope, weight, steps, retain_graph=True, is_grads_batched=True
        )[0]
        return found

    return product


def _convolves(node: Node) -> bool:
    """Whether a convolution is in the graph behind it."""
    seen, waiting = set[Node](), [node]
    while waiting:
        here = waiting.pop()
        if "Convolution" in here.name():
            return True
        seen.add(here)
        waiting += [n for n, _ in here.next_functions if n is not None and n not in seen]
    return False


def columns(function: Map, z: Tensor, ambient: int, chunk: int) -> Tensor:
    """J (n, D, k), by blocks of columns of `chunk` numbers; in memory these lie whole, one after another."""
    n, k = z.shape
    size = max(1, chunk // max(1, n * ambient))
    product = forward_product(function, z, size)
    eye = torch.eye(k, dtype=z.dtype, device=z.device)
    found = z.new_empty(k, n, ambient)
    for i in range(0, k, size):
        found[i : i + size] = product(eye[i : i + size, None].expand(-1, n, -1)).flatten(2)
    return found.movedim(0, 2)


def gram(columns: Tensor, chunk: int) -> Tensor:
    """J'J (n, k, k), in float64: what J in float32 has lost is its rounding, not that squared."""
    n, _, k = columns.shape
    total = torch.zeros(n, k, k, dtype=torch.float64, device=columns.device)
    for rows in torch.split(columns.mT, max(1, chunk // max(1, n * k)), 2):
        wide = rows.double()
        total += wide @ wide.mT
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
        slope = pull(v).movedim(0, 1)  # (n, m, k)
        return push((slope @ factor @ factor.mT).movedim(1, 0))


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
