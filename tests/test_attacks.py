"""Attacks: inside their ball, bounds and space, worse than the start, and without a trace in the model."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from manifoldlab import catalog, gradients, linalg
from manifoldlab.attacks import pgd as module
from manifoldlab.attacks.pgd import L2, LINF, WHOLE_BATCH_L2, across, along, at_rest, pgd
from manifoldlab.interfaces import Batch
from manifoldlab.manifolds.sphere import Sphere

ROUNDING = 1e-12  # a few float64 operations on numbers of order one


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(size: int = 3, classes: int = 4) -> nn.Sequential:
    generator = source(1)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(size, 16), nn.BatchNorm1d(16), nn.SiLU(), nn.Linear(16, classes)
    ).double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype) / p.shape[-1] ** 0.5)
    return model


def batch(n: int = 8, shape: tuple[int, ...] = (3,)) -> Batch:
    x = torch.rand(n, *shape, generator=source(2), dtype=torch.float64)
    return Batch(x, torch.arange(n) % 4)


def losses(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with module.evaluating(model), torch.no_grad():
        return gradients.cross_entropy(model(x), y)


@pytest.mark.parametrize("ball", [L2, LINF])
@pytest.mark.parametrize("bounds", [None, (0.0, 1.0)])
@pytest.mark.parametrize("radius", [0.3, torch.linspace(0, 0.5, 8, dtype=torch.float64)])
def test_stays_inside_and_raises_the_loss(ball, bounds, radius) -> None:
    model, data = network(), batch()
    found = pgd(model, data, source(), ball=ball, radius=radius, bounds=bounds, restarts=2)
    moved = (found - data.x).flatten(1)
    length = moved.norm(dim=1) if ball is L2 else moved.abs().amax(1)
    assert (length <= torch.as_tensor(radius) + ROUNDING).all()
    if bounds:
        assert found.min() >= -ROUNDING and found.max() <= 1 + ROUNDING
    gain = losses(model, found, data.y) - losses(model, data.x, data.y)
    assert (gain[length > 1e-3] > 0).all() and (length > 1e-3).sum() >= 7


@pytest.mark.parametrize("name", catalog.names("attacks"))
def test_leaves_no_trace(name: str) -> None:
    model, data = network(), batch()
    model.train()
    model[1].eval()  # each module gets its own mode back
    before = {k: v.clone() for k, v in model.state_dict().items()}
    attack = catalog.module("attacks", name).example
    with torch.no_grad():
        first = attack(model, data, source(3))
    again = attack(model, data, source(3))
    assert torch.equal(first, again) and not first.requires_grad
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert [m.training for m in model] == [True, False, True, True, True] and model.training
    together = attack(model, data, (source(4), source(5)))
    halves = [Batch(data.x[i : i + 4], data.y[i : i + 4]) for i in (0, 4)]
    alone = [attack(model, half, source(4 + i)) for i, half in enumerate(halves)]
    assert (together - torch.cat(alone)).abs().max() < ROUNDING


def test_linear_model_has_a_known_worst_point() -> None:
    """Of w.x the largest change in an l2 ball is radius |w|, in an linf ball radius |w|_1."""
    model = nn.Linear(5, 2, bias=False).double()
    data = Batch(torch.randn(6, 5, generator=source(), dtype=torch.float64), torch.arange(6) % 2)
    w = (model.weight[0] - model.weight[1]).detach() * (1 - 2 * data.y)[:, None]
    for ball, direction in ((L2, linalg.unit(w)), (LINF, w.sign())):
        found = pgd(model, data, source(), ball=ball, radius=0.2, start=at_rest)
        assert (found - (data.x - 0.2 * direction)).abs().max() < ROUNDING


def test_targets_draw_near() -> None:
    model, data = network(), batch()
    target = (data.y + 1) % 4
    found = pgd(model, data, source(), radius=0.5, target=target)
    assert (losses(model, found, target) < losses(model, data.x, target)).all()


def test_best_is_no_weaker_than_last() -> None:
    model, data = network(), batch()
    attack = partial(pgd, model, data, radius=0.5, step_size=0.5, start=at_rest)
    best, last = attack(source()), attack(source(), best=False)
    y = data.y
    with module.evaluating(model):
        fools = [model(x).argmax(1) != y for x in (best, last)]
    alike = fools[0] == fools[1]
    assert (fools[0] | ~fools[1]).all()
    assert (losses(model, best, y) >= losses(model, last, y) - ROUNDING)[alike].all()


def test_confined_to_tangent_or_normal_space() -> None:
    model, sphere = network(), Sphere(2)
    x = linalg.unit(torch.randn(8, 3, generator=source(), dtype=torch.float64))
    data = Batch(x, torch.arange(8) % 4)
    for confine, is_tangent in ((along(sphere), True), (across(sphere), False)):
        v = pgd(model, data, source(), radius=0.2, confine=confine) - x
        tangent = sphere.to_tangent(x, v)
        rest = v - tangent if is_tangent else tangent
        assert rest.abs().max() < ROUNDING and v.norm(dim=1).min() > 0.1


def test_published_norm_is_of_the_whole_batch() -> None:
    model, data = network(12), batch(8, (3, 2, 2))
    found = pgd(model, data, source(), ball=WHOLE_BATCH_L2, radius=0.7, best=False)
    assert (found - data.x).norm() <= 0.7 + ROUNDING
    assert (found - data.x).flatten(1).norm(dim=1).max() > 0.7 / 8**0.5


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"steps": 0}, "1 step and 1 start or more, not 0 and 1"),
        ({"radius": -1.0}, "radius must be finite and not negative, not -1.0"),
        ({"step_size": float("nan")}, "step_size must be finite"),
        ({"bounds": (1.0, 0.0)}, r"low < high, not \(1.0, 0.0\)"),
        ({"confine": along(Sphere(2)), "bounds": (0.0, 1.0)}, "needs an l2 ball and no bounds"),
        ({"radius": torch.ones(3)}, r"has shape \(8,\), not \(3,\)"),
        (
            {"target": torch.zeros(2, dtype=torch.long)},
            r"targets of shape \(2,\) for labels \(8,\)",
        ),
    ],
)
def test_wrong_options_are_refused(options, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        pgd(network(), batch(), source(), **options)
