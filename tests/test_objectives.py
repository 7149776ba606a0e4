"""Objectives against slow ones written from their formulas, sample by sample, and from published code."""

from dataclasses import dataclass
from functools import partial
from typing import final

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manifoldlab import catalog, draws, gradients, linalg
from manifoldlab.energies import weat_weight
from manifoldlab.interfaces import Batch, Geometry
from manifoldlab.manifolds.sphere import Sphere
from manifoldlab.objectives.base import INNER
from manifoldlab.objectives.gradient_penalty import published_strength

SPHERE = Sphere(2)
STEP = 1e-5  # of central differences: errors of order 1e-10 by truncation and 1e-11 by rounding
NEAR = 1e-8
STRENGTH = 0.7


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(seed: int = 1) -> nn.Sequential:
    generator = source(seed)
    model = nn.Sequential(nn.Linear(3, 8), nn.SiLU(), nn.Linear(8, 4)).double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return model


def normed(seed: int = 1) -> nn.Sequential:
    """With BatchNorm, whose running statistics are not those of any batch."""
    plain = network(seed)
    model = nn.Sequential(plain[0], nn.BatchNorm1d(8).double(), *plain[1:])
    with torch.no_grad():
        model[1].running_mean.copy_(torch.randn(8, generator=source(seed + 1)))
        model[1].running_var.copy_(torch.rand(8, generator=source(seed + 2)) + 0.5)
    return model


def batch(n: int = 6, seed: int = 2) -> Batch:
    x = linalg.unit(torch.randn(n, 3, generator=source(seed), dtype=torch.float64))
    return Batch(x, torch.arange(n) % 4)


def fixed(model: nn.Module, batch: Batch, generator: object) -> Tensor:
    """An attack that anybody can repeat."""
    return batch.x + 0.1 * torch.sin(7 * batch.x.flip(1))


def difference_quotient(function, x: Tensor) -> Tensor:
    """d function / dx by central differences, through which parameters can be differentiated."""
    steps = STEP * torch.eye(len(x), dtype=x.dtype)
    return torch.stack([(function(x + e) - function(x - e)) / (2 * STEP) for e in steps])


def log_p(model: nn.Module, x: Tensor) -> Tensor:
    z = model(x[None])[0]
    return z - z.exp().sum().log()


def kl(model: nn.Module, x: Tensor, moved: Tensor) -> Tensor:
    p, q = log_p(model, x), log_p(model, moved)
    return (p.exp() * (p - q)).sum()


def by_hand(formula, model: nn.Module, data: Batch) -> Tensor:
    """The mean over samples of the published formula."""
    u, moved = draws.normal(data.x, source()), fixed(model, data, None)
    rows = zip(data.x, data.y, u, moved, strict=True)
    return torch.stack([formula(model, *row) for row in rows]).mean()


def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return -log_p(model, x)[y]


def slow_gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return difference_quotient(lambda x: loss(model, x, y), x)


def log_sum(model: nn.Module, x: Tensor) -> Tensor:
    return model(x[None])[0].exp().sum().log()


def slow_weat(
    model: nn.Module, x: Tensor, y: Tensor, u: Tensor, x1: Tensor, natural: bool = False
) -> Tensor:
    weight = 1 / log_sum(model, x).detach().abs().exp().log1p()
    return weight * (loss(model, x if natural else x1, y) + STRENGTH * kl(model, x, x1))


def slow_penalty(head, model: nn.Module, x: Tensor, y: Tensor, u: Tensor, x1: Tensor) -> Tensor:
    gradient = difference_quotient(lambda x: head(model(x[None])[0], y), x)
    return loss(model, x, y) + STRENGTH * gradient.square().sum()


def slow_margin(logits: Tensor, y: Tensor) -> Tensor:
    return logits[y] - max(logits[k] for k in range(len(logits)) if k != y)


def slow_mart(model: nn.Module, x: Tensor, y: Tensor, u: Tensor, x1: Tensor) -> Tensor:
    q = log_p(model, x1).exp()
    others = torch.stack([q[k] for k in range(len(q)) if k != y])
    boosted = -q[y].log() - (1 - others.max()).log()
    return boosted + STRENGTH * (1 - log_p(model, x)[y].exp()) * kl(model, x, x1)


def slow_smoothness(model: nn.Module, x: Tensor, y: Tensor, u: Tensor, x1: Tensor) -> Tensor:
    change = model((x + 0.1 * u)[None]) - model(x[None])
    return loss(model, x, y) + STRENGTH * change.square().sum()


def slow_score_matching(model: nn.Module, x: Tensor, y: Tensor, u: Tensor, x1: Tensor) -> Tensor:
    score = difference_quotient(lambda x: log_sum(model, x), x + 0.1 * u)
    return loss(model, x, y) + STRENGTH * (0.1 * score + u).square().sum()


FORMULAS = {  # of a sample x, y, its noise u and its perturbation x1
    "cross_entropy": lambda model, x, y, u, x1: loss(model, x, y),
    "gradient_penalty": lambda model, x, y, u, x1: (
        loss(model, x, y) + STRENGTH * slow_gradient(model, x, y).square().sum()
    ),
    "normal_penalty": lambda model, x, y, u, x1: (  # x is the unit normal of the sphere at x
        loss(model, x, y) + STRENGTH * (slow_gradient(model, x, y) @ x) ** 2
    ),
    "smoothness_penalty": slow_smoothness,
    "noise_augmentation": lambda model, x, y, u, x1: loss(model, x + STRENGTH * u, y),
    "adversarial": lambda model, x, y, u, x1: loss(model, x1, y),
    "trades": lambda model, x, y, u, x1: loss(model, x, y) + STRENGTH * kl(model, x, x1),
    "weat": slow_weat,
    "mart": slow_mart,
    "score_matching": slow_score_matching,
}


def objective(name: str, attack=fixed):
    found = catalog.find("objectives", name)
    if name == "normal_penalty":
        return partial(found, geometry=SPHERE)
    takes_attack = "attack" in found.__kwdefaults__
    assert takes_attack == (name in {"adversarial", "trades", "weat", "mart"})
    return partial(found, attack=attack) if takes_attack else found


def with_strength(name: str, strength, attack=fixed):
    found = objective(name, attack)
    return found if name == "cross_entropy" else partial(found, strength=strength)


def parameter_gradients(loss: Tensor, model: nn.Module) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


every_objective = pytest.mark.parametrize("name", catalog.names("objectives"))


VARIANTS = {  # an objective, its options, and the formula
    name: (name, {}, formula) for name, formula in FORMULAS.items()
} | {
    "weat, natural": ("weat", {"natural": True}, partial(slow_weat, natural=True)),
    "logit_penalty": (
        "gradient_penalty",
        {"head": gradients.logit},
        partial(slow_penalty, lambda logits, y: logits[y]),
    ),
    "margin_penalty": (
        "gradient_penalty",
        {"head": gradients.margin},
        partial(slow_penalty, slow_margin),
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("seed", [2, 3, 4])
def test_value_and_gradient_are_those_of_the_formula(variant: str, seed: int) -> None:
    name, options, formula = VARIANTS[variant]
    model, data = network(seed), batch(5, seed)
    found = partial(with_strength(name, STRENGTH), **options)(model, data, source())
    slow = by_hand(formula, model, data)
    assert found.shape == () and abs(found - slow) < NEAR * slow.abs()
    fast, expected = parameter_gradients(found, model), parameter_gradients(slow, model)
    assert (fast - expected).norm() < NEAR * 10 * expected.norm()


def test_every_objective_has_a_formula() -> None:
    assert sorted(FORMULAS) == catalog.names("objectives")


@every_objective
def test_each_sample_may_have_its_own_strength(name: str) -> None:
    """And each half of the samples its own draws, as members of an ensemble have."""
    model, data = network(), batch()
    strengths = torch.tensor([0.1, 0.9], dtype=torch.float64)
    halves = [Batch(data.x[i : i + 3], data.y[i : i + 3]) for i in (0, 3)]
    together = with_strength(name, strengths.repeat_interleave(3), None)(
        model, data, (source(1), source(2))
    )
    alone = [
        with_strength(name, strength.item(), None)(model, half, source(1 + i))
        for i, (strength, half) in enumerate(zip(strengths, halves, strict=True))
    ]
    assert abs(together - (alone[0] + alone[1]) / 2) < 1e-12


@every_objective
def test_without_strength_and_attack_it_is_cross_entropy(name: str) -> None:
    model, data = network(), batch()
    still = lambda model, batch, generator: batch.x
    found = with_strength(name, 0.0, still)(model, data, source())
    plain = F.cross_entropy(model(data.x), data.y)
    if name == "weat":
        weight = weat_weight(-model(data.x).logsumexp(1).detach())
        plain = (weight * gradients.cross_entropy(model(data.x), data.y)).mean()
    if name == "mart":
        q = model(data.x).softmax(1)
        rest = q.scatter(1, data.y[:, None], 0).amax(1)
        plain = plain - (1 - rest).log().mean()
    assert abs(found - plain) < 1e-12


@every_objective
def test_leaves_no_gradient_and_trains_every_parameter(name: str) -> None:
    model, data = network(), batch()
    found = with_strength(name, 0.3, None)(model, data, source())
    assert all(p.grad is None for p in model.parameters())
    found.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


SWEPT = sorted(set(catalog.names("objectives")) - {"cross_entropy"})


@pytest.mark.parametrize("name", SWEPT)
def test_strengths_of_another_shape_are_refused(name: str) -> None:
    """(6, 1) would meet (6,) in a 6 x 6 square."""
    with pytest.raises(ValueError, match=r"strength has shape \(6, 1\), and \(6,\) is one"):
        with_strength(name, torch.ones(6, 1))(network(), batch(), source())


@pytest.mark.parametrize("name", SWEPT)
def test_strengths_do_not_change_the_type(name: str) -> None:
    x, y, *_ = batch()
    strengths = torch.full((6,), 0.5, dtype=torch.float64)
    found = with_strength(name, strengths)(network().float(), Batch(x.float(), y), source())
    assert found.dtype == torch.float32


@pytest.mark.parametrize("name", SWEPT)
def test_negative_strengths_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="strength must be finite and not negative, not -1"):
        with_strength(name, -1)(network(), batch(), source())


@pytest.mark.parametrize("name", ["smoothness_penalty", "score_matching"])
def test_noise_has_a_deviation(name: str) -> None:
    with pytest.raises(ValueError, match="the deviation of the noise must be positive, not 0"):
        catalog.find("objectives", name)(network(), batch(), source(), deviation=0.0)


@every_objective
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_callers_need_no_gradients(name: str, mode) -> None:
    model, data = network(), batch()
    expected = with_strength(name, 0.3, None)(model, data, source())
    with mode():
        inputs = Batch(data.x.clone(), data.y.clone())
        found = with_strength(name, 0.3, None)(model, inputs, source())
    assert not found.requires_grad and abs(found - expected) < 1e-12


@final
class Members(nn.Module):
    """Networks whose parameters are stacked, on samples in equal blocks."""

    def __init__(self, models: list[nn.Module]):
        super().__init__()
        stacked, _ = torch.func.stack_module_state(models)
        self.names = list(stacked)
        self.stacked = nn.ParameterList([stacked[name].detach() for name in self.names])
        self.shape = [models[0].to("meta")]  # in a list, so that it is no module of this one

    def forward(self, x: Tensor) -> Tensor:
        apply = partial(torch.func.functional_call, self.shape[0])
        parameters = dict(zip(self.names, self.stacked, strict=True))
        blocks = torch.unflatten(x, 0, (len(self.stacked[0]), -1))
        return torch.func.vmap(apply)(parameters, (blocks,)).flatten(0, 1)


@every_objective
def test_an_ensemble_trains_through_it_as_its_members_do(name: str) -> None:
    count, data = 3, batch(12)
    models = [network(seed) for seed in range(count)]
    blocks = [Batch(*(t[4 * i : 4 * i + 4] for t in data[:2])) for i in range(count)]
    strengths = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    alone = [
        with_strength(name, strengths[i].item(), None)(models[i], blocks[i], source(i))
        for i in range(count)
    ]
    slopes = torch.stack([parameter_gradients(*pair) for pair in zip(alone, models, strict=True)])
    ensemble = Members(models)
    whole = with_strength(name, strengths.repeat_interleave(4), None)
    found = count * whole(ensemble, data, tuple(source(i) for i in range(count)))
    stacked = torch.autograd.grad(found, list(ensemble.parameters()))
    together = torch.cat([g.flatten(1) for g in stacked], 1)
    torch.testing.assert_close(found, sum(alone), rtol=1e-12, atol=0)
    torch.testing.assert_close(together, slopes, rtol=1e-9, atol=1e-9 * slopes.abs().max().item())


# BatchNorm


def counted(objective, model: nn.Module, data: Batch) -> int:
    """How many batches BatchNorm has counted."""
    model.train()
    before = model[1].num_batches_tracked.item()
    objective(model, data, source())
    assert all(m.training for m in model.modules())
    return model[1].num_batches_tracked.item() - before


PASSES = {  # what the loss itself looks at, be it at one time or at several
    **dict.fromkeys(FORMULAS, 1),
    **dict.fromkeys(("smoothness_penalty", "score_matching", "trades", "weat", "mart"), 2),
}


@every_objective
def test_only_the_loss_moves_running_statistics(name: str) -> None:
    assert counted(with_strength(name, 0.3, None), normed(), batch()) == PASSES.get(name, 1)


def published_perturbation(model: nn.Module, data: Batch, loss) -> Tensor:
    """The inner loop of the code of TRADES, MART and WEAT: linf, 10 steps, eval mode."""
    model.eval()
    x = data.x + 0.001 * draws.normal(data.x, source())
    for _ in range(10):
        x = x.detach().requires_grad_()
        (g,) = torch.autograd.grad(loss(model(x)), x)
        x = x.detach() + 2 / 255 * g.sign()
        x = torch.min(torch.max(x, data.x - 8 / 255), data.x + 8 / 255).clamp(0, 1)
    model.train()
    return x.detach()


def published_trades(model: nn.Module, data: Batch, beta: float) -> Tensor:
    clean = lambda: model.eval()(data.x).softmax(1)
    moved = published_perturbation(
        model, data, lambda z: F.kl_div(z.log_softmax(1), clean(), reduction="sum")
    )
    logits, robust = model(data.x), model(moved)
    divergence = F.kl_div(robust.log_softmax(1), logits.softmax(1), reduction="sum")
    return F.cross_entropy(logits, data.y) + beta * divergence / len(data.x)


def published_weat(model: nn.Module, data: Batch, beta: float) -> Tensor:
    clean = lambda: model.eval()(data.x).softmax(1)
    moved = published_perturbation(
        model, data, lambda z: F.kl_div(z.log_softmax(1), clean(), reduction="sum")
    )
    logits, robust = model(data.x), model(moved)
    weight = 1 / torch.log(1 + torch.exp(torch.abs(-torch.logsumexp(logits, 1)))).detach()
    each = F.kl_div(robust.log_softmax(1), logits.softmax(1), reduction="none").sum(1)
    entropy = F.cross_entropy(robust, data.y, reduction="none")
    return (weight * entropy).mean() + beta * (weight * each).mean()


def published_mart(model: nn.Module, data: Batch, beta: float) -> Tensor:
    moved = published_perturbation(model, data, lambda z: F.cross_entropy(z, data.y))
    logits, robust = model(data.x), model(moved)
    q, p = robust.softmax(1), logits.softmax(1)
    first, second = q.argsort(dim=1)[:, -1], q.argsort(dim=1)[:, -2]
    wrong = torch.where(first == data.y, second, first)
    boosted = F.cross_entropy(robust, data.y) + F.nll_loss((1 - q).log(), wrong)
    missed = 1 - p.gather(1, data.y[:, None]).squeeze(1)
    each = F.kl_div(q.log(), p, reduction="none").sum(1)
    return boosted + beta * (each * missed).mean()


@pytest.mark.parametrize("name", ["trades", "weat", "mart"])
@pytest.mark.parametrize("seed", [5, 6])
def test_published_training_is_the_default(name: str, seed: int) -> None:
    """Attack, BatchNorm and loss, on batches in [0, 1]; without the constants that guard logarithms."""
    data = Batch(
        torch.rand(16, 3, generator=source(seed), dtype=torch.float64), torch.arange(16) % 4
    )
    bounded = partial(INNER, bounds=(0.0, 1.0))
    one, other = normed(seed).train(), normed(seed).train()
    found = catalog.find("objectives", name)(one, data, source(), strength=6.0, inner=bounded)
    slow = globals()[f"published_{name}"](other, data, 6.0)
    assert abs(found - slow) < 1e-12 * slow.abs()
    fast, expected = parameter_gradients(found, one), parameter_gradients(slow, other)
    assert (fast - expected).norm() < 1e-10 * expected.norm()
    for name, buffer in one.named_buffers():
        assert torch.equal(buffer, other.get_buffer(name))


@final
@dataclass(frozen=True)
class Opaque(Geometry):
    """A sphere that comes from outside autograd."""

    dim = 2

    def to_tangent(self, x: Tensor, v: Tensor) -> Tensor:
        return torch.from_numpy(SPHERE.to_tangent(x, v).numpy())


def test_no_geometry_has_to_be_differentiated() -> None:
    model, data = network(), batch()
    found, expected = (
        catalog.find("objectives", "normal_penalty")(model, data, source(), geometry=geometry)
        for geometry in (Opaque(), SPHERE)
    )
    assert found == expected
    assert torch.equal(parameter_gradients(found, model), parameter_gradients(expected, model))


def test_label_smoothing() -> None:
    model, data = network(), batch()
    found = catalog.find("objectives", "cross_entropy")(model, data, source(), label_smoothing=0.2)
    logs = model(data.x).log_softmax(1)
    label = logs.gather(1, data.y[:, None]).squeeze(1)
    assert abs(found + (0.8 * label + 0.2 * logs.mean(1)).mean()) < 1e-12


def test_published_scaling_of_the_gradient_penalty() -> None:
    """1e5 c sum_i |grad_i of the mean loss|^2 / B, at B = 6."""
    model, data, c = network(), batch(), 3e-4
    found = catalog.find("objectives", "gradient_penalty")
    strength = published_strength(c, len(data.y))
    penalty = found(model, data, source(), strength=strength) - found(
        model, data, source(), strength=0.0
    )
    x = data.x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(x), data.y), x)
    published = 1e5 * c * gradient.square().sum() / len(data.y)
    assert abs(penalty - published) < 1e-12 * published
    assert abs(published_strength(1.0) - 6.10) < 0.005


def test_weat_weight_is_finite_for_any_energy() -> None:
    energies = torch.tensor([0.0, 10.0, -10.0, 800.0, 1e300], dtype=torch.float64)
    weights = weat_weight(energies)
    expected = 1 / torch.tensor([2.0, 1 + 22026.465794806718], dtype=torch.float64).log()
    assert torch.allclose(weights[:3], expected[[0, 1, 1]], rtol=1e-14, atol=0)
    assert weights[3] == 1 / 800 and weights[4] == 1e-300
    steps = torch.linspace(19.9, 20.1, 1001, dtype=torch.float64)  # torch's softplus jumps at 20
    assert (weat_weight(steps).diff() < 0).all() and (weat_weight(-steps).diff() < 0).all()
