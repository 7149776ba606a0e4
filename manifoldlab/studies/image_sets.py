"""Training and test images by name: a data set of the catalog, or its twin, of which the truth is known.

SET_twin is the mixture of factor analyzers that was fitted to the training images of SET, with so many
factors a component, blurred by noise so that its classes overlap; images are drawn from it as from the
set. Its tangent spaces, its score and its Bayes classifier are exact.
"""

from dataclasses import dataclass, field
from typing import NamedTuple, final

from torch import Tensor

from manifoldlab import draws
from manifoldlab.data.base import load
from manifoldlab.data.samples import samples
from manifoldlab.data.subset import subset
from manifoldlab.interfaces import Batch, Data, Geometry
from manifoldlab.problems.base import Problem
from manifoldlab.studies.calibration_grounds import TWIN, twin

FACTORS = 6  # of a component, where no dimension is given


class ImageSet(NamedTuple):
    train: Data
    tests: Data
    truth: Problem | None


@final
@dataclass(frozen=True, eq=False)
class Exact(Geometry):
    """The tangent spaces of a problem that knows them sample by sample."""

    problem: Problem
    dim: int
    batch: Batch = field(repr=False)  # of which spaces are looked up where no other batch is given

    def to_tangent(self, x: Tensor, v: Tensor) -> Tensor:
        return self.at(self.batch._replace(x=x)).to_tangent(x, v)

    def at(self, batch: Batch) -> Geometry:
        return self.problem.geometry(batch).at(batch)


def image_set(
    name: str, *, root: str, device: str, count: int, held_out: int, dim: int, blur: float
) -> ImageSet:
    """`count` images to train on, 0 for as many as the set has."""
    original = load(name.removesuffix(TWIN), root=root, train=True, device=device)
    if not name.endswith(TWIN):
        train = subset(original, count) if count else original
        tests = subset(load(name, root=root, train=False, device=device), held_out)
        return ImageSet(train, tests, None)
    problem = twin(original, dim or FACTORS, 0).noisier(blur)
    count = count or sum(len(batch.y) for batch in original.batches(4096, None))
    train, tests = (
        samples(problem, n, seed=draws.number(0, what), device=device)
        for n, what in ((count, "train"), (held_out, "test"))
    )
    return ImageSet(train, tests, problem)
