"""Of manifolds."""

import torch
from torch import Tensor

from manifoldlab import nearest_point
from manifoldlab.faults.base import Fault, normal
from manifoldlab.manifolds.base import Manifold
from manifoldlab.manifolds.ellipsoid import Ellipsoid
from manifoldlab.manifolds.helix import Helix
from manifoldlab.manifolds.product import Product
from manifoldlab.manifolds.sphere import Sphere
from manifoldlab.manifolds.torus_of_revolution import TorusOfRevolution

TORUS = TorusOfRevolution(2.0, 0.75)
TWISTED = Ellipsoid((1.0, 2.0, 1.5))
COORDINATES = 0.4 * normal(4, 2)


def _beside(manifold: Manifold, size: float = 0.1) -> Tensor:
    """Points off the manifold."""
    x = manifold.embed(0.4 * normal(4, manifold.dim).abs())
    noise: Tensor = size * normal(*x.shape, seed=1) / x.shape[1] ** 0.5
    return x + noise


FAULTS = (
    Fault(
        "A tangent basis is the Jacobian itself, not orthonormal",
        "manifolds.base",
        "basis: Tensor = torch.linalg.qr(jacobian(self.embed, self.coordinates(x))).Q",
        "basis: Tensor = jacobian(self.embed, self.coordinates(x))",
        lambda: Helix().to_tangent(_beside(Helix()), normal(4, 3)),
        ("A1/helix", "A3/helix", "A4/helix", "B1t/helix", "B2/helix"),
    ),
    Fault(
        "A tangent basis has unit vectors that are not orthogonal",
        "manifolds.base",
        "basis: Tensor = torch.linalg.qr(jacobian(self.embed, self.coordinates(x))).Q",
        "basis: Tensor = torch.nn.functional.normalize(\n"
        "            jacobian(self.embed, self.coordinates(x)), dim=1\n"
        "        )",
        lambda: TWISTED.tangent_basis(_beside(TWISTED)),
        ("A4/ellipsoid",),
    ),
    Fault(
        "The tangent part of a vector is its normal part, for hypersurfaces",
        "manifolds.base",
        "return v - linalg.project(normals, v)",
        "return linalg.project(normals, v)",
        lambda: Sphere(2).to_tangent(_beside(Sphere(2)), normal(4, 3)),
        ("A1/sphere", "B1t/sphere", "D1/sphere"),
    ),
    Fault(
        "The tangent space is that at the first point of the batch",
        "manifolds.base",
        "return linalg.project(self.tangent_basis(x), v)",
        "return linalg.project(self.tangent_basis(x)[:1].expand(len(x), -1, -1), v)",
        lambda: Helix().to_tangent(_beside(Helix()), normal(4, 3)),
        ("A1/helix", "B1t/helix"),
    ),
    Fault(
        "The compression of a tube has the wrong sign",
        "manifolds.base",
        "return -volume - bending",
        "return -volume + bending",
        lambda: Helix().log_compression(_beside(Helix())),
        (
            "tests/test_manifolds.py::test_log_compression_is_that_of_the_jacobian_of_coordinates",
            "B1t/helix/0",
        ),
    ),
    Fault(
        "The shape operator has the wrong sign",
        "manifolds.base",
        "return _congruence(curvature_form(self.embed, z, normal), triangle)",
        "return -_congruence(curvature_form(self.embed, z, normal), triangle)",
        lambda: TORUS.shape_operator(_beside(TORUS), normal(4, 3)),
        (
            "tests/test_manifolds.py::test_shape_operator_is_the_derivative_of_the_normal",
            "B1t/clifford_torus/0",
        ),
    ),
    Fault(
        "The second fundamental form keeps its tangent part",
        "manifolds.base",
        "normal: Tensor = flat - basis @ (basis.mT @ flat)",
        "normal: Tensor = flat",
        lambda: TORUS.second_fundamental_form(_beside(TORUS)),
        ("tests/test_manifolds.py::test_shape_operator_is_the_derivative_of_the_normal",),
    ),
    Fault(
        "A volume factor lacks the logarithm of its last direction",
        "manifolds.base",
        "return triangle.diagonal(dim1=1, dim2=2).abs().log().sum(1)\n\n    def log_compression",
        "return triangle.diagonal(dim1=1, dim2=2).abs().log()[:, 0]\n\n    def log_compression",
        lambda: Manifold.log_volume(TWISTED, COORDINATES),
        ("tests/test_manifolds.py::test_log_volume",),
    ),
    Fault(
        "Points beyond the reach have coordinates",
        "manifolds.base",
        "return z.where((distance < self.reach)[:, None], torch.nan)",
        "return z",
        lambda: TORUS.coordinates(_beside(TORUS, 3.0)).isnan().double() + 1,
        ("tests/test_manifolds.py::test_a_point_is_nearest_and_within_reach_or_nan",),
    ),
    Fault(
        "Newton's step forgets the curvature of the chart",
        "nearest_point",
        "return z + _solve(metric - form, slope)",
        "return z + _solve(metric, slope)",
        lambda: torch.func.jacfwd(Helix().coordinates)(_beside(Helix())),
        (
            "tests/test_manifolds.py::test_three_derivatives_of_coordinates",
            "tests/test_manifolds.py::test_log_compression_is_that_of_the_jacobian_of_coordinates",
        ),
    ),
    Fault(
        "The nearest point has two derivatives less",
        "nearest_point",
        "DIFFERENTIABLE_STEPS = 2",
        "DIFFERENTIABLE_STEPS = 1",
        lambda: torch.func.hessian(lambda x: Helix().coordinates(x[None]).sum())(
            _beside(Helix(), 0.5)[0]
        ),
        ("tests/test_manifolds.py::test_three_derivatives_of_coordinates",),
    ),
    Fault(
        "A chart's derivative is rounded to float32",
        "nearest_point",
        "return columns.movedim(0, 2)\n\n\ndef curvature_form",
        "return columns.movedim(0, 2).float().to(z)\n\n\ndef curvature_form",
        lambda: nearest_point.jacobian(Helix().embed, normal(4, 1)),
        ("A1/helix",),
    ),
    Fault(
        "Stereographic coordinates are half as large below the equator",
        "manifolds.sphere",
        "below = (norm - last) / head",
        "below = (norm + last) / head",
        lambda: Sphere(2).coordinates(Sphere(2).embed(2 * normal(4, 2))),
        ("tests/test_manifolds.py::test_coordinates_are_of_the_nearest_point", "F1/sphere"),
    ),
    Fault(
        "The volume of a sphere has its radius once, whatever its dimension",
        "manifolds.sphere",
        "return self.dim * (log(2 * self.radius) - z.square().sum(1).log1p())",
        "return log(self.radius) + self.dim * (log(2) - z.square().sum(1).log1p())",
        lambda: Sphere(2, 1.5).log_volume(COORDINATES),
        ("tests/test_manifolds.py::test_log_volume",),
    ),
    Fault(
        "A sphere is embedded in float32",
        "manifolds.sphere",
        "square = z.square().sum(1, keepdim=True)\n        return self.radius",
        "square = z.float().square().sum(1, keepdim=True)\n        return self.radius",
        lambda: Sphere(2).embed(COORDINATES),
        (
            "tests/test_manifolds.py::test_coordinates_are_of_the_nearest_point",
            "C2/von_mises_sphere",
        ),
    ),
    Fault(
        "The reach of an ellipsoid is its shortest axis",
        "manifolds.ellipsoid",
        "return min(self.semiaxes) ** 2 / max(self.semiaxes)",
        "return min(self.semiaxes)",
        lambda: torch.tensor(Ellipsoid((1.0, 2.0)).reach),
        ("tests/test_manifolds.py::test_reach_is_honest",),
    ),
    Fault(
        "The speed of a helix takes the pitch of a radian for that of a turn",
        "manifolds.helix",
        "return hypot(self.radius, self.pitch / (2 * pi))",
        "return hypot(self.radius, self.pitch)",
        lambda: torch.tensor(Helix().reach),
        ("tests/test_manifolds.py::test_reach_is_honest",),
    ),
    Fault(
        "A product has the larger reach of its factors",
        "manifolds.product",
        "return min(self.first.reach, self.second.reach)",
        "return max(self.first.reach, self.second.reach)",
        lambda: torch.tensor(Product(Sphere(1, 0.5), Sphere(1, 2.0)).reach),
        ("tests/test_manifolds.py::test_reach_is_honest",),
    ),
)
