"""Estimators of tangent spaces by name, fitted to a data set: images are read by what was calibrated.

    local_pca_M     the M nearest samples
    autoencoder     an autoencoder with as many latent numbers as tangent directions
    denoiser_S      a denoiser's Jacobian at noise S, in units of the data's deviation about their mean

Networks are trained on the data set and kept in the cache.

`agreement` is tr(P_1 P_2) / d of the spaces by either half of the data, its mean over samples: what
can be known of an estimator without the truth, by which its nearest calibration is found.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from torch import Tensor

from manifoldlab import catalog
from manifoldlab.data.in_memory import in_memory
from manifoldlab.interfaces import Batch, Data, Geometry
from manifoldlab.studies.prepared import autoencoder, denoiser
from manifoldlab.studies.trained_autoencoder import Apprenticeship
from manifoldlab.studies.trained_denoiser import Schooling, moments
from manifoldlab.tangents.autoencoder import Autoencoder
from manifoldlab.tangents.base import Estimator
from manifoldlab.tangents.denoiser import Denoiser
from manifoldlab.tangents.local_pca import LocalPca
from manifoldlab.training import Advance, silent


@final
@dataclass(frozen=True)
class Training:
    """Of the networks, alike for all."""

    epochs: int = 100
    width: int = 64
    seed: int = 0


USUAL = Training()


class _Kind(NamedTuple):
    option: str  # what stands after the name, none if empty
    fit: Callable[[Data, int, float, Training, Advance], Estimator]


def _local_pca(
    data: Data, dim: int, option: float, training: Training, advance: Advance
) -> Estimator:
    del training, advance
    return LocalPca(images(data), dim, int(option))


def _autoencoder(
    data: Data, dim: int, option: float, training: Training, advance: Advance
) -> Estimator:
    del option
    plan = Apprenticeship(dim, training.epochs, width=training.width, seed=training.seed)
    return Autoencoder(autoencoder(data, plan, advance=advance), dim)


def _denoiser(
    data: Data, dim: int, option: float, training: Training, advance: Advance
) -> Estimator:
    plan = Schooling(training.epochs, width=training.width, seed=training.seed)
    model = denoiser(data, plan, advance=advance)
    return Denoiser(model, option * moments(data).deviation, dim)


KINDS: Mapping[str, _Kind] = {
    "local_pca": _Kind("a number of neighbours, 2 or more", _local_pca),
    "autoencoder": _Kind("", _autoencoder),
    "denoiser": _Kind("a noise level above 0", _denoiser),
}


def estimator(
    name: str, data: Data, *, dim: int, training: Training = USUAL, advance: Advance = silent
) -> Estimator:
    kind, option = _parsed(name)
    return KINDS[kind].fit(data, dim, option, training, advance)


def agreement(name: str, data: Data, batch: Batch, *, dim: int, training: Training) -> float:
    """Of the spaces at the samples of a batch, by the even and by the odd rows of the data."""
    first, second = (
        basis(estimator(name, half, dim=dim, training=training).at(batch), batch.x)
        for half in halves(data)
    )
    return overlap(first, second) / dim


def halves(data: Data) -> list[Data]:
    batches = list(data.batches(4096, None))
    x, y = torch.cat([b.x for b in batches]), torch.cat([b.y for b in batches])
    return [in_memory(x[k::2], y[k::2], data.num_classes) for k in (0, 1)]


def basis(geometry: Geometry, x: Tensor) -> Tensor:
    """Orthonormal columns (n, D, d) in float64, by projecting as many random vectors."""
    random = torch.Generator().manual_seed(0)
    vectors = torch.randn((geometry.dim, *x.shape), generator=random, dtype=torch.float64)
    projected = geometry.to_tangent(x, vectors.to(x.device)).reshape(geometry.dim, len(x), -1)
    found: Tensor = torch.linalg.qr(projected.permute(1, 2, 0)).Q
    return found


def overlap(a: Tensor, b: Tensor) -> float:
    """tr(P_a P_b), its mean over samples."""
    return (a.mT @ b).square().sum((1, 2)).mean().item()


def check(names: Sequence[str]) -> None:
    if not names:
        raise ValueError("estimators of tangent spaces are one or more, not none")
    for name in names:
        _parsed(name)


def images(data: Data) -> Tensor:
    """All of them, in the order of the data."""
    return torch.cat([batch.x for batch in data.batches(4096, None)])


def _parsed(name: str) -> tuple[str, float]:
    """Kind and option of NAME or NAME_OPTION."""
    if name in KINDS and not KINDS[name].option:
        return name, 0.0
    kind, _, given = name.rpartition("_")
    known = [f"{k}_{'M' if k == 'local_pca' else 'S'}" if v.option else k for k, v in KINDS.items()]
    if kind not in KINDS or not KINDS[kind].option:
        raise ValueError(catalog.unknown("estimator", name, known))
    try:
        option = float(given)
    except ValueError:
        option = 0.0
    least = 2 if kind == "local_pca" else 0
    whole = kind != "local_pca" or option.is_integer()
    if not (option > 0 and least <= option < float("inf") and whole):
        raise ValueError(f"{kind}_ is followed by {KINDS[kind].option}, not by {given!r}")
    return kind, option
