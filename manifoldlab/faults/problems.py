"""Of densities and problems."""

from collections.abc import Callable

import torch
from torch import Tensor

from manifoldlab import catalog, mixtures
from manifoldlab.densities.base import Densities
from manifoldlab.densities.gaussian_mixtures import random_gaussian_mixtures
from manifoldlab.densities.gaussians import random_gaussians
from manifoldlab.densities.von_mises_fisher import random_von_mises_fisher
from manifoldlab.densities.von_mises_product import random_von_mises_product
from manifoldlab.densities.wrapped_normals import random_wrapped_normals
from manifoldlab.draws import source
from manifoldlab.faults.base import Fault, normal
from manifoldlab.problems.base import Problem
from manifoldlab.problems.separate_manifolds import crossing_flats
from manifoldlab.problems.tube import CutGaussian

GAUSSIANS, WRAPPED = random_gaussians(2, 3, 0), random_wrapped_normals(2, 3, 0)
FISHER, PRODUCT = random_von_mises_fisher(2, (1, 2), 0), random_von_mises_product(2, (1, 2), 0)


def _law(law: Densities) -> Callable[[], Tensor]:
    return lambda: law.log_joint(normal(4, 2))


def _drawn(law: Densities) -> Callable[[], Tensor]:
    return lambda: law.sample(50, source(0))[0]


def _example(name: str, number: int = 0) -> Problem:
    found: Problem = catalog.module("problems", name).examples(2)[number]
    return found


def _joint(name: str, number: int = 0) -> Callable[[], Tensor]:
    """log p(x, y) at points of an example of the catalog."""
    problem = _example(name, number)
    return lambda: problem.log_joint(0.9 * problem.sample(3, source(0)).x)


def _samples(name: str, number: int = 0) -> Callable[[], Tensor]:
    return lambda: _example(name, number).sample(50, source(0)).x


def _leak(number: int) -> Tensor:
    from manifoldlab.problems.correlated_noise import CorrelatedNoise

    problem = _example("correlated_noise", number)
    assert isinstance(problem, CorrelatedNoise)
    batch = problem.sample(4, source(0))
    return problem.normal_gradient(batch.x, batch.y)


FAULTS = (
    Fault(
        "The normalizer of a Gaussian lacks the power of 2 pi",
        "gaussian_components",
        "constant = self.log_weights - half_log_det - self.means.shape[2] / 2 * log(2 * pi)",
        "constant = self.log_weights - half_log_det",
        _law(GAUSSIANS),
        ("tests/test_densities.py::test_gaussian_laws_are_scipys", "E2/gaussian_subspace"),
    ),
    Fault(
        "The normalizer of a Gaussian has its determinant, not the root of it",
        "gaussian_components",
        "constant = self.log_weights - half_log_det - self",
        "constant = self.log_weights - 2 * half_log_det - self",
        _law(GAUSSIANS),
        ("tests/test_densities.py::test_gaussian_laws_are_scipys", "E2/gaussian_subspace"),
    ),
    Fault(
        "Gaussian noise is added with its deviation for its variance",
        "gaussian_components",
        "self.covariances + sigma**2 * eye",
        "self.covariances + sigma * eye",
        _joint("gaussian_subspace"),
        ("tests/test_densities.py::test_noise_broadens_gaussians", "C2/gaussian_subspace"),
    ),
    Fault(
        "Gaussians are drawn with the transposed factor",
        "gaussian_components",
        "z[component == j] += noise[component == j] @ factor.mT",
        "z[component == j] += noise[component == j] @ factor",
        _drawn(GAUSSIANS),
        ("tests/test_densities.py::test_gaussian_samples_have_their_covariances",),
    ),
    Fault(
        "Gaussian logits are computed in float32",
        "gaussian_components",
        "return (constant.to(z)[..., None] - white.square().sum(2) / 2).logsumexp(1).mT",
        "return (\n"
        "            (constant.to(z)[..., None] - white.square().sum(2) / 2).float().logsumexp(1).mT.to(z)\n"
        "        )",
        _law(GAUSSIANS),
        ("C1/gaussian_subspace", "B3/signal_distractor"),
    ),
    Fault(
        "The weights of a mixture are not multiplied by the prior",
        "mixtures",
        "return value + torch.tensor(priors, dtype=torch.float64).log()[:, None]",
        "return value",
        _law(random_gaussian_mixtures(2, (2, 1), 0)),
        ("tests/test_densities.py::test_each_class_has_the_mass_of_its_prior",),
    ),
    Fault(
        "The label of a component counts the classes, not the components of one",
        "mixtures",
        "return component, component // log_weights.shape[1]",
        "return component, component // log_weights.shape[0]",
        lambda: mixtures.draw(normal(2, 3), 50, source(0))[1],
        ("tests/test_densities.py::test_samples_fall_into_boxes_as_the_density_says",),
    ),
    Fault(
        "A von Mises-Fisher law lacks the volume of its chart",
        "densities.von_mises_fisher",
        "return mixed + self.dim * (log(2) - z.square().sum(1, keepdim=True).log1p())",
        "return mixed",
        _law(FISHER),
        (
            "tests/test_densities.py::test_each_class_has_the_mass_of_its_prior",
            "E2/von_mises_fisher",
        ),
    ),
    Fault(
        "A versine lacks its half",
        "densities.von_mises_fisher",
        ".square().sum(3) / 2",
        ".square().sum(3)",
        _law(FISHER),
        ("tests/test_densities.py::test_von_mises_fisher_is_its_formula_up_to_high_dimensions",),
    ),
    Fault(
        "A product of von Mises laws has the versine of the whole angle",
        "densities.von_mises_product",
        "versine = 2 * ((z[:, None, None] - angles) / 2).sin().square()",
        "versine = 2 * (z[:, None, None] - angles).sin().square()",
        _law(PRODUCT),
        ("tests/test_densities.py::test_von_mises_products_are_scipys",),
    ),
    Fault(
        "A product of von Mises laws is drawn with concentrations halved",
        "densities.von_mises_product",
        "draw_versine(2, kappa.flatten(), generator)",
        "draw_versine(2, kappa.flatten() / 2, generator)",
        _drawn(PRODUCT),
        ("tests/test_densities.py::test_samples_fall_into_boxes_as_the_density_says",),
    ),
    Fault(
        "A wrapped normal law winds once each way",
        "densities.wrapped_normals",
        "WINDINGS = 5",
        "WINDINGS = 1",
        _law(random_wrapped_normals(2, 2, 0, deviation=1.6)),
        ("tests/test_densities.py::test_wrapped_normals_are_the_sum_over_windings",),
    ),
    Fault(
        "The Fourier series of a wrapped normal law lacks its factor 2",
        "densities.wrapped_normals",
        "return (2 * (height * (k * away[..., None]).cos()).sum(-1)).log1p() - log(2 * pi)",
        "return ((height * (k * away[..., None]).cos()).sum(-1)).log1p() - log(2 * pi)",
        _law(random_wrapped_normals(2, 2, 0, deviation=3.0)),
        ("tests/test_densities.py::test_wrapped_normals_are_the_sum_over_windings",),
    ),
    Fault(
        "The noise of a Gaussian is its deviation for its variance",
        "problems.gaussian_subspace",
        "square = linalg.squared_norm(offset) / noise**2",
        "square = linalg.squared_norm(offset) / noise",
        _joint("gaussian_subspace"),
        ("C2/gaussian_subspace", "tests/test_problems.py::test_gaussian_subspace_is_exact"),
    ),
    Fault(
        "The normalizer of normal noise counts all dimensions",
        "problems.gaussian_subspace",
        "codim = self.manifold.ambient - self.manifold.dim",
        "codim = self.manifold.ambient",
        _joint("gaussian_subspace"),
        ("E2/gaussian_subspace", "tests/test_problems.py::test_gaussian_subspace_is_exact"),
    ),
    Fault(
        "The normalizer of normal noise is off by one dimension",
        "problems.von_mises_sphere",
        "codim = self.manifold.ambient - self.manifold.dim - 1",
        "codim = self.manifold.ambient - self.manifold.dim",
        _joint("von_mises_sphere", 1),
        ("E2/von_mises_sphere", "tests/test_problems.py::test_von_mises_sphere_is_exact"),
    ),
    Fault(
        "The pull of a blurred sphere has the noise for its square",
        "problems.von_mises_sphere",
        "pull = radius / variance",
        "pull = radius / noise",
        _joint("von_mises_sphere", 1),
        ("C2/von_mises_sphere", "tests/test_problems.py::test_von_mises_sphere_is_exact"),
    ),
    Fault(
        "Noises add up by their deviations, not by their variances",
        "problems.base",
        "return replace(self, noise=hypot(self.noise, sigma))",
        "return replace(self, noise=self.noise + sigma)",
        lambda: torch.tensor(vars(_example("gaussian_subspace").noisier(0.3))["noise"]),
        (
            "tests/test_problems.py::test_noise_added_twice_is_noise_added_once",
            "D2/von_mises_torus",
        ),
    ),
    Fault(
        "Samples are noisy by the variance of the noise",
        "problems.base",
        "self.manifold.embed(z) + self.noise * noise",
        "self.manifold.embed(z) + self.noise**2 * noise",
        _samples("gaussian_subspace"),
        ("tests/test_problems.py::test_offsets_from_a_plane_have_the_noise_of_the_problem",),
    ),
    Fault(
        "Labels are shifted by one sample",
        "problems.base",
        "self.noise * noise, y)",
        "self.noise * noise, y.roll(1))",
        lambda: _example("gaussian_subspace").sample(50, source(0)).y,
        ("tests/test_problems.py::test_labels_follow_the_posterior",),
    ),
    Fault(
        "A tube lacks the compression of its coordinates",
        "problems.tube",
        "self.densities.log_joint(z) + self.manifold.log_compression(x)[:, None] + radial",
        "self.densities.log_joint(z) + radial",
        _joint("tube"),
        ("tests/test_problems.py::test_mass_of_a_tube_is_one", "B1t/clifford_torus/0"),
    ),
    Fault(
        "Noise that is cut is normalized as if it were not",
        "problems.tube",
        "return -0.5 * square / self.noise / self.noise - self._log_mass",
        "return -0.5 * square / self.noise / self.noise - self._order * log(2 * pi * self.noise**2)",
        _joint("tube", 1),
        ("tests/test_problems.py::test_mass_of_a_tube_is_one",),
    ),
    Fault(
        "The codimension of a tube is one too large",
        "problems.tube",
        "return self.manifold.ambient - self.manifold.dim",
        "return self.manifold.ambient - self.manifold.dim + 1",
        _joint("tube"),
        ("tests/test_problems.py::test_mass_of_a_tube_is_one", "E2/clifford_torus"),
    ),
    Fault(
        "Offsets in a tube have tangential parts",
        "problems.tube",
        "direction = linalg.unit(noise - self.manifold.to_tangent(nearest, noise))",
        "direction = linalg.unit(noise)",
        _samples("tube"),
        ("tests/test_problems.py::test_normal_offsets_follow_the_cut_gaussian",),
    ),
    Fault(
        "A cut Gaussian has quantiles of another dimension",
        "problems.tube",
        "inside = gammainc(self._order, self._height)",
        "inside = gammainc(self._order + 0.5, self._height)",
        lambda: CutGaussian(2, 1.0, 0.4).radii(torch.tensor([0.2, 0.9], dtype=torch.float64)),
        ("tests/test_problems.py::test_cut_gaussian_is_exact",),
    ),
    Fault(
        "A quadrature is blurred by twice its variance",
        "problems.quadrature",
        "exponent = shift[:, None] - square / (2 * self.noise**2)",
        "exponent = shift[:, None] - square / (4 * self.noise**2)",
        _joint("quadrature"),
        ("C2/helix", "B4/helix"),
    ),
    Fault(
        "A quadrature lacks the change of its parameters",
        "problems.quadrature",
        "density[chosen] = self.densities.log_joint(z) + change[:, None]",
        "density[chosen] = self.densities.log_joint(z)",
        lambda: _round(),
        ("tests/test_quadrature.py::test_agrees_with_closed_forms",),
    ),
    Fault(
        "The denoiser of a quadrature weighs the classes alike",
        "problems.quadrature",
        "log_joint.softmax(1), mean)",
        "torch.full_like(log_joint, 1 / self.num_classes), mean)",
        lambda: _denoised(),
        ("C2/helix", "C3/helix"),
    ),
    Fault(
        "A distractor leaks what the label shifts",
        "problems.signal_distractor",
        "self.label_shift * labels + self.regression",
        "(self.label_shift + 1e-3) * labels + self.regression",
        _joint("signal_distractor"),
        ("B3/signal_distractor",),
    ),
    Fault(
        "A distractor has its spread without the noise",
        "problems.signal_distractor",
        "return hypot(self.spread, self.noise)",
        "return self.spread",
        _joint("signal_distractor"),
        ("tests/test_problems.py::test_signal_distractor_is_exact",),
    ),
    Fault(
        "The predicted leak of noise forgets what its class is",
        "problems.correlated_noise",
        "return along[:, None] * self.direction.to(x) - rest / noise.square()[:, None]",
        "return along[:, None] * self.direction.to(x) - rest / self.noise**2",
        lambda: _leak(0),
        ("tests/test_problems.py::test_noise_of_the_class_leaks",),
    ),
    Fault(
        "Manifolds of their own have no priors",
        "problems.separate_manifolds",
        "[part.log_joint(x) + prior for part, prior in parts]",
        "[part.log_joint(x) for part, _ in parts]",
        _joint("separate_manifolds", 2),
        ("tests/test_problems.py::test_priors_of_separate_manifolds_add_their_logarithms",),
    ),
    Fault(
        "The geometry of a batch is that of the labels of another",
        "problems.separate_manifolds",
        "geometries=tuple(g.at(batch) for g in self.geometries), labels=batch.y)",
        "geometries=tuple(g.at(batch) for g in self.geometries))",
        lambda: _other_labels(),
        ("tests/test_problems.py::test_geometry_follows_the_labels_of_the_batch",),
    ),
    Fault(
        "Factors of a mixture have their noise twice",
        "factor_components",
        "total = law.deviations.square() + variance[..., None]",
        "total = law.deviations.square() + 2 * variance[..., None]",
        _joint("factor_mixture"),
        ("tests/test_factor_mixture.py::test_log_joint_and_score_are_those_of_dense_gaussians",),
    ),
    Fault(
        "The determinant of a mixture of factors counts all dimensions",
        "factor_components",
        "(law.ambient - law.dim) * variance.log()",
        "law.ambient * variance.log()",
        _joint("factor_mixture"),
        ("tests/test_factor_mixture.py::test_log_joint_and_score_are_those_of_dense_gaussians",),
    ),
    Fault(
        "The tangent space at a sample is that of the most likely component of another class",
        "factor_components",
        "torch.arange(len(x), device=x.device), y].argmax(1)",
        "torch.arange(len(x), device=x.device), y - 1].argmax(1)",
        lambda: _frames(),
        ("tests/test_factor_mixture.py::test_geometry_takes_labels_and_points_of_the_batch",),
    ),
)


def _round() -> Tensor:
    from manifoldlab.manifolds.sphere import Sphere
    from manifoldlab.problems.quadrature import Quadrature

    return Quadrature(Sphere(1), random_von_mises_fisher(1, (1, 1), 0), 0.3).log_joint(normal(3, 2))


def _denoised() -> Tensor:
    from manifoldlab.problems.quadrature import Quadrature

    problem = _example("quadrature")
    assert isinstance(problem, Quadrature)
    return problem.denoise(problem.sample(3, source(0)).x)


def _frames() -> Tensor:
    problem = _example("factor_mixture")
    batch = problem.sample(40, source(0))
    return problem.geometry(batch).to_tangent(batch.x, normal(*batch.x.shape))


def _other_labels() -> Tensor:
    problem = crossing_flats(2, 2, 0.3)
    batch = problem.sample(10, source(0))
    geometry = problem.geometry(batch._replace(y=(batch.y + 1) % problem.num_classes)).at(batch)
    return geometry.to_tangent(batch.x, normal(*batch.x.shape))
