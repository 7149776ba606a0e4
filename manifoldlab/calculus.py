"""Calculus on a manifold in a chart: gradient, Hessian, second fundamental form, mean curvature.

With J = d embed / dz = E R (orthonormal columns E), G = J'J and embed_ij the second derivatives:
    grad f   = J G^{-1} df
    Hess f   = R^{-T} (d^2 f - <embed_ij, grad f>) R^{-1}          in the columns of E
    II       = Q R^{-T} embed_ij R^{-1},   H = tr II
    D_v H    = Q dH(v), the derivative of H in the normal bundle along a tangent v
Vectors are flat, (n, D); a function f takes z (n, d) to (n,).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import jvp, vjp

from manifoldlab.nearest_point import Embed, curvature_form, jacobian

Function = Callable[[Tensor], Tensor]


class Frame(NamedTuple):
    basis: Tensor  # (n, D, d) orthonormal columns E
    triangle: Tensor  # (n, d, d) R

    def normal(self, v: Tensor) -> Tensor:
        """Qv for v (n, D, ...)."""
        flat = v.flatten(2) if v.ndim > 2 else v[:, :, None]
        return (flat - self.basis @ (self.basis.mT @ flat)).reshape(v.shape)


def frame(embed: Embed, z: Tensor) -> Frame:
    return Frame(*torch.linalg.qr(jacobian(embed, z)))


def congruence(form: Tensor, triangle: Tensor) -> Tensor:
    """R^{-T} A R^{-1}: a form in the chart's columns, in orthonormal ones."""
    half = torch.linalg.solve_triangular(triangle.mT, form, upper=False)
    whole: Tensor = torch.linalg.solve_triangular(triangle, half, upper=True, left=False)
    return whole


def gradient(embed: Embed, f: Function, z: Tensor) -> Tensor:
    """grad f as an ambient vector, (n, D)."""
    basis, triangle = frame(embed, z)
    slope = vjp(f, z)[1](torch.ones_like(z[:, 0]))[0][:, :, None]
    along: Tensor = torch.linalg.solve_triangular(triangle.mT, slope, upper=False)
    return (basis @ along).squeeze(2)


def hessian(embed: Embed, f: Function, z: Tensor) -> Tensor:
    """The covariant Hessian of f in the columns of the frame, (n, d, d)."""
    second = curvature_form(f, z, torch.ones_like(z[:, 0]))
    flat = lambda z: embed(z).flatten(1)
    turning = curvature_form(flat, z, gradient(embed, f, z))
    return congruence(second - turning, frame(embed, z).triangle)


def second_fundamental_form(embed: Embed, z: Tensor) -> Tensor:
    """II(e_i, e_j) as ambient vectors in the columns of the frame, (n, D, d, d)."""
    here = frame(embed, z)
    directions = torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
    moved = lambda e: jvp(lambda z: jacobian(embed, z), (z,), (e.expand_as(z),))[1]
    second = torch.func.vmap(moved)(directions).movedim(0, 3)
    return here.normal(congruence(second, here.triangle[:, None]))


def mean_curvature(embed: Embed, z: Tensor) -> Tensor:
    """H = tr II, (n, D)."""
    return second_fundamental_form(embed, z).diagonal(dim1=2, dim2=3).sum(2)


def mean_curvature_derivative(embed: Embed, z: Tensor, v: Tensor) -> Tensor:
    """The normal derivative of H along the tangential part of v (n, D): (n, D)."""
    here = frame(embed, z)
    inner = here.basis.mT @ v[:, :, None]
    step = torch.linalg.solve_triangular(here.triangle, inner, upper=True).squeeze(2)
    return here.normal(jvp(lambda z: mean_curvature(embed, z), (z,), (step,))[1])
