"""Manifold: a geometry that is known exactly, from the two formulas `embed` and `coordinates`.

With J = d embed / dz, N the offset x - nearest(x), S_N its shape operator and G = J'J:
volume factor sqrt(det G); the Jacobian of `coordinates` is J_z = (G - <N, embed''>)^{-1} J', so
log_compression = log sqrt(det J_z J_z') = -log sqrt(det G) - log det(I - S_N).
"""

import abc
from math import inf, prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.func import jvp

from manifoldlab import linalg
from manifoldlab.interfaces import Axis, Geometry, Patch
from manifoldlab.nearest_point import curvature_form, jacobian


class Manifold(Geometry):
    """A d-dimensional submanifold of R^D with one chart and a tube around it.

    A subclass is a frozen dataclass and final. It gives dim, shape, reach, `embed` and
    `coordinates`, and `axes` if its chart is not all of R^d; the rest follows. Where a closed
    form is known, `normals`, `log_volume`, `log_compression` and `patches` may be given
    instead of their defaults; the contract tests hold them against the defaults.
    """

    if TYPE_CHECKING:  # a family gives each as a field or as a property

        @property
        def shape(self) -> tuple[int, ...]: ...
        @property
        def reach(self) -> float: ...
        @property
        def reach_certified(self) -> bool: ...

    else:
        shape: tuple[int, ...]  # of a point
        reach: float  # points nearer than this have one nearest point; exact or a lower bound
        reach_certified: bool = True  # False: an estimate, which `tube` refuses

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The range of each coordinate."""
        return (Axis(),) * self.dim

    @abc.abstractmethod
    def embed(self, z: Tensor) -> Tensor:
        """Coordinates (n, d) -> points of the manifold (n, *shape)."""

    @abc.abstractmethod
    def coordinates(self, x: Tensor) -> Tensor:
        """x (n, *shape) -> z (n, d) of the nearest point; nan outside the reach or past an edge."""

    def normals(self, x: Tensor) -> Tensor | None:
        """Orthonormal normal columns (n, D, D - d) at the nearest points, if a formula is known."""
        del x
        return None

    @property
    def ambient(self) -> int:
        """D"""
        return prod(self.shape)

    def nearest(self, x: Tensor) -> Tensor:
        return self.embed(self.coordinates(x))

    def within_reach(self, x: Tensor, z: Tensor) -> Tensor:
        """z where its point is nearer to x than the reach, else nan: enough for a closed form."""
        with torch.no_grad():
            distance = linalg.squared_norm(x - self.embed(z)).sqrt()
        return z.where((distance < self.reach)[:, None], torch.nan)

    def confirmed(self, x: Tensor, z: Tensor) -> Tensor:
        """z where it is certainly the nearest point's, else nan.

        A point m with x - m normal and shorter than the reach is the nearest one (Federer 1959,
        4.8); an offset that is not normal belongs to an iteration that failed or to an edge.
        """
        inside = torch.ones_like(z[:, 0], dtype=torch.bool)
        for axis, value in zip(self.axes, z.detach().unbind(1), strict=True):
            if not axis.wraps:
                inside &= (value >= axis.low) & (value <= axis.high)
        with torch.no_grad():
            offset = x - self.embed(z)
            distance = linalg.squared_norm(offset).sqrt()
            size = distance + linalg.squared_norm(x).sqrt()
            tangents = jacobian(self.embed, z).mT  # (n, d, D)
            tangents = torch.nn.functional.normalize(tangents, dim=2)
            slope = (tangents @ offset.flatten(1)[:, :, None]).abs().amax((1, 2))
        inside &= (distance < self.reach) & (slope <= 1e4 * torch.finfo(z.dtype).eps * size)
        return z.where(inside[:, None], torch.nan)

    def tangent_basis(self, x: Tensor) -> Tensor:
        """Orthonormal columns (n, D, d) at the nearest points of x."""
        basis: Tensor = torch.linalg.qr(jacobian(self.embed, self.coordinates(x))).Q
        return basis

    def to_tangent(self, x: Tensor, v: Tensor) -> Tensor:
        normals = self.normals(x) if self.ambient <= 2 * self.dim else None
        if normals is None:
            return linalg.project(self.tangent_basis(x), v)
        return v - linalg.project(normals, v)

    def shape_operator(self, x: Tensor, normal: Tensor) -> Tensor:
        """<II(e_i, e_j), normal>, (n, d, d), in the columns of `tangent_basis`."""
        z = self.coordinates(x)
        basis, triangle = torch.linalg.qr(jacobian(self.embed, z))
        normal = normal - linalg.project(basis, normal)
        return _congruence(curvature_form(self.embed, z, normal), triangle)

    def second_fundamental_form(self, x: Tensor) -> Tensor:
        """II(e_i, e_j) as vectors (n, d, d, *shape), in the columns of `tangent_basis`."""
        z = self.coordinates(x)
        basis, triangle = torch.linalg.qr(jacobian(self.embed, z))
        directions = torch.eye(self.dim, dtype=z.dtype, device=z.device)
        moved = lambda e: jvp(lambda z: jacobian(self.embed, z), (z,), (e.expand_as(z),))[1]
        second = torch.func.vmap(moved)(directions).movedim(0, 3)  # (n, D, d, d)
        second = _congruence(second, triangle[:, None])
        flat = second.flatten(2)
        normal: Tensor = flat - basis @ (basis.mT @ flat)
        return normal.transpose(1, 2).reshape(len(z), self.dim, self.dim, *self.shape)

    def log_volume(self, z: Tensor) -> Tensor:
        """log sqrt(det J'J), (n, d) -> (n,): volume of the manifold per dz."""
        triangle: Tensor = torch.linalg.qr(jacobian(self.embed, z)).R  # mode "r" has no derivative
        return triangle.diagonal(dim1=1, dim2=2).abs().log().sum(1)

    def log_compression(self, x: Tensor) -> Tensor:
        """log sqrt(det J_z J_z'), J_z the Jacobian of `coordinates`: (n, *shape) -> (n,).

        It turns a density of coordinates and of normal offsets into one of points.
        """
        z = self.coordinates(x)
        tangents = jacobian(self.embed, z)
        triangle: Tensor = torch.linalg.qr(tangents).R
        form = _congruence(curvature_form(self.embed, z, x - self.embed(z)), triangle)
        eye = torch.eye(self.dim, dtype=x.dtype, device=x.device)
        volume = triangle.diagonal(dim1=1, dim2=2).abs().log().sum(1)
        # not slogdet: its forward derivative is wrong where vmap is in vmap (torch 2.13)
        bending: Tensor = torch.linalg.qr(eye - form).R.diagonal(dim1=1, dim2=2).abs().log().sum(1)
        return -volume - bending

    def interior(self, z: Tensor) -> Tensor:
        """(n,), 1 far from every edge, 0 on it and past it; densities vanish with it."""
        value = torch.ones_like(z[:, 0])
        for axis, coordinate in zip(self.axes, z.unbind(1), strict=True):
            if has_ends(axis, self) and not axis.wraps:
                to_low, to_high = coordinate - axis.low, axis.high - coordinate  # exactly 0 there
                value = value * (4 * to_low * to_high / (axis.high - axis.low) ** 2).clamp_min(0)
        return value

    def patches(self) -> tuple[Patch, ...]:
        """Boxes that tile the manifold, for quadrature: one here, infinite axes put in (-1, 1)."""
        bounded = torch.tensor([has_ends(axis, self) for axis in self.axes])

        def coordinates(s: Tensor) -> Tensor:
            return torch.where(bounded.to(s.device), s, s / (1 - s.square()))

        finite = [a if has_ends(a, self) else Axis(-1.0, 1.0) for a in self.axes]
        return (Patch(tuple(a.low for a in finite), tuple(a.high for a in finite), coordinates),)


def has_ends(axis: Axis, owner: object) -> bool:
    """Whether an axis ends on both sides rather than on none; refuses any other: no density fits it."""
    if axis == Axis():
        return False
    if not -inf < axis.low < axis.high < inf:
        raise ValueError(f"an axis is all of R or has ends low < high, not {axis!r}: {owner!r}")
    return True


def _congruence(form: Tensor, triangle: Tensor) -> Tensor:
    """R^{-T} A R^{-1}: a form of the chart's columns in the orthonormal ones."""
    half = torch.linalg.solve_triangular(triangle.mT, form, upper=False)
    whole: Tensor = torch.linalg.solve_triangular(triangle, half, upper=True, left=False)
    return whole
