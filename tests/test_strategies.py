"""Cases are drawn from every member of the catalog, fit what is asked, and come back the same."""

from dataclasses import dataclass
from typing import Any, final

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from manifoldlab import catalog, strategies
from manifoldlab.densities.gaussians import random_gaussians
from manifoldlab.interfaces import Axis
from manifoldlab.manifolds.base import Manifold
from manifoldlab.manifolds.flat import Flat
from manifoldlab.manifolds.helix import Helix
from manifoldlab.manifolds.paraboloid import Paraboloid
from manifoldlab.manifolds.placed import Placed
from manifoldlab.manifolds.product import Product
from manifoldlab.manifolds.sphere import Sphere
from manifoldlab.problems.gaussian_subspace import GaussianSubspace
from manifoldlab.problems.tube import Tube
from manifoldlab.strategies import Case, Found, drawn, search

SUBSPACE = GaussianSubspace(Placed(Flat(2), 1), random_gaussians(2, 3, seed=0), 0.2)


def test_every_manifold_is_a_family_but_the_placement_itself() -> None:
    families = strategies.manifolds()
    assert set(families) == set(catalog.names("manifolds")) - {"placed"}
    for name, strategy in families.items():
        for manifold in drawn(strategy, 4):
            base = manifold.base if isinstance(manifold, Placed) else manifold
            assert type(base).__module__ == f"manifoldlab.manifolds.{name}"
            assert base.dim in (1, 2, 3)
            assert manifold.ambient - base.ambient in (0, 1, 2)


def test_only_what_fits_is_drawn() -> None:
    flat_in_three = strategies.manifolds(
        dims=[2], codims=[1], fits=lambda m: not strategies.is_curved(m)
    )
    assert set(flat_in_three) == {"flat"}
    assert all(m.dim == 2 and m.ambient == 3 for m in drawn(flat_in_three["flat"], 3))
    assert strategies.manifolds(dims=[7], fits=lambda m: m.ambient == 9).keys() <= {
        *catalog.names("manifolds")
    }
    assert not strategies.manifolds(fits=lambda m: False)


@pytest.mark.parametrize(
    ("manifold", "curved"),
    [(Flat(2), False), (Placed(Flat(1), 2), False), (Sphere(1), True), (Helix(), True)]
    + [(Paraboloid(2), True), (Placed(Paraboloid(1), 1, shift=0.5), True)],
    ids=repr,
)
def test_what_is_curved(manifold: Manifold, curved: bool) -> None:
    assert strategies.is_curved(manifold) is curved


@final
@dataclass(frozen=True)
class Root(Manifold):
    """(z, sqrt(z - 1)): there is nothing at z < 1, and not far from z = 3."""

    dim: int = 1
    shape: tuple[int, ...] = (2,)
    reach: float = 1.0
    axes: tuple[Axis, ...] = (Axis(2.0, 3.0),)

    def embed(self, z: Tensor) -> Tensor:
        return torch.cat([z, (z - 1).sqrt()], 1)

    def coordinates(self, x: Tensor) -> Tensor:
        raise NotImplementedError


def test_a_chart_is_looked_at_inside_its_axes() -> None:
    for manifold in (Root(), Placed(Root(), 1), Product(Root(), Flat(1)), Helix()):
        z = strategies.some_points(manifold)
        for axis, values in zip(manifold.axes, z.unbind(1), strict=True):
            assert ((axis.low < values) & (values < axis.high)).all()
            assert len(set(values.tolist())) == len(values)
    assert strategies.is_curved(Root()) and strategies.is_curved(Product(Root(), Flat(1)))


def test_every_problem_is_a_family() -> None:
    assert set(strategies.problems()) == set(catalog.names("problems"))
    tubes = strategies.problems(lambda problem: isinstance(problem, Tube) and problem.noise < 0.25)
    assert set(tubes) == {"tube"}
    for case in drawn(tubes["tube"], 3):
        assert isinstance(case.problem, Tube) and case.problem.noise < 0.25


def test_tubes_are_around_certain_manifolds_and_narrow() -> None:
    families = strategies.tubes(share=0.3, n=4)
    certain = set(strategies.manifolds(fits=lambda m: m.reach_certified and m.ambient > m.dim))
    assert set(families) == certain
    for case in drawn(families["sphere"], 4) + drawn(families["helix"], 4):
        problem = case.problem
        assert problem.manifold.reach_certified and problem.codim > 0
        assert 0 < problem.noise <= 0.3 * min(problem.manifold.reach, 1.0)
        assert case.n == len(case.batch.x) == 4


def test_blurred_problems_have_noise_in_shares_of_the_reach() -> None:
    families = strategies.blurred([0.01, 0.02], dims=(1,), fits=strategies.is_curved, n=3)
    assert {"sphere", "closed_curve", "helix"} <= set(families) and "flat" not in families
    for case in drawn(families["helix"], 3):
        share = case.problem.noise / min(case.problem.manifold.reach, 1.0)
        assert share == pytest.approx(0.01) or share == pytest.approx(0.02)
        assert case.feet.shape == (3, 1)
        assert (case.problem.manifold.interior(case.feet) > strategies.INTERIOR).all()


def test_densities_of_a_manifold() -> None:
    names = lambda chart: {type(law).__name__ for law in strategies.densities(chart, 0)}
    assert {"Gaussians", "Smooth"} <= names(Flat(1)) and "VonMisesFisher" not in names(Flat(1))
    assert {"VonMisesFisher", "Smooth"} <= names(Sphere(1))
    assert names(Helix()) == {"Smooth"}  # which has ends
    (smooth,) = strategies.densities(Sphere(1), 0, ["smooth"])
    assert smooth.dim == 1


def test_a_case_is_the_same_for_the_same_seed() -> None:
    case, again = Case(SUBSPACE, seed=3), Case(SUBSPACE, seed=3)
    assert case == again and repr(case) == repr(again)
    assert torch.equal(case.batch.x, again.batch.x) and torch.equal(case.batch.y, again.batch.y)
    assert torch.equal(case.feet, again.feet) and case.feet.shape == (6, 2)
    assert torch.equal(case.normal(4, 2), again.normal(4, 2))
    assert torch.equal(case.model(case.batch.x), SUBSPACE.log_joint(case.batch.x))
    other = Case(SUBSPACE, seed=4)
    assert not torch.equal(case.batch.x, other.batch.x)
    assert not torch.equal(case.normal(4), other.normal(4))
    assert not torch.equal(case.normal(4), case.normal(4, stream=2))


def test_a_case_goes_to_its_device() -> None:
    case = Case(SUBSPACE).on("meta")
    assert case.batch.x.is_meta and case.batch.y.is_meta and case.normal(3).is_meta
    assert case.on("cpu") == Case(SUBSPACE)


def test_drawn_cases_are_always_the_same() -> None:
    strategy = strategies.manifolds()["ellipsoid"]
    assert drawn(strategy, 5) == drawn(strategy, 5)
    assert len(drawn(strategy, 5)) == 5


def find(fails: Any, **options: Any) -> tuple[int | None, list[int]]:
    seen: list[int] = []

    def visit(value: int) -> None:
        seen.append(value)
        if fails(value):
            raise Found

    return search(st.integers(0, 10**6), visit, number=0, **options), seen


def test_search_finds_the_smallest_failing_case() -> None:
    found, seen = find(lambda value: value > 1234, examples=20)
    assert found == 1235 and len(seen) > 20


def test_search_without_shrinking_stops_at_the_first() -> None:
    found, seen = find(lambda value: value > 1234, examples=20, shrink=False)
    assert found is not None and len(seen) <= 20 + 2
    assert found == next(value for value in seen if value > 1234)


def test_search_without_a_failure_sees_as_many_as_asked() -> None:
    found, seen = find(lambda value: False, examples=20)
    assert found is None and len(seen) == 20


def test_a_search_does_not_depend_on_the_ones_before() -> None:
    state = torch.random.get_rng_state()
    first = find(lambda value: False, examples=5)
    find(lambda value: True, examples=5)
    assert find(lambda value: False, examples=5) == first
    assert torch.equal(state, torch.random.get_rng_state())


def test_search_passes_over_the_simplest_case_which_does_not_depend_on_the_number() -> None:
    cases: dict[bool, set[int]] = {True: set(), False: set()}
    for simplest, seen in cases.items():
        for number in range(20):
            search(st.integers(0, 10**6), seen.add, examples=1, number=number, simplest=simplest)
    assert cases[True] == {0} and len(cases[False]) == 20


def test_the_simplest_case_is_seen_where_there_is_no_other_or_where_one_fails() -> None:
    seen: list[int] = []
    assert search(st.just(7), seen.append, examples=2, number=0, simplest=False) is None
    assert seen == [7]
    found, seen = find(lambda value: True, examples=2, simplest=False)
    assert found == 0 and seen[-1] == 0
    assert find(lambda value: value == 0, examples=2, simplest=False)[0] is None


def test_other_exceptions_pass_through() -> None:
    with pytest.raises(ZeroDivisionError):
        find(lambda value: 1 // 0, examples=2)
