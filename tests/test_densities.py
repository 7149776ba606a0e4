"""Every law of the catalog on every chart that it lives on, and each family against closed forms."""

from functools import cache, reduce
from math import inf, isinf, pi, sqrt

import numpy as np
import pytest
import scipy
import torch
from torch import Tensor

from manifoldlab import catalog, panels
from manifoldlab.densities.base import Densities
from manifoldlab.densities.gaussian_mixtures import GaussianMixtures, random_gaussian_mixtures
from manifoldlab.densities.gaussians import Gaussians, random_gaussians
from manifoldlab.densities.smooth import Smooth, Tilt
from manifoldlab.densities.von_mises_fisher import VonMisesFisher, random_von_mises_fisher
from manifoldlab.densities.von_mises_product import VonMisesProduct
from manifoldlab.densities.wrapped_normals import WrappedNormals
from manifoldlab.directions import draw_about, draw_versine
from manifoldlab.interfaces import Chart
from manifoldlab.manifolds.clifford_torus import CliffordTorus
from manifoldlab.manifolds.drawn import Drawn
from manifoldlab.manifolds.flat import Flat
from manifoldlab.manifolds.moebius_band import MoebiusBand
from manifoldlab.manifolds.sphere import Sphere
from manifoldlab.nearest_point import jacobian
from manifoldlab.special import bessel_ratio, bessel_ratio_derivative
from manifoldlab.statistics import FALSE_ALARM, binomial_p, chi_square_p, kolmogorov_p

SEED = 1
MASS = 1e-8  # of a density, by which its integral may miss the prior
MOST_P_VALUES = 500  # in this file; together they fail by chance with less than FALSE_ALARM


def _charts(dim: int) -> list[Chart]:
    modules = (catalog.module("manifolds", name) for name in catalog.names("manifolds"))
    return [chart for module in modules for chart in module.examples(dim, SEED)]


@cache
def _laws(chart: Chart) -> list[Densities]:
    modules = (catalog.module("densities", name) for name in catalog.names("densities"))
    return [law for module in modules for law in module.examples(chart, SEED)]


CHARTS = [chart for dim in (1, 2) for chart in _charts(dim)]
each_chart = pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: repr(chart)[:50])


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _priors(law: Densities) -> Tensor:
    return torch.tensor(law.priors, dtype=torch.float64)


def _likely(p: float) -> bool:
    return p > FALSE_ALARM / MOST_P_VALUES


def _grid(low: Tensor, high: Tensor, boxes: int) -> tuple[Tensor, Tensor]:
    """Nodes (boxes^d, N, d) and log weights of a box, cut into that many an axis."""
    split = 8 if len(low) == 1 else 24 // boxes
    edges = panels.grid(low, high, (boxes,) * len(low))
    inner = [panels.grid(a, b, (split,) * len(low)) for a, b in zip(*edges, strict=True)]
    found = [panels.nodes(a, b, 12 if len(low) == 1 else 8) for a, b in inner]
    s, log_weights = (torch.stack([part[i].flatten(0, 1) for part in found]) for i in (0, 1))
    return s, log_weights


def _masses(chart: Chart, count: int) -> list[Tensor]:
    """int p(z, y) dz of each law by the chart's own patches, each cut into `count` panels an axis."""
    mass = [torch.zeros(law.num_classes, dtype=torch.float64) for law in _laws(chart)]
    for patch in chart.patches():
        low, high = torch.tensor([patch.low, patch.high], dtype=torch.float64)
        s, log_weights = panels.nodes(*panels.grid(low, high, (count,) * len(low)), 10)
        s, log_weights = s.flatten(0, 1), log_weights.flatten()
        z = patch.coordinates(s)
        log_weights += torch.linalg.slogdet(jacobian(patch.coordinates, s)).logabsdet
        for total, law in zip(mass, _laws(chart), strict=True):
            total += (law.log_joint(z) + log_weights[:, None]).exp().sum(0)
    return mass


@each_chart
def test_each_class_has_the_mass_of_its_prior(chart: Chart) -> None:
    """By ever more panels, for how many a law needs on an infinite axis depends on its width there.

    A panel of ten nodes has an error of the power 20 of its length, so that of the finer sum is far
    below the change from the coarser one.
    """
    before = _masses(chart, 6)
    for count in (12, 24, 48, 96):
        mass = _masses(chart, count)
        change = max((a - b).abs().max().item() for a, b in zip(mass, before, strict=True))
        if change < MASS:
            break
        before = mass
    assert change < MASS
    for total, law in zip(mass, _laws(chart), strict=True):
        assert (total - _priors(law)).abs().max() < MASS, law


@each_chart
def test_samples_fall_into_boxes_as_the_density_says(chart: Chart) -> None:
    """By labels, too. The bound on p is true at every n; infinite axes are drawn into (-1, 1)."""
    boxes = 12 if chart.dim == 1 else 4
    infinite = torch.tensor([isinf(axis.high) for axis in chart.axes])
    ends = [(-1.0, 1.0) if isinf(axis.high) else axis[:2] for axis in chart.axes]
    low, high = torch.tensor(ends, dtype=torch.float64).unbind(1)
    s, log_weights = _grid(low, high, boxes)
    z = torch.where(infinite, s / (1 - s.square()), s).flatten(0, 1)
    stretch = ((1 + s.square()) / (1 - s.square()).square()).log().where(infinite, 0).sum(2)
    for law in _laws(chart):
        log_joint = law.log_joint(z).reshape(*s.shape[:2], -1)
        expected = (log_joint + (log_weights + stretch)[:, :, None]).exp().sum(1)  # (boxes^d, K)
        drawn, y = law.sample(20_000, _generator())
        drawn = low + torch.remainder(drawn - low, high - low).where(~infinite, drawn - low)
        drawn = torch.where(infinite, 2 * drawn / (1 + (1 + 4 * drawn.square()).sqrt()), drawn)
        cells = ((drawn - low) / (high - low) * boxes).long().unbind(1)
        index = reduce(lambda total, cell: total * boxes + cell, cells) * law.num_classes + y
        observed = index.bincount(minlength=expected.numel())
        share = expected.flatten() / expected.sum()
        assert _likely(chi_square_p(observed, 20_000 * share)), law
        first = int((y == 0).sum())
        assert _likely(binomial_p(first, 20_000, float(_priors(law)[0]))), law


@each_chart
def test_a_law_obeys_the_contract(chart: Chart) -> None:
    names = [(kind, name) for kind in ("manifolds", "densities") for name in catalog.names(kind)]
    scope = {"inf": inf}
    for kind, name in names:
        scope |= vars(catalog.module(kind, name))
    assert _laws(chart), f"no law lives on {chart!r}"
    for law in _laws(chart):
        assert eval(repr(law), scope) == law
        assert hash(law) is not None
        assert 2 <= law.num_classes == len(_priors(law))
        z, y = law.sample(300, _generator(5))
        again = law.sample(300, _generator(5))
        assert torch.equal(z, again[0]) and torch.equal(y, again[1])
        assert z.shape == (300, chart.dim) == (300, law.dim) and z.dtype == torch.float64
        assert (
            y.shape == (300,)
            and y.dtype == torch.int64
            and 0 <= y.min() <= y.max() < law.num_classes
        )
        none, no_labels = law.sample(0, _generator())
        assert none.shape == (0, chart.dim) and none.dtype == torch.float64
        assert no_labels.shape == (0,) and no_labels.dtype == torch.int64
        assert law.log_joint(none).shape == (0, law.num_classes)
        value = law.log_joint(z)
        assert value.shape == (300, law.num_classes) and value.isfinite().all()
        single = law.log_joint(z.float())
        assert single.dtype == torch.float32
        assert ((single - value).abs() / value.abs().clamp_min(1)).quantile(0.9) < 1e-4


@each_chart
def test_log_joint_has_three_derivatives(chart: Chart) -> None:
    """The third against a central difference of the second, whose error is near 1e-5."""

    def second(law: Densities, z: Tensor, v: Tensor) -> Tensor:
        z = z if z.requires_grad else z.requires_grad_()
        share = torch.linspace(1, 2, law.num_classes, dtype=torch.float64)
        slope = torch.autograd.grad((law.log_joint(z) @ share).sum(), z, create_graph=True)[0]
        bend = torch.autograd.grad((slope * v).sum(), z, create_graph=True)[0]
        return (bend * v).sum(1)

    for law in _laws(chart):
        z, _ = law.sample(20, _generator(3))
        v = torch.randn(z.shape, generator=_generator(4), dtype=torch.float64)
        z, h = z.requires_grad_(), 1e-5
        third = (torch.autograd.grad(second(law, z, v).sum(), z)[0] * v).sum(1)
        ahead, behind = (second(law, z.detach() + t * v, v).detach() for t in (h, -h))
        size = third.abs() + second(law, z, v).detach().abs() + 1
        assert ((third - (ahead - behind) / (2 * h)) / size).abs().median() < 1e-4, law


@each_chart
def test_log_joint_stays_on_its_device_without_a_wait(chart: Chart) -> None:
    """On the device without numbers a stray CPU tensor raises, and so does a look at a value."""
    for law in _laws(chart):
        law.log_joint(law.sample(2, _generator())[0])  # what is computed once is computed here
        value = law.log_joint(torch.empty(5, law.dim, device="meta"))
        assert value.is_meta and value.dtype == torch.float32, law


def test_every_family_lives_somewhere() -> None:
    found = {type(law).__module__.split(".")[-1] for chart in CHARTS for law in _laws(chart)}
    assert found == set(catalog.names("densities"))


def test_gaussian_laws_are_scipys() -> None:
    law = random_gaussian_mixtures(3, (2, 1, 3), seed=4)
    z, _ = law.sample(50, _generator())
    for y in range(3):
        parts = zip(law.weights[y], law.means[y], law.covariances[y], strict=True)
        density = sum(w * scipy.stats.multivariate_normal(m, c).pdf(z.numpy()) for w, m, c in parts)
        expected = torch.from_numpy(np.log(law.priors[y] * density))
        assert (law.log_joint(z)[:, y] - expected).abs().max() < 1e-12
    plain = random_gaussians(3, 2, seed=4)
    alike = GaussianMixtures(
        ((1.0,), (1.0,)),
        tuple((m,) for m in plain.means),
        tuple((c,) for c in plain.covariances),
        plain.priors,
    )
    assert torch.equal(plain.log_joint(z), alike.log_joint(z))
    shared = random_gaussians(3, 2, seed=4, shared=True).components()
    assert torch.equal(shared.covariances[0], shared.covariances[1])


def test_gaussian_samples_have_their_covariances() -> None:
    """Along the axes of each covariance, where a wrong square root of it shows most."""
    law = random_gaussians(3, 2, seed=4, anisotropy=8)
    z, y = law.sample(20_000, _generator())
    parts = law.components()
    for k in range(2):
        squares, axes = torch.linalg.eigh(parts.covariances[k, 0])
        standard = (z[y == k] - parts.means[k, 0]) @ axes / squares.sqrt()
        for coordinate in standard.unbind(1):
            assert _likely(kolmogorov_p(coordinate, scipy.stats.norm.cdf))
        corners = (standard > 0).long() @ torch.tensor([4, 2, 1])
        expected = torch.full((8,), len(standard) / 8)
        assert _likely(chi_square_p(corners.bincount(minlength=8), expected))


def test_noise_broadens_gaussians() -> None:
    law, sigma = random_gaussians(4, 3, seed=0), 0.7
    noise = sigma**2 * torch.eye(4, dtype=torch.float64)
    broad = law.components().noisier(sigma)
    assert torch.equal(broad.covariances, law.components().covariances + noise)
    assert torch.equal(broad.means, law.components().means)


@pytest.mark.parametrize("sigma", [1e-3, 0.3, 1.0, 2.4999, 2.5001, 4.0, 50.0])
def test_wrapped_normals_are_the_sum_over_windings(sigma: float) -> None:
    law = WrappedNormals(((1.0,),), ((sigma,),), (1.0,))
    z = torch.linspace(-7, 7, 101, dtype=torch.float64)
    windings = 2 * pi * np.arange(-400, 401)
    away = np.remainder(z.numpy() - 1 + pi, 2 * pi) - pi
    terms = scipy.stats.norm.logpdf(away[:, None] + windings, scale=sigma)
    expected = torch.from_numpy(scipy.special.logsumexp(terms, axis=1))
    error = (law.log_joint(z[:, None])[:, 0] - expected).abs() / expected.abs().clamp_min(1)
    # rounding of z itself is worth |z - mu| eps / sigma^2 of the exponent (z - mu)^2 / 2 sigma^2
    assert error.max() < 4e-15 if sigma > 0.01 else 1e-13


@pytest.mark.parametrize("kappa", [0.0, 1e-3, 2.0, 300.0, 1e6])
def test_versines_follow_their_law(kappa: float) -> None:
    """S^1 by scipy; S^2 in closed form; any sphere at kappa = 0 a beta law; large kappa a gamma law."""
    generator, many = _generator(2), torch.full((20_000,), kappa, dtype=torch.float64)
    circle = draw_versine(2, many, generator)
    half = lambda v: 2 * np.arcsin(np.sqrt(v / 2))
    if kappa < 1e5:  # beyond, scipy's own law is a normal approximation
        law = scipy.stats.vonmises(kappa) if kappa else scipy.stats.uniform(-pi, 2 * pi)
        assert _likely(kolmogorov_p(circle, lambda v: 2 * law.cdf(half(v)) - 1))
    else:  # a gamma law up to a part of 1 / kappa
        cdf = scipy.stats.gamma(0.5, scale=1 / kappa).cdf
        assert _likely(kolmogorov_p(circle, cdf))
    sphere = draw_versine(3, many, generator)
    if kappa:
        exact = lambda v: np.expm1(-kappa * v) / np.expm1(-2 * kappa)
        assert _likely(kolmogorov_p(sphere, exact))
    if kappa in (0.0, 1e6):
        for n in (3, 50, 4001):
            drawn = draw_versine(n, many, generator)
            a = (n - 1) / 2
            law = (
                scipy.stats.gamma(a, scale=1 / kappa) if kappa else scipy.stats.beta(a, a, scale=2)
            )
            # e^{-kappa v} (v (1 - v/2))^{a-1}: the second factor moves the cdf by about a^2/kappa
            if a**2 < 1e-4 * kappa or not kappa:
                assert _likely(kolmogorov_p(drawn, law.cdf)), n


@pytest.mark.parametrize("n", [2, 3, 50, 3000])
@pytest.mark.parametrize("kappa", [0.0, 1.0, 300.0, 1e6])
def test_directions_have_their_mean_and_length(n: int, kappa: float) -> None:
    """Within 6.5 standard errors, by chance missed with 1e-10 each (the mean of 2000 is normal)."""
    mode = torch.randn(n, generator=_generator(n), dtype=torch.float64)
    mode = mode / mode.norm()
    u = draw_about(mode, torch.full((2000,), kappa, dtype=torch.float64), _generator(7))
    assert (u.norm(dim=1) - 1).abs().max() < 1e-14
    order, k = n / 2 - 1, torch.tensor(kappa, dtype=torch.float64)
    mean, variance = bessel_ratio(order, k), bessel_ratio_derivative(order, k)
    along = 1 - (u - mode).square().sum(1) / 2
    assert (along.mean() - mean).abs() < 6.5 * (variance / 2000).sqrt()
    other = torch.zeros(n, dtype=torch.float64)
    other[0], other[1] = mode[1], -mode[0]
    across = u @ other / other.norm()
    spread = (1 - variance - mean.square()).clamp_min(0) / (n - 1)
    assert across.mean().abs() < 6.5 * (spread / 2000).sqrt()
    assert (across.square().mean() / spread - 1).abs() < 6.5 * sqrt(2 / 2000)


@pytest.mark.parametrize("dim", [1, 2, 30, 3000])
def test_von_mises_fisher_is_its_formula_up_to_high_dimensions(dim: int) -> None:
    """log C_n from the mean: E log p is log C_n + kappa A(kappa), up to the volume of the chart."""
    law = random_von_mises_fisher(dim, (1, 1), SEED, priors=(0.5, 0.5))
    z, y = law.sample(1000, _generator())
    u = (
        torch.cat([2 * z, 1 - z.square().sum(1, keepdim=True)], 1)
        / (1 + z.square().sum(1))[:, None]
    )
    assert (u.norm(dim=1) - 1).abs().max() < 1e-13
    for k, location in enumerate(law.components().locations[:, 0]):
        kappa = location.norm()
        along = u[y == k] @ location / kappa
        mean = bessel_ratio(dim / 2 - 0.5, kappa)
        error = (bessel_ratio_derivative(dim / 2 - 0.5, kappa) / len(along)).sqrt()
        assert (along.mean() - mean).abs() < 6.5 * error
    log_volume = Sphere(dim).log_volume(z)
    margin = u @ (law.components().locations[0, 0] - law.components().locations[1, 0])
    found = (law.log_joint(z) - log_volume[:, None]).diff(dim=1).squeeze(1) + margin
    assert (found - found[0]).abs().max() < 1e-10  # the difference of the normalizers


@pytest.mark.parametrize(("dim", "radius"), [(1, 2.0), (2, 0.7), (3, 1.0)])
def test_two_families_agree_on_the_sphere(dim: int, radius: float) -> None:
    """Smooth, normalized by quadrature, and von Mises-Fisher, by Bessel functions."""
    law = random_von_mises_fisher(dim, (1, 1), SEED)
    locations = law.components().locations[:, 0]
    smooth = Smooth(Sphere(dim, radius), lambda m: m / radius @ locations.mT, law.priors)
    z, _ = law.sample(100, _generator())
    assert (smooth.log_joint(z) - law.log_joint(z)).abs().max() < 1e-12


def test_von_mises_products_are_scipys() -> None:
    locations = (((1.2, -0.5), (0.0, 3.0)),), (((0.0, 0.0), (-40.0, 1.0)),)
    law = VonMisesProduct(((1.0,), (1.0,)), locations, (0.3, 0.7))
    z, _ = law.sample(50, _generator())
    for y in range(2):
        expected = np.full(50, np.log(law.priors[y]))
        for angle, (a, b) in zip(z.numpy().T, locations[y][0], strict=True):
            kappa, mu = np.hypot(a, b), np.arctan2(b, a)
            expected += kappa * np.cos(angle - mu) - np.log(2 * pi * scipy.special.i0(kappa))
        assert np.abs(law.log_joint(z)[:, y].numpy() - expected).max() < 1e-12


def test_smooth_densities_know_the_area() -> None:
    flat_weight = lambda m: torch.zeros(len(m), 2, dtype=m.dtype)
    charts = {Sphere(1, 2.0): 4 * pi, Sphere(2, 0.5): pi, CliffordTorus((1.0, 0.5)): 2 * pi**2}
    for chart, area in charts.items():
        found = Smooth(chart, flat_weight, (0.5, 0.5)).log_masses.exp()
        assert (found / area - 1).abs().max() < 1e-14


def test_smooth_densities_depend_on_the_point_only() -> None:
    band, torus = MoebiusBand(), CliffordTorus((1.0, 0.5))
    z = torch.tensor([[0.3, 0.1], [2.0, -0.2]], dtype=torch.float64)
    around = torch.tensor([2 * pi, 0.0], dtype=torch.float64)
    twist = torch.tensor([1.0, -1.0], dtype=torch.float64)
    for chart, same in ((band, z * twist + around), (torus, z + around)):
        law = Smooth(chart, Tilt(2), (0.5, 0.5))
        assert (law.log_joint(z) - law.log_joint(same)).abs().max() < 1e-13


@each_chart
def test_smooth_densities_vanish_at_edges(chart: Chart) -> None:
    (law,) = catalog.module("densities", "smooth").examples(chart, SEED)
    for i, axis in enumerate(chart.axes):
        if axis.wraps or isinf(axis.high):
            continue
        middle = [0.0 if isinf(a.high) else 0.4 * a.low + 0.6 * a.high for a in chart.axes]
        z = torch.tensor([middle] * 3, dtype=torch.float64)
        width = axis.high - axis.low
        z[:, i] = torch.tensor([axis.low, axis.high + 0.01 * width, axis.high - 1e-4 * width])
        z.requires_grad_()
        value = law.log_joint(z)
        assert (value[:2] == -inf).all() and value[2].isfinite().all()
        slope = torch.autograd.grad(value[2].sum(), z)[0][2]
        assert slope.isfinite().all() and -slope[i] > 0.9 * 6 * law.num_classes / (1e-4 * width)


def test_narrow_smooth_densities_are_integrated_and_drawn_exactly() -> None:
    """Peaks narrower than a cell of the envelope, which has to be raised for them."""
    locations = torch.tensor([[3e5, 0.0], [0.0, -3e4]], dtype=torch.float64)
    weights, tuples = ((1.0,), (1.0,)), tuple((tuple(row),) for row in locations.tolist())
    exact = VonMisesFisher(weights, tuples, (0.5, 0.5))
    law = Smooth(Sphere(1), lambda m: m @ locations.mT, (0.5, 0.5))
    z, y = law.sample(5000, _generator())
    assert (law.log_joint(z) - exact.log_joint(z)).abs().max() < 1e-7  # kappa eps, from the formula
    m = Sphere(1).embed(z)
    for k, location in enumerate(locations):
        angle = torch.atan2(m[:, 1], m[:, 0]) - torch.atan2(location[1], location[0])
        cdf = scipy.stats.norm(scale=float(location.norm()) ** -0.5).cdf  # up to 1 / kappa
        assert _likely(kolmogorov_p(angle[y == k], cdf))


EYE = ((1.0, 0.0), (0.0, 1.0))
HALVES = (0.5, 0.5)
ONES = ((1.0,), (1.0,))
TWO = ((0.0, 0.0), (1.0, 0.0))
BAD = [
    (lambda: Gaussians(TWO, (EYE,), (0.5, 0.6)), "sum to 1, not .* with sum 1.1: Gaussians"),
    (lambda: Gaussians(TWO, (EYE,), (1.0, 0.0)), "priors must be positive"),
    (lambda: Gaussians(TWO[:1], (EYE,), HALVES), "means of 1 classes for 2 priors: Gaussians"),
    (lambda: Gaussians(((0.0,), (0.0, 1.0)), (EYE,), HALVES), "means of different sizes"),
    (lambda: Gaussians(TWO, (((1.0,),),), HALVES), r"of shape \(1, 1\) for means of shape \(2,\)"),
    (lambda: Gaussians(TWO, (((1.0, 2.0), (2.0, 1.0)),), HALVES), "not of eigenvalue -1.0: Gauss"),
    (lambda: Gaussians(TWO, (((1.0, 0.5), (0.0, 1.0)),), HALVES), "must be symmetric: Gaussians"),
    (lambda: Gaussians(((0.0, inf), (0.0, 0.0)), (EYE,), HALVES), "means must be finite"),
    (
        lambda: GaussianMixtures(((0.5, 0.4), (1.0,)), ((TWO), TWO[:1]), ((EYE,), (EYE,)), HALVES),
        "weights of a mixture must be positive and sum to 1, not .* with sum 0.9: GaussianMix",
    ),
    (
        lambda: GaussianMixtures(ONES, (TWO, TWO), ((EYE,), (EYE,)), HALVES),
        r"means of \[2, 2\] components a class, weights of \[1, 1\]: GaussianMixtures",
    ),
    (lambda: VonMisesFisher(ONES, (((1.0,),),) * 2, HALVES), "vectors of R.n, n >= 2: VonMises"),
    (lambda: VonMisesFisher(ONES[:1], ((TWO[0],),) * 2, HALVES), "of 1 mixtures for 2 priors: Von"),
    (lambda: VonMisesProduct(ONES, ((TWO[0],),) * 2, HALVES), "d vectors of R.2 a component: Von"),
    (lambda: WrappedNormals(TWO, TWO, HALVES), "deviations must be positive: WrappedNormals"),
    (lambda: WrappedNormals(TWO, ONES, HALVES), "deviations of 1 angles for means of 2: Wrapped"),
    (lambda: Smooth(Flat(4), Tilt(2), HALVES), "for dimensions 1 to 3, not 4: Smooth"),
    (lambda: Smooth(Sphere(2), Tilt(3), HALVES), r"shape \(\d+, 3\) at \d+ points for 2 priors"),
    (lambda: Smooth(Sphere(2), Tilt(2, inf), HALVES), "not positive and finite everywhere: Smooth"),
    (lambda: Smooth(Sphere(1), lambda m: m.log(), HALVES), "not positive and finite everywhere"),
    (lambda: Smooth(Flat(1), Tilt(2), HALVES).log_masses, "mass does not converge: .*: Smooth"),
]


@pytest.mark.parametrize(("build", "line"), BAD, ids=range(len(BAD)))
def test_bad_laws_are_refused_in_one_line(build, line) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=line) as refused:
        build()
    assert "\n" not in str(refused.value)


def test_a_third_dimension() -> None:
    """Where the manifold is bounded; on others the quadrature would take too many nodes."""
    examples = catalog.module("densities", "smooth").examples
    (law,) = examples(CliffordTorus((1.0, 0.5, 0.8)), 0)
    z, _ = law.sample(1000, _generator())
    assert law.log_joint(z).isfinite().all()
    assert len(examples(Drawn(("x", "y", "size"), (1, 8, 8)), 0)) == 1
    assert examples(Flat(3), 0) == []
