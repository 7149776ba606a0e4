"""Attacks, beside the passes that their steps are. Contestants climb by one rule, from the same point."""

from functools import partial

import torch
from torch import Tensor, nn

from benchmarks import inputs, peers
from benchmarks.variants import on_gpu
from manifoldlab.attacks.base import L2, LINF
from manifoldlab.attacks.noise import noise
from manifoldlab.attacks.pgd import Steady, pgd
from manifoldlab.benchmarking.case import (
    Case,
    Contest,
    Contestant,
    Floor,
    Setting,
    library,
    whole,
)

STEPS = 10


def _reached(
    model: nn.Module, x: Tensor, y: Tensor, radius: float, linf: bool, found: Tensor
) -> Tensor:
    """Losses in float64; infinite where a sample left the ball or [0, 1]."""
    v = (found - x).double().flatten(1)
    length = v.abs().amax(1) if linf else v.norm(dim=1)
    outside = (
        (length > radius * (1 + 1e-4))
        | (found.flatten(1).amin(1) < 0)
        | (found.flatten(1).amax(1) > 1)
    )
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(model(found.double()), y, reduction="none")
    return loss.where(~outside, torch.inf)


def _pgd(linf: bool, setting: Setting) -> Contest:
    shape = (3, 8, 8) if setting.small else inputs.IMAGE
    model = inputs.network("resnet18", setting.device, shape, width=setting.pick(64, 4))
    x, y, *_ = batch = inputs.pictures(setting.pick(8, 2), setting.device, shape)
    radius = 8 / 255 if linf else 0.5
    size = 2.5 * radius / STEPS
    job = {"radius": radius, "steps": STEPS, "size": size, "linf": linf}
    double = inputs.doubled(model)
    read = partial(_reached, double, x, y, radius, linf)
    own = partial(
        pgd,
        generator=torch.Generator().manual_seed(0),
        ball=LINF if linf else L2,
        radius=radius,
        steps=STEPS,
        step_size=Steady(2.5),
        bounds=(0.0, 1.0),
        best=False,
    )
    given = model, x, y
    return Contest(
        own=Contestant(partial(own, inputs.prepared(model), batch), read),
        floor=Floor(
            f"{STEPS} forward passes and as many backward ones to the input",
            inputs.times(STEPS, inputs.gradient_passes(*given)),
        ),
        peers={
            **on_gpu(lambda model, x: own(model, batch._replace(x=x)), model, x, read),
            "plain script": Contestant(partial(peers.plain_pgd, *given, **job), read),
            "torchattacks": library(
                "torchattacks",
                lambda m: Contestant(partial(peers.by_torchattacks, m, *given, **job), read),
            ),
            "foolbox": library(
                "foolbox", lambda m: Contestant(partial(peers.by_foolbox, m, *given, **job), read)
            ),
        },
        exact=lambda: read(peers.plain_pgd(double, x.double(), y, **job)),
        within=2e-2,
        reason="of the loss that is reached: signs and ReLUs near zero send two climbers apart",
        sizes={"n": len(x), "D": x[0].numel(), "steps": STEPS},
        error=whole,
    )


def _noise(setting: Setting) -> Contest:
    batch = inputs.pictures(setting.pick(32, 2), setting.device)
    model = nn.Identity()
    read = lambda found: (found - batch.x).double().flatten(1).norm(dim=1)
    own = partial(noise, model, batch, torch.Generator().manual_seed(0), radius=0.5)
    return Contest(
        own=Contestant(own, read),
        floor=Floor(
            "drawing the noise, and adding it", lambda: batch.x + torch.randn_like(batch.x)
        ),
        exact=lambda: torch.full((len(batch.x),), 0.5, dtype=torch.float64),
        within=1e-5,
        reason="lengths of float32 vectors",
        sizes={"n": len(batch.x), "D": batch.x[0].numel()},
    )


CASES = (
    Case("attacks/pgd/l2_resnet18", "10 steps in an l2 ball on a ResNet-18", partial(_pgd, False)),
    Case("attacks/pgd/linf_resnet18", "10 steps in an linf ball", partial(_pgd, True)),
    Case("attacks/noise/l2", "a random direction", _noise),
)
