"""How time and memory of probes grow with samples n, numbers D, tangent directions k and classes K.

The network of the probes is one that costs next to nothing, so that what grows is the probe's own part;
what passes of a network cost is measured apart, on a ResNet-18.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import inputs
from benchmarks.terms import (
    AMBIENT,
    BATCHES,
    BEYOND,
    DIRECTIONS,
    IMAGE,
    SMALL,
    STACKED,
    beyond,
    side,
    stacked,
    terms,
)
from manifoldlab.attacks.pgd import pgd
from manifoldlab.benchmarking.case import Call, Setting
from manifoldlab.benchmarking.growth import Growing, Sizes
from manifoldlab.geometries import Everything, Looked
from manifoldlab.gradients import input_gradient, margin
from manifoldlab.interfaces import Batch
from manifoldlab.models.alexnet import RECTIFIED
from manifoldlab.perception import Perception, hidden
from manifoldlab.probes.gradient_rank import gradient_rank
from manifoldlab.probes.lpips_alignment import lpips_alignment
from manifoldlab.probes.on_off_robustness import on_off_robustness
from manifoldlab.probes.perceptual_alignment import perceptual_alignment
from manifoldlab.probes.score_alignment import score_alignment
from manifoldlab.probes.signal_robustness import signal_robustness
from manifoldlab.probes.spectral_alignment import spectral_alignment
from manifoldlab.probes.tangent_alignment import tangent_alignment


class Light(nn.Module):
    """Means over 8 x 8 tiles, and a linear layer: about as much as reading x."""

    def __init__(self, side: int, classes: int):
        super().__init__()
        self.pool, self.linear = nn.AvgPool2d(8), nn.Linear(3 * (side // 8) ** 2, classes)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.linear(self.pool(x).flatten(1))
        return found


def _light(setting: Setting, sizes: Sizes) -> tuple[nn.Module, Batch]:
    torch.manual_seed(0)
    width, classes = side(sizes), sizes.get("K", 10)
    model = Light(width, classes).to(setting.device).eval()
    return model, inputs.pictures(sizes["n"], setting.device, (3, width, width), classes)


def _basis(batch: Batch, k: int) -> Looked:
    """Not orthonormal, which would take longer than what is measured; to a product it is all the same."""
    n, ambient = len(batch.x), batch.x[0].numel()
    return Looked(inputs.normal(n, ambient, k).to(batch.x) / ambient**0.5)


def _probe(probe: Callable[..., Any], setting: Setting, sizes: Sizes) -> Call:
    model, batch = _light(setting, sizes)
    geometry = _basis(batch, sizes.get("k", 16))
    return lambda: probe(model, batch, geometry)


def _given(batch: Batch) -> Tensor:
    return batch.x


def _pgd(setting: Setting, sizes: Sizes) -> Call:
    model, batch = _light(setting, sizes)
    return lambda: pgd(model, batch, torch.Generator().manual_seed(0), steps=10)


def _resnet(setting: Setting, sizes: Sizes) -> tuple[nn.Module, Batch]:
    shape = (3, side(sizes), side(sizes))
    model = inputs.network("resnet18", setting.device, shape, width=setting.pick(64, 4))
    return model, inputs.pictures(sizes["n"], setting.device, shape)


def _forward(setting: Setting, sizes: Sizes) -> Call:
    model, batch = _resnet(setting, sizes)
    return partial(inputs.forward, model, batch.x)


def _gradient(setting: Setting, sizes: Sizes) -> Call:
    model, batch = _resnet(setting, sizes)
    return partial(input_gradient, inputs.prepared(model), batch.x, batch.y, margin)


def _signal(setting: Setting, sizes: Sizes) -> Call:
    model, batch = _light(setting, sizes)
    batch = batch._replace(region=batch.x > 0.5)
    probe = partial(signal_robustness, sizes=(0.01, 0.03, 0.1, 0.3))
    return lambda: probe(model, batch, Everything(sizes["D"]))


def _perceptual(setting: Setting, sizes: Sizes) -> Call:
    model, batch = _light(setting, sizes)
    features = nn.Conv2d(3, 8, 8, stride=8).to(setting.device)
    probe = partial(perceptual_alignment, reference=_given, features=lambda v: [features(v)])
    return lambda: probe(model, batch, Everything(sizes["D"]))


def _lpips(setting: Setting, sizes: Sizes) -> Call:
    """By an AlexNet of random weights: as much work."""
    model, batch = _light(setting, sizes)
    alexnet = inputs.network("alexnet", setting.device, tuple(batch.x.shape[1:]))
    ends = tuple(f".{name}" for name in RECTIFIED)
    layers = tuple(name for name, _ in alexnet.named_modules() if name.endswith(ends))
    metric = Perception(hidden(alexnet, layers))
    probe = partial(lpips_alignment, reference=_given, metric=metric)
    return lambda: probe(model, batch, Everything(sizes["D"]))


GROWING = (
    Growing(
        "networks/forward/resnet18",
        "a forward pass without gradients, as a user has the network",
        _forward,
        {"n": 4, "D": SMALL},
        {"n": (1, 2, 4, 8, 16), "D": (3_072, 6_912, 12_288, 27_648)},
        terms("n", "n D"),
        ({"n": 8, "D": 6_912}, {"n": 1, "D": IMAGE}),
    ),
    Growing(
        "gradients/input_gradient/resnet18",
        "a forward pass and a backward pass to the input",
        _gradient,
        {"n": 4, "D": SMALL},
        {"n": (1, 2, 4, 8, 16), "D": (3_072, 6_912, 12_288, 27_648)},
        terms("n", "n D"),
        ({"n": 8, "D": 6_912}, {"n": 1, "D": IMAGE}),
    ),
    *(
        Growing(
            f"probes/{name}/light",
            about,
            partial(_probe, probe),
            {"n": 4, "D": 12_288, "k": 32},
            {"n": BATCHES, "D": AMBIENT, "k": DIRECTIONS},
            terms("n", "n D", "n D k") | more,
            ({"n": 16, "D": 12_288, "k": 64}, {"n": 2, "D": IMAGE, "k": 64}),
            passes,
        )
        for name, about, probe, more, passes in (
            (
                "tangent_alignment",
                "with bases given",
                tangent_alignment,
                {BEYOND: beyond},
                {"gradient": 1},
            ),
            (
                "score_alignment",
                "with bases and a field given",
                partial(score_alignment, reference=_given),
                {BEYOND: beyond},
                {"gradient": 1},
            ),
            (
                "on_off_robustness",
                "4 sizes and 8 directions, with bases given",
                partial(on_off_robustness, sizes=(0.01, 0.03, 0.1, 0.3)),
                {BEYOND: beyond, STACKED: stacked},
                {"gradient": 1, "forward": 65},
            ),
        )
    ),
    Growing(
        "probes/spectral_alignment/light",
        "with a field given",
        partial(_probe, partial(spectral_alignment, reference=_given)),
        {"n": 4, "D": 12_288},
        {"n": BATCHES, "D": AMBIENT},
        terms("n", "D", "n D"),
        ({"n": 16, "D": 37_632}, {"n": 2, "D": IMAGE}),
        {"gradient": 1},
    ),
    Growing(
        "probes/gradient_rank/light",
        "the Gram matrix of K gradients, whole and tangent",
        partial(_probe, gradient_rank),
        {"n": 2, "D": 12_288, "k": 16, "K": 10},
        {"n": BATCHES, "D": AMBIENT, "K": (10, 30, 100, 300)},
        terms("K", "n D K", "n D K K"),
        ({"n": 8, "D": 12_288, "K": 30}, {"n": 2, "D": 37_632, "K": 100}),
        {"forward": 11},
    ),
    Growing(
        "attacks/pgd/light",
        "10 steps in an l2 ball",
        _pgd,
        {"n": 4, "D": 12_288},
        {"n": BATCHES, "D": AMBIENT},
        terms("n", "n D"),
        ({"n": 16, "D": 37_632}, {"n": 2, "D": IMAGE}),
        {"gradient": 10, "forward": 1},
    ),
    Growing(
        "probes/signal_robustness/light",
        "4 sizes and 8 directions",
        _signal,
        {"n": 4, "D": 12_288},
        {"n": BATCHES, "D": AMBIENT},
        terms("n", "n D") | {STACKED: stacked},
        ({"n": 16, "D": 12_288}, {"n": 2, "D": IMAGE}),
        {"forward": 65},
    ),
    Growing(
        "probes/perceptual_alignment/light",
        "with a field given, by features that cost next to nothing",
        _perceptual,
        {"n": 4, "D": 12_288},
        {"n": BATCHES, "D": AMBIENT},
        terms("n", "n D"),
        ({"n": 16, "D": 12_288}, {"n": 2, "D": IMAGE}),
        {"gradient": 1},
    ),
    Growing(
        "probes/lpips_alignment/light",
        "with a field given, by an AlexNet",
        _lpips,
        {"n": 2, "D": 12_288},
        {"n": (1, 2, 4, 8), "D": AMBIENT[1:]},
        terms("n", "n D"),
        ({"n": 4, "D": 37_632},),
        {"gradient": 1},
    ),
)
