"""So many samples of a problem, drawn once and held in memory."""

from typing import Protocol

import torch

from manifoldlab.data.in_memory import in_memory
from manifoldlab.interfaces import Batch, Data


class Sampled(Protocol):
    """What is asked of a problem."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def num_classes(self) -> int: ...
    def sample(self, n: int, generator: torch.Generator) -> Batch: ...


def samples(
    problem: Sampled,
    n: int,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> Data:
    """Those that `problem.sample` draws of a generator with this seed, in another dtype."""
    x, y, _, region = problem.sample(n, torch.Generator().manual_seed(seed))
    where = None if region is None else region.to(device)
    return in_memory(x.to(device, dtype), y.to(device), problem.num_classes, region=where)
