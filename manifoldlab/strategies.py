"""Hypothesis strategies over the members of the catalog; the only module that imports hypothesis.

Every strategy draws a few small integers, and the catalog's `examples` turn them into a member, so
that a failing case shrinks to something one can read and a new file is drawn without another line.
A *families* function returns {name: strategy of cases}, one entry for each member that fits.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from typing import Any, Self

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from torch import Tensor

from manifoldlab import calculus, catalog
from manifoldlab.densities.base import Densities
from manifoldlab.interfaces import Batch
from manifoldlab.manifolds.base import Manifold, has_ends
from manifoldlab.manifolds.placed import Placed
from manifoldlab.problems.base import BayesClassifier, Problem
from manifoldlab.problems.quadrature import Quadrature
from manifoldlab.problems.tube import Tube

INTERIOR = 0.25  # of feet; nearer to an edge a density is not smooth over several noises
SHARES = (0.63, 0.34, 0.78)  # of an axis: no symmetric chart has all its special points there
SEEDS = st.integers(0, 2**16)
Families = Mapping[str, st.SearchStrategy[Any]]
Fits = Callable[[Any], bool]


@dataclass(frozen=True)
class Case:
    """Points drawn from a problem, the same for the same seed."""

    problem: Any  # a Problem; a law's families grant what else it asks of one
    seed: int = 0
    n: int = 6
    device: str = "cpu"

    def on(self, device: str) -> Self:
        return replace(self, device=device)

    @cached_property
    def batch(self) -> Batch:
        drawn = self.problem.sample(self.n, torch.Generator().manual_seed(self.seed))
        return Batch(drawn.x.to(self.device), drawn.y.to(self.device))

    @cached_property
    def feet(self) -> Tensor:
        """Coordinates (n, d) drawn from the densities of the problem, far from every edge."""
        generator = torch.Generator().manual_seed(self.seed)
        z, _ = self.problem.densities.sample(16 * self.n, generator)
        inside: Tensor = z[self.problem.manifold.interior(z) > INTERIOR]
        return inside[: self.n].to(self.device)

    @cached_property
    def model(self) -> BayesClassifier:
        return BayesClassifier(self.problem)

    def normal(self, *shape: int, stream: int = 1) -> Tensor:
        """Standard normal numbers that belong to this case; another stream, other numbers."""
        generator = torch.Generator().manual_seed(self.seed + 2**20 * stream)
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(self.device)


def _pick(members: list[Any], index: int) -> Any:
    return members[index % len(members)]


def _manifold(name: str, dim: int, number: int, codim: int) -> Manifold:
    base: Manifold = _pick(catalog.module("manifolds", name).examples(dim, number), number)
    return Placed(base, codim, number, shift=0.5) if codim else base


def everything(member: Any) -> bool:
    del member
    return True


@cache
def _fitting(
    name: str, dims: tuple[int, ...], codims: tuple[int, ...], fits: Fits
) -> list[tuple[int, int]]:
    """The (dimension, codimension) in which a family has a first example that fits."""
    examples = catalog.module("manifolds", name).examples
    pairs = [(dim, codim) for dim in dims if examples(dim, 0) for codim in codims]
    return [pair for pair in pairs if fits(_manifold(name, pair[0], 0, pair[1]))]


def manifolds(
    dims: Iterable[int] = (1, 2, 3), codims: Iterable[int] = (0, 1, 2), fits: Fits = everything
) -> Families:
    """Every manifold of the catalog, as it is (0) or placed in so many more dimensions.

    A family of which nothing fits is left out, and so is `placed`, which is the placement itself.
    """
    found: dict[str, st.SearchStrategy[Manifold]] = {}
    for name in catalog.names("manifolds"):
        pairs = [] if name == "placed" else _fitting(name, tuple(dims), tuple(codims), fits)
        if pairs:
            build = lambda pair, number, name=name: _manifold(name, pair[0], number, pair[1])
            found[name] = st.builds(build, st.sampled_from(pairs), SEEDS).filter(fits)
    return found


def some_points(manifold: Manifold) -> Tensor:
    """Coordinates (n, d) of a few points inside every axis, no two with a coordinate in common."""
    shares = torch.tensor(SHARES, dtype=torch.float64)
    columns = [
        axis.low + (axis.high - axis.low) * shares.roll(k)
        if has_ends(axis, manifold)
        else 2 * shares.roll(k) - 1
        for k, axis in enumerate(manifold.axes)
    ]
    return torch.stack(columns, 1)


def is_curved(manifold: Manifold) -> bool:
    """Whether its second fundamental form, at some points, is more than rounding."""
    form = calculus.second_fundamental_form(
        lambda z: manifold.embed(z).flatten(1), some_points(manifold)
    )
    return manifold.ambient > manifold.dim and form.norm().item() > 1e-9


def densities(manifold: Manifold, number: int, names: Iterable[str] = ()) -> list[Densities]:
    """The laws of the catalog, or of the named families, that live on a manifold."""
    families = names or catalog.names("densities")
    found = (catalog.module("densities", name).examples(manifold, number) for name in families)
    return [law for laws in found for law in laws]


def problems(fits: Fits = everything) -> Families:
    """Every problem of the catalog that fits, by its own examples."""
    found: dict[str, st.SearchStrategy[Case]] = {}
    for name in catalog.names("problems"):
        fitting = partial(_fitting_problems, name, fits)
        numbers = SEEDS.filter(fitting)  # numbers whose examples include one that fits
        if any(map(fitting, range(8))):
            build = lambda number, seed, fitting=fitting: Case(_pick(fitting(number), number), seed)
            found[name] = st.builds(build, numbers, SEEDS)
    return found


def _fitting_problems(name: str, fits: Fits, number: int) -> list[Problem]:
    return [p for p in catalog.module("problems", name).examples(number) if fits(p)]


def has_tube(manifold: Manifold) -> bool:
    """Whether the tube around it is certain, and there is a direction to leave the manifold."""
    certain = manifold.reach_certified and manifold.ambient > manifold.dim
    return certain and bool(densities(manifold, 0))


def tubes(share: float = 0.3, n: int = 6, fits: Fits = has_tube) -> Families:
    """A tube around every manifold whose reach is certified; noise up to `share` of the reach."""

    def tube(manifold: Manifold, number: int, seed: int) -> Case:
        noise = share * min(manifold.reach, 1.0) * (1 + number % 4) / 4
        return Case(Tube(manifold, _pick(densities(manifold, number), number), noise), seed, n)

    families = manifolds(fits=fits).items()
    return {name: st.builds(tube, strategy, SEEDS, SEEDS) for name, strategy in families}


def blurred(
    noises: Iterable[float], dims: Iterable[int] = (1, 2), fits: Fits = everything, n: int = 6
) -> Families:
    """Smooth densities and isotropic noise, in shares of the reach: `quadrature` problems."""

    def problem(manifold: Manifold, number: int, seed: int, noise: float) -> Case:
        law = densities(manifold, number, ["smooth"])[0]
        return Case(Quadrature(manifold, law, noise * min(manifold.reach, 1.0)), seed, n)

    families = manifolds(dims, fits=fits).items()
    shares = st.sampled_from(list(noises))
    return {name: st.builds(problem, found, SEEDS, SEEDS, shares) for name, found in families}


def of_densities(
    build: Callable[[Manifold, Densities], Problem], fits: Fits = everything
) -> Families:
    """By their names the laws of the catalog, each as a problem on any curve that it lives on."""

    def case(name: str, manifold: Manifold, number: int, seed: int) -> Case:
        return Case(build(manifold, _pick(densities(manifold, number, [name]), number)), seed)

    curves = [(drawn(curve, 1)[0], curve) for curve in manifolds(dims=(1,), fits=fits).values()]
    found: dict[str, st.SearchStrategy[Case]] = {}
    for name in catalog.names("densities"):
        chosen = [curve for first, curve in curves if densities(first, 0, [name])]
        if chosen:
            found[name] = st.builds(partial(case, name), st.one_of(chosen), SEEDS, SEEDS)
    return found


def drawn(strategy: st.SearchStrategy[Any], count: int) -> list[Any]:
    """A few cases of a strategy, always the same."""
    found: list[Any] = []
    search(strategy, found.append, examples=count, number=0)
    return found


class Found(Exception):
    """Raised by a visitor to say that the case fails; Hypothesis then shrinks it."""


def search(
    strategy: st.SearchStrategy[Any],
    visit: Callable[[Any], None],
    *,
    examples: int,
    number: int,
    shrink: bool = True,
    simplest: bool = True,
) -> Any | None:
    """Calls `visit` on so many cases; the smallest case on which it raises Found, or None.

    Hypothesis begins with the simplest case whatever the number: without `simplest` it comes last,
    where there are too few others or one of them fails. Else all numbers would give one case of one.
    """
    failing: list[Any] = []
    passed_over: list[Any] = []
    count = 0

    def run(case: Any) -> None:
        nonlocal count
        if not simplest and not passed_over:
            passed_over.append(case)
            return
        count += 1
        if _fails(visit, case):
            failing.append(case)  # Hypothesis runs the smallest one last
            raise Found  # one failure by one line: by the line Hypothesis tells it from another

    with suppress(Found):
        seed(number)(_configured(examples + (not simplest), shrink)(given(strategy)(run)))()
    if count < examples or (failing and shrink):
        failing += [case for case in passed_over if _fails(visit, case)]
    return failing[-1] if failing else None


def _fails(visit: Callable[[Any], None], case: Any) -> bool:
    try:
        visit(case)
    except Found:
        return True
    return False


def _configured(examples: int, shrink: bool) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        print_blob=False,
    )
