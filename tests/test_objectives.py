"""Objectives against slow ones written from their formulas, sample by sample, in float64."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manifoldlab import catalog, draws, gradients, linalg
from manifoldlab.energies import weat_weight
from manifoldlab.interfaces import Batch
from manifoldlab.manifolds.sphere import Sphere
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


def by_hand(name: str, model: nn.Module, data: Batch) -> Tensor:
    """The mean over samples of the published formula."""
    u, moved = draws.normal(data.x, source()), fixed(model, data, None)
    rows = zip(data.x, data.y, u, moved, strict=True)
    return torch.stack([FORMULAS[name](model, *row) for row in rows]).mean()


def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return -log_p(model, x)[y]


def slow_gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return difference_quotient(lambda x: loss(model, x, y), x)


def log_sum(model: nn.Module, x: Tensor) -> Tensor:
    return model(x[None])[0].exp().sum().log()


def slow_weat(model: nn.Module, x: Tensor, y: Tensor, u: Tensor, x1: Tensor) -> Tensor:
    weight = 1 / log_sum(model, x).detach().abs().exp().log1p()
    return weight * (loss(model, x1, y) + STRENGTH * kl(model, x, x1))


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


@every_objective
def test_value_and_gradient_are_those_of_the_formula(name: str) -> None:
    model, data = network(), batch()
    found, slow = with_strength(name, STRENGTH)(model, data, source()), by_hand(name, model, data)
    assert found.shape == () and abs(found - slow) < NEAR * slow.abs()
    fast, expected = parameter_gradients(found, model), parameter_gradients(slow, model)
    assert (fast - expected).norm() < NEAR * 10 * expected.norm()


@every_objective
def test_each_sample_may_have_its_own_strength(name: str) -> None:
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


@pytest.mark.parametrize("name", sorted(set(catalog.names("objectives")) - {"cross_entropy"}))
def test_negative_strengths_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="strength must be finite and not negative, not -1"):
        with_strength(name, -1)(network(), batch(), source())


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
