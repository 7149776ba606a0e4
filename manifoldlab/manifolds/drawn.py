"""Pictures (C, H, W) of a soft ellipse, background + opacity (colour - background), by its pose.

The opacity is exp(-|A (g - c)|^2 / 2) at the pixel g: its logarithm is a quadratic polynomial of g,
which 3 x 3 pixels determine, and with it the pose: distinct poses give distinct pictures.

With densities of the pose it is a twin of pictures that needs no data: of the problem
`Quadrature(Drawn(), Smooth(Drawn(), Tilt(2), (0.5, 0.5)), 0.05)` samples are pictures, and the Bayes
classifier, the score and the tangent spaces are exact.
"""

from dataclasses import dataclass
from functools import cached_property
from math import pi
from typing import final

import torch
from torch import Tensor

from manifoldlab.interfaces import Axis
from manifoldlab.manifolds.base import Manifold
from manifoldlab.nearest_point import coarse, newton
from manifoldlab.reach_bounds import estimated_reach

# The unit is half the longer side of the picture, its centre is 0; the value where it is no coordinate.
POSES = {
    "x": (Axis(-0.5, 0.5), 0.0),
    "y": (Axis(-0.5, 0.5), 0.0),
    "size": (Axis(0.4, 0.7), 0.5),  # the longer half axis
    "angle": (Axis(0.0, pi, wraps=True), 0.5),
}
SLIMNESS = 0.6  # of the half axes
GRID = {"x": 8, "y": 8, "size": 4, "angle": 8}  # starts an axis, nearer than half an ellipse
GOLDEN = 0.6180339887498949


@final
@dataclass(frozen=True)
class Drawn(Manifold):
    """`poses` names the coordinates, `seed` varies the background and the colours."""

    poses: tuple[str, ...] = ("x", "y")
    shape: tuple[int, ...] = (1, 8, 8)
    seed: int = 0

    reach_certified = False

    def __post_init__(self) -> None:
        if not self.poses or len(set(self.poses)) < len(self.poses) or set(self.poses) - set(POSES):
            raise ValueError(f"poses are some of {', '.join(POSES)}, each once: {self!r}")
        if len(self.shape) != 3 or self.shape[0] < 1 or min(self.shape[1:]) < 3:
            raise ValueError(f"a picture has a shape (C, H, W) from (1, 3, 3) on: {self!r}")

    @property
    def dim(self) -> int:
        return len(self.poses)

    @property
    def axes(self) -> tuple[Axis, ...]:
        return tuple(POSES[name][0] for name in self.poses)

    @cached_property
    def reach(self) -> float:
        """An estimate."""
        return estimated_reach(self.embed, self.axes)

    def embed(self, z: Tensor) -> Tensor:
        pose = {name: z.new_full((len(z), 1, 1), value) for name, (_, value) in POSES.items()}
        pose |= {name: z[:, i, None, None] for i, name in enumerate(self.poses)}
        rows, columns = self._pixels(z)
        right, down = columns - pose["x"], rows[:, None] - pose["y"]  # (n, 1, W), (n, H, 1)
        cosine, sine = pose["angle"].cos(), pose["angle"].sin()
        along, across = pose["size"] ** -2, (SLIMNESS * pose["size"]) ** -2
        # |(right, down)|^2 in the ellipse's own axes, by its three coefficients: one product a pixel
        flat = right.square() * (cosine.square() * along + sine.square() * across)
        steep = down.square() * (sine.square() * along + cosine.square() * across)
        tilted = (2 * cosine * sine * (along - across) * down) * right
        opacity = (-(flat + steep + tilted) / 2).exp()[:, None]  # (n, 1, H, W)
        background, colour = self._paint(rows, columns)
        return background + opacity * (colour - background)

    def coordinates(self, x: Tensor) -> Tensor:
        grids = [
            torch.linspace(axis.low, axis.high, GRID[name], dtype=x.dtype, device=x.device)
            for name, axis in zip(self.poses, self.axes, strict=True)
        ]
        grid = torch.stack(torch.meshgrid(*grids, indexing="ij"), -1).flatten(0, -2)
        z = newton(self.embed, x, coarse(self.embed, x, grid), steps=8)
        period = z.new_tensor([axis.high if axis.wraps else 0.0 for axis in self.axes])
        turns = (z.detach() / period.where(period > 0, 1)).floor()
        return self.confirmed(x, z - turns * period)

    def _pixels(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The middles of the rows (H,) and of the columns (W,)."""
        longer = max(self.shape[1:])
        rows, columns = (
            (2 * torch.arange(count, dtype=z.dtype, device=z.device) + 1 - count) / longer
            for count in self.shape[1:]
        )
        return rows, columns

    def _paint(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Background (C, H, W) in [0.1, 0.3] and colour (C, 1, 1) in [0.8, 1]."""
        channel = torch.arange(1, self.shape[0] + 1, dtype=rows.dtype, device=rows.device)
        shade = (GOLDEN * (self.seed % 1009 + 1) * channel).frac()[:, None, None]
        wave = (2 * pi * shade + 2 * rows[:, None] + 1.5 * columns).sin()
        return 0.2 + 0.1 * wave, 0.8 + 0.2 * shade


def examples(dim: int, seed: int) -> list[Manifold]:
    poses = {2: ("x", "y"), 3: ("x", "y", ("angle", "size")[seed % 2])}
    return [Drawn(poses[dim], (1 + seed % 2, 8, 8), seed)] if dim in poses else []
