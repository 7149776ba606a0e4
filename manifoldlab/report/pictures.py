"""A picture of each manifold of the catalog: as it is, projected where it has more than three
dimensions, and as a strip of its points where they are pictures themselves.

Drawn from `patches`, the boxes that tile it, so that no manifold needs a line of its own.
"""

import base64
import io
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.art3d import Poly3DCollection
from numpy.typing import NDArray
from torch import Tensor

from manifoldlab import catalog, linalg
from manifoldlab.interfaces import Patch
from manifoldlab.manifolds.base import Manifold

CELLS = 4000  # pieces of a curve or a surface, over all its patches
TILE = 5  # cells
DARK, PALE = np.array([0.0, 0.2, 0.36]), np.array([0.55, 0.82, 0.97])
LIGHT = np.array([0.36, -0.48, 0.8])
COLOUR = "#0072b2"
VIEW = 0  # the seed of the directions from which more than three dimensions are seen
SIZE = (2.2, 2.2)  # inches
SHOWN = 0.55  # of a box that stands for all of R: to z = 0.8
CELL = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
Points = NDArray[np.float64]


class Picture(NamedTuple):
    name: str
    title: str  # the repr, which rebuilds the manifold
    note: str
    image: str  # a data address


def gallery() -> list[Picture]:
    """A curve or a surface of each family, in the order of their names."""
    found = []
    for name in catalog.names("manifolds"):
        members = [m for dim in (1, 2) for m in catalog.module("manifolds", name).examples(dim, 1)]
        if members:
            found.append(picture(name, members[-1]))
    return found


def picture(name: str, manifold: Manifold) -> Picture:
    if len(manifold.shape) == 3:
        return Picture(name, repr(manifold), "some of its points", _strip(manifold))
    patches = manifold.patches()
    count = round((CELLS / len(patches)) ** (1 / manifold.dim))
    count += count % 2  # no point in the middle of a patch: the pole of a sphere's chart
    shown, note = _in_view([_grid(manifold, patch, count) for patch in patches])
    return Picture(name, repr(manifold), note, (_curve, _surface)[manifold.dim - 1](shown))


def _grid(manifold: Manifold, patch: Patch, count: int) -> Points:
    """Points of the manifold on a grid of the patch: (count, [count,] D)."""
    low, high = torch.tensor([patch.low, patch.high], dtype=torch.float64).unbind()
    middle, half = (low + high) / 2, (high - low) / 2

    def at(s: Tensor) -> Tensor:
        return manifold.embed(patch.coordinates(s)).flatten(1)

    ends = at(middle + torch.diag(half))
    half = half.where(ends.isfinite().all(1), SHOWN * half)
    line = torch.linspace(-1, 1, count, dtype=torch.float64)
    grid = middle + half * torch.stack(torch.meshgrid(*[line] * manifold.dim, indexing="ij"), -1)
    found: Points = at(grid.flatten(0, -2)).reshape(*grid.shape[:-1], -1).numpy()
    return found


def _in_view(patches: list[Points]) -> tuple[list[Points], str]:
    """In the three dimensions that a manifold spans, or in three general directions if in more."""
    ambient = patches[0].shape[-1]
    if ambient <= 3:
        pad = [(0, 0)] * (patches[0].ndim - 1) + [(0, 3 - ambient)]
        return [np.pad(points, pad) for points in patches], ""
    points = np.concatenate([patch.reshape(-1, ambient) for patch in patches])
    centre = np.nanmean(points, 0)
    _, sizes, axes = np.linalg.svd(np.nan_to_num(points - centre), full_matrices=False)
    span = axes[sizes > 1e-9 * sizes[0]].T  # (D, m)
    if span.shape[1] <= 3:
        return _moved(patches, centre, span), f"seen in its span, of {ambient} dimensions"
    general = linalg.random_frame(span.shape[1], 3, VIEW).numpy()
    return _moved(patches, centre, span @ general), f"projected from {ambient} dimensions"


def _moved(patches: list[Points], centre: Points, columns: Points) -> list[Points]:
    columns = np.pad(columns, [(0, 0), (0, 3 - columns.shape[1])])
    return [(points - centre) @ columns for points in patches]


def _surface(patches: list[Points]) -> str:
    """One collection of all cells, so that near ones hide far ones; a chequer shows the charts."""
    corners, tiles = [], []
    for points in patches:
        row, column = np.indices((points.shape[0] - 1, points.shape[1] - 1)).reshape(2, -1)
        corners.append(points[row[:, None] + CELL[:, 0], column[:, None] + CELL[:, 1]])
        tiles.append((row // TILE + column // TILE) % 2)
    cells, tile = np.concatenate(corners), np.concatenate(tiles)  # (cells, 4, 3), (cells,)
    whole = np.isfinite(cells).all((1, 2))
    cells, tile = cells[whole], tile[whole]
    normals = np.cross(cells[:, 2] - cells[:, 0], cells[:, 3] - cells[:, 1])
    facing = np.abs(normals @ LIGHT) / np.maximum(np.linalg.norm(normals, axis=1), 1e-300)
    tone = (0.3 + 0.7 * facing - 0.05 * tile)[:, None]  # from both sides alike
    colours = DARK + np.clip(tone, 0, 1) * (PALE - DARK)
    figure, axes = _space(cells.reshape(-1, 3))
    axes.add_collection3d(Poly3DCollection(cells, facecolors=colours, edgecolors=colours, lw=0.3))
    return _image(figure)


def _curve(patches: list[Points]) -> str:
    points = np.concatenate(patches)
    if np.ptp(points[:, 2]) == 0:
        figure = Figure(figsize=SIZE)
        axes = figure.add_axes((0.05, 0.05, 0.9, 0.9), aspect="equal")
        axes.set_axis_off()
        axes.plot(points[:, 0], points[:, 1], color=COLOUR, lw=2)
        return _image(figure)
    figure, space = _space(points)
    space.plot(*points.T, color=COLOUR, lw=2)
    return _image(figure)


def _space(points: Points) -> tuple[Figure, Any]:
    figure = Figure(figsize=SIZE)
    axes: Any = figure.add_axes((0.0, 0.0, 1.0, 1.0), projection="3d", proj_type="ortho")
    axes.set_axis_off()
    axes.view_init(26, -35)
    low, high = points.min(0), points.max(0)
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), zlim=(low[2] - 1e-9, high[2] + 1e-9))
    axes.set_box_aspect(np.maximum(high - low, 0.02 * (high - low).max()), zoom=0.93)
    return figure, axes


def _strip(manifold: Manifold) -> str:
    """Points along a diagonal of the coordinates, channels averaged unless they are three."""
    low, high = torch.tensor([[a.low, a.high] for a in manifold.axes], dtype=torch.float64).unbind(
        1
    )
    z = low + torch.linspace(0.1, 0.9, 4, dtype=torch.float64)[:, None] * (high - low)
    pictures = manifold.embed(z)
    if pictures.shape[1] != 3:
        pictures = pictures.mean(1, keepdim=True)
    figure = Figure(figsize=SIZE)
    for i, shown in enumerate(pictures.permute(0, 2, 3, 1).numpy()):
        axes = figure.add_axes((0.02 + 0.49 * (i % 2), 0.51 - 0.49 * (i // 2), 0.47, 0.47))
        axes.set_axis_off()
        axes.imshow(shown, cmap="gray", vmin=0, vmax=1)
    return _image(figure)


def _image(figure: Figure) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=200)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
