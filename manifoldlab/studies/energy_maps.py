"""The energy of a classifier on a plane in the space of its samples, with the ways of attacks on it."""

from typing import NamedTuple

import torch
from torch import Tensor

from manifoldlab.interfaces import Batch, Model
from manifoldlab.studies.energy_changes import KINDS, attacked, energies


class Plane(NamedTuple):
    frame: Tensor  # (D, 2) orthonormal columns
    axis: Tensor  # (m,) both coordinates of the grid
    lengths: tuple[float, ...]  # of the attacks


class EnergyMap(NamedTuple):
    energy: Tensor  # (gauges, m, m), the second coordinate first, less its mean at the data
    axis: Tensor  # (m,)
    path: Tensor  # (2, lengths, starts, 2) where l2 attacks end, untargeted and targeted


def energy_map(
    model: Model, plane: Plane, data: Tensor, starts: Batch, target: Tensor, *, steps: int = 10
) -> EnergyMap:
    """The labels of the starts are left, or `target` reached; the ends are seen in the plane."""
    size = len(plane.axis)
    grid = torch.stack(torch.meshgrid(plane.axis, plane.axis, indexing="xy"), 2).flatten(0, 1)
    level = energies(model, data).mean(1, keepdim=True)
    energy = (energies(model, grid @ plane.frame.mT) - level).reshape(-1, size, size)
    paths = []
    for kind in KINDS[:2]:
        label = target if kind.targeted else starts.y
        ends = [attacked(model, starts, label, kind, r, steps=steps) for r in plane.lengths]
        paths.append(torch.stack(ends) @ plane.frame)
    return EnergyMap(energy, plane.axis, torch.stack(paths))
