"""What every probe of the catalog must keep to, and what each of them measures."""

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple, final

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from manifoldlab import catalog, linalg
from manifoldlab.densities.gaussians import random_gaussians
from manifoldlab.gradients import log_marginal, logit
from manifoldlab.interfaces import Batch, Geometry
from manifoldlab.manifolds.drawn import Drawn
from manifoldlab.manifolds.flat import Flat
from manifoldlab.manifolds.placed import Placed
from manifoldlab.manifolds.sphere import Sphere
from manifoldlab.probes.base import noise
from manifoldlab.probes.gradient_rank import gradient_rank
from manifoldlab.probes.on_off_robustness import (
    gaussian_steps,
    on_off_robustness,
    softmax_change,
    unit_steps,
)
from manifoldlab.probes.score_alignment import score_alignment
from manifoldlab.probes.tangent_alignment import tangent_alignment
from manifoldlab.problems.base import BayesClassifier
from manifoldlab.problems.gaussian_subspace import GaussianSubspace
from manifoldlab.statistics import (
    FALSE_ALARM,
    Law,
    isotropic_omega_law,
    isotropic_r2_law,
    kolmogorov_p,
)

ERRORS = 6  # standard errors: a false alarm in 5e8
# Not lpips_alignment, which needs weights and large pictures: tests/test_probes_on_images.py has it.
PROBES = [name for name in catalog.names("probes") if name != "lpips_alignment"]
CONVENTIONS = pytest.mark.parametrize("steps", [unit_steps, gaussian_steps])


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@final
@dataclass(frozen=True)
class Framed(Geometry):
    """The same tangent space everywhere, or with `of_sample` a random one for each sample."""

    size: int
    dim: int = 5
    seed: int = 0
    of_sample: bool = False

    @cached_property
    def columns(self) -> Tensor:
        return linalg.random_frame(self.size, self.dim, self.seed)

    def to_tangent(self, x: Tensor, v: Tensor) -> Tensor:
        if self.of_sample:
            random = gaussian(len(x), self.size, self.dim, seed=self.seed)
            return linalg.project(torch.linalg.qr(random).Q, v)
        return linalg.project(self.columns.to(x).expand(len(x), -1, -1), v)


class Setting(NamedTuple):
    model: nn.Module
    batch: Batch
    geometry: Geometry


def regional(x: Tensor, y: Tensor) -> Batch:
    """With regions, all of them unlike, that hold some coordinates and not others."""
    places = torch.arange(x.numel()).reshape(x.shape)
    return Batch(x, y, region=places % 3 == 0)


def rows(batch: Batch, which: Tensor) -> Batch:
    assert batch.region is not None
    return Batch(batch.x[which], batch.y[which], region=batch.region[which])


def bayes(dtype: torch.dtype) -> Setting:
    plane = Placed(Flat(2), codim=3, seed=1, shift=0.5)
    problem = GaussianSubspace(plane, random_gaussians(2, 3, 0), 0.3)
    x, y, *_ = problem.sample(6, torch.Generator().manual_seed(1))
    return Setting(BayesClassifier(problem), regional(x.to(dtype), y), plane)


def network(dtype: torch.dtype) -> nn.Module:
    layers = nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1),
        nn.BatchNorm2d(5),
        nn.SiLU(),
        nn.AvgPool2d(4),
        nn.Flatten(),
        nn.Linear(20, 4),
    )
    generator = torch.Generator().manual_seed(0)
    for tensor in [*layers.parameters(), layers[1].running_mean]:
        nn.init.normal_(tensor, generator=generator)
    nn.init.uniform_(layers[1].running_var, 0.5, 2.0, generator=generator)
    return layers.eval().to(dtype)


def pictures(dtype: torch.dtype) -> Setting:
    x = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(2)).to(dtype)
    return Setting(network(dtype), regional(x, torch.arange(6) % 4), Framed(192))


def drawings(dtype: torch.dtype) -> Setting:
    manifold = Drawn(("x", "y"), (3, 8, 8))
    x = manifold.embed(0.2 * gaussian(6, 2, seed=3).clamp(-2, 2))
    return Setting(network(dtype), regional(x.to(dtype), torch.arange(6) % 4), manifold)


SETTINGS: dict[str, Callable[[torch.dtype], Setting]] = {
    "bayes": bayes,
    "pictures": pictures,
    "drawings": drawings,
}
contract = pytest.mark.parametrize("probe", PROBES)
in_every_setting = pytest.mark.parametrize("setting", SETTINGS)


def measure(probe: str, setting: Setting) -> Any:
    run = catalog.module("probes", probe).example(setting.model)
    return run(setting.model, setting.batch, setting.geometry)


def same(found: Any, expected: Any, rtol: float = 0.0) -> None:
    for name, a, b in zip(found._fields, found, expected, strict=True):
        torch.testing.assert_close(
            a, b, rtol=rtol, atol=rtol, msg=lambda m, name=name: f"{name}: {m}"
        )


# contract


@contract
@in_every_setting
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fields_are_finite_and_have_samples_first(
    probe: str, setting: str, dtype: torch.dtype
) -> None:
    given = SETTINGS[setting](dtype)
    found = measure(probe, given)
    assert len(set(found._fields)) == len(found) > 0
    for name, field in found._asdict().items():
        assert field.shape[:1] == (6,), name
        assert field.dtype == dtype, name
        assert field.isfinite().all(), name
        assert not field.requires_grad, name


@contract
@in_every_setting
def test_model_and_batch_stay_as_they_are(probe: str, setting: str) -> None:
    given = SETTINGS[setting](torch.float64)
    model, x = given.model, given.batch.x.clone()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    measure(probe, given)
    assert all(state[name].equal(value) for name, value in model.state_dict().items())
    assert modes == [module.training for module in model.modules()]
    assert all((p.grad == 7.0).all() and p.requires_grad for p in model.parameters())
    assert given.batch.x.equal(x) and not given.batch.x.requires_grad


@contract
@in_every_setting
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_callers_need_no_gradients(
    probe: str, setting: str, mode: Callable[[], AbstractContextManager[None]]
) -> None:
    given = SETTINGS[setting](torch.float64)
    expected = measure(probe, given)
    with mode():
        batch = rows(given.batch, torch.arange(6))
        same(measure(probe, given._replace(batch=batch)), expected)


def steady(probe: str, setting: Setting) -> list[str]:
    """The fields that no random number enters: those that no seed changes."""
    run = catalog.module("probes", probe).example(setting.model)
    if "seed" not in inspect.signature(run).parameters:
        return list(measure(probe, setting)._fields)
    one, other = (run(*setting, seed=seed) for seed in (0, 1))
    return [name for name, a, b in zip(one._fields, one, other, strict=True) if a.equal(b)]


@contract
@in_every_setting
def test_samples_are_not_coupled(probe: str, setting: str) -> None:
    given = SETTINGS[setting](torch.float64)
    whole, names = measure(probe, given), steady(probe, given)
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    take = lambda which: given._replace(batch=rows(given.batch, which))
    permuted = measure(probe, take(order))
    halves = [measure(probe, take(half)) for half in order.split(3)]
    for name in names:
        expected = getattr(whole, name)[order]
        joined = torch.cat([getattr(half, name) for half in halves])
        for found in (getattr(permuted, name), joined):
            # zero is zero to rounding of the gradients, which are of order 1 to 100
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


# tangent_alignment


def linear(size: int, classes: int = 2, seed: int = 11) -> Callable[[Tensor], Tensor]:
    weight = gaussian(size, classes, seed=seed)
    return lambda x: x.flatten(1) @ weight.to(x)


def repeated(n: int, size: int) -> Batch:
    return Batch(torch.zeros(n, size, dtype=torch.float64), torch.zeros(n, dtype=torch.int64))


def agrees(samples: Tensor, law: Law, tests: int) -> None:
    """Kolmogorov's test, exact at every size; `tests` share the false alarm."""
    assert kolmogorov_p(samples.flatten(), law.cdf) > FALSE_ALARM / tests


def test_bayes_margins_on_a_plane_are_tangent() -> None:
    given = bayes(torch.float64)
    margin = tangent_alignment(*given)
    assert margin.omega.max() < 1e-24 and (margin.alignment == 1).all()
    single = tangent_alignment(*given, head=logit)
    offset = given.batch.x - given.geometry.nearest(given.batch.x)
    normal = linalg.squared_norm(offset) / 0.3**4  # grad log N(x; m, tau^2) across the plane
    torch.testing.assert_close(single.omega * single.norm.square(), normal, rtol=1e-10, atol=0)


@pytest.mark.parametrize(("size", "dim"), [(5, 2), (12, 9), (30, 1)])
def test_nulls_of_alignment_are_those_of_isotropic_gradients(size: int, dim: int) -> None:
    """One gradient in random tangent spaces is as good as random gradients in one of them."""
    geometry = Framed(size, dim, seed=size, of_sample=True)
    found = tangent_alignment(linear(size), repeated(2000, size), geometry)
    law = isotropic_omega_law(size, dim)
    agrees(found.omega, law, tests=3)
    torch.testing.assert_close(found.omega_null, torch.full_like(found.omega, law.mean()))


# on_off_robustness


@CONVENTIONS
def test_finite_steps_tell_omega_of_the_gradient_when_they_are_small(steps: Any) -> None:
    """In standard errors: each mean of m squares has a relative variance of 2 / m at most."""
    count = 4000
    given = bayes(torch.float64)
    curved = lambda x: (x @ gaussian(5, 2, seed=5)).sin() + x @ gaussian(5, 2, seed=6)
    batch = Batch(given.batch.x, given.batch.y % 2)
    found = on_off_robustness(
        curved, batch, given.geometry, sizes=(1e-4, 1e-3), directions=count, steps=steps
    )
    omega = found.omega[:, None]
    error = omega * (1 - omega) * (4 / count) ** 0.5
    assert ((found.omega_steps - omega).abs() < ERRORS * error).all()
    assert (found.omega > 0.01).all() and (found.omega < 0.99).all()


@CONVENTIONS
def test_chunks_and_sizes_are_only_a_way_to_compute(steps: Any) -> None:
    given = pictures(torch.float64)
    run = partial(on_off_robustness, *given, directions=3, steps=steps)
    whole = run(sizes=(1e-2, 1e-1))
    same(run(sizes=(1e-2, 1e-1), chunk=7), whole, rtol=1e-9)
    single = run(sizes=(1e-1,))
    torch.testing.assert_close(single.r[:, 0], whole.r[:, 1], rtol=1e-9, atol=0)


@pytest.mark.parametrize(("size", "dim"), [(6, 2), (12, 9)])
def test_unit_steps_are_uniform_on_the_spheres(size: int, dim: int) -> None:
    """(g.u)^2 / |Pg|^2 has the law Beta(1/2, (d - 1)/2), and likewise across."""
    n, epsilon = 2000, 0.1
    geometry, model, batch = Framed(size, dim), linear(size), repeated(n, size)
    found = on_off_robustness(model, batch, geometry, sizes=(epsilon,), directions=1)
    square = tangent_alignment(model, batch, geometry).norm.square()
    pairs = (
        (found.on[:, 0], (1 - found.omega) * square, dim),
        (found.off[:, 0], found.omega * square, size - dim),
    )
    for change, part, rank in pairs:
        agrees(change.square() / (epsilon**2 * part), stats.beta(0.5, (rank - 1) / 2), tests=4)


@pytest.mark.parametrize(("size", "dim"), [(6, 2), (12, 9)])
def test_gaussian_steps_are_normal(size: int, dim: int) -> None:
    n, sigma = 2000, 0.1
    geometry, model, batch = Framed(size, dim), linear(size), repeated(n, size)
    found = on_off_robustness(
        model, batch, geometry, sizes=(sigma,), directions=1, steps=gaussian_steps
    )
    square = tangent_alignment(model, batch, geometry).norm.square()
    for change, share in ((found.on, 1 - found.omega), (found.off, found.omega)):
        agrees(change[:, 0].square() / (sigma**2 * share * square), stats.chi2(1), tests=4)


@CONVENTIONS
def test_nulls_of_r_are_ratios_of_expected_squares(steps: Any) -> None:
    """Isotropic gradients: in standard errors of the difference, whose mean is then 0."""
    size, dim, n = 9, 3, 4000
    geometry = Framed(size, dim, seed=4, of_sample=True)
    found = on_off_robustness(
        linear(size), repeated(n, size), geometry, sizes=(1.0,), directions=2, steps=steps
    )
    difference = (found.off.square() - found.r_null[:, None].square() * found.on.square())[:, 0]
    assert difference.mean().abs() < ERRORS * difference.std() / n**0.5
    assert found.r_null.unique().numel() == 1
    torch.testing.assert_close(found.omega_null, torch.full_like(found.omega, 1 - dim / size))


def test_r_of_the_gradient_has_the_law_f() -> None:
    size, dim = 9, 3
    geometry = Framed(size, dim, seed=5, of_sample=True)
    omega = tangent_alignment(linear(size), repeated(3000, size), geometry).omega
    agrees(omega / (1 - omega) * dim / (size - dim), isotropic_r2_law(size, dim), tests=1)


def test_the_published_crossing_is_far_from_tangent() -> None:
    """THEORY.md, A3: r = 1 at D = 3072, d = 128 means omega = 0.958."""
    zeros = torch.zeros(1, 1, 3072)
    weight = unit_steps(zeros, zeros, 128, 3072 - 128).weight
    assert weight / (weight + 1) == pytest.approx(0.958, abs=5e-4)


@pytest.mark.parametrize("order", [1.0, 2.0])
def test_changes_of_the_softmax_are_norms(order: float) -> None:
    here, moved = gaussian(5, 4, seed=1), gaussian(5, 4, seed=2)
    p, q = (t.exp() / t.exp().sum(1, keepdim=True) for t in (here, moved))
    expected = (q - p).abs().pow(order).sum(1).pow(1 / order)
    found = softmax_change(order)(moved, here, torch.zeros(5, dtype=torch.int64))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    given = pictures(torch.float64)
    probe = on_off_robustness(*given, change=softmax_change(order), sizes=(0.1,))
    assert (probe.on > 0).all() and (probe.on <= 2).all()


# score_alignment


def test_bayes_scores_are_their_own_reference() -> None:
    given = bayes(torch.float64)

    def score(batch: Batch) -> Tensor:
        return torch.func.grad(lambda x: given.model(x).exp().sum(1).log().sum())(batch.x)

    found = score_alignment(*given, reference=score, head=log_marginal)
    ones = torch.ones(6, dtype=torch.float64)
    torch.testing.assert_close(found.cosine, ones, rtol=1e-12, atol=0)
    torch.testing.assert_close(found.tangent_cosine, ones, rtol=1e-12, atol=0)
    normal = linalg.squared_norm(given.batch.x - given.geometry.nearest(given.batch.x)) / 0.3**4
    share = normal / linalg.squared_norm(score(given.batch))
    torch.testing.assert_close(found.reference_omega, share, rtol=1e-10, atol=0)
    turned = score_alignment(*given, reference=lambda b: -score(b), head=log_marginal)
    torch.testing.assert_close(turned.cosine, -ones, rtol=1e-12, atol=0)


def test_nulls_of_cosines_are_those_of_isotropic_gradients() -> None:
    size, dim, n = 9, 4, 3000
    found = score_alignment(
        linear(size),
        repeated(n, size),
        Framed(size, dim),
        reference=lambda batch: gaussian(*batch.x.shape, seed=8),
    )
    pairs = (
        (found.cosine, found.cosine_null, size),
        (found.tangent_cosine, found.tangent_cosine_null, dim),
    )
    for cosine, null, rank in pairs:
        law = stats.beta(0.5, (rank - 1) / 2)
        agrees(cosine.square(), law, tests=2)
        torch.testing.assert_close(null.square(), torch.full_like(null, law.mean()))


# gradient_rank


@pytest.mark.parametrize("centred", [False, True])
@in_every_setting
def test_ranks_are_participation_ratios_of_singular_values(setting: str, centred: bool) -> None:
    model, batch, geometry = SETTINGS[setting](torch.float64)
    found = gradient_rank(model, batch, geometry, centred=centred)
    for sample in range(len(batch.x)):
        x = batch.x[sample : sample + 1]
        jacobian = torch.func.jacrev(lambda x: model(x)[0])(x)[:, 0]
        if centred:
            jacobian = jacobian - jacobian.mean(0)
        tangent = geometry.to_tangent(x, jacobian[:, None])[:, 0]
        for part, rank in ((jacobian, found.rank), (tangent, found.tangent_rank)):
            squares = torch.linalg.svdvals(part.flatten(1)).square()
            expected = squares.sum().square() / squares.square().sum()
            assert rank[sample].item() == pytest.approx(expected.item(), rel=1e-9)


@pytest.mark.parametrize("centred", [False, True])
def test_nulls_of_ranks_are_ratios_of_expectations(centred: bool) -> None:
    """E (tr G)^2 = null * E |G|^2: in standard errors of the difference, whose mean is then 0."""
    n, size, dim, classes = 5000, 7, 3, 4
    jacobian = gaussian(n, classes, size, seed=9)
    model = lambda x: (jacobian @ x[:, :, None]).squeeze(2)  # another one for each sample
    geometry, batch = Framed(size, dim), repeated(n, size)
    found = gradient_rank(model, batch, geometry, centred=centred)
    if centred:
        jacobian = jacobian - jacobian.mean(1, keepdim=True)
    for part, null in (
        (jacobian, found.rank_null),
        (jacobian @ geometry.columns, found.tangent_rank_null),
    ):
        squares = torch.linalg.svdvals(part).square()
        difference = squares.sum(1).square() - null * squares.square().sum(1)
        assert difference.mean().abs() < ERRORS * difference.std() / n**0.5


def test_changes_are_those_of_a_slow_loop() -> None:
    """Point by point, size by size, direction by direction; chunks end anywhere."""
    generator = torch.Generator().manual_seed(0)
    sphere = Sphere(2)
    x = sphere.embed(torch.randn(5, 2, generator=generator, dtype=torch.float64))
    batch = Batch(x, torch.tensor([0, 1, 2, 1, 0]))
    matrix = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    model = lambda x: (2 * x @ matrix).tanh()
    sizes, u = (0.1, 0.7), noise(x, 4, 3)
    found = on_off_robustness(
        model, batch, sphere, sizes=sizes, directions=4, steps=gaussian_steps, seed=3, chunk=7
    )
    along = sphere.to_tangent(x, u)
    for vectors, field in ((along, found.on), (u - along, found.off)):
        for i, label in enumerate(batch.y):
            for j, size in enumerate(sizes):
                ends = model(torch.stack([x[i], *(x[i] + size * v for v in vectors[:, i])]))
                others = ends.clone()
                others[:, label] = -torch.inf
                margins = ends[:, label] - others.amax(1)
                expected = (margins[1:] - margins[0]).square().mean().sqrt()
                assert torch.allclose(field[i, j], expected, rtol=1e-9)
    assert torch.allclose(found.r, found.off / found.on)


def test_noise_is_normal_and_another_for_every_direction() -> None:
    """Within 5 standard errors of mean 0, variance 1 and no correlation between directions."""
    u = noise(torch.zeros(2000, 3, dtype=torch.float64), 4, 0).flatten(1)
    moments = u @ u.mT / u.shape[1]
    assert (moments - torch.eye(4)).abs().max() < 5 * (2 / u.shape[1]) ** 0.5
    assert u.mean(1).abs().max() < 5 / u.shape[1] ** 0.5
