"""Training steps, the gradient of an objective for all weights, beside plain steps of cross-entropy."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import inputs, peers
from manifoldlab import draws
from manifoldlab.attacks.pgd import pgd
from manifoldlab.benchmarking.case import Case, Contest, Contestant, Floor, Setting, whole
from manifoldlab.geometries import Looked
from manifoldlab.interfaces import Batch, Objective
from manifoldlab.objectives.adversarial import adversarial
from manifoldlab.objectives.cross_entropy import cross_entropy
from manifoldlab.objectives.gradient_penalty import gradient_penalty
from manifoldlab.objectives.mart import mart
from manifoldlab.objectives.noise_augmentation import noise_augmentation
from manifoldlab.objectives.normal_penalty import normal_penalty
from manifoldlab.objectives.score_matching import score_matching
from manifoldlab.objectives.smoothness_penalty import smoothness_penalty
from manifoldlab.objectives.trades import trades
from manifoldlab.objectives.weat import weat

STRENGTH = 0.1
REASON = "float32 sums through many layers, of one gradient or of a gradient of a gradient"

Gradients = tuple[Tensor, ...]
Noisy = Callable[[nn.Module, Batch, Tensor], Tensor]  # model, batch, noise -> loss


def joined(gradients: Gradients) -> Tensor:
    return torch.cat([g.flatten() for g in gradients])


def _step(objective: Objective, model: nn.Module, batch: Batch) -> Gradients:
    generator = torch.Generator().manual_seed(0)
    return peers.plain_step(lambda: objective(model, batch, generator), model)


def _plain(model: nn.Module, batch: Batch) -> Gradients:
    loss = F.cross_entropy
    return peers.plain_step(lambda: loss(model(batch.x), batch.y), model)


def _penalty_of_resnet(setting: Setting) -> Contest:
    shape = (3, 8, 8) if setting.small else inputs.IMAGE
    model = inputs.network("resnet18", setting.device, shape, width=setting.pick(64, 4))
    batch = inputs.pictures(setting.pick(8, 2), setting.device, shape)
    given = batch.x, batch.y, STRENGTH
    published = lambda m, *given: peers.plain_step(lambda: peers.published_penalty(m, *given), m)
    objective: Any = partial(gradient_penalty, strength=STRENGTH)
    return Contest(
        own=Contestant(partial(_step, objective, model, batch), joined),
        floor=Floor("2 plain steps", inputs.times(2, partial(_plain, model, batch))),
        peers={
            "loss with autograd.grad": Contestant(partial(published, model, *given), joined),
            "torch.func grad of grad": Contestant(
                partial(peers.functional_penalty, model, *given), joined
            ),
        },
        exact=lambda: joined(published(inputs.doubled(model), batch.x.double(), *given[1:])),
        within=1e-2,
        reason=REASON,
        sizes={"n": len(batch.x), "D": batch.x[0].numel(), "K": 10},
        error=whole,
    )


def _of_small_network(
    make: Callable[[Batch], Objective],
    steps: int,
    attacks: int,
    noisy: Noisy | None,
    setting: Setting,
) -> Contest:
    """The same objective in float64; where it draws noise, the formula with the noise that was drawn."""
    shape = (3, 16, 16)
    model = inputs.network("small_cnn", setting.device, shape)
    batch = inputs.pictures(setting.pick(64, 4), setting.device, shape)
    plain = partial(_plain, model, batch)
    ascent = inputs.gradient_passes(model, batch.x, batch.y)
    floor = inputs.in_turn(inputs.times(steps, plain), inputs.times(attacks, ascent))
    more = f", and {attacks} gradients of the attack" if attacks else ""
    wide = batch._replace(x=batch.x.double())

    def exact() -> Tensor:
        double = inputs.doubled(model)
        if noisy is None:
            return joined(_step(make(wide), double, wide))
        u = draws.normal(batch.x, torch.Generator().manual_seed(0)).double()
        return joined(peers.plain_step(lambda: noisy(double, wide, u), double))

    return Contest(
        own=Contestant(partial(_step, make(batch), model, batch), joined),
        floor=Floor(f"{steps} plain step{'s' if steps > 1 else ''}{more}", floor),
        exact=exact,
        within=5e-2 if attacks else 1e-2,
        reason=REASON + ("; attacks part at signs and ReLUs near zero" if attacks else ""),
        sizes={"n": len(batch.x), "D": batch.x[0].numel(), "K": 10},
        error=whole,
    )


def _across(batch: Batch) -> Objective:
    basis = inputs.frames(len(batch.x), batch.x[0].numel(), 16).to(batch.x)
    found: Any = partial(normal_penalty, geometry=Looked(basis), strength=STRENGTH)
    return found


def _fixed(objective: Any, **options: Any) -> Callable[[Batch], Objective]:
    return lambda batch: partial(objective, **options)


def _noise_augmentation(model: nn.Module, batch: Batch, u: Tensor) -> Tensor:
    return F.cross_entropy(model(batch.x + 0.1 * u), batch.y)


def _smoothness_penalty(model: nn.Module, batch: Batch, u: Tensor) -> Tensor:
    here = model(batch.x)
    change = (model(batch.x + 0.1 * u) - here).square().sum(1)
    return F.cross_entropy(here, batch.y) + change.mean()


def _score_matching(model: nn.Module, batch: Batch, u: Tensor) -> Tensor:
    x = (batch.x + 0.1 * u).requires_grad_()
    (score,) = torch.autograd.grad(model(x).logsumexp(1).sum(), x, create_graph=True)
    square = (0.1 * score + u).square().flatten(1).sum(1)
    return F.cross_entropy(model(batch.x), batch.y) + STRENGTH * square.mean()


ATTACK = partial(pgd, radius=0.5, steps=10, best=False)

CASES = (
    Case(
        "objectives/gradient_penalty/resnet18",
        "a step of training with a penalty on the input gradient",
        _penalty_of_resnet,
    ),
    *(
        Case(f"objectives/{name}/small_cnn", about, partial(_of_small_network, make, *passes))
        for name, about, make, passes in (
            ("cross_entropy", "a plain step", _fixed(cross_entropy), (1, 0, None)),
            (
                "gradient_penalty",
                "a penalty on the gradient",
                _fixed(gradient_penalty),
                (2, 0, None),
            ),
            ("normal_penalty", "on its part across", _across, (2, 0, None)),
            (
                "score_matching",
                "denoising score matching",
                _fixed(score_matching),
                (3, 0, _score_matching),
            ),
            (
                "smoothness_penalty",
                "clean and noisy logits",
                _fixed(smoothness_penalty),
                (2, 0, _smoothness_penalty),
            ),
            (
                "noise_augmentation",
                "noisy samples",
                _fixed(noise_augmentation),
                (1, 0, _noise_augmentation),
            ),
            ("adversarial", "10 steps of PGD", _fixed(adversarial, attack=ATTACK), (1, 10, None)),
            (
                "trades",
                "the same, clean and attacked",
                _fixed(trades, attack=ATTACK),
                (2, 10, None),
            ),
            ("mart", "the same, weighed", _fixed(mart, attack=ATTACK), (2, 10, None)),
            ("weat", "the same, weighed by energies", _fixed(weat, attack=ATTACK), (2, 10, None)),
        )
    ),
)
