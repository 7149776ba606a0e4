"""1 - LPIPS (Zhang et al. 2018, AlexNet, version 0.1) between gradient and reference, as published by
Srinivas et al. 2023: each divided by its largest absolute number, and taken for a picture in [-1, 1].

Two files of weights are not part of this package. AlexNet's are looked for where torchvision keeps
them, TORCH_HOME/hub/checkpoints; those of the layers in the package `lpips`, which need not be imported.
"""

import hashlib
import os
import pickle
import re
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from manifoldlab import checkpoints
from manifoldlab.gradients import input_gradient, log_marginal, margin
from manifoldlab.interfaces import Batch, Geometry, Head, Model, Probe, Reference
from manifoldlab.models.alexnet import RECTIFIED, convolutions
from manifoldlab.models.base import Normalize
from manifoldlab.perception import Features, Perception, hidden
from manifoldlab.probes.perceptual_alignment import likeness

FILE = "alexnet-owt-7be5be79.pth"
WIDTH, LEAST = 64, 31  # of AlexNet; pixels a side
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of LPIPS, for pictures in [-1, 1]


class LpipsAlignment(NamedTuple):
    one_minus_lpips: Tensor  # (n,) of gradient and reference
    one_minus_lpips_null: Tensor  # (n,) of white noise and the reference, one draw


def lpips_alignment(
    model: Model,
    batch: Batch,
    geometry: Geometry,
    *,
    reference: Reference,
    metric: Perception | None = None,
    head: Head = margin,
    size: int = 0,
    seed: int = 0,
) -> LpipsAlignment:
    """`metric` is the published one by default. Gray pictures are shown as three equal channels; fields
    are stretched to `size` pixels a side where it is given, which is no part of the published measure."""
    del geometry
    _check(batch.x, size)
    found = metric or published(device=str(batch.x.device))
    distances = lambda a, b: found.distances(
        torch.stack([_shown(v, size) for v in a]), _shown(b, size)
    )
    return LpipsAlignment(*likeness(model, batch, reference, distances, head, seed))


def _check(x: Tensor, size: int) -> None:
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise ValueError(f"LPIPS is for pictures of 1 or 3 channels, not for {tuple(x.shape[1:])}")
    sides = (size, size) if size else tuple(x.shape[2:])
    if min(sides) < LEAST:
        what = f"LPIPS takes pictures of {LEAST} x {LEAST} or more, not of {sides[0]} x {sides[1]}"
        raise ValueError(f"{what}: size=... stretches them")


def _shown(v: Tensor, size: int) -> Tensor:
    wide = v.float().expand(-1, 3, -1, -1)
    return interpolate(wide, (size, size), mode="bilinear", antialias=True) if size else wide


def published(
    *, backbone: Path | None = None, heads: Path | None = None, device: str = "cpu"
) -> Perception:
    """Files that torch saved, read without running what they hold."""
    given = backbone or Path(torch.hub.get_dir()) / "checkpoints" / FILE
    return _loaded(given, heads or _heads_of_lpips(), device)


def _heads_of_lpips() -> Path:
    spec = find_spec("lpips")
    folder = Path(spec.origin).parent if spec and spec.origin else Path("(no package lpips)")
    return folder / "weights" / "v0.1" / "alex.pth"


@cache
def _loaded(backbone: Path, heads: Path, device: str) -> Perception:
    advice = (
        "torchvision.models.alexnet(weights='IMAGENET1K_V1') puts it there",
        "it comes with the package lpips",
    )
    missing = [
        f"{p}: {a}" for p, a in zip((backbone, heads), advice, strict=True) if not p.is_file()
    ]
    if missing:
        raise ValueError(f"LPIPS needs weights that are not there; {'; '.join(missing)}")
    return Perception(_alexnet(backbone, device), _learned(heads, device))


def _alexnet(path: Path, device: str) -> Features:
    layers = convolutions(3, WIDTH)
    _fill(nn.ModuleDict({"features": layers}), _tensors(path), "features.", "AlexNet", path)
    seen = (
        nn.Sequential(Normalize(SHIFT, SCALE), layers[:-1]).to(device).eval()
    )  # not the last pool
    return hidden(seen.requires_grad_(False), tuple(f"1.{name}" for name in RECTIFIED))


def _learned(path: Path, device: str) -> tuple[Tensor, ...]:
    widths = [
        layer.out_channels for layer in convolutions(1, WIDTH) if isinstance(layer, nn.Conv2d)
    ]
    layers = nn.ModuleDict(
        {f"lin{i}": nn.Conv2d(n, 1, 1, bias=False) for i, n in enumerate(widths)}
    )
    own = {re.sub(r"\.model\.\d+\.", ".", k): t for k, t in _tensors(path).items()}
    _fill(layers, own, "lin", "LPIPS", path)
    return tuple(t.flatten().to(device) for t in layers.state_dict().values())


def _fill(
    module: nn.Module, tensors: dict[str, Tensor], prefix: str, what: str, path: Path
) -> None:
    own = {k: t for k, t in tensors.items() if k.startswith(prefix)}
    checkpoints.check_fits(module, own, what, path)
    module.load_state_dict(own)


def _tensors(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return checkpoints.load(path)[0]
    _check_digest(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        line = " ".join(str(error).split())[:120]
        raise ValueError(f"{path} cannot be read as weights that torch saved: {line}") from error
    if not isinstance(found, dict) or not all(isinstance(t, Tensor) for t in found.values()):
        raise ValueError(f"{path} holds no weights by name, but a {type(found).__name__}")
    return dict(found)


def _check_digest(path: Path) -> None:
    """Names of torch's files end in the first digits of their SHA-256."""
    wanted = re.search(r"-([0-9a-f]{8})\.pth$", path.name)
    if wanted:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if not found.startswith(wanted[1]):
            size = os.path.getsize(path)
            raise ValueError(
                f"{path} is damaged: {size} bytes of digest {found[:8]}, not {wanted[1]}"
            )


def example(model: Model) -> Probe:
    """Against the model's own log_marginal gradient, which is the score if the model is Bayes."""

    def own_score(batch: Batch) -> Tensor:
        return input_gradient(model, batch.x, batch.y, log_marginal)

    return partial(lpips_alignment, reference=own_score)
