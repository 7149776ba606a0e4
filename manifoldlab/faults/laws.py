"""Of trained networks and of theory checks themselves, seen by laws."""

from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from manifoldlab import calculus, panels, strategies
from manifoldlab.attacks.noise import noise
from manifoldlab.densities.smooth import Smooth, Tilt
from manifoldlab.draws import source
from manifoldlab.faults.base import Fault, normal
from manifoldlab.gaussian_regimes import GaussianRegimes
from manifoldlab.interfaces import Batch
from manifoldlab.manifolds.closed_curve import ClosedCurve
from manifoldlab.manifolds.helix import Helix
from manifoldlab.manifolds.sphere import Sphere
from manifoldlab.models.two_layer_relu import two_layer_relu
from manifoldlab.objectives.adversarial import adversarial

BATCH = Batch(normal(6, 4), torch.tensor([0, 1, 0, 1, 1, 0]))
B2 = "theory_checks.check_b2_isotropic_noise_leaks_along_normals"
D1 = "theory_checks.check_d1_noise_regularization_is_a_gradient_penalty"
F1 = "theory_checks.check_f1_attacks_are_tangent_or_normal_nearby"
G2 = "theory_checks.check_g2_max_margin_networks_leak_to_all_relevant_coordinates"


def _check(module: str) -> Any:
    """A theory check, which is above this package."""
    return import_module(module)


def _first(module: Any, family: str) -> Any:
    """A case of its law."""
    cases = list[Any]()
    strategies.search(module.LAW.cases()[family], cases.append, examples=1, number=0)
    return cases[0]


def _relu() -> Tensor:
    torch.manual_seed(0)
    found: Tensor = two_layer_relu((4,), 2, width=6).double()(BATCH.x)
    return found.detach()


def _moved() -> Tensor:
    torch.manual_seed(0)
    model = nn.Linear(4, 2).double()
    return adversarial(model, BATCH, source(0), strength=0.5, attack=noise)


def _risks() -> Tensor:
    module = _check(F1)
    flags = torch.tensor([[1, 0, 1], [0, 1, 1], [1, 1, 0], [0, 0, 1]]).bool()
    count = len(module.Risks._fields)
    found: Tensor = module.farther_or_nearby(module.Risks(*flags.repeat(2, 1)[:count]))
    return found


def _network() -> Tensor:
    module = _check(G2)
    found: Tensor = module.two_neurons(_first(module, "blocks")).inner
    return found


FAULTS = (
    Fault(
        "Nodes of a quadrature are rounded to float32",
        "panels",
        "return points, weight + half.log().sum(1, keepdim=True)",
        "return points.float().to(low), weight + half.log().sum(1, keepdim=True)",
        lambda: panels.nodes(torch.zeros(1, 1).double(), torch.ones(1, 1).double(), 4)[0],
        ("C2/closed_curve",),
    ),
    Fault(
        "The weights of a quadrature are those of panels twice as long",
        "panels",
        "return points, weight + half.log().sum(1, keepdim=True)",
        "return points, weight + (2 * half).log().sum(1, keepdim=True)",
        lambda: panels.nodes(torch.zeros(1, 1).double(), torch.ones(1, 1).double(), 4)[1],
        ("tests/test_quadrature.py::test_agrees_with_closed_forms",),
    ),
    Fault(
        "A closed curve is embedded in float32",
        "manifolds.closed_curve",
        "return self._short(z) @ self._frame[0].to(z).mT",
        "return (self._short(z) @ self._frame[0].to(z).mT).float().to(z)",
        lambda: ClosedCurve(3, 3, 0).embed(normal(4, 1)),
        ("C2/closed_curve",),
    ),
    Fault(
        "The second fundamental form has the wrong sign",
        "calculus",
        "return here.normal(congruence(second, here.triangle[:, None]))",
        "return -here.normal(congruence(second, here.triangle[:, None]))",
        lambda: calculus.second_fundamental_form(Sphere(2).embed, 0.3 * normal(2, 2)),
        ("B2/helix", "C3/helix"),
    ),
    Fault(
        "The curvature of a chart has the wrong sign",
        "nearest_point",
        "return rows.movedim(0, 2)",
        "return -rows.movedim(0, 2)",
        lambda: Helix().log_compression(1.1 * Helix().embed(normal(4, 1).abs())),
        ("B1t/clifford_torus/0",),
    ),
    Fault(
        "Gamma of a radius is half of it",
        "gaussian_regimes",
        "gamma: Tensor = (1 / t[..., 0]).where(inside, beyond)",
        "gamma: Tensor = (2 / t[..., 0]).where(inside, beyond)",
        lambda: GaussianRegimes(normal(3, seed=1), torch.eye(3).double()).gamma_of_radius(0.3),
        ("D5/general position",),
    ),
    Fault(
        "Smooth densities share one mass",
        "densities.smooth",
        "torch.tensor(self.priors, dtype=torch.float64).log() - self.log_masses",
        "torch.tensor(self.priors, dtype=torch.float64).log() - self.log_masses.mean()",
        lambda: Smooth(Helix(), Tilt(2, seed=0), (0.4, 0.6)).log_joint(normal(4, 1).abs() + 1),
        ("tests/test_densities.py::test_each_class_has_the_mass_of_its_prior", "E2/smooth"),
    ),
    Fault(
        "Inner weights have twice their variance",
        "models.two_layer_relu",
        "nn.init.normal_(self.inner.weight, std=scale)",
        "nn.init.normal_(self.inner.weight, std=2**0.5 * scale)",
        _relu,
        ("D3/gradient descent", "F2/gradient descent"),
    ),
    Fault(
        "Two layers are a sum of neurons, not their normalized sum",
        "models.two_layer_relu",
        "@ self.signs.to(x) / len(self.signs) ** 0.5",
        "@ self.signs.to(x)",
        _relu,
        ("D3/momentum", "tests/test_models.py::test_of_two_layers_the_outer_one_is_fixed"),
    ),
    Fault(
        "Adversarial training sees the clean samples",
        "objectives.adversarial",
        "return gradients.cross_entropy(model(moved), batch.y).mean()",
        "return gradients.cross_entropy(model(batch.x), batch.y).mean()",
        _moved,
        ("D4/adversarial training",),
    ),
    Fault(
        "The chance of chi-squares counts a degree too many",
        "theory_checks.trained_on_flats",
        "of_each = kolmogorov_p(values, scipy.stats.chi2(degrees).cdf)",
        "of_each = kolmogorov_p(values, scipy.stats.chi2(degrees + 1).cdf)",
        lambda: _check("theory_checks.trained_on_flats").chi_square_chances(
            normal(9, 3).square().sum(1), 3
        ),
        ("D3/gradient descent",),
    ),
    Fault(
        "The margin of two classes is the logit of the first",
        B2,
        "return logits[:, 0] - logits[:, 1]",
        "return logits[:, 0]",
        lambda: _check(B2).first_two(normal(4, 2), torch.zeros(4)),
        ("B2/helix",),
    ),
    Fault(
        "The third derivatives of a penalty are left out",
        D1,
        "third = third + (gradient * slope(trace)).sum(1)",
        "third = third + 0 * trace",
        lambda: _bend(),
        ("D1/sphere",),
    ),
    Fault(
        "A risk leaves the steps nearby out",
        F1,
        "return risks.farther.double() + risks.nearby.double()",
        "return risks.farther.double()",
        _risks,
        ("F1/caps",),
    ),
    Fault(
        "Two neurons are a coordinate too long",
        G2,
        "c = 1 / sqrt(2 * (case.relevant + 1))",
        "c = 1 / sqrt(2 * case.relevant)",
        _network,
        ("G2/blocks",),
    ),
    Fault(
        "A density of the normal law is twice as high",
        "theory_checks.smoothed_classifiers",
        "return bell / sqrt(2 * pi)",
        "return bell / sqrt(pi / 2)",
        lambda: _check("theory_checks.smoothed_classifiers").density(normal(4)),
        ("C5/half_spaces",),
    ),
    Fault(
        "Steps count as normal whatever their direction",
        "theory_checks.searched_flips",
        "return (tangent <= NORMAL * eps) & (length <= eps)",
        "return length <= eps",
        lambda: _normal(),
        ("F1/sphere/0",),
    ),
)


def _bend() -> Tensor:
    module = _check(D1)
    found: Tensor = module.LAW.measure(_first(module, "sphere")).right
    return found


def _normal() -> Tensor:
    steps, frame = normal(2, 3, 3), Sphere(2).tangent_basis(normal(3, 3))
    found: Tensor = _check("theory_checks.searched_flips")._normal(steps, frame, 5.0)
    return 1.0 + found.double()
