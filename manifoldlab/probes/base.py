"""What probes share: noise, and the changes of the output that steps of several sizes make."""

from collections.abc import Callable

import torch
from torch import Tensor

from manifoldlab.interfaces import Batch, Model

Change = Callable[[Tensor, Tensor, Tensor], Tensor]  # logits moved, logits here, y -> (n,) >= 0


def noise(x: Tensor, directions: int, seed: int) -> Tensor:
    """(m, n, *shape), drawn on the CPU, so that every device sees the same directions."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((directions, *x.shape), generator=generator).to(x)


@torch.no_grad()
def changes(
    model: Model,
    batch: Batch,
    vectors: Tensor,
    sizes: tuple[float, ...],
    change: Change,
    chunk: int,
) -> Tensor:
    """Of steps along vectors (k, m, n, *shape) -> (k, m, n, sizes), all of them stacked into as few
    forward passes as fit, of `chunk` points each."""
    x, y = batch.x, batch.y
    here = model(x)
    kinds, count, n = vectors.shape[:3]
    scale = x.new_tensor(sizes)
    rows = torch.arange(len(sizes) * kinds * count * n, device=x.device)
    found = []
    for part in torch.split(rows, chunk):
        size, vector, sample = part // (kinds * count * n), part % (kinds * count * n), part % n
        factor = scale[size].reshape(-1, *[1] * (x.ndim - 1))
        moved = model(x[sample] + factor * vectors.flatten(0, 2)[vector])
        found.append(change(moved, here[sample], y[sample]))
    return torch.cat(found).reshape(len(sizes), kinds, count, n).movedim(0, 3)
