"""Probes and attacks make the passes that they cannot avoid, and never wait for the device."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from manifoldlab import catalog, linalg
from manifoldlab.attacks.base import LINF, along
from manifoldlab.attacks.noise import noise
from manifoldlab.attacks.pgd import in_ball, pgd
from manifoldlab.geometries import Looked
from manifoldlab.interfaces import Batch
from manifoldlab.perception import Perception
from manifoldlab.probes.gradient_rank import gradient_rank
from manifoldlab.probes.lpips_alignment import lpips_alignment
from manifoldlab.probes.on_off_robustness import on_off_robustness
from manifoldlab.probes.perceptual_alignment import perceptual_alignment
from manifoldlab.probes.score_alignment import score_alignment
from manifoldlab.probes.signal_robustness import signal_robustness
from manifoldlab.probes.spectral_alignment import spectral_alignment
from manifoldlab.probes.tangent_alignment import tangent_alignment

N, SHAPE, CLASSES, STEPS, SIZES = 3, (1, 32, 32), 5, 4, (0.1, 0.2)


class Passes(NamedTuple):
    forward: int  # calls
    points: int  # of all calls, in batches
    backward: int


class _Seen(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, model: "Counting") -> Tensor:
        ctx.model = model
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        ctx.model.backwards += 1
        return gradient, None


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.randn(1024, CLASSES, generator=generator) / 32
        self.forwards, self.points, self.backwards = 0, 0, 0

    def forward(self, x: Tensor) -> Tensor:
        self.forwards, self.points = self.forwards + 1, self.points + len(x)
        seen: Tensor = _Seen.apply(x, self)  # type: ignore[no-untyped-call]
        return (seen.flatten(1) @ self.weight).tanh()

    def passes(self) -> Passes:
        assert self.points % N == 0
        return Passes(self.forwards, self.points // N, self.backwards)


def batch() -> Batch:
    x = torch.rand(N, *SHAPE, generator=torch.Generator().manual_seed(1))
    return Batch(x, torch.arange(N) % CLASSES, region=(x > 0.5))


def geometry() -> Looked:
    frames = [linalg.random_frame(1024, 4, seed).float() for seed in range(N)]
    return Looked(torch.stack(frames))


def score(batch: Batch) -> Tensor:
    return batch.x - 0.5


LOOK = Counting()  # the network that perceptual probes see pictures with


def look(x: Tensor) -> list[Tensor]:
    return [LOOK(x.mean(1, keepdim=True))]


STEPPED = len(SIZES) * 2 * STEPS
PROBES: dict[str, tuple[Callable[..., Any], Passes]] = {
    "tangent_alignment": (tangent_alignment, Passes(1, 1, 1)),
    "score_alignment": (partial(score_alignment, reference=score), Passes(1, 1, 1)),
    "spectral_alignment": (partial(spectral_alignment, reference=score), Passes(1, 1, 1)),
    "perceptual_alignment": (
        partial(perceptual_alignment, reference=score, features=look),
        Passes(1, 1, 1),
    ),
    "lpips_alignment": (
        partial(lpips_alignment, reference=score, metric=Perception(look)),
        Passes(1, 1, 1),
    ),
    "gradient_rank": (gradient_rank, Passes(1, 1, CLASSES)),
    "on_off_robustness": (
        partial(on_off_robustness, sizes=SIZES, directions=STEPS),
        Passes(2, 1 + STEPPED, 1),
    ),
    "signal_robustness": (
        partial(signal_robustness, sizes=SIZES, directions=STEPS),
        Passes(2, 1 + STEPPED, 0),
    ),
}

ATTACKS: dict[str, tuple[Callable[..., Tensor], Passes]] = {
    "noise": (noise, Passes(0, 0, 0)),
    "pgd": (partial(pgd, steps=STEPS), Passes(STEPS + 1, STEPS + 1, STEPS)),
    "the last point of pgd": (
        partial(pgd, steps=STEPS, best=False, start=in_ball, ball=LINF, bounds=(0, 1)),
        Passes(STEPS, STEPS, STEPS),
    ),
    "pgd along": (
        partial(pgd, steps=STEPS, best=False, confine=along(geometry())),
        Passes(STEPS, STEPS, STEPS),
    ),
    "pgd with restarts": (
        partial(pgd, steps=STEPS, restarts=3),
        Passes(3 * (STEPS + 1), 3 * (STEPS + 1), 3 * STEPS),
    ),
}


class Waiting(TorchDispatchMode):
    """Notes what has to know numbers of the device before it can go on."""

    waits = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select")

    def __init__(self) -> None:
        super().__init__()
        self.seen = list[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.seen += [name] * (name in self.waits)
        return func(*args, **(kwargs or {}))


def test_all_probes_and_attacks_are_counted() -> None:
    assert PROBES.keys() == set(catalog.names("probes"))
    assert {name.removeprefix("the last point of ").split()[0] for name in ATTACKS} == set(
        catalog.names("attacks")
    )


@pytest.mark.parametrize("name", PROBES)
def test_passes_of_probes(name: str) -> None:
    probe, floor = PROBES[name]
    model, before = Counting(), LOOK.passes()
    probe(model, batch(), geometry())
    assert model.passes() == floor
    looks = tuple(b - a for a, b in zip(before, LOOK.passes(), strict=True))
    perceptual = name in ("perceptual_alignment", "lpips_alignment")
    assert looks == ((1, 3, 0) if perceptual else (0, 0, 0))  # gradient, noise and score at once


@pytest.mark.parametrize("name", ATTACKS)
def test_passes_of_attacks(name: str) -> None:
    attack, floor = ATTACKS[name]
    model = Counting()
    attack(model, batch(), torch.Generator().manual_seed(0))
    assert model.passes() == floor


@pytest.mark.parametrize("name", PROBES)
def test_probes_do_not_wait(name: str) -> None:
    with Waiting() as waiting:
        PROBES[name][0](Counting(), batch(), geometry())
    assert not waiting.seen


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_do_not_wait(name: str) -> None:
    with Waiting() as waiting:
        ATTACKS[name][0](Counting(), batch(), torch.Generator().manual_seed(0))
    assert not waiting.seen


def test_waiting_is_seen() -> None:
    with Waiting() as waiting:
        bool((batch().x > 2).any())
        batch().x.sum().item()
    assert waiting.seen == ["_local_scalar_dense"] * 2


@pytest.mark.parametrize("copies", [1, 3, 100])
def test_chunks_bound_passes_by_numbers(copies: int) -> None:
    """So many copies of the batch in a pass, of the 16 that are stepped along."""
    model = Counting()
    chunk = copies * batch().x.numel()
    probe = partial(on_off_robustness, sizes=SIZES, directions=STEPS, chunk=chunk)
    probe(model, batch(), geometry())
    blocks = {1: 16, 3: 2 * 3, 100: 1}[copies]  # of 3, 3 and 2 for either size
    assert model.passes() == Passes(1 + blocks, 17, 1)
