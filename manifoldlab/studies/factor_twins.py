"""The twin of a data set: a mixture of factor analyzers a class, fitted to its images and kept in a file.

A problem that looks like the data, with the Bayes classifier, the score and the tangent spaces known exactly.
Its classes lie far apart in so many dimensions: `noisier` brings them near each other.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from manifoldlab import checkpoints, factor_mixtures
from manifoldlab.factor_components import FactorComponents, joined
from manifoldlab.factor_mixtures import Advance, Fit
from manifoldlab.interfaces import Data
from manifoldlab.problems.factor_mixture import FactorMixture, Stored, save

ORIGIN = "twin"  # among the facts of a file: data and options
BATCH = 1000
Told = Callable[[float, str], None]


def silent(done: float, what: str) -> None:
    """Told the share of the classes that are done, and what happens in the one at hand."""


def factor_twin(
    data: Data,
    path: Path,
    *,
    components: int = 5,
    dim: int = 12,
    seed: int = 0,
    tolerance: float = 1e-6,
    floor: float = 1e-4,
    progress: Told = silent,
) -> FactorMixture:
    """Fits every class by itself, with the shares of the classes as priors; or reads what it once wrote."""
    fit = partial(
        factor_mixtures.fit,
        components=components,
        dim=dim,
        seed=seed,
        tolerance=tolerance,
        floor=floor,
    )
    origin = {"data": data.fingerprint, **fit.keywords}
    if path.exists():
        return _read(path, origin)
    return FactorMixture(save(path, *_fitted(data, fit, progress, origin)))


def _fitted(
    data: Data, fit: Callable[..., Fit], progress: Told, origin: dict[str, Any]
) -> tuple[FactorComponents, tuple[int, ...], dict[str, Any]]:
    """The law, the shape of a sample, and what is known of the law."""
    classes = by_class(data)
    names = data.classes or tuple(map(str, range(data.num_classes)))
    fits: list[Fit] = []
    for name, x in zip(names, classes, strict=True):
        told = partial(_tell, progress, len(fits) / len(names), name)
        fits.append(_of_class(fit, x, name, told))
    counts = torch.tensor([len(x) for x in classes], dtype=torch.float64)
    law = joined([found.law for found in fits], counts / counts.sum())
    return law, data.shape, {ORIGIN: origin, **_history(fits)}


def _of_class(fit: Callable[..., Fit], x: Tensor, name: str, advance: Advance) -> Fit:
    try:
        return fit(x, advance=advance)
    except ValueError as error:
        raise ValueError(f"no twin of class {name}: {error}") from None


def _tell(progress: Told, done: float, name: str, rounds: int, value: float) -> None:
    progress(done, f"class {name}, round {rounds}: {value:.2f} nats an image")


def _history(fits: list[Fit]) -> dict[str, Any]:
    return {
        "log_likelihood": [found.log_likelihood.tolist() for found in fits],
        "dropped": [list(found.dropped) for found in fits],
        "converged": [found.converged for found in fits],
    }


def _read(path: Path, origin: dict[str, Any]) -> FactorMixture:
    kept = checkpoints.load(path)[1].get(ORIGIN)
    if kept != origin:
        raise ValueError(f"{path} holds a twin of {kept}, not of {origin}: give another name")
    return FactorMixture(Stored(str(path)).named())


def by_class(data: Data) -> list[Tensor]:
    """The images of each class, (n, D) float32."""
    batches = list(data.batches(BATCH, None))
    x = torch.cat([batch.x.flatten(1).float() for batch in batches])
    y = torch.cat([batch.y for batch in batches])
    return [x[y == label] for label in range(data.num_classes)]
