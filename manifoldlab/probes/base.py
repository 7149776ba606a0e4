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
    here: Tensor,
    vectors: Tensor,
    sizes: tuple[float, ...],
    change: Change,
    chunk: int,
) -> Tensor:
    """Of steps along vectors (k, m, n, *shape) -> (k, m, n, sizes), beside the logits `here` (n, K).

    As many are stacked in one forward pass as have `chunk` numbers; a pass has the whole batch at least.
    """
    x = batch.x
    kinds, count, n = vectors.shape[:3]
    most = max(1, chunk // max(1, x.numel()))  # copies of the batch in a pass
    steps = torch.split(vectors.flatten(0, 1), most)
    found = []
    for size in torch.split(x.new_tensor(sizes), max(1, most // (kinds * count))):
        scale = size.reshape(-1, *[1] * (x.ndim + 1))
        for step in steps:
            moved = model(torch.addcmul(x, scale, step).flatten(0, 2))
            copies = len(size) * len(step)
            found.append(change(moved, here.repeat(copies, 1), batch.y.repeat(copies)))
    return torch.cat(found).reshape(len(sizes), kinds, count, n).movedim(0, 3)
