"""So many new samples of a problem in every epoch, as for training without a generalization gap."""

from collections.abc import Iterator

import torch

from manifoldlab.data.samples import Sampled
from manifoldlab.interfaces import Batch, Data

STRIDE = 0x9E3779B97F4A7C15  # odd and of no pattern: seeds of epochs of other data lie far apart


def fresh_samples(
    problem: Sampled,
    n: int,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> Data:
    """The shuffle seed chooses the samples; without one they are those of `samples`."""
    if n < 1:
        raise ValueError(f"an epoch has 1 sample or more, not {n}")

    def batches(size: int, epoch: int | None = None) -> Iterator[Batch]:
        if size < 1:
            raise ValueError(f"a batch has 1 sample or more, not {size}")
        chosen = seed if epoch is None else (STRIDE * (seed + 1) + epoch) % 2**63
        drawn = problem.sample(n, torch.Generator().manual_seed(chosen))
        x, y = drawn.x.to(device, dtype), drawn.y.to(device)
        for index in torch.split(torch.arange(n, device=device), size):
            region = None if drawn.region is None else drawn.region.to(device)[index]
            yield Batch(x[index], y[index], None, region)

    return Data(problem.shape, problem.num_classes, batches)
