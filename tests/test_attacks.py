"""Attacks: inside their ball, bounds and space, no weaker than they could be, and without a trace."""

from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import final

import pytest
import torch
from torch import Tensor, nn

from manifoldlab import catalog, draws, gradients, linalg
from manifoldlab.attacks.base import (
    L2,
    LINF,
    WHOLE_BATCH_L2,
    Ball,
    WholeBatch,
    across,
    along,
    undisturbed,
)
from manifoldlab.attacks.pgd import Steady, falling, in_ball, in_orthant, nearby, pgd
from manifoldlab.interfaces import Batch, Geometry
from manifoldlab.manifolds.sphere import Sphere
from manifoldlab.statistics import FALSE_ALARM, kolmogorov_p

ROUNDING = 1e-12  # a few float64 operations on numbers of order one
RADII = torch.linspace(0, 0.5, 8, dtype=torch.float64)
every_attack = pytest.mark.parametrize("name", catalog.names("attacks"))
every_ball = pytest.mark.parametrize("ball", [L2, LINF], ids=["l2", "linf"])


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(size: int = 3, classes: int = 4) -> nn.Sequential:
    generator = source(1)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(size, 16), nn.BatchNorm1d(16), nn.SiLU(), nn.Linear(16, classes)
    ).double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return model


def batch(n: int = 8, shape: tuple[int, ...] = (3,)) -> Batch:
    x = torch.rand(n, *shape, generator=source(2), dtype=torch.float64)
    return Batch(x, torch.arange(n) % 4)


def losses(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad(), undisturbed(model) as f:
        return gradients.cross_entropy(f(x), y)


def lengths(v: Tensor, ball: Ball) -> Tensor:
    flat = v.flatten(1)
    return flat.square().sum(1).sqrt() if ball == L2 else flat.abs().amax(1)


# Laws over every member of the catalog


@every_attack
@every_ball
@pytest.mark.parametrize("bounds", [None, (0.0, 1.0)])
@pytest.mark.parametrize("shape", [(3,), (3, 2, 2)])
def test_stays_inside(name: str, ball: Ball, bounds, shape: tuple[int, ...]) -> None:
    model, data = network(torch.Size(shape).numel()), batch(8, shape)
    attack = partial(catalog.find("attacks", name), ball=ball, bounds=bounds)
    found = attack(model, data, source(), radius=RADII)
    assert found.shape == data.x.shape and found.dtype == data.x.dtype
    length = lengths(found - data.x, ball)
    assert (length <= RADII + ROUNDING).all() and (length[2:] > 0).all()
    if bounds:
        assert found.min() >= 0 and found.max() <= 1
    assert torch.equal(found[0], data.x[0])
    assert torch.equal(attack(model, data, source(), radius=0.0), data.x)


@every_attack
@every_ball
@pytest.mark.parametrize("across_it", [False, True], ids=["along", "across"])
def test_stays_in_its_space(name: str, ball: Ball, across_it: bool) -> None:
    """The normal space is a line there, and a start in it must not be short."""
    model, sphere = network(), Sphere(2)
    x = linalg.unit(torch.randn(8, 3, generator=source(), dtype=torch.float64))
    confine = (across if across_it else along)(sphere)
    attack = partial(catalog.find("attacks", name), ball=ball, confine=confine)
    v = attack(model, Batch(x, torch.arange(8) % 4), source(9), radius=0.2) - x
    tangent = sphere.to_tangent(x, v)
    assert (tangent if across_it else v - tangent).abs().max() < ROUNDING
    assert lengths(v, ball).max() <= 0.2 + ROUNDING and lengths(v, ball).min() > 0.1


@every_attack
def test_leaves_no_trace(name: str) -> None:
    model, data = network(), batch()
    model.train()
    model[1].eval()  # each module gets its own mode back
    for p in model.parameters():
        p.grad = torch.full_like(p, 7.0)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    attack = catalog.find("attacks", name)
    first = attack(model, data, source(3))
    assert not first.requires_grad
    assert all((p.grad == 7).all() and p.requires_grad for p in model.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert [m.training for m in model] == [True, False, True, True, True] and model.training


@every_attack
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_callers_need_no_gradients(name: str, mode) -> None:
    model, data, attack = network(), batch(), catalog.find("attacks", name)
    expected = attack(model, data, source())
    with mode():
        inputs = Batch(data.x.clone(), data.y.clone())
        assert torch.equal(attack(model, inputs, source()), expected)


@every_attack
@every_ball
def test_members_of_an_ensemble_are_attacked_as_if_alone(name: str, ball: Ball) -> None:
    model, data = network(), batch()
    attack = partial(catalog.find("attacks", name), ball=ball)
    together = attack(model, data, (source(4), source(5)), radius=RADII)
    halves = [Batch(data.x[i : i + 4], data.y[i : i + 4]) for i in (0, 4)]
    alone = [
        attack(model, b, source(4 + i), radius=r)
        for i, (b, r) in enumerate(zip(halves, RADII.split(4), strict=True))
    ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=ROUNDING)


@every_attack
@every_ball
def test_processes_that_share_a_batch_equal_one(name: str, ball: Ball) -> None:
    model, data = network(), batch()
    attack = partial(catalog.find("attacks", name), ball=ball)
    parts = []
    for start, stop in ((0, 3), (3, 8), (8, 8)):
        with draws.share(start, stop, 8):
            part = Batch(data.x[start:stop], data.y[start:stop])
            parts.append(attack(model, part, source(6)))
    whole = attack(model, data, source(6))
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=ROUNDING)


# Balls


@every_ball
def test_draws_fill_the_ball_evenly(ball: Ball) -> None:
    """|v| <= r has the share r^D of the volume, whatever the direction."""
    v = ball.uniform(torch.zeros(4000, 3, 2, dtype=torch.float64), source(7))
    volume = lengths(v, ball) ** 6
    side = (v[:, 0, 0] / lengths(v, ball)).abs()
    # a coordinate of a point of the sphere S^5, squared, is Beta(1/2, 5/2); of a cube's surface, up to
    # the face it is on, uniform
    assert kolmogorov_p(volume, lambda r: r) > FALSE_ALARM / 4
    assert (v[:, 0, 0] > 0).double().mean().sub(0.5).abs() < 6 * 0.5 / 4000**0.5
    assert side.max() <= 1 + ROUNDING


@pytest.mark.parametrize("ball", [L2, LINF, WHOLE_BATCH_L2], ids=["l2", "linf", "whole"])
@pytest.mark.parametrize("scale", [1e-30, 1e-40, 1e30])
def test_units_of_tiny_and_huge_gradients(ball: Ball, scale: float) -> None:
    """A network that is sure has such gradients; 1e-40 is not even normal in float32."""
    v = torch.randn(5, 3, 2, generator=source(8))
    small = (v.double() * scale).float()
    assert (ball.norm(ball.unit(small)) - 1).abs().max() < 1e-5  # digits of a subnormal
    assert torch.equal(ball.unit(torch.zeros_like(v)), torch.zeros_like(v))


# Projected gradient ascent


def slow_pgd(model, x: Tensor, y: Tensor, start: Tensor, sizes: list[float], sup: bool) -> Tensor:
    """One sample, radius 0.4, written from the formula."""
    v = start
    for size in sizes:
        score = lambda v: -model((x + v)[None]).log_softmax(1)[0, y]
        g = torch.func.grad(score)(v).detach()
        v = v + size * (g.sign() if sup else g / g.norm())
        v = v.clamp(-0.4, 0.4) if sup else v * min(1.0, 0.4 / float(v.norm()))
        v = (x + v).clamp(0, 1) - x
    return x + v


PACES = {  # the option, and ten sizes at radius 0.4
    "falling": (falling, [0.8, 0.72, 0.64, 0.56, 0.48, 0.4, 0.32, 0.24, 0.16, 0.08]),
    "steady": (Steady(), [0.1] * 10),
    "given": (0.07, [0.07] * 10),
}


@every_ball
@pytest.mark.parametrize("pace", PACES)
def test_agrees_with_a_slow_one(ball: Ball, pace: str) -> None:
    model, data = network().eval(), batch()
    option, sizes = PACES[pace]
    attack = partial(pgd, ball=ball, radius=0.4, start=nearby, bounds=(0.0, 1.0), best=False)
    found = attack(model, data, source(), step_size=option)
    starts = 1e-3 * draws.normal(data.x, source())
    rows = zip(data.x, data.y, starts, strict=True)
    slow = torch.stack([slow_pgd(model, *row, sizes, ball == LINF) for row in rows])
    torch.testing.assert_close(found, slow, rtol=0, atol=1e-9)  # 10 steps amplify rounding


@every_ball
def test_one_step_is_the_fast_gradient_method(ball: Ball) -> None:
    model, data = network().eval(), batch()
    found = pgd(model, data, source(), ball=ball, radius=0.3, steps=1, best=False)
    gradient = gradients.input_gradient(model, data.x, data.y, gradients.cross_entropy)
    step = linalg.unit(gradient) if ball == L2 else gradient.sign()
    torch.testing.assert_close(found, data.x + 0.3 * step, rtol=0, atol=ROUNDING)


@every_ball
def test_linear_model_has_a_known_worst_point(ball: Ball) -> None:
    """Of w.x the largest change in an l2 ball is radius |w|, in an linf ball radius |w|_1."""
    model = nn.Linear(5, 2, bias=False).double()
    data = Batch(torch.randn(6, 5, generator=source(), dtype=torch.float64), torch.arange(6) % 2)
    w = (model.weight[0] - model.weight[1]).detach() * (1 - 2 * data.y)[:, None]
    direction = linalg.unit(w) if ball == L2 else w.sign()
    found = pgd(model, data, source(), ball=ball, radius=0.2)
    torch.testing.assert_close(found, data.x - 0.2 * direction, rtol=0, atol=ROUNDING)


@every_ball
def test_raises_the_loss_more_than_noise_does(ball: Ball) -> None:
    model, data = network(), batch()
    noise = catalog.find("attacks", "noise")
    loss = lambda attack: losses(
        model, attack(model, data, source(), ball=ball, radius=0.3), data.y
    )
    assert (loss(pgd) > losses(model, data.x, data.y)).all() and (loss(pgd) > loss(noise)).all()


def test_targets_draw_near() -> None:
    model, data = network(), batch()
    target = (data.y + 1) % 4
    attack = partial(pgd, model, data, radius=0.5, step_size=0.4, target=target)
    found = attack(source())
    assert (losses(model, found, target) < losses(model, data.x, target)).all()
    last = attack(source(), best=False)  # which overshoots
    hits = [model.eval()(x).argmax(1) == target for x in (found, last)]
    assert (hits[0] | ~hits[1]).all()
    assert (losses(model, found, target) <= losses(model, last, target))[hits[0] == hits[1]].all()


def fooled(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad(), undisturbed(model) as f:
        return f(x).argmax(1) != y


def no_weaker(model: nn.Module, data: Batch, strong: Tensor, weak: Tensor) -> bool:
    """It fools wherever the other does and, where they are alike in that, has no smaller loss."""
    one, other = (fooled(model, x, data.y) for x in (strong, weak))
    larger = losses(model, strong, data.y) >= losses(model, weak, data.y) - ROUNDING
    return bool((one | ~other).all() and larger[one == other].all())


def test_best_is_no_weaker_than_last_and_restarts_no_weaker_than_one() -> None:
    model, data = network(), batch(200)
    attack = partial(pgd, model, data, radius=2.0, steps=3, step_size=3.0)  # too long a step
    for best in (True, False):  # the first of the restarts has the draws of the single one
        once = attack(source(), best=best)
        assert no_weaker(model, data, attack(source(), best=best, restarts=3), once)
    last = attack(source(), best=False)
    assert no_weaker(model, data, attack(source()), last)
    assert not no_weaker(model, data, last, attack(source()))


def test_a_point_that_fools_is_better_than_a_larger_loss() -> None:
    """Three classes at (0.40, 0.45, 0.15), and uphill at (0.34, 0.33, 0.33), where the label wins."""
    here, there = (torch.tensor(p, dtype=torch.float64) for p in ((40, 45, 15), (34, 33, 33)))
    model = lambda x: (here + x * (there - here)).log()
    data = Batch(torch.zeros(1, 1, dtype=torch.float64), torch.tensor([0]))
    attack = partial(pgd, model, data, source(), radius=1.0, steps=1)
    assert attack(best=False).item() == 1.0 and attack().item() == 0.0


@every_ball
def test_does_not_follow_rounding_out_of_its_space(ball: Ball) -> None:
    """Of a gradient across the sphere its tangent space keeps 1e-17, in any direction."""
    x = linalg.unit(torch.randn(8, 3, generator=source(), dtype=torch.float64))
    radial = lambda z: torch.stack([z.norm(dim=1), torch.zeros(8).to(z)], 1)
    sphere, data = Sphere(2), Batch(x, torch.zeros(8, dtype=torch.long))
    v = pgd(radial, data, source(9), ball=ball, radius=0.2, confine=along(sphere)) - x
    assert (v - sphere.to_tangent(x, v)).abs().max() < ROUNDING
    assert lengths(v, ball).max() <= 0.2 + ROUNDING


@every_ball
@pytest.mark.parametrize("confine", [along, across])
def test_starts_are_turned_into_their_space_not_shortened(ball: Ball, confine) -> None:
    """A tangent space of few dimensions keeps little of a random vector."""
    x = linalg.unit(torch.randn(8, 3, generator=source(), dtype=torch.float64))
    still = partial(pgd, ball=ball, start=in_ball, step_size=0.0, best=False)
    attack = partial(still, network(), Batch(x, torch.arange(8) % 4), radius=0.2)
    free, turned = attack(source(9)) - x, attack(source(9), confine=confine(Sphere(2))) - x
    torch.testing.assert_close(lengths(turned, ball), lengths(free, ball), rtol=1e-9, atol=0)


@final
@dataclass
class Counting(Geometry):
    """A sphere that counts how often it is prepared."""

    sphere: Sphere = field(default_factory=lambda: Sphere(2))
    prepared: int = 0
    dim = 2

    def to_tangent(self, x: Tensor, v: Tensor) -> Tensor:
        return self.sphere.to_tangent(x, v)

    def at(self, batch: Batch) -> Geometry:
        del batch
        self.prepared += 1
        return self


@pytest.mark.parametrize("confine", [along, across])
def test_spaces_are_looked_up_once(confine) -> None:
    geometry = Counting()
    x = linalg.unit(torch.randn(8, 3, generator=source(), dtype=torch.float64))
    data = Batch(x, torch.arange(8) % 4)
    pgd(network(), data, source(), confine=confine(geometry), restarts=2)
    assert geometry.prepared == 1


@pytest.mark.parametrize(("best", "forwards"), [(True, 8), (False, 7)])
def test_no_pass_too_many(best: bool, forwards: int) -> None:
    counts = {"forward": 0, "backward": 0}
    model, data = network().eval(), batch()

    def count(logits: Tensor) -> Tensor:
        counts["forward"] += 1
        if logits.requires_grad:
            logits.register_hook(lambda g: counts.__setitem__("backward", counts["backward"] + 1))
        return logits

    pgd(lambda x: count(model(x)), data, source(), steps=7, best=best)
    assert counts == {"forward": forwards, "backward": 7}


# BatchNorm that trains


def published(model: nn.Module, x: Tensor, y: Tensor, start: Tensor, radius: float, steps: int):
    """The attack of the code of Srinivas et al. 2023, whose norms are those of the whole batch."""
    v = radius * start / start.norm() / 2
    for _ in range(steps):
        v = v.detach().requires_grad_()
        (g,) = torch.autograd.grad(nn.functional.cross_entropy(model(x + v), y), v)
        v = v.detach() + 2 * radius / steps * g / g.norm()
        v = radius * v / v.norm() if v.norm() > radius else v
    return x + v


@pytest.mark.parametrize("members", [1, 2])
def test_the_published_attack_is_an_option(members: int) -> None:
    model, data, radius = network(12).train(), batch(8, (3, 2, 2)), 0.7
    before = {k: v.clone() for k, v in model.state_dict().items()}
    blocks = zip(data.x.chunk(members), data.y.chunk(members), range(members), strict=True)
    slow = [
        published(deepcopy(model), x, y, draws.uniform(x, source(i)), radius, 10)
        for x, y, i in blocks
    ]
    options = {"step_size": Steady(2), "start": in_orthant, "best": False, "training": True}
    attack = partial(pgd, ball=WholeBatch(members), radius=radius, **options)
    if members == 1:
        found = attack(model, data, source())
        torch.testing.assert_close(found, slow[0], rtol=0, atol=1e-9)
        assert (found - data.x).flatten(1).norm(dim=1).max() > radius / 8**0.5
        assert not torch.allclose(found, partial(attack, training=False)(model, data, source()))
    else:  # as a batch in two blocks, BatchNorm has to see each alone
        apart = lambda x: torch.cat([deepcopy(model)(part) for part in x.chunk(2)])
        found = attack(apart, data, (source(0), source(1)))
        torch.testing.assert_close(found, torch.cat(slow), rtol=0, atol=1e-9)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(m.training for m in model.modules())


def test_modes_come_back_after_an_error() -> None:
    model, data = network().train(), batch(8, (5,))  # of the wrong size
    with pytest.raises(RuntimeError):
        pgd(model, data, source())
    assert all(m.training for m in model.modules())


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"steps": 0}, "1 step and 1 start or more, not 0 and 1"),
        ({"restarts": 0}, "1 step and 1 start or more, not 10 and 0"),
        ({"radius": -1.0}, "radius must be finite and not negative, not -1.0"),
        ({"step_size": float("nan")}, "step_size must be finite"),
        ({"bounds": (1.0, 0.0)}, r"low < high, not \(1.0, 0.0\)"),
        ({"confine": along(Sphere(2)), "bounds": (0.0, 1.0)}, "a confined perturbation out of"),
        ({"radius": torch.ones(3)}, r"radius has shape \(3,\), and \(8,\) is one for each"),
        ({"radius": torch.ones(8, 1)}, r"radius has shape \(8, 1\), and \(8,\)"),
        (
            {"target": torch.zeros(2, dtype=torch.long)},
            r"targets of shape \(2,\) for labels \(8,\)",
        ),
    ],
)
def test_wrong_options_are_refused(options, line: str) -> None:
    with pytest.raises(ValueError, match=line) as refused:
        pgd(network(), batch(), source(), **options)
    assert "\n" not in str(refused.value)
