"""A mixture of factor analyzers a class, x = m_yj + L_yj u + s_yj xi: exact truth at the size of pictures.

    log p(x, y) = log sum_j weight_yj N(x; m_yj, L_yj L_yj' + (s_yj^2 + blur^2) I)

The law was fitted to images (`Stored`: a twin of the data) or is drawn at random. Noise is isotropic in
every component, not one number a pixel: then points without it lie on the flats m_yj + span L_yj, the
Euclidean projection on these is what Bayes margins know of (of classes on one flat they are tangent, B1),
and more noise leaves the family. There are many flats, and `geometry` says which one a sample is on.
Samples are not cut to [0, 1], after which they would have another law.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from math import hypot, inf, prod
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from manifoldlab import checkpoints, linalg, mixtures
from manifoldlab.data.in_memory import fingerprint
from manifoldlab.densities.base import check_priors
from manifoldlab.factor_components import FactorComponents
from manifoldlab.geometries import Looked
from manifoldlab.interfaces import Batch, Geometry
from manifoldlab.problems.base import Problem, check_points

TENSORS = ("log_weights", "means", "frames", "deviations", "noises")
SHAPE = "shape"  # of a sample, among the facts of a file


@final
@dataclass(frozen=True)
class RandomFactors:
    """`counts` components a class of uneven weights, on flats at random angles or all on one flat.

    Means are about `spread` from zero, deviations of factors within scale * 1.5^(-1..1), and those of the
    noise within noise * 1.5^(-1..1); on one flat all have the same noise, as B1 asks for.
    """

    shape: tuple[int, ...]
    counts: tuple[int, ...]
    dim: int
    seed: int = 0
    spread: float = 1.5
    scale: float = 0.7
    noise: float = 0.3
    one_flat: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.dim < prod(self.shape):
            raise ValueError(f"{self.dim} factors in dimension {prod(self.shape)}: {self!r}")
        if not self.counts or min(self.counts) < 1:
            raise ValueError(f"every class has a component, not {self.counts}: {self!r}")
        for value in (self.spread, self.scale, self.noise):
            if not 0 < value < inf:
                raise ValueError(f"scales must be positive and finite, not {value}: {self!r}")

    def law(self) -> FactorComponents:
        return _random(self)


@final
@dataclass(frozen=True)
class Stored:
    """The law in a file that `save` wrote; another content than `digest` names, where given, is refused."""

    path: str
    digest: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        return _stored(self, checkpoints.written(Path(self.path)))[1]

    def law(self) -> FactorComponents:
        return _stored(self, checkpoints.written(Path(self.path)))[0]

    def named(self) -> "Stored":
        """With the digest of what is in the file now."""
        return replace(self, digest=_digest(self.law()))


@final
@dataclass(frozen=True)
class FactorMixture(Problem):
    factors: RandomFactors | Stored
    blur: float = 0.0  # deviation of isotropic noise that is added to each component's own

    def __post_init__(self) -> None:
        if not 0 <= self.blur < inf:
            raise ValueError(f"a blur is 0 or more and finite, not {self.blur}: {self!r}")

    @property
    def shape(self) -> tuple[int, ...]:
        return self.factors.shape

    @property
    def num_classes(self) -> int:
        return self.law.num_classes

    @cached_property
    def law(self) -> FactorComponents:
        return self.factors.law().noisier(self.blur)

    def sample(self, n: int, generator: torch.Generator) -> Batch:
        x, y = self.law.sample(n, generator)
        return Batch(x.reshape(n, *self.shape), y)

    def log_joint(self, x: Tensor) -> Tensor:
        check_points(x, self)
        return self.law.log_joint(x.flatten(1))

    def geometry(self, batch: Batch) -> "Flats":
        return Flats(self.law, batch.y)

    def noisier(self, sigma: float) -> "FactorMixture":
        return replace(self, blur=hypot(self.blur, sigma))


@final
@dataclass(frozen=True, eq=False)
class Flats(Geometry):
    """Of each sample the flat of the component that most likely made it, given x and its label.

    Without noise that is the flat on which x lies. `at` finds them once a batch, and takes its labels.
    """

    law: FactorComponents
    labels: Tensor  # (n,)

    @property
    def dim(self) -> int:
        return self.law.dim

    def to_tangent(self, x: Tensor, v: Tensor) -> Tensor:
        return linalg.project(self.law.frames_at(x.flatten(1), self.labels), v)

    def at(self, batch: Batch) -> Looked:
        return Looked(self.law.frames_at(batch.x.flatten(1), batch.y))


@lru_cache(maxsize=32)
def _random(recipe: RandomFactors) -> FactorComponents:
    generator = torch.Generator().manual_seed(recipe.seed)
    ambient, total = prod(recipe.shape), sum(recipe.counts)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def around(value: float, *shape: int) -> Tensor:
        return value * 1.5 ** (2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1)

    frames = torch.linalg.qr(normal(1 if recipe.one_flat else total, ambient, recipe.dim)).Q.mT
    frames = frames.expand(total, -1, -1)
    means = normal(total, ambient) * (recipe.spread / ambient**0.5)
    noises = around(recipe.noise, 1 if recipe.one_flat else total).expand(total)
    if recipe.one_flat:
        along = normal(total, 1, recipe.dim) * (recipe.spread / recipe.dim**0.5)
        means = means[0] + (along @ frames).squeeze(1)
    parts = (means, frames, around(recipe.scale, total, recipe.dim), noises)
    weights = tuple(mixtures.uneven(count) for count in recipe.counts)
    place = _places(recipe.counts)
    log_weights = mixtures.log_weights(weights, mixtures.uneven(len(recipe.counts)))
    return FactorComponents(log_weights, *(part[place] for part in parts))


def _places(counts: tuple[int, ...]) -> Tensor:
    """Which of all components stand in the rectangle (K, J): rows are filled up with their last."""
    first = [sum(counts[:k]) for k in range(len(counts))]
    rows = [
        [a + min(j, n - 1) for j in range(max(counts))] for a, n in zip(first, counts, strict=True)
    ]
    return torch.tensor(rows)


def save(
    path: Path, law: FactorComponents, shape: tuple[int, ...], facts: Mapping[str, Any]
) -> Stored:
    """Writes a law of samples of this shape, and what is known of its origin."""
    tensors = {name: vars(law)[name] for name in TENSORS}
    checkpoints.save(path, tensors, {**facts, SHAPE: list(shape)})
    return Stored(str(path), _digest(law))


def _digest(law: FactorComponents) -> str:
    return fingerprint(*(vars(law)[name] for name in TENSORS))


@lru_cache(maxsize=8)
def _stored(recipe: Stored, written: int) -> tuple[FactorComponents, tuple[int, ...]]:
    del written  # a key of the cache
    tensors, facts = checkpoints.load(Path(recipe.path))
    if set(tensors) != set(TENSORS) or SHAPE not in facts:
        raise ValueError(f"{recipe.path} holds {', '.join(tensors)}, no law of factors: {recipe!r}")
    law, shape = FactorComponents(*(tensors[name] for name in TENSORS)), tuple(facts[SHAPE])
    if recipe.digest not in ("", found := _digest(law)):
        raise ValueError(f"{recipe.path} has the digest {found}: {recipe!r}")
    _check(law, shape, recipe)
    return law, shape


def _check(law: FactorComponents, shape: tuple[int, ...], owner: object) -> None:
    sizes = [tuple(vars(law)[name].shape) for name in TENSORS]
    kj, (d, ambient) = sizes[0], sizes[2][2:] if len(sizes[2]) == 4 else (0, 0)
    if sizes != [kj, (*kj, ambient), (*kj, d, ambient), (*kj, d), kj] or prod(shape) != ambient:
        raise ValueError(f"tensors of shapes {sizes} for samples of shape {shape}: {owner!r}")
    if any(vars(law)[name].isnan().any() for name in TENSORS) or not (law.noises > 0).all():
        raise ValueError(f"a law of factors is finite and its noises positive: {owner!r}")
    check_priors(tuple(law.log_weights.exp().sum(1).tolist()), owner)


def examples(seed: int) -> list[Problem]:
    dim = 1 + seed % 2
    counts = (2, 1, 3)[: 2 + seed % 2]
    return [
        FactorMixture(RandomFactors((3,), counts, dim, seed), 0.1 * (seed % 3)),
        FactorMixture(RandomFactors((2 + dim,), (1, 2), dim, seed, noise=0.2, one_flat=True)),
        FactorMixture(RandomFactors((2,), (1, 1), 1, seed, spread=2.0), 0.2),
        FactorMixture(RandomFactors((1 + seed % 2, 4, 4), (2, 2), 3, seed, spread=3.0)),
    ]
