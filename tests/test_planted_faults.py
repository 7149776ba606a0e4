"""Faults planted one at a time, each seen by the law that should see it, which holds without it.

A fault replaces the body of a function, wherever that has been imported. It is seen where the law is
refuted or, if the fault makes a law trivial or touches only what a control predicts, where the control
is not rejected any more.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from math import log
from typing import Any, final

import pytest
import torch
from torch import Tensor

from manifoldlab import (
    calculus,
    catalog,
    energies,
    expectations,
    gaussian_regimes,
    gradients,
    linalg,
    nearest_point,
    panels,
    special,
    statistics,
    verification,
)
from manifoldlab.gaussian_components import GaussianComponents
from manifoldlab.gaussian_regimes import GaussianRegimes
from manifoldlab.manifolds.base import Manifold
from manifoldlab.manifolds.closed_curve import ClosedCurve
from manifoldlab.manifolds.sphere import Sphere
from manifoldlab.objectives.gradient_penalty import gradient_penalty
from manifoldlab.objectives.noise_augmentation import noise_augmentation
from manifoldlab.probes import on_off_robustness
from manifoldlab.problems import gaussian_subspace, quadrature, von_mises_sphere
from manifoldlab.problems.base import Isotropic
from manifoldlab.problems.quadrature import Quadrature
from manifoldlab.problems.tube import CutGaussian, Tube
from manifoldlab.theorem import Control, Theorem
from theory_checks import check_b2_isotropic_noise_leaks_along_normals as b2
from theory_checks import check_d1_noise_regularization_is_a_gradient_penalty as d1
from theory_checks import check_e2_energies_are_known_up_to_a_function as e2
from theory_checks import check_f1_attacks_are_tangent_or_normal_nearby as f1
from theory_checks import check_g2_max_margin_networks_leak_to_all_relevant_coordinates as g2
from theory_checks import searched_flips, smoothed_classifiers
from theory_checks.check_a1_squared_changes_show_the_normal_share_of_the_gradient import LAW as A1
from theory_checks.check_a2_finite_noise_adds_a_constant_times_its_square import LAW as A2
from theory_checks.check_a3_unit_steps_weigh_each_dimension import LAW as A3
from theory_checks.check_a4_tilted_tangent_spaces_err_by_the_sine import LAW as A4
from theory_checks.check_b1_flat_bayes_margins_are_tangent import LAW as B1
from theory_checks.check_b1t_tube_margins_are_tangent import LAW as B1T
from theory_checks.check_b3_distractors_leave_no_gradient import LAW as B3
from theory_checks.check_b4_separate_manifolds_turn_margins_normal import LAW as B4
from theory_checks.check_c1_posterior_gradients_split_into_scores import LAW as C1
from theory_checks.check_c2_the_score_points_to_the_posterior_mean import LAW as C2
from theory_checks.check_c3_denoisers_project_on_the_tangent_space import LAW as C3
from theory_checks.check_c5_smoothed_classifiers_are_lipschitz_in_probits import LAW as C5
from theory_checks.check_d2_noisy_training_finds_the_bayes_rule_of_more_noise import LAW as D2
from theory_checks.check_d5_robust_bayes_rules_are_linear_in_closed_form import LAW as D5
from theory_checks.check_d6_robust_trainings_find_one_family_of_rules import LAW as D6
from theory_checks.check_e1_cross_entropy_is_a_difference_of_energies import LAW as E1
from theory_checks.check_e3_posterior_divergence_is_made_of_energies import LAW as E3
from theory_checks.check_e4_attacks_change_the_energy_along_the_log_odds import LAW as E4
from theory_checks.check_e5_the_weat_weight_is_finite_for_any_energy import LAW as E5

B2, D1, E2, F1, G2 = b2.LAW, d1.LAW, e2.LAW, f1.LAW, g2.LAW
FIRST, SECOND = 0, 1  # control
Function = Callable[..., Any]
Change = Callable[[Function], Function]


@final
@dataclass(frozen=True)
class Fault:
    function: Function
    change: Change
    law: Theorem
    family: str  # on which the law is checked
    control: int | None = None  # by which it is seen, if not by the law itself

    def __str__(self) -> str:
        where = "" if self.control is None else f"-control{self.control}"
        name = f"{self.function.__module__}.{self.function.__qualname__}".removeprefix(
            "manifoldlab."
        )
        return f"{name}-{self.change.__name__}-{self.law.id}-{self.family}{where}"


def doubled(function: Function) -> Function:
    """A factor 2 in a normalizer."""
    return lambda *args: function(*args) + log(2)


def twice(function: Function) -> Function:
    return lambda *args: 2 * function(*args)


def negative(function: Function) -> Function:
    return lambda *args: -function(*args)


def identity(function: Function) -> Function:
    """Of a projection: its last argument."""
    del function
    return lambda *args: args[-1]


def single(function: Function) -> Function:
    """float32 where float64 is meant."""

    def rounded(*args: Any) -> Any:
        found = function(*(a.float() if isinstance(a, Tensor) else a for a in args))
        return tuple(t.double() for t in found) if isinstance(found, tuple) else found.double()

    return rounded


def rounded(function: Function) -> Function:
    return lambda *args: function(*args).float().double()


def one_more(function: Function) -> Function:
    """Off by one in the last whole number, which is a dimension."""

    def change(*args: Any) -> Any:
        last = max(k for k, value in enumerate(args) if isinstance(value, int))
        return function(*args[:last], args[last] + 1, *args[last + 1 :])

    return change


def one_added(function: Function) -> Function:
    return lambda *args: function(*args) + 1


def raw(function: Function) -> Function:
    """A tangent basis that is not orthonormal."""
    del function
    return lambda m, x: nearest_point.jacobian(m.embed, m.coordinates(x))


def oblique(function: Function) -> Function:
    """A tangent basis of unit vectors that are not orthogonal."""
    return lambda m, x: torch.nn.functional.normalize(raw(function)(m, x), dim=1)


def as_logit(function: Function) -> Function:
    """A wrong head."""
    del function
    return lambda logits, y: logits.gather(1, y[:, None]).squeeze(1)


def as_sum(function: Function) -> Function:
    del function
    return lambda logits, y: logits.sum(1)


def nearest(function: Function) -> Function:
    """A denoiser that ignores the density."""
    del function
    return lambda problem, x: problem.manifold.nearest(x)


def without_covariance(function: Function) -> Function:
    """Second derivatives of the chart for a Hessian."""
    del function

    def plain(embed: Function, f: Function, z: Tensor) -> Tensor:
        second = nearest_point.curvature_form(f, z, torch.ones_like(z[:, 0]))
        return calculus.congruence(second, calculus.frame(embed, z).triangle)

    return plain


def first(function: Function) -> Function:
    """No limit but the value at the smallest scale."""
    del function
    return lambda values: values[0]


def swapped(function: Function) -> Function:
    return lambda size, dim: function(size, size - dim)


def ascending(function: Function) -> Function:
    return lambda *args: function(*args).flip(-1)


def as_softplus(function: Function) -> Function:
    """The function of torch, which is linear beyond 20."""
    del function
    return lambda energy: 1 / torch.nn.functional.softplus(energy.abs())


def always(function: Function) -> Function:
    return lambda *args: torch.ones_like(function(*args))


def without_normal_steps(function: Function) -> Function:
    del function
    return lambda risks: risks.farther.double()


def at_half_the_distance(function: Function) -> Function:
    del function
    return lambda risks: risks.on.double() + risks.nearby.double()


def summed(function: Function) -> Function:
    """A sum of neurons for their mean."""
    return lambda case: function(case)._replace(share=1.0)


def with_negative_bias(function: Function) -> Function:
    """The neurons of one sign of the bias."""
    return lambda spread: [(rows, slope) for rows, slope in function(spread) if rows[0, -1] < 0]


def stronger(function: Function) -> Function:
    """An objective of twice the strength."""
    return lambda *args, strength, **options: function(*args, strength=2 * strength, **options)


def of_root(function: Function) -> Function:
    """gamma = sigma, not its square."""
    return lambda pair, sigma: function(pair, sigma**0.5)


def of_twice(function: Function) -> Function:
    """gamma = 4 lambda / E l''."""
    return lambda pair, strength: function(pair, 2 * strength)


def added(function: Function) -> Function:
    """Deviations of noises, not their squares."""
    del function
    return lambda problem, sigma: replace(problem, noise=problem.noise + sigma)


def without_third_derivatives(function: Function) -> Function:
    return lambda case, columns: (function(case, columns)[0], torch.zeros((), dtype=torch.float64))


def finite(function: Function) -> Function:
    """A rule that never gives up."""
    return lambda *args: function(*args).clamp_max(1e4)


def complement(function: Function) -> Function:
    """The share of the tangent part."""
    return lambda *args: 1 - function(*args)


NAMES = catalog.names("densities")
LAWS = {name: catalog.find("densities", name).log_joint for name in NAMES}
SCALED, UNSCALED = special.scaled_log_vmf_normalizer, special.log_vmf_normalizer
CODIM = Tube.codim.fget

NORMALIZERS = [
    *(Fault(LAWS[name], doubled, E2, name) for name in NAMES),
    Fault(GaussianComponents.log_joint, doubled, E2, "gaussian_subspace"),
    Fault(UNSCALED, doubled, E2, "von_mises_sphere"),
    Fault(SCALED, doubled, E2, "von_mises_torus"),
    Fault(gaussian_subspace.log_normal, doubled, E2, "correlated_noise"),
    Fault(CutGaussian.log_density, doubled, E2, "clifford_torus"),
]
DIMENSIONS = [
    Fault(gaussian_subspace.log_normal, one_more, E2, "gaussian_subspace"),
    Fault(gaussian_subspace.log_normal, one_more, E2, "von_mises_sphere"),
    Fault(gaussian_subspace.log_normal, one_more, E2, "von_mises_torus"),
    Fault(CODIM, one_added, E2, "clifford_torus"),
    Fault(special._vmf_order, one_added, C2, "von_mises_sphere"),
    Fault(on_off_robustness.unit_steps, one_more, A3, "helix"),
    Fault(statistics.isotropic_r2_law, one_more, A3, "helix"),
    Fault(statistics.isotropic_omega_law, swapped, A3, "sphere"),
]
PROJECTIONS = [
    *(Fault(Manifold.tangent_basis, raw, law, "helix") for law in (A1, A2, A3, A4, B1T, B2)),
    Fault(Manifold.tangent_basis, oblique, A4, "ellipsoid"),
    *(Fault(Manifold.to_tangent, identity, law, "helix") for law in (A1, A2, A3, A4, B2)),
    Fault(Manifold.to_tangent, identity, B1, "correlated_noise", FIRST),
    Fault(Manifold.to_tangent, identity, B1T, "clifford_torus", FIRST),
    Fault(Manifold.to_tangent, identity, B3, "signal_distractor", FIRST),
    Fault(linalg.project, identity, B1T, "clifford_torus", FIRST),
    Fault(calculus.Frame.normal, identity, B2, "helix"),
    Fault(calculus.Frame.normal, identity, C3, "helix"),
    Fault(linalg.principal_angles, ascending, A4, "ellipsoid"),
]
HEADS = [
    Fault(gradients.margin, as_logit, B1, "gaussian_subspace"),
    Fault(gradients.margin, as_logit, B1T, "clifford_torus"),
    Fault(gradients.margin, as_logit, B3, "signal_distractor"),
    Fault(b2.first_two, as_logit, B2, "helix"),
    Fault(gradients.log_posterior, as_logit, C1, "gaussian_subspace"),
    Fault(gradients.log_posterior, as_logit, E1, "gaussian_subspace"),
    *(
        Fault(gradients.log_marginal, as_sum, law, "gaussian_subspace")
        for law in (C1, C2, E1, E2, E3)
    ),
    Fault(gradients.cross_entropy, negative, E1, "gaussian_subspace"),
    Fault(gradients.logit_sum, as_logit, C1, "gaussian_subspace", FIRST),
    Fault(gradients.logit, as_sum, B1T, "clifford_torus", FIRST),
]
PRECISION = [
    *(Fault(LAWS[name], single, E2, name) for name in NAMES),
    *(
        Fault(GaussianComponents.log_joint, single, law, "gaussian_subspace")
        for law in (C1, C2, E2)
    ),
    Fault(GaussianComponents.log_joint, single, B3, "signal_distractor"),
    Fault(Sphere.embed, single, A1, "sphere"),
    Fault(Sphere.embed, single, C2, "von_mises_sphere"),
    Fault(Sphere.coordinates, single, B1T, "sphere"),
    Fault(ClosedCurve.embed, single, C2, "closed_curve"),
    Fault(SCALED, single, C2, "von_mises_sphere"),
    Fault(UNSCALED, single, E2, "von_mises_sphere"),
    Fault(panels.nodes, single, C2, "von_mises_sphere"),
    Fault(nearest_point.jacobian, rounded, A1, "helix"),
    Fault(CutGaussian.log_density, single, E2, "clifford_torus"),
]
SIGNS = [
    Fault(nearest_point.curvature_form, negative, B1T, "clifford_torus", FIRST),
    Fault(Manifold.shape_operator, negative, B1T, "clifford_torus", FIRST),
    Fault(Manifold.second_fundamental_form, negative, B1T, "clifford_torus", FIRST),
    Fault(Manifold.log_compression, negative, B1T, "helix", FIRST),
    Fault(calculus.second_fundamental_form, negative, B2, "helix"),
    Fault(calculus.second_fundamental_form, negative, C3, "helix"),
    Fault(calculus.mean_curvature_derivative, negative, B2, "helix"),
    Fault(calculus.mean_curvature_derivative, negative, C3, "helix"),
]
OTHERS = [
    Fault(calculus.hessian, without_covariance, B2, "sphere"),
    Fault(calculus.hessian, without_covariance, C3, "sphere"),
    Fault(expectations.limit, first, A1, "sphere"),
    Fault(Manifold.nearest, twice, B4, "helix"),
    Fault(Quadrature.log_joint, twice, B4, "helix"),
    Fault(gaussian_subspace.log_normal, twice, B4, "separate_manifolds"),
    Fault(Quadrature.log_joint, twice, C2, "helix"),
    Fault(gaussian_subspace.log_normal, twice, C2, "gaussian_subspace"),
    Fault(von_mises_sphere.log_blurred, twice, C2, "von_mises_sphere"),
    Fault(Quadrature.denoise, nearest, C2, "helix"),
    Fault(Quadrature.denoise, nearest, C3, "helix"),
]
ATTACKS = [
    Fault(smoothed_classifiers.density, twice, C5, "half_spaces"),
    Fault(linalg.unit, twice, C5, "wavy_sets"),
    Fault(linalg.unit, twice, C5, "half_spaces", FIRST),
    Fault(gradients.cross_entropy, negative, E4, "smooth_network"),
    Fault(gradients.log_marginal, as_sum, E4, "gaussian_subspace"),
    Fault(energies.marginal_energy, negative, E4, "smooth_network"),
    Fault(expectations.limit, first, E4, "smooth_network"),
    Fault(gradients.margin, as_logit, E4, "smooth_network", FIRST),
    Fault(energies.weat_weight, twice, E5, "float16"),
    Fault(energies.weat_weight, as_softplus, E5, "float64"),
    Fault(f1.farther_or_nearby, without_normal_steps, F1, "caps"),
    Fault(f1.farther_or_nearby, at_half_the_distance, F1, "cones"),
    Fault(Sphere.coordinates, negative, F1, "sphere"),
    Fault(searched_flips._normal, always, F1, "sphere", FIRST),
    Fault(g2.two_neurons, summed, G2, "blocks"),
    Fault(g2.cones, with_negative_bias, G2, "blocks"),
]
TRAININGS = [
    Fault(gradient_penalty, stronger, D1, "sphere"),
    Fault(linalg.inner, negative, D1, "sphere"),  # of the normal penalty
    Fault(d1.Network._bend, without_third_derivatives, D1, "sphere"),
    Fault(noise_augmentation, stronger, D2, "gaussian_subspace"),
    Fault(Isotropic.noisier, added, D2, "von_mises_torus"),
    Fault(GaussianRegimes.gamma_of_radius, twice, D5, "general position"),
    Fault(GaussianRegimes.gamma_of_radius, finite, D5, "general position"),
    Fault(GaussianRegimes.rule, negative, D5, "general position"),
    Fault(GaussianRegimes.robust_risk, twice, D5, "general position"),
    Fault(GaussianRegimes.noise, of_root, D6, "general position"),
    Fault(GaussianRegimes.logistic_ridge, of_twice, D6, "general position"),
    Fault(gaussian_regimes.omega, complement, D6, "thin distractor"),
    Fault(gaussian_regimes.omega, complement, D6, "signal_distractor", FIRST),
]
FAULTS = [
    *NORMALIZERS,
    *DIMENSIONS,
    *PROJECTIONS,
    *HEADS,
    *PRECISION,
    *SIGNS,
    *OTHERS,
    *TRAININGS,
    *ATTACKS,
]


def body(*args: Any, planted: Function, **options: Any) -> Any:
    return planted(*args, **options)


def plant(monkeypatch: pytest.MonkeyPatch, fault: Fault) -> None:
    function: Any = fault.function
    parts = (function.__code__, function.__globals__, function.__name__, function.__defaults__)
    original = type(function)(*parts)
    original.__kwdefaults__ = function.__kwdefaults__
    monkeypatch.setattr(function, "__defaults__", None)
    monkeypatch.setattr(function, "__kwdefaults__", {"planted": fault.change(original)})
    monkeypatch.setattr(function, "__code__", body.__code__)


def is_seen(law: Theorem, family: str, control: int | None) -> bool:
    alone = lambda cases: lambda: {family: cases()[family]}
    if control is None:
        no_case = Control("none", law.measure, cases=dict)
        law = replace(law, cases=alone(law.cases), controls=(no_case,))
    else:
        one = law.controls[control]
        law = replace(
            law, cases=dict, controls=(replace(one, cases=alone(one.cases or law.cases)),)
        )
    row = verification.check_law(law, profile="quick", seed=0, device="cpu")
    verdict: str = row["verdict"] if control is None else row["control"]["verdict"]
    return verdict in ("refuted", "not rejected")


@cache
def is_seen_without_a_fault(law_id: str, family: str, control: int | None) -> bool:
    law = next(fault.law for fault in FAULTS if fault.law.id == law_id)
    return is_seen(law, family, control)


def forget() -> None:
    """What the laws keep from one case to the next."""
    for kept in (quadrature.integrand, e2.total_mass, b2._parts, g2.largest):
        kept.cache_clear()


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(verification, "SHRINK_BUDGET", 0)  # that a case fails is enough
    forget()
    yield
    forget()


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_planted_fault_is_seen(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_seen_without_a_fault(fault.law.id, fault.family, fault.control)
    forget()
    with monkeypatch.context() as planted:
        plant(planted, fault)
        assert is_seen(fault.law, fault.family, fault.control)


def test_every_law_has_a_fault_that_it_sees() -> None:
    seeing = {fault.law.id for fault in FAULTS}
    laws = "A1 A2 A3 A4 B1 B1t B2 B3 B4 C1 C2 C3 C5 D1 D2 D5 D6 E1 E2 E3 E4 E5 F1 G2"
    assert seeing == set(laws.split())
