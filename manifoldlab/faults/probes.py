"""Of probes, attacks and objectives."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from manifoldlab import catalog
from manifoldlab.attacks.base import L2, LINF, across, undisturbed
from manifoldlab.attacks.noise import noise
from manifoldlab.attacks.pgd import Steady, pgd
from manifoldlab.draws import source
from manifoldlab.faults.base import Fault, normal
from manifoldlab.gaussian_regimes import GaussianRegimes
from manifoldlab.interfaces import Batch
from manifoldlab.manifolds.sphere import Sphere
from manifoldlab.objectives.base import divergence
from manifoldlab.objectives.cross_entropy import cross_entropy
from manifoldlab.objectives.normal_penalty import normal_penalty
from manifoldlab.probes import on_off_robustness
from manifoldlab.probes.spectral_alignment import spectral_alignment
from manifoldlab.probes.tangent_alignment import tangent_alignment

SPHERE = Sphere(2)
BATCH = Batch(SPHERE.embed(0.5 * normal(6, 2)), torch.tensor([0, 1, 2, 0, 1, 2]))
FORMULA = "tests/test_objectives.py::test_value_and_gradient_are_those_of_the_formula"


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def _probed(name: str, field: str) -> Callable[[], Tensor]:
    """A field of a probe, as the contract tests run it."""

    def found() -> Tensor:
        model = _network()
        probe = catalog.module("probes", name).example(model)
        value: Tensor = getattr(probe(model, BATCH, SPHERE), field)
        return value

    return found


def _loss(name: str, **options: Any) -> Callable[[], Tensor]:
    def found() -> Tensor:
        objective = catalog.find("objectives", name)
        value: Tensor = objective(_network(), BATCH, source(0), **options)
        return value

    return found


def _attacked(**options: Any) -> Callable[[], Tensor]:
    return lambda: pgd(_network(), BATCH, source(0), **options) - BATCH.x


def _penalized() -> Tensor:
    model = _network()
    loss = normal_penalty(model, BATCH, source(0), geometry=SPHERE, strength=1.0)
    return _slopes(loss, model)


def _moved() -> Tensor:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 3)).double()
    with undisturbed(model) as f:
        return torch.as_tensor(f(BATCH.x)).detach() * 0 + 1 + float(model.training)


def _pair() -> GaussianRegimes:
    root = normal(3, 3)
    return GaussianRegimes(normal(3, seed=1), root @ root.mT + torch.eye(3))


FAULTS = (
    Fault(
        "Alignment is the share of the normal part",
        "probes.tangent_alignment",
        "omega = linalg.squared_norm(normal) / square",
        "omega = 1 - linalg.squared_norm(normal) / square",
        _probed("tangent_alignment", "omega"),
        ("tests/test_probes.py::test_bayes_margins_on_a_plane_are_tangent",),
    ),
    Fault(
        "Alignment is a ratio of norms, not of squares",
        "probes.tangent_alignment",
        "omega = linalg.squared_norm(normal) / square",
        "omega = (linalg.squared_norm(normal) / square).sqrt()",
        _probed("tangent_alignment", "omega"),
        ("tests/test_probes.py::test_nulls_of_alignment_are_those_of_isotropic_gradients",),
    ),
    Fault(
        "The null of alignment is its tangent share",
        "probes.tangent_alignment",
        "1 - geometry.dim / batch.x[0].numel()",
        "geometry.dim / batch.x[0].numel()",
        lambda: tangent_alignment(_network(), BATCH, SPHERE).omega_null,
        ("tests/test_probes.py::test_nulls_of_alignment_are_those_of_isotropic_gradients",),
    ),
    Fault(
        "Steps off the manifold are steps along it",
        "probes.on_off_robustness",
        "normal = vectors - tangent",
        "normal = tangent",
        _probed("on_off_robustness", "omega_steps"),
        ("A3/helix",),
    ),
    Fault(
        "The noise of published steps has unit length",
        "probes.on_off_robustness",
        "return Steps(tangent, normal, 1.0, (codim / dim) ** 0.5)",
        "return unit_steps(tangent, normal, dim, codim)",
        lambda: on_off_robustness.gaussian_steps(normal(2, 3, 4), normal(2, 3, 4), 1, 3).on,
        ("tests/test_probes.py::test_gaussian_steps_are_normal",),
    ),
    Fault(
        "Unit steps count a normal dimension too many",
        "probes.on_off_robustness",
        "codim / dim, 1.0)",
        "(codim + 1) / dim, 1.0)",
        _probed("on_off_robustness", "omega_steps"),
        (
            "A3/helix",
            "tests/test_probes.py::test_finite_steps_tell_omega_of_the_gradient_when_they_are_small",
        ),
    ),
    Fault(
        "On and off are mean squares, not their roots",
        "probes.on_off_robustness",
        "on, off = found.square().mean(1).sqrt().unbind(0)",
        "on, off = found.square().mean(1).unbind(0)",
        _probed("on_off_robustness", "on"),
        ("tests/test_probes.py::test_finite_steps_tell_omega_of_the_gradient_when_they_are_small",),
    ),
    Fault(
        "On and off are means, not root mean squares",
        "probes.on_off_robustness",
        "on, off = found.square().mean(1).sqrt().unbind(0)",
        "on, off = found.mean(1).unbind(0)",
        _probed("on_off_robustness", "r"),
        ("tests/test_probes.py::test_changes_are_those_of_a_slow_loop",),
    ),
    Fault(
        "Changes are taken from the output at another sample",
        "probes.base",
        "change(moved, here.repeat(copies, 1), batch.y.repeat(copies))",
        "change(moved, here.roll(1, 0).repeat(copies, 1), batch.y.repeat(copies))",
        _probed("on_off_robustness", "on"),
        ("tests/test_probes.py::test_changes_are_those_of_a_slow_loop",),
    ),
    Fault(
        "Kinds of steps and their directions are mixed up",
        "probes.base",
        "reshape(len(sizes), kinds, count, n).movedim(0, 3)",
        "reshape(len(sizes), count, kinds, n).transpose(1, 2).movedim(0, 3)",
        _probed("on_off_robustness", "on"),
        ("tests/test_probes.py::test_changes_are_those_of_a_slow_loop",),
    ),
    Fault(
        "A probe draws the same noise for every direction",
        "probes.base",
        "return torch.randn((directions, *x.shape), generator=generator).to(x)",
        "return torch.randn(x.shape, generator=generator).to(x).expand(directions, *x.shape)",
        _probed("on_off_robustness", "on"),
        ("tests/test_probes.py::test_noise_is_normal_and_another_for_every_direction",),
    ),
    Fault(
        "A cosine is that of the normal parts",
        "probes.score_alignment",
        "_cosine(*tangents),",
        "_cosine(gradient - tangents[0], field - tangents[1]),",
        _probed("score_alignment", "tangent_cosine"),
        ("tests/test_probes.py::test_nulls_of_cosines_are_those_of_isotropic_gradients",),
    ),
    Fault(
        "A participation ratio has the fourth powers' root",
        "probes.gradient_rank",
        "/ gram.square().sum((1, 2))",
        "/ gram.square().sum((1, 2)).sqrt()",
        _probed("gradient_rank", "rank"),
        ("tests/test_probes.py::test_ranks_are_participation_ratios_of_singular_values",),
    ),
    Fault(
        "Bands of frequency are one step too low",
        "probes.spectral_alignment",
        "right=True)",
        "right=False)",
        lambda: (
            spectral_alignment(
                lambda x: x.flatten(1)[:, :2].tanh() + x.flatten(1)[:, 4:6].sin(),
                Batch(normal(2, 1, 16, 16), torch.tensor([0, 1])),
                SPHERE,
                reference=lambda batch: batch.x,
            ).share
        ),
        ("tests/test_probes_on_images.py::test_a_wave_is_in_its_band",),
    ),
    Fault(
        "An attack leaves a BatchNorm in training mode",
        "attacks.base",
        "yield model.eval()",
        "yield model",
        _moved,
        ("tests/test_attacks.py::test_leaves_no_trace",),
    ),
    Fault(
        "An attack leaves a model in evaluation mode",
        "attacks.base",
        "module.training = mode",
        "module.training = False",
        lambda: _mode_after(),
        ("tests/test_attacks.py::test_modes_come_back_after_an_error",),
    ),
    Fault(
        "An l2 attack is projected on the cube",
        "attacks.base",
        "return self.shrunk(v, radius)\n\n    def uniform(self, like: Tensor, source: Source) -> Tensor:\n"
        "        direction",
        "return v.clamp(-radius, radius)\n\n    def uniform(self, like: Tensor, source: Source) -> Tensor:\n"
        "        direction",
        _attacked(radius=0.3),
        ("tests/test_attacks.py::test_stays_inside",),
    ),
    Fault(
        "An attack across the manifold goes along it",
        "attacks.base",
        "return lambda v: v - here.to_tangent(batch.x, v)",
        "return lambda v: here.to_tangent(batch.x, v)",
        _attacked(confine=across(SPHERE)),
        ("tests/test_attacks.py::test_stays_in_its_space",),
    ),
    Fault(
        "Draws fill a ball by the radius, not by the volume",
        "attacks.base",
        "return direction * share.pow(1 / prod(like.shape[1:]))",
        "return direction * share",
        lambda: L2.uniform(BATCH.x, source(0)),
        ("tests/test_attacks.py::test_draws_fill_the_ball_evenly",),
    ),
    Fault(
        "Draws of a cube are all positive",
        "attacks.base",
        "return 2 * draws.uniform(like, source) - 1",
        "return draws.uniform(like, source)",
        lambda: LINF.uniform(BATCH.x, source(0)),
        ("tests/test_attacks.py::test_draws_fill_the_ball_evenly",),
    ),
    Fault(
        "A targeted attack climbs the loss of its target",
        "attacks.pgd",
        "return _Judged(x, -value, hit) if is_target else _Judged(x, value, ~hit)",
        "return _Judged(x, value, hit) if is_target else _Judged(x, value, ~hit)",
        _attacked(target=torch.tensor([1, 2, 0, 1, 2, 0])),
        ("tests/test_attacks.py::test_targets_draw_near",),
    ),
    Fault(
        "Steps of published attacks have half their size",
        "attacks.pgd",
        "return [self.path / steps * radius] * steps",
        "return [self.path / steps * radius / 2] * steps",
        _attacked(step_size=Steady(), best=False, steps=3),
        ("tests/test_attacks.py::test_the_published_attack_is_an_option",),
    ),
    Fault(
        "The best point of an attack is its last one",
        "attacks.pgd",
        "worst = seen.or_worse(worst) if best else worst",
        "worst = seen",
        _attacked(radius=5.0, steps=8, step_size=9.0),
        (
            "tests/test_attacks.py::test_best_is_no_weaker_than_last_and_restarts_no_weaker_than_one",
        ),
    ),
    Fault(
        "Noise of an attack is not scaled to its radius",
        "attacks.noise",
        "step = ball.steepest(draws.normal(batch.x, generator), within)",
        "step = within(draws.normal(batch.x, generator))",
        lambda: noise(_network(), BATCH, source(0), radius=0.3) - BATCH.x,
        ("tests/test_attacks.py::test_stays_inside",),
    ),
    Fault(
        "A penalty is added up over the batch, not averaged",
        "objectives.base",
        '"strength") * penalty).mean()',
        '"strength") * penalty).sum()',
        _loss("gradient_penalty"),
        (FORMULA, "D1/sphere"),
    ),
    Fault(
        "The divergence is that of the other order",
        "objectives.base",
        "return F.kl_div(q, p, reduction",
        "return F.kl_div(p, q, reduction",
        lambda: divergence(normal(4, 3), normal(4, 3, seed=1)),
        (FORMULA,),
    ),
    Fault(
        "A gradient penalty is of the norm, not of its square",
        "objectives.gradient_penalty",
        "linalg.squared_norm(gradient))",
        "linalg.squared_norm(gradient).sqrt())",
        _loss("gradient_penalty"),
        (FORMULA, "D1/sphere"),
    ),
    Fault(
        "The published strength divides by the batch once",
        "objectives.gradient_penalty",
        "return 1e5 * c / batch_size**2",
        "return 1e5 * c / batch_size",
        lambda: torch.tensor(
            catalog.module("objectives", "gradient_penalty").published_strength(1.0)
        ),
        ("tests/test_objectives.py::test_published_scaling_of_the_gradient_penalty",),
    ),
    Fault(
        "Noise augmentation adds noise of its variance",
        "objectives.noise_augmentation",
        "noisy = batch.x + deviation * draws.normal(batch.x, generator)",
        "noisy = batch.x + deviation**2 * draws.normal(batch.x, generator)",
        _loss("noise_augmentation", strength=0.5),
        (FORMULA,),
    ),
    Fault(
        "The normal penalty has half its gradient",
        "objectives.normal_penalty",
        "+ 2 * linalg.inner(normal, change)",
        "+ linalg.inner(normal, change)",
        _penalized,
        (FORMULA, "D1/sphere"),
    ),
    Fault(
        "The normal penalty is of the tangent part",
        "objectives.normal_penalty",
        "normal = here - geometry.at(batch).to_tangent(batch.x, here)",
        "normal = geometry.at(batch).to_tangent(batch.x, here)",
        _loss("normal_penalty", geometry=SPHERE),
        (FORMULA, "D1/sphere"),
    ),
    Fault(
        "The score is matched with the noise of the other sign",
        "objectives.score_matching",
        "linalg.squared_norm(deviation * score + u)",
        "linalg.squared_norm(deviation * score - u)",
        _loss("score_matching"),
        (FORMULA,),
    ),
    Fault(
        "Smoothed labels leave nothing to the other classes",
        "objectives.cross_entropy",
        "label_smoothing=label_smoothing, reduction",
        "label_smoothing=0.0, reduction",
        lambda: cross_entropy(_network(), BATCH, source(0), label_smoothing=0.1),
        ("tests/test_objectives.py::test_label_smoothing",),
    ),
    Fault(
        "MART boosts the most likely class, be it the label",
        "objectives.mart",
        "runner_up = log_q.scatter(1, y[:, None], -torch.inf).argmax(1, keepdim=True)",
        "runner_up = log_q.argmax(1, keepdim=True)",
        _loss("mart"),
        (FORMULA,),
    ),
    Fault(
        "The weight of WEAT is trained through",
        "objectives.weat",
        "weight = weat_weight(marginal_energy(clean).detach())",
        "weight = weat_weight(marginal_energy(clean))",
        lambda: _trained("weat"),
        (FORMULA,),
    ),
    Fault(
        "Ridge and gamma differ by a factor 2",
        "gaussian_regimes",
        "gamma = 2 * strength / curvature",
        "gamma = strength / curvature",
        lambda: _pair().logistic_ridge(0.3).gamma,
        ("D6/general position", "tests/test_gaussian_regimes.py"),
    ),
    Fault(
        "Gamma of noise is its deviation",
        "gaussian_regimes",
        'gamma = self._given("sigma", sigma).square()',
        'gamma = self._given("sigma", sigma)',
        lambda: _pair().noise(0.3).gamma,
        ("D6/general position",),
    ),
    Fault(
        "A robust risk moves the margin by twice the radius",
        "gaussian_regimes",
        "margin = rule @ self.mean - radius * rule.norm(dim=-1)",
        "margin = rule @ self.mean - 2 * radius * rule.norm(dim=-1)",
        lambda: _pair().robust_risk(normal(3), 0.2),
        ("D5/general position",),
    ),
    Fault(
        "Omega of a linear rule is its tangent share",
        "gaussian_regimes",
        "normal = rule - rule @ frame @ frame.mT",
        "normal = rule @ frame @ frame.mT",
        lambda: _share(),
        ("D6/thin distractor", "D6/signal_distractor/0"),
    ),
)


def _share() -> Tensor:
    from manifoldlab import gaussian_regimes, linalg

    return gaussian_regimes.omega(normal(2, 5), linalg.random_frame(5, 2, 0))


def _mode_after() -> Tensor:
    model = nn.BatchNorm1d(3).train()
    with undisturbed(model):
        pass
    return torch.tensor(1.0 + model.training)


def _trained(name: str) -> Tensor:
    model = _network()
    return _slopes(catalog.find("objectives", name)(model, BATCH, source(0)), model)


def _slopes(loss: Tensor, model: nn.Module) -> Tensor:
    slopes = torch.autograd.grad(loss, tuple(model.parameters()), allow_unused=True)
    return torch.cat([slope.flatten() for slope in slopes if slope is not None])
