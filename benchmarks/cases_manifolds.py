"""Operations of every family of manifolds, beside passes of its `embed`.

Right is what differentiation in float64 says of `embed` alone: a Jacobian J = d embed / dz, G = J'J, and
second derivatives. Points lie near the manifold along normals, so that their coordinates are known.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import jacfwd, vmap

from benchmarks import inputs
from manifoldlab import catalog
from manifoldlab.benchmarking.case import (
    Absent,
    Case,
    Contest,
    Contestant,
    Floor,
    Setting,
    largest,
    library,
)
from manifoldlab.manifolds.base import Manifold, has_ends

DIM, SEED = 2, 1
OFF = 0.2  # of the reach, along normals
ROUNDING = "float64, times the condition of the Jacobian"


class Near(NamedTuple):
    manifold: Manifold
    z: Tensor  # (n, d)
    x: Tensor  # (n, *shape), whose nearest points have these coordinates
    v: Tensor  # (n, *shape)


def _example(family: str) -> Manifold:
    """The first that there is in the fewest dimensions."""
    for dim in (DIM, 1, 3):
        found: list[Manifold] = catalog.module("manifolds", family).examples(dim, SEED)
        if found:
            return found[0]
    raise ValueError(f"no examples of {family}")


@lru_cache(maxsize=4)
def _near(family: str, n: int, device: str) -> Near:
    manifold = _example(family)
    z = inputs.uniform(n, manifold.dim).double()
    for i, axis in enumerate(manifold.axes):
        low, high = (axis.low, axis.high) if has_ends(axis, manifold) else (-1.0, 1.0)
        z[:, i] = low + (high - low) * (0.2 + 0.6 * z[:, i])
    m = manifold.embed(z)
    v = inputs.normal(*m.shape, seed=3).double()
    offset = v - _projected(manifold, z, v)
    length = offset.flatten(1).norm(dim=1).clamp_min(1e-300).reshape(-1, *[1] * (m.ndim - 1))
    reach = min(manifold.reach, 1.0)
    x = m if manifold.ambient == manifold.dim else m + OFF * reach * offset / length
    return Near(manifold, *(t.to(device) for t in (z, x, v)))


def _jacobian(manifold: Manifold, z: Tensor) -> Tensor:
    """(n, D, d)"""
    found: Tensor = vmap(jacfwd(lambda one: manifold.embed(one[None]).flatten()))(z)
    return found.detach()


def _projected(manifold: Manifold, z: Tensor, v: Tensor) -> Tensor:
    jacobian = _jacobian(manifold, z)
    solution = torch.linalg.lstsq(jacobian, v.flatten(1)[:, :, None]).solution
    return (jacobian @ solution).reshape(v.shape)


def _mean_curvature(near: Near) -> Tensor:
    """Q sum_ij G^ij d_i d_j embed, (n, *shape): the trace of the second fundamental form."""
    manifold, z, x, _ = near
    second = vmap(jacfwd(jacfwd(lambda one: manifold.embed(one[None]).flatten())))(z)
    jacobian = _jacobian(manifold, z)
    inverse = torch.linalg.inv(jacobian.mT @ jacobian)
    traced = torch.einsum("nij,nxij->nx", inverse, second.detach()).reshape(x.shape)
    return traced - _projected(manifold, z, traced)


def _log_volume(near: Near) -> Tensor:
    jacobian = _jacobian(near.manifold, near.z)
    found: Tensor = torch.linalg.slogdet(jacobian.mT @ jacobian).logabsdet / 2
    return found


class Operation(NamedTuple):
    name: str
    about: str
    run: Callable[[Near], Any]
    read: Callable[[Near, Any], Tensor]
    exact: Callable[[Near], Tensor]
    passes: Callable[[int], int]  # of embed, for dimension d
    peers: Callable[[Near], dict[str, Contestant | Absent]] = lambda near: {}


def _itself(near: Near, found: Any) -> Tensor:
    result: Tensor = found
    return result


def _embedded(near: Near, z: Tensor) -> Tensor:
    """Coordinates may differ by turns."""
    return near.manifold.embed(z)


OPERATIONS = (
    Operation(
        "embed",
        "points of coordinates",
        lambda near: near.manifold.embed(near.z),
        _itself,
        lambda near: torch.cat([near.manifold.embed(one[None]) for one in near.z]),
        lambda d: 1,
    ),
    Operation(
        "coordinates",
        "coordinates of the nearest points",
        lambda near: near.manifold.coordinates(near.x),
        _embedded,
        lambda near: near.manifold.embed(near.z),
        lambda d: 1,
    ),
    Operation(
        "to_tangent",
        "projections of vectors",
        lambda near: near.manifold.to_tangent(near.x, near.v),
        _itself,
        lambda near: _projected(near.manifold, near.z, near.v),
        lambda d: d + 1,
        lambda near: _of_sphere(near, lambda sphere, x: sphere.proju(x, near.v)),
    ),
    Operation(
        "tangent_basis",
        "orthonormal bases",
        lambda near: near.manifold.tangent_basis(near.x),
        lambda near, basis: (basis @ (basis.mT @ near.v.flatten(1)[:, :, None])).reshape(
            near.v.shape
        ),
        lambda near: _projected(near.manifold, near.z, near.v),
        lambda d: d + 1,
    ),
    Operation(
        "second_fundamental_form",
        "normal second derivatives, of which the trace is compared",
        lambda near: near.manifold.second_fundamental_form(near.x),
        lambda near, form: form.diagonal(dim1=1, dim2=2).sum(-1),
        _mean_curvature,
        lambda d: 1 + d + d * (d + 1) // 2,
    ),
    Operation(
        "log_volume",
        "volume factors",
        lambda near: near.manifold.log_volume(near.z),
        _itself,
        _log_volume,
        lambda d: d + 1,
    ),
)


def _of_sphere(near: Near, job: Callable[[Any, Tensor], Tensor]) -> dict[str, Contestant | Absent]:
    """geoopt has the unit sphere: the same projection, for points that are on it."""
    if type(near.manifold).__name__ != "Sphere":
        return {}

    def made(geoopt: Any) -> Contestant:
        sphere = geoopt.Sphere()
        return Contestant(lambda: job(sphere, near.x / near.x.norm(dim=1, keepdim=True)))

    return {"geoopt": library("geoopt", made)}


def _ready(family: str, operation: Operation, setting: Setting) -> Contest:
    near = _near(family, setting.pick(256, 8), setting.device)
    manifold = near.manifold
    count = operation.passes(manifold.dim)
    return Contest(
        own=Contestant(lambda: operation.run(near), lambda found: operation.read(near, found)),
        floor=Floor(
            f"{count} passes of embed" if count > 1 else "a pass of embed",
            inputs.times(count, lambda: manifold.embed(near.z)),
        ),
        peers=operation.peers(near),
        exact=lambda: operation.exact(near),
        within=1e-7,
        reason=ROUNDING,
        sizes={"n": len(near.z), "D": manifold.ambient, "k": manifold.dim},
        error=largest,
        dtype=torch.float64,
    )


CASES = tuple(
    Case(
        f"manifolds/{operation.name}/{family}", operation.about, partial(_ready, family, operation)
    )
    for family in catalog.names("manifolds")
    for operation in OPERATIONS
)
