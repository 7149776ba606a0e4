"""How time and memory of tangent spaces grow with samples n, numbers of a sample D, and directions k."""

from typing import Any

import torch

from benchmarks import inputs
from benchmarks.terms import AMBIENT, DIRECTIONS, IMAGE, side, terms
from manifoldlab import jacobian_range
from manifoldlab.benchmarking.case import Call, Setting
from manifoldlab.benchmarking.growth import Growing, Sizes
from manifoldlab.tangents.autoencoder import Autoencoder
from manifoldlab.tangents.base import unlabelled
from manifoldlab.tangents.denoiser import Denoiser
from manifoldlab.tangents.local_pca import LocalPca


def _coder(setting: Setting, sizes: Sizes) -> Any:
    shape = (3, side(sizes), side(sizes))
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
    model, width = _coder(setting, sizes), side(sizes)
    batch = inputs.pictures(sizes["n"], setting.device, (3, width, width))
    estimator = Autoencoder(model, sizes["k"])
    return lambda: estimator.spaces(batch)


def _local_pca(setting: Setting, sizes: Sizes) -> Call:
    reference = inputs.uniform(sizes["m"], sizes["D"]).to(setting.device)
    estimator = LocalPca(reference, 8, 32)
    batch = unlabelled(reference[: sizes["n"]].clone())
    return lambda: estimator.spaces(batch)


def _denoiser(setting: Setting, sizes: Sizes) -> Call:
    """One round: what is iterated until it settles takes as many as the network makes it."""
    shape = (3, side(sizes), side(sizes))
    network: Any = inputs.network("denoiser", setting.device, shape, None, width=8, depth=1)
    batch = inputs.pictures(sizes["n"], setting.device, shape)
    estimator = Denoiser(network, 0.3, sizes["k"], most=1, depth=2)
    return lambda: estimator.spaces(batch)


GROWING = (
    Growing(
        "tangents/columns/conv",
        "the Jacobian of a small decoder",
        _columns,
        {"n": 2, "D": 12_288, "k": 32},
        {"n": (1, 2, 4, 8), "D": AMBIENT, "k": DIRECTIONS},
        terms("n", "k", "n D k"),
        ({"n": 4, "D": 12_288, "k": 64}, {"n": 1, "D": IMAGE, "k": 64}),
    ),
    Growing(
        "networks/decode/conv",
        "forward passes of k + 1 latents, the floor of its Jacobian",
        _decode,
        {"n": 2, "D": 12_288, "k": 32},
        {"n": (1, 2, 4, 8), "D": AMBIENT, "k": DIRECTIONS},
        terms("n", "k", "n D k"),
        ({"n": 4, "D": 12_288, "k": 64},),
    ),
    Growing(
        "tangents/autoencoder/conv",
        "spaces of a small autoencoder: bases where D k is at most 2^20, else factors",
        _autoencoder,
        {"n": 2, "D": 12_288, "k": 32},
        {"n": (1, 2, 4, 8), "D": AMBIENT, "k": DIRECTIONS},
        terms("n", "k", "n D k", "n D k k", "n k k k"),
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
        terms("n", "n D", "n m", "n m D", "m D"),
        ({"n": 256, "D": 1_568, "m": 2_000},),
    ),
    Growing(
        "tangents/denoiser/conv",
        "one round of iteration",
        _denoiser,
        {"n": 1, "D": 3_072, "k": 4},
        {"n": (1, 2, 4), "D": AMBIENT[:3], "k": (2, 4, 8, 16)},
        terms("n", "n D", "n D k", "n D k k"),
        ({"n": 2, "D": 12_288, "k": 8},),
    ),
)
