"""One step of training, along the mean gradient of a global batch.

    p <- optimizer(p, clip(sum over processes of (rows here / rows) * d loss / dp))

Gradients and loss are added up in one flat vector a member, in which a number that is not finite
shows, too; nothing waits for the device.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from manifoldlab import draws, synchronized
from manifoldlab.interfaces import Batch
from manifoldlab.resuming import State
from manifoldlab.schedules import Schedule, constant

Losses = Callable[[nn.Module, Batch], Tensor]  # -> (members,): means over equal blocks of a batch


@final
@dataclass(frozen=True)
class Recipe:
    """How to descend, alike for one network and for the members of an ensemble."""

    optimizer: Callable[..., Optimizer] = (
        torch.optim.Adam
    )  # (parameters, lr=...); options by partial
    schedule: Schedule = constant
    clip: float | None = None  # the largest norm of a gradient, of each member by itself
    ema: float | None = (
        None  # decay of an average of the parameters, which the model has at the end
    )
    amp: bool = False  # forward passes in bfloat16, whose range needs no scaled loss; on CPUs, too
    # torch.compile, say; torch refuses it with objectives that differentiate twice, as penalties do.
    compile: Callable[[nn.Module], Any] | None = None
    channels_last: bool = False  # images in that order of memory

    def __post_init__(self) -> None:
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip is the largest norm of a gradient, positive, not {self.clip}")
        if self.ema is not None and not 0 <= self.ema < 1:
            raise ValueError(f"ema is a decay in [0, 1), not {self.ema}")


PLAIN = Recipe()


def descend(state: State, losses: Losses, model: nn.Module, batch: Batch, recipe: Recipe) -> None:
    """`model` is that of the state, perhaps compiled; the batch is that of all processes."""
    n = len(batch.x) // state.members
    start, stop = synchronized.rows(n)
    here, weight = _held(batch, state, recipe, start, stop), (stop - start) / n
    # No cache: it would keep, without a graph, the weights that an attack has used without gradients.
    low = torch.autocast(state.device.type, torch.bfloat16, enabled=recipe.amp, cache_enabled=False)
    with draws.share(start, stop, n), low:
        found = losses(model, here)
    parameters = state.parameters
    gradients = torch.autograd.grad(weight * found.sum(), parameters, allow_unused=True)
    present = [(p, g) for p, g in zip(parameters, gradients, strict=True) if g is not None]
    # The mean over no samples is nan, its gradient 0.
    loss = weight * found.detach() if stop > start else torch.zeros_like(found)
    flat = torch.cat([*(g.reshape(state.members, -1) for _, g in present), loss[:, None]], 1)
    synchronized.add_up(flat)
    state.step, state.batch, state.samples = state.step + 1, state.batch + 1, state.samples + n
    state.mark(~flat.sum(1).isfinite())
    state.running += n * flat[:, -1]
    _move(state, present, flat[:, :-1], recipe)


def _held(batch: Batch, state: State, recipe: Recipe, start: int, stop: int) -> Batch:
    """The rows of each member's block that this process holds, on the device of the model."""

    def part(values: Tensor | None) -> Tensor | None:
        if values is None:
            return None
        blocks = values.reshape(state.members, -1, *values.shape[1:])
        return blocks[:, start:stop].flatten(0, 1).to(state.device, non_blocking=True)

    x, y, index, region = map(part, batch)
    assert x is not None and y is not None
    if recipe.channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    return Batch(x, y, index, region)


@torch.no_grad()
def _move(state: State, present: list[tuple[Tensor, Tensor]], flat: Tensor, recipe: Recipe) -> None:
    """One step of the optimizer; `flat` (members, parameters) is the gradient over all processes."""
    if recipe.clip is not None:
        flat = flat * (recipe.clip / (flat.norm(dim=1, keepdim=True) + 1e-6)).clamp(max=1)
    changed = recipe.clip is not None or synchronized.processes() > 1
    pieces = torch.split(flat, [g.numel() // state.members for _, g in present], 1)
    for (p, g), piece in zip(present, pieces, strict=True):
        p.grad = piece.reshape(p.shape).to(p.dtype) if changed else g
    state.optimizer.step()
    state.optimizer.zero_grad()
    if recipe.ema is not None:
        for average, p in zip(state.average, state.parameters, strict=True):
            average.lerp_(p, 1 - recipe.ema)
