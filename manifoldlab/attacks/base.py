"""What attacks share: balls of perturbations, spaces that confine them, and a model left as it was.

    ball        steepest unit step    nearest point of |v| <= radius     |v|
    L2          g / |g|               v min(1, radius / |v|)             of each sample
    LINF        sign g                v clipped to +- radius             of each sample
    WHOLE_BATCH_L2                    as L2, the batch being one vector, as in published code

A step that a projection P confines is P g / |P g|, in an linf ball P sign(P g) of norm 1: an ascent, for
<g, P sign(P g)> = |P g|_1, if not always the steepest. Confined perturbations that left the ball come
back along their own direction.
"""

import abc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf, prod
from typing import final

import torch
from torch import Tensor, nn
from torch.func import functional_call

from manifoldlab import draws
from manifoldlab.interfaces import Batch, Geometry, Model, Source

Strength = float | Tensor  # one number, or one a sample (n,)
Projection = Callable[[Tensor], Tensor]  # of perturbations (n, *shape)
Confinement = Callable[[Batch], Projection]  # looks its spaces up once, at the clean samples
Bounds = tuple[float, float]


class Ball(abc.ABC):
    """Radii are columns (n, 1, ...), one a sample."""

    @abc.abstractmethod
    def length(self, rows: Tensor) -> Tensor:
        """(m, k) -> (m,)"""

    @abc.abstractmethod
    def steepest(self, gradient: Tensor, within: Projection) -> Tensor:
        """The step of norm 1 that climbs; zero where the projected gradient is."""

    @abc.abstractmethod
    def nearest(self, v: Tensor, radius: Tensor) -> Tensor:
        """The point of the ball that is nearest to v in the l2 distance."""

    @abc.abstractmethod
    def uniform(self, like: Tensor, source: Source) -> Tensor:
        """Drawn evenly from the ball of radius 1, (n, *shape)."""

    def rows(self, v: Tensor) -> Tensor:
        """The vectors that have a norm: the samples."""
        return v.flatten(1)

    def norm(self, v: Tensor) -> Tensor:
        """A column, that of the row in which the sample is."""
        lengths = self.length(self.rows(v))
        each = lengths[:, None].expand(-1, len(v) // max(len(lengths), 1))
        return each.reshape(len(v), *[1] * (v.ndim - 1))

    def unit(self, v: Tensor) -> Tensor:
        """v / |v|; zero stays zero. Scaled first: the squares of a confident network's gradients vanish."""
        rows, tiny = self.rows(v), torch.finfo(v.dtype).tiny
        rows = rows / rows.abs().amax(1, keepdim=True).clamp_min(tiny)
        return (rows / self.length(rows).clamp_min(tiny)[:, None]).reshape(v.shape)

    def shrunk(self, v: Tensor, radius: Tensor) -> Tensor:
        """v, no longer than the radius."""
        return v * (radius / self.norm(v).clamp_min(torch.finfo(v.dtype).tiny)).clamp(max=1)


@final
@dataclass(frozen=True)
class Euclidean(Ball):
    def length(self, rows: Tensor) -> Tensor:
        norm: Tensor = rows.norm(dim=1)
        return norm

    def steepest(self, gradient: Tensor, within: Projection) -> Tensor:
        return self.unit(within(gradient))

    def nearest(self, v: Tensor, radius: Tensor) -> Tensor:
        return self.shrunk(v, radius)

    def uniform(self, like: Tensor, source: Source) -> Tensor:
        direction = self.unit(draws.normal(like, source))
        share = draws.uniform(torch.zeros_like(self.norm(like)), source)  # of the volume inside
        return direction * share.pow(1 / prod(like.shape[1:]))


@final
@dataclass(frozen=True)
class Supremum(Ball):
    def length(self, rows: Tensor) -> Tensor:
        return rows.abs().amax(1)

    def steepest(self, gradient: Tensor, within: Projection) -> Tensor:
        return self.unit(within(within(gradient).sign()))

    def nearest(self, v: Tensor, radius: Tensor) -> Tensor:
        return v.clamp(-radius, radius)

    def uniform(self, like: Tensor, source: Source) -> Tensor:
        return 2 * draws.uniform(like, source) - 1


@final
@dataclass(frozen=True)
class WholeBatch(Ball):
    """One l2 ball for all samples together, as in the code of Srinivas et al. 2023.

    A sample then moves by radius / sqrt(n) in the root mean square, further the steeper its loss is
    beside the others'; processes that share a batch do not equal one. Each member of an ensemble has
    its own ball, and all its samples one radius.
    """

    members: int = 1

    def rows(self, v: Tensor) -> Tensor:
        return v.reshape(self.members, v.numel() // self.members)

    def length(self, rows: Tensor) -> Tensor:
        norm: Tensor = rows.norm(dim=1)
        return norm

    def steepest(self, gradient: Tensor, within: Projection) -> Tensor:
        return self.unit(within(gradient))

    def nearest(self, v: Tensor, radius: Tensor) -> Tensor:
        return self.shrunk(v, radius)

    def uniform(self, like: Tensor, source: Source) -> Tensor:
        """On the sphere: of the volume of such a ball hardly any is elsewhere."""
        return self.unit(draws.normal(like, source))


L2, LINF, WHOLE_BATCH_L2 = Euclidean(), Supremum(), WholeBatch()


def per_sample(value: Strength, like: Tensor, name: str) -> Tensor:
    """A column (n, 1, ...) that multiplies `like`. Tensors are not looked at: a GPU would have to wait."""
    column = (len(like), *[1] * (like.ndim - 1))
    if isinstance(value, Tensor):
        if value.shape != like.shape[:1]:
            shape = tuple(value.shape)
            raise ValueError(f"{name} has shape {shape}, and ({len(like)},) is one for each sample")
        return value.to(like).reshape(column)
    if not 0 <= value < inf:
        raise ValueError(f"{name} must be finite and not negative, not {value}")
    return like.new_full(column, value)


def along(geometry: Geometry) -> Confinement:
    """Perturbations in the tangent space at the clean sample."""

    def at(batch: Batch) -> Projection:
        here = geometry.at(batch)
        return lambda v: here.to_tangent(batch.x, v)

    return at


def across(geometry: Geometry) -> Confinement:
    """Perturbations in the normal space at the clean sample."""

    def at(batch: Batch) -> Projection:
        here = geometry.at(batch)
        return lambda v: v - here.to_tangent(batch.x, v)

    return at


def anywhere(v: Tensor) -> Tensor:
    return v


def projection(confine: Confinement | None, batch: Batch, bounds: Bounds | None) -> Projection:
    if bounds is not None and not bounds[0] < bounds[1]:
        raise ValueError(f"bounds must be (low, high) with low < high, not {bounds}")
    if confine is not None and bounds is not None:
        raise ValueError(f"bounds {bounds} would lead a confined perturbation out of its space")
    return anywhere if confine is None else confine(batch)


def clipped(x: Tensor, bounds: Bounds | None) -> Tensor:
    return x if bounds is None else x.clamp(*bounds)


@contextmanager
def undisturbed(model: Model, *, training: bool = False) -> Iterator[Model]:
    """The model to attack, in eval mode; afterwards every module is in its own mode again.

    BatchNorm couples the samples of a batch while it trains, and counts them. With `training` modules
    stay in the mode that they are in, but work on copies of their buffers, so that no statistics move.
    """
    if not isinstance(model, nn.Module):
        yield model
    elif training:
        copies = {name: buffer.clone() for name, buffer in model.named_buffers()}
        yield lambda x: functional_call(model, copies, (x,))
    else:
        modes = [(module, module.training) for module in model.modules()]
        try:
            yield model.eval()
        finally:
            for module, mode in modes:
                module.training = mode
