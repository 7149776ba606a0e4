"""Training: one loop for every objective, in one process or many, of one network or an ensemble of them.

Nothing waits for the device but every `every` steps, when numbers that are not finite are looked
for and a checkpoint is written.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from itertools import islice
from math import isfinite
from operator import length_hint
from pathlib import Path
from time import perf_counter
from typing import NamedTuple, final

import torch
from torch import Tensor, nn

from manifoldlab import draws, files, synchronized
from manifoldlab.descent import PLAIN, Losses, Recipe, descend
from manifoldlab.interfaces import Batch, Data, Objective
from manifoldlab.resuming import State, clear, described, digest

Advance = Callable[[float], None]  # told the share of all steps that is done, after each


class History(NamedTuple):
    loss: Tensor  # (epochs,), or (members, epochs) of an ensemble: means over epochs, float64
    seconds: float  # of training, in all calls that it took
    steps: int
    failed: dict[int, int]  # member of an ensemble -> the step in which it was no longer finite


@final
@dataclass(frozen=True)
class Plan:
    """What `train` and `train_ensemble` take alike."""

    epochs: int
    batch_size: int
    lr: float
    recipe: Recipe
    checkpoint: Path | None
    every: int
    advance: Advance

    def __post_init__(self) -> None:
        for name, least in (("epochs", 0), ("batch_size", 1), ("every", 1)):
            value = getattr(self, name)
            if value < least:
                raise ValueError(f"{name} must be {least} or more, not {value}")
        if not (isfinite(self.lr) and self.lr >= 0):
            raise ValueError(f"lr must be finite and not negative, not {self.lr}")
        if self.checkpoint is not None:
            files.check_file(self.checkpoint)


class Task(NamedTuple):
    """What is trained: one network, or several stacked along the first dimension of each parameter."""

    model: nn.Module
    losses: Losses
    epoch: Callable[[int], Iterator[Batch]]  # of global batches, an equal block a member
    sources: tuple[torch.Generator, ...]  # one a member
    facts: dict[str, str]  # that tell it from other tasks


def silent(done: float) -> None:
    del done


def train(
    model: nn.Module,
    objective: Objective,
    data: Data,
    *,
    epochs: int,
    batch_size: int = 512,
    lr: float = 1e-3,
    seed: int = 0,
    recipe: Recipe = PLAIN,
    checkpoint: Path | None = None,
    every: int = 1000,
    advance: Advance = silent,
) -> History:
    """Trains in place and leaves the model in evaluation mode.

    The seed decides the order of the data and what the objective draws. A `checkpoint` is written every
    `every` steps, on SIGTERM and at the end; the same call goes on from it, on a CPU to the same bits
    as if nothing had happened. Under torchrun `batch_size` counts the samples of all processes.
    """
    plan = Plan(epochs, batch_size, lr, recipe, checkpoint, every, advance)
    source = draws.source(seed, "noise")
    task = Task(
        model,
        lambda model, batch: objective(model, batch, source)[None],
        lambda epoch: data.batches(batch_size, draws.number(seed, "epoch", epoch)),
        (source,),
        {"objective": described(objective), "seed": str(seed)},
    )
    history = run(task, plan)
    return history._replace(loss=history.loss[0])


def run(task: Task, plan: Plan) -> History:
    """Trains, from the beginning or from the plan's checkpoint if there is one."""
    synchronized.join()
    first, count = _survey(task)
    total = count * plan.epochs
    state = _state(task, plan, first)
    model = task.model.train()
    called = model if plan.recipe.compile is None else plan.recipe.compile(model)
    with synchronized.stop_signal(plan.checkpoint is not None) as stop:
        while state.epoch < plan.epochs:
            for batch in islice(task.epoch(state.epoch), state.batch, None):
                factor = plan.recipe.schedule(state.step / total)
                for group, rate in zip(state.optimizer.param_groups, state.rates, strict=True):
                    group["lr"] = rate * factor
                descend(state, task.losses, called, batch, plan.recipe)
                plan.advance(state.step / total)
                _keep(state, plan, total, stop(state.step))
            _close_epoch(state, count)
    if state.saved != state.step:
        _look(state, plan)
    return _finished(state)


def _survey(task: Task) -> tuple[Batch, int]:
    """The first batch, and how many an epoch has: counted, unless the iterator knows."""
    batches = task.epoch(0)
    first = next(batches, None)
    if first is None or not len(first.x):
        raise ValueError("no samples to train on: the first epoch is empty")
    return first, 1 + (length_hint(batches) or sum(1 for _ in batches))


def _state(task: Task, plan: Plan, first: Batch) -> State:
    model, recipe = task.model, plan.recipe
    facts = _facts(task, plan, first)
    if recipe.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if synchronized.processes() > 1:
        synchronized.convert(model)
        synchronized.copy_first(model.state_dict().values())
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = recipe.optimizer(parameters, lr=plan.lr)
    members, device = len(task.sources), parameters[0].device
    state = State(
        model,
        task.sources,
        facts,
        optimizer,
        rates=[group["lr"] for group in optimizer.param_groups],
        average=[p.detach().clone() for p in parameters if recipe.ema is not None],
        losses=torch.zeros(members, plan.epochs, dtype=torch.float64, device=device),
        running=torch.zeros(members, dtype=torch.float64, device=device),
        failed=torch.full((members,), -1, device=device),
    )
    if plan.checkpoint is not None:
        clear(plan.checkpoint)
        if plan.checkpoint.exists():
            state.load(plan.checkpoint)
    synchronized.check_alike(state.step, f"the step that {plan.checkpoint} goes on from")
    return state


def _facts(task: Task, plan: Plan, first: Batch) -> dict[str, str]:
    if plan.recipe.channels_last and first.x.ndim != 4:
        raise ValueError(f"channels_last is for images, not for {tuple(first.x.shape[1:])}")
    return task.facts | {
        "model": described(task.model),
        "first parameters": digest(*task.model.state_dict().values()),
        "first batch": f"{tuple(first.x.shape)} {digest(first.x, first.y)}",
        **{name: str(getattr(plan, name)) for name in ("epochs", "batch_size", "lr")},
        **{f.name: described(getattr(plan.recipe, f.name)) for f in fields(plan.recipe)},
    }


def _keep(state: State, plan: Plan, total: int, stopped: bool) -> None:
    if stopped or state.step % plan.every == 0:
        _look(state, plan)
    if stopped:
        what = f"stopped by SIGTERM after step {state.step} of {total}; "
        line = f"{what}the same call goes on from {plan.checkpoint}"
        raise SystemExit(line if synchronized.rank() == 0 else 1)


def _close_epoch(state: State, count: int) -> None:
    if state.batch != count:
        raise ValueError(f"epoch {state.epoch} had {state.batch} batches, the first {count}")
    state.losses[:, state.epoch] = state.running / state.samples
    state.running.zero_()
    state.epoch, state.batch, state.samples = state.epoch + 1, 0, 0


def _look(state: State, plan: Plan) -> None:
    """Refuses to go on from what is not finite, and writes a checkpoint of what is."""
    for value in state.model.state_dict().values():
        state.mark(~value.reshape(state.members, -1).isfinite().all(1))
    failed = state.failed.tolist()
    if min(failed) >= 0:
        where = f"{plan.checkpoint}, of step {state.saved}"
        raise FloatingPointError(
            f"{_named(failed)} not finite: {state.facts['objective']}; "
            f"the last finite checkpoint is {'none' if state.saved is None else where}"
        )
    now = perf_counter()
    state.seconds, state.since = state.seconds + now - state.since, now
    if plan.checkpoint is not None:
        state.save(plan.checkpoint)


def _named(failed: list[int]) -> str:
    if len(failed) == 1:
        return f"loss, gradient or weights of step {failed[0]}"
    return "all members: " + ", ".join(f"{i} from step {step}" for i, step in enumerate(failed))


def _finished(state: State) -> History:
    with torch.no_grad():
        for p, average in zip(state.parameters, state.average, strict=False):  # none, or all
            p.copy_(average)
    state.model.eval()
    seconds = torch.tensor(state.seconds, dtype=torch.float64)
    synchronized.copy_first([seconds])
    failed = {member: step for member, step in enumerate(state.failed.tolist()) if step >= 0}
    return History(state.losses.cpu(), seconds.item(), state.step, failed)
