"""Grounds on which estimators are calibrated: every manifold family, placed in R^D, and twins of images.

    FAMILY      an example of the family, with isotropic noise and the exact score in dimension 1 and 2,
                in a tube of noise beyond; noise in units of the smaller of reach and 1
    SET_twin    the mixture of factor analyzers that was fitted to a data set (module factor_twins), with
                so many factors a component, and its own noise; more if it is blurred

Gradients of any tangent share are made of those of the Bayes margin, b, which are tangent or nearly so, and
of a random smooth network, r, with root mean squares |b| and |r| over the points:

    g_a = (1 - a) b / |b| + a r / |r|
"""

from collections.abc import Sequence

from torch import Tensor

from manifoldlab import catalog, linalg
from manifoldlab.architecture import Architecture
from manifoldlab.data.base import load, loaders
from manifoldlab.data.subset import subset
from manifoldlab.densities.base import Densities
from manifoldlab.gradients import input_gradient, margin
from manifoldlab.interfaces import Batch, Data
from manifoldlab.manifolds.base import Manifold
from manifoldlab.manifolds.placed import Placed
from manifoldlab.problems.base import BayesClassifier, Problem
from manifoldlab.problems.quadrature import Quadrature
from manifoldlab.problems.tube import Tube
from manifoldlab.studies import cache
from manifoldlab.studies.factor_twins import factor_twin

MIXED = (0.0, 0.25, 0.5, 1.0)  # values of a, from Bayes to a random network
TWIN = "_twin"
COMPONENTS = 3  # of a class


def families() -> list[str]:
    return [name for name in catalog.names("manifolds") if name not in ("placed", "decoded")]


def grounds() -> list[str]:
    return families() + [f"{name}{TWIN}" for name in loaders()]


def ground(
    name: str, *, dim: int, ambient: int, noise: float, blur: float, seed: int, root: str
) -> Problem:
    """In one line where there is none of that name, dimension or size."""
    if name not in grounds():
        raise ValueError(catalog.unknown("ground", name, grounds()))
    if name.endswith(TWIN):
        found = twin(load(name.removesuffix(TWIN), root=root), dim, seed)
        return found.noisier(blur) if blur else found
    if blur:
        raise ValueError(f"only twins are blurred, by {blur:g}: {name} has noise {noise:g}")
    members: Sequence[Manifold] = catalog.module("manifolds", name).examples(dim, seed)
    if not members:
        raise ValueError(f"{name} has no member of dimension {dim}")
    manifold = placed(members[0], ambient, seed)
    deviation = noise * min(manifold.reach, 1.0)
    if dim <= 2:
        return Quadrature(manifold, _densities(manifold, seed, ["smooth"]), deviation)
    return Tube(manifold, _densities(manifold, seed, catalog.names("densities")), deviation)


def placed(base: Manifold, ambient: int, seed: int) -> Manifold:
    """Pictures keep their size."""
    if len(base.shape) > 1 or base.ambient == ambient:
        return base
    if base.ambient > ambient:
        raise ValueError(f"{base!r} lives in R^{base.ambient}, which does not fit into R^{ambient}")
    return Placed(base, ambient - base.ambient, seed)


def twin(data: Data, dim: int, seed: int, *, samples: int = 10_000) -> Problem:
    """Of at most so many images, kept in the cache."""
    count = sum(len(batch.y) for batch in data.batches(4096, None))
    fitted = subset(data, min(samples, count))
    facts = {"data": fitted.fingerprint, "dim": dim, "components": COMPONENTS, "seed": seed}
    with cache.place("factor_twin", facts) as folder:
        path = folder / "twin.safetensors"
        return factor_twin(fitted, path, components=COMPONENTS, dim=dim, seed=seed)


def _densities(manifold: Manifold, seed: int, names: Sequence[str]) -> Densities:
    for name in names:
        found: Sequence[Densities] = catalog.module("densities", name).examples(manifold, seed)
        if found:
            return found[0]
    raise ValueError(f"none of the densities {', '.join(names)} lives on {manifold!r}")


def fields(problem: Problem, batch: Batch, seed: int) -> dict[str, Tensor]:
    """g_a by its name, at points in float64."""
    classes = problem.num_classes
    other = Architecture("mlp", problem.shape, classes, {"width": 64}).build(seed).double()
    bayes, random = (
        _scaled(input_gradient(model, batch.x, batch.y, margin))
        for model in (BayesClassifier(problem), other)
    )
    return {f"mixed {a:g}": (1 - a) * bayes + a * random for a in MIXED}


def _scaled(gradient: Tensor) -> Tensor:
    return gradient / linalg.squared_norm(gradient).mean().sqrt()
