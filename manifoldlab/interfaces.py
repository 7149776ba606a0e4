"""The whole vocabulary: what a model, a batch, a geometry, a probe, an objective and an attack are.

Shape letters, used in every comment: n samples, D ambient dimension, d intrinsic dimension,
K classes. Images keep their shape (n, C, H, W), and D = C * H * W; `*shape` is that of one sample.
"""

import abc
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

Model = Callable[[Tensor], Tensor]  # x (n, *shape) -> logits (n, K), samples not coupled
Head = Callable[[Tensor, Tensor], Tensor]  # logits (n, K), y (n,) -> (n,)
# Of randomness; a tuple has one a member of an ensemble, whose samples come in equal blocks.
Source = torch.Generator | tuple[torch.Generator, ...]
# -> scalar loss, a mean over samples; what a sweep varies is called `strength`, a number or one a sample
Objective = Callable[[nn.Module, "Batch", Source], Tensor]
Reference = Callable[["Batch"], Tensor]  # a vector field to compare with, shaped like x


class Batch(NamedTuple):
    x: Tensor  # (n, *shape), in the units the data came in: pixels in [0, 1]
    y: Tensor  # (n,) int64
    # (n,) int64: which samples of the data set these are; hides tuple.index
    index: Tensor | None = None  # type: ignore[assignment]
    region: Tensor | None = None  # (n, *shape) bool: where the label's evidence is, if known


class Data(NamedTuple):
    shape: tuple[int, ...]  # of one sample
    num_classes: int
    batches: Callable[[int, int | None], Iterator[Batch]]  # size, shuffle seed -> one epoch
    classes: tuple[str, ...] = ()  # their names in label order, where they have any
    fingerprint: str = ""  # digest of samples, labels and order, by which caches know the data


class Geometry(abc.ABC):
    """Tangent spaces along a data manifold, exact or estimated."""

    if TYPE_CHECKING:  # a field or a property; at run time this one would be a field's default

        @property
        def dim(self) -> int: ...

    @abc.abstractmethod
    def to_tangent(self, x: Tensor, v: Tensor) -> Tensor:
        """Orthogonal projection of v on the tangent space at x.

        v is shaped like x, or carries leading directions: (..., n, *shape).
        """

    def at(self, batch: Batch) -> "Geometry":
        """This geometry, prepared for the samples of a batch (bases computed or looked up once)."""
        del batch
        return self


class Probe(Protocol):
    """A pure function to a NamedTuple of tensors, each with samples first.

    Options are keyword only and have defaults; randomness comes from a `seed` option.
    """

    def __call__(self, model: Model, batch: Batch, geometry: Geometry) -> Any: ...


class Attack(Protocol):
    """Perturbed x. Loss, radius, steps, step_size and bounds are keyword only, bound by partial."""

    def __call__(self, model: Model, batch: Batch, generator: Source) -> Tensor: ...


class Axis(NamedTuple):
    """The range of one coordinate; a finite axis that does not wrap ends in an edge."""

    low: float = -torch.inf
    high: float = torch.inf
    wraps: bool = False


class Patch(NamedTuple):
    """A box of parameters and the way from them to coordinates; patches tile a manifold."""

    low: tuple[float, ...]
    high: tuple[float, ...]
    coordinates: Callable[[Tensor], Tensor]  # parameters s (m, d) -> coordinates z (m, d)


class Chart(Protocol):
    """What a density needs to know of the manifold that it lives on."""

    @property
    def dim(self) -> int: ...
    @property
    def axes(self) -> tuple[Axis, ...]: ...
    def embed(self, z: Tensor) -> Tensor: ...
    def log_volume(self, z: Tensor) -> Tensor: ...
    def interior(self, z: Tensor) -> Tensor: ...
    def patches(self) -> tuple[Patch, ...]: ...
