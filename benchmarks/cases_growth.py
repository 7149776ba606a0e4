"""How time and memory grow with samples n, numbers of a sample D, tangent directions k and classes K.

The network of the probes is one that costs next to nothing, so that what grows is the probe's own part;
what passes of a network cost is measured apart, on a ResNet-18.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import inputs
from manifoldlab import jacobian_range
from manifoldlab.attacks.pgd import pgd
from manifoldlab.benchmarking.case import Call, Setting
from manifoldlab.benchmarking.growth import Growing, Sizes
from manifoldlab.geometries import Looked
from manifoldlab.gradients import input_gradient, margin
from manifoldlab.interfaces import Batch
from manifoldlab.probes.gradient_rank import gradient_rank
from manifoldlab.probes.on_off_robustness import on_off_robustness
from manifoldlab.probes.score_alignment import score_alignment
from manifoldlab.probes.spectral_alignment import spectral_alignment
from manifoldlab.probes.tangent_alignment import tangent_alignment
from manifoldlab.tangents.autoencoder import Autoencoder
from manifoldlab.tangents.base import unlabelled
from manifoldlab.tangents.local_pca import LocalPca

SIDES = (32, 64, 112, 224)
AMBIENT = tuple(3 * side * side for side in SIDES)  # to 150,528
BATCHES = (1, 2, 4, 8, 16, 32)
DIRECTIONS = (16, 32, 64, 128, 256)
CLASSES = (10, 30, 100, 300, 1000)


class Light(nn.Module):
    """Means over 8 x 8 tiles, and a linear layer: about as much as reading x."""

    def __init__(self, side: int, classes: int):
        super().__init__()
        self.pool, self.linear = nn.AvgPool2d(8), nn.Linear(3 * (side // 8) ** 2, classes)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.linear(self.pool(x).flatten(1))
        return found


def _side(sizes: Sizes) -> int:
    return round((sizes["D"] / 3) ** 0.5)


def _light(setting: Setting, sizes: Sizes) -> tuple[nn.Module, Batch]:
    torch.manual_seed(0)
    side, classes = _side(sizes), sizes.get("K", 10)
    model = Light(side, classes).to(setting.device).eval()
    return model, inputs.pictures(sizes["n"], setting.device, (3, side, side), classes)


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
    side = _side(sizes)
    model = inputs.network("resnet18", setting.device, (3, side, side), width=setting.pick(64, 4))
    return model, inputs.pictures(sizes["n"], setting.device, (3, side, side))


def _forward(setting: Setting, sizes: Sizes) -> Call:
    model, batch = _resnet(setting, sizes)
    return partial(inputs.forward, model, batch.x)


def _gradient(setting: Setting, sizes: Sizes) -> Call:
    model, batch = _resnet(setting, sizes)
    return partial(input_gradient, inputs.prepared(model), batch.x, batch.y, margin)


def _coder(setting: Setting, sizes: Sizes) -> Any:
    shape = (3, _side(sizes), _side(sizes))
    options = {"latent": sizes["k"], "width": 8, "depth": 2}
    return inputs.network("autoencoder", setting.device, shape, None, **options)


def _columns(setting: Setting, sizes: Sizes) -> Call:
    model, z = _coder(setting, sizes), inputs.normal(sizes["n"], sizes["k"]).to(setting.device)
    return lambda: jacobian_range.columns(model.decode, z, sizes["D"], 2**19)


def _decode(setting: Setting, sizes: Sizes) -> Call:
    """Of as many latents as a Jacobian has columns, and one: its floor."""
    model = _coder(setting, sizes)
    z = inputs.normal(sizes["n"] * (sizes["k"] + 1), sizes["k"]).to(setting.device)
    parts = torch.split(z, max(1, 2**21 // sizes["D"]))
    decode = torch.no_grad()(model.decode)
    return lambda: [decode(part) for part in parts]


def _autoencoder(setting: Setting, sizes: Sizes) -> Call:
    model, side = _coder(setting, sizes), _side(sizes)
    batch = inputs.pictures(sizes["n"], setting.device, (3, side, side))
    estimator = Autoencoder(model, sizes["k"])
    return lambda: estimator.spaces(batch)


def _local_pca(setting: Setting, sizes: Sizes) -> Call:
    reference = inputs.uniform(sizes["m"], sizes["D"]).to(setting.device)
    estimator = LocalPca(reference, 8, 32)
    batch = unlabelled(reference[: sizes["n"]].clone())
    return lambda: estimator.spaces(batch)


def _one(sizes: Sizes) -> float:
    return 1.0


def _product(*names: str) -> Callable[[Sizes], float]:
    def term(sizes: Sizes) -> float:
        found = 1.0
        for name in names:
            found *= sizes[name]
        return found

    return term


CACHE = 2**22  # numbers of float32, 16 MiB: more of them are read from memory, at another speed
BEYOND = f"n D k if over {CACHE}"


def _beyond(sizes: Sizes) -> float:
    bases = _product("n", "D", "k")(sizes)
    return bases if bases > CACHE else 0.0


STACK = (
    2**17
)  # n D, of which the 64 steps of a sample make 32 MiB: more is given back at once, and cleared anew
STACKED = f"n D if over {STACK}"


def _stacked(sizes: Sizes) -> float:
    numbers = _product("n", "D")(sizes)
    return numbers if numbers > STACK else 0.0


def _terms(*words: str) -> dict[str, Callable[[Sizes], float]]:
    """'n D k' stands for the product of the three."""
    return {"1": _one} | {word: _product(*word.split()) for word in words}


IMAGE, SMALL = 150_528, 3_072

GROWING = (
    Growing(
        "networks/forward/resnet18",
        "a forward pass without gradients, as a user has the network",
        _forward,
        {"n": 4, "D": SMALL},
        {"n": (1, 2, 4, 8, 16), "D": (3_072, 6_912, 12_288, 27_648)},
        _terms("n", "n D"),
        ({"n": 8, "D": 6_912}, {"n": 1, "D": IMAGE}),
    ),
    Growing(
        "gradients/input_gradient/resnet18",
        "a forward pass and a backward pass to the input",
        _gradient,
        {"n": 4, "D": SMALL},
        {"n": (1, 2, 4, 8, 16), "D": (3_072, 6_912, 12_288, 27_648)},
        _terms("n", "n D"),
        ({"n": 8, "D": 6_912}, {"n": 1, "D": IMAGE}),
    ),
    *(
        Growing(
            f"probes/{name}/light",
            about,
            partial(_probe, probe),
            {"n": 4, "D": 12_288, "k": 32},
            {"n": BATCHES, "D": AMBIENT, "k": DIRECTIONS},
            _terms("n", "n D", "n D k") | terms,
            ({"n": 16, "D": 12_288, "k": 64}, {"n": 2, "D": IMAGE, "k": 64}),
            passes,
        )
        for name, about, probe, terms, passes in (
            (
                "tangent_alignment",
                "with bases given",
                tangent_alignment,
                {BEYOND: _beyond},
                {"gradient": 1},
            ),
            (
                "score_alignment",
                "with bases and a field given",
                partial(score_alignment, reference=_given),
                {BEYOND: _beyond},
                {"gradient": 1},
            ),
            (
                "on_off_robustness",
                "4 sizes and 8 directions, with bases given",
                partial(on_off_robustness, sizes=(0.01, 0.03, 0.1, 0.3)),
                {BEYOND: _beyond, STACKED: _stacked},
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
        _terms("n", "D", "n D"),
        ({"n": 16, "D": 37_632}, {"n": 2, "D": IMAGE}),
        {"gradient": 1},
    ),
    Growing(
        "probes/gradient_rank/light",
        "the Gram matrix of K gradients, whole and tangent",
        partial(_probe, gradient_rank),
        {"n": 2, "D": 12_288, "k": 16, "K": 10},
        {"n": BATCHES, "D": AMBIENT, "K": (10, 30, 100, 300)},
        _terms("K", "n D K", "n D K K"),
        ({"n": 8, "D": 12_288, "K": 30}, {"n": 2, "D": 37_632, "K": 100}),
        {"forward": 11},
    ),
    Growing(
        "attacks/pgd/light",
        "10 steps in an l2 ball",
        _pgd,
        {"n": 4, "D": 12_288},
        {"n": BATCHES, "D": AMBIENT},
        _terms("n", "n D"),
        ({"n": 16, "D": 37_632}, {"n": 2, "D": IMAGE}),
        {"gradient": 10, "forward": 1},
    ),
    Growing(
        "tangents/columns/conv",
        "the Jacobian of a small decoder",
        _columns,
        {"n": 2, "D": 12_288, "k": 32},
        {"n": (1, 2, 4, 8), "D": AMBIENT, "k": DIRECTIONS},
        _terms("n", "k", "n D k"),
        ({"n": 4, "D": 12_288, "k": 64}, {"n": 1, "D": IMAGE, "k": 64}),
    ),
    Growing(
        "networks/decode/conv",
        "forward passes of k + 1 latents, the floor of its Jacobian",
        _decode,
        {"n": 2, "D": 12_288, "k": 32},
        {"n": (1, 2, 4, 8), "D": AMBIENT, "k": DIRECTIONS},
        _terms("n", "k", "n D k"),
        ({"n": 4, "D": 12_288, "k": 64},),
    ),
    Growing(
        "tangents/autoencoder/conv",
        "spaces of a small autoencoder: bases where D k is at most 2^20, else factors",
        _autoencoder,
        {"n": 2, "D": 12_288, "k": 32},
        {"n": (1, 2, 4, 8), "D": AMBIENT, "k": DIRECTIONS},
        _terms("n", "k", "n D k", "n D k k", "n k k k"),
        ({"n": 4, "D": 12_288, "k": 64}, {"n": 1, "D": IMAGE, "k": 64}),
    ),
    Growing(
        "tangents/local_pca/points",
        "8 directions from 32 neighbours among m points",
        _local_pca,
        {"n": 128, "D": 784, "m": 1_000},
        {
            "n": (32, 64, 128, 256, 512),
            "D": (196, 784, 3_072, 12_288),
            "m": (1_000, 2_000, 4_000, 8_000),
        },
        _terms("n", "n D", "n m", "n m D", "m D"),
        ({"n": 256, "D": 1_568, "m": 2_000},),
    ),
)
