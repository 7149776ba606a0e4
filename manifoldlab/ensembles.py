"""Ensembles: networks of one architecture that differ in seed or strength, trained at once.

Their parameters are stacked, (E, ...), and a batch (E n, *shape) has n samples of each member in turn:
member e of the model sees block e alone, so that objectives and attacks need not know.
"""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.overrides import TorchFunctionMode

from manifoldlab import draws
from manifoldlab.descent import PLAIN, Recipe
from manifoldlab.interfaces import Batch, Data, Objective
from manifoldlab.resuming import described
from manifoldlab.training import Advance, History, Plan, Task, run, silent

MEANS = (torch.mean, Tensor.mean)


@final
class Ensemble(nn.Module):
    """Models of one architecture as one; they are copied.

    Not with BatchNorm, whose running moments a stacked pass would not keep, nor with dropout, which
    draws from a global generator.
    """

    def __init__(self, models: Sequence[nn.Module]):
        super().__init__()
        _check_stackable(models)
        self.size = len(models)
        parameters, buffers = stack_module_state(list(models))
        self.stacked = _with(models[0], parameters | buffers)

    def forward(self, x: Tensor) -> Tensor:
        state = dict(self.stacked.named_parameters()) | dict(self.stacked.named_buffers())
        one: Callable[[dict[str, Tensor], Tensor], Tensor] = lambda own, x: functional_call(
            self.stacked, own, (x,)
        )
        blocks = x.reshape(self.size, len(x) // self.size, *x.shape[1:])
        logits: Tensor = vmap(one)(state, blocks)
        return logits.flatten(0, 1)

    def members(self) -> list[nn.Module]:
        """As they are now, each by itself."""
        state = dict(self.stacked.named_parameters()) | dict(self.stacked.named_buffers())
        rows = [{name: t[i] for name, t in state.items()} for i in range(self.size)]
        return [_with(self.stacked, own) for own in rows]


def _with(model: nn.Module, values: dict[str, Tensor]) -> nn.Module:
    """A copy of the model that has copies of these tensors for its parameters and buffers."""
    copy = deepcopy(model)
    trained = {name: p.requires_grad for name, p in copy.named_parameters()}
    for name, value in values.items():
        prefix, _, leaf = name.rpartition(".")
        own = value.detach().clone()
        own = nn.Parameter(own, requires_grad=trained[name]) if name in trained else own
        setattr(copy.get_submodule(prefix), leaf, own)
    return copy


def _check_stackable(models: Sequence[nn.Module]) -> None:
    if not models:
        raise ValueError("an ensemble has one member or more, not none")
    kinds = [
        described(m) + str({k: tuple(t.shape) for k, t in m.state_dict().items()}) for m in models
    ]
    for i, kind in enumerate(kinds):
        if kind != kinds[0]:
            raise ValueError(f"member {i} of an ensemble is {kind}, the first {kinds[0]}")
    for layer in _alone(models[0]):
        raise ValueError(f"{layer} cannot be in an ensemble: train such models one by one")


def stackable(model: nn.Module) -> bool:
    """Whether models like this one can be the members of an ensemble."""
    return not _alone(model)


def _alone(model: nn.Module) -> list[nn.Module]:
    """The layers of which a stacked pass would not keep the state."""
    return [layer for layer in model.modules() if isinstance(layer, _BatchNorm | _DropoutNd)]


def train_ensemble(
    models: Sequence[nn.Module],
    objective: Objective,
    data: Data | Sequence[Data],
    *,
    seeds: Sequence[int],
    strengths: Sequence[float] | None = None,
    epochs: int,
    batch_size: int = 512,
    lr: float = 1e-3,
    recipe: Recipe = PLAIN,
    checkpoint: Path | None = None,
    every: int = 1000,
    advance: Advance = silent,
) -> History:
    """Trains in place; each model ends as `train` would leave it by its own seed, strength and data.

    `batch_size` is that of a member. `data` may be one for each member, all of one size. A member
    whose loss, gradient or weights are not finite is named among the history's `failed`, and ends
    with what it has; the others do not notice.
    """
    plan = Plan(epochs, batch_size, lr, recipe, checkpoint, every, advance)
    each = [data] * len(models) if isinstance(data, Data) else list(data)
    _check_counts(models, seeds, strengths, each)
    ensemble = Ensemble(models)
    sources = tuple(draws.source(seed, "noise") for seed in seeds)
    task = Task(
        ensemble,
        partial(_losses, objective, strengths, sources),
        partial(_epoch, each, batch_size, seeds),
        sources,
        {
            "objective": described(objective),
            "seeds": described(list(seeds)),
            "strengths": described(strengths and list(strengths)),
        },
    )
    history = run(task, plan)
    for model, member in zip(models, ensemble.members(), strict=True):
        model.load_state_dict(member.state_dict())
        model.eval()
    return history


def _check_counts(
    models: Sequence[nn.Module],
    seeds: Sequence[int],
    strengths: Sequence[float] | None,
    data: Sequence[Data],
) -> None:
    for name, given in (("seeds", seeds), ("strengths", strengths), ("data", data)):
        if given is not None and len(given) != len(models):
            raise ValueError(f"{len(given)} {name} for an ensemble of {len(models)} members")


def _epoch(data: Sequence[Data], size: int, seeds: Sequence[int], epoch: int) -> Iterator[Batch]:
    """Blocks of all members, each in the order that it would have alone."""
    orders = [draws.number(seed, "epoch", epoch) for seed in seeds]
    for parts in zip_longest(*(d.batches(size, o) for d, o in zip(data, orders, strict=True))):
        sizes = [0 if part is None else len(part.x) for part in parts]
        if len(set(sizes)) > 1:
            raise ValueError(f"members need data of one size: batches of {sizes} samples at once")
        x, y, *others = zip(*parts, strict=True)
        joined = (None if None in each else torch.cat(each) for each in others)
        yield Batch(torch.cat(x), torch.cat(y), *joined)


def _losses(
    objective: Objective,
    strengths: Sequence[float] | None,
    sources: tuple[torch.Generator, ...],
    model: nn.Module,
    batch: Batch,
) -> Tensor:
    """The mean over each member's block of the terms that the objective averages: (members,)."""
    n = len(batch.x) // len(sources)
    if strengths is not None:
        bind: Callable[..., Objective] = partial  # the protocol does not name the option
        own = batch.x.new_tensor(strengths).repeat_interleave(n)
        objective = bind(objective, strength=own)
    seen = _Averages()
    with seen:
        value = objective(model, batch, sources)
    if value is not seen.value or seen.terms is None or seen.terms.shape != batch.y.shape:
        raise ValueError(
            f"{described(objective)} cannot train an ensemble: "
            "it must end with the mean() of one term for each sample"
        )
    return seen.terms.reshape(len(sources), n).mean(1)


@final
class _Averages(TorchFunctionMode):
    """Remembers the last mean that was taken, and of what: an objective gives away the mean alone."""

    value: Tensor | None = None
    terms: Tensor | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if func in MEANS:
            self.value, self.terms = found, args[0]
        return found
