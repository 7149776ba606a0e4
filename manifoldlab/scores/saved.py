"""The score by a denoiser of this package, from its checkpoint."""

from pathlib import Path

from manifoldlab.architecture import restored
from manifoldlab.interfaces import Reference
from manifoldlab.models.denoiser import Denoiser
from manifoldlab.scores.denoised import denoised


def saved(
    path: Path,
    *,
    sigma: float,
    conditional: bool = False,
    draws: int = 0,
    seed: int = 0,
    chunk: int = 1024,
    device: str = "cpu",
) -> Reference:
    found = restored(path)
    model = found.model
    if not isinstance(model, Denoiser):
        raise ValueError(f"checkpoint {path} is of {found.architecture.name}, which is no denoiser")
    if conditional and not model.classes:
        raise ValueError(f"checkpoint {path} knows no classes: it has no conditional score")
    placed = model.to(device)
    return denoised(
        placed, sigma=sigma, conditional=conditional, draws=draws, seed=seed, chunk=chunk
    )
