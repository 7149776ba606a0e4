"""Training of many small networks: at once, one by one, and in processes."""

import atexit
import os
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from functools import cache, partial
from multiprocessing import get_context

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import inputs
from manifoldlab import draws
from manifoldlab.architecture import Architecture
from manifoldlab.benchmarking.case import Case, Contest, Contestant, Floor, Setting, whole
from manifoldlab.data.in_memory import in_memory
from manifoldlab.ensembles import Ensemble, train_ensemble
from manifoldlab.interfaces import Data
from manifoldlab.objectives.gradient_penalty import gradient_penalty
from manifoldlab.training import train

AMBIENT, SAMPLES, SIZE, RATE = 64, 400, 100, 1e-3


def _models(count: int) -> list[nn.Module]:
    architecture = Architecture("mlp", (AMBIENT,), 10, {"width": 32})
    return [architecture.build(seed).train() for seed in range(count)]


def _strengths(count: int) -> list[float]:
    return [0.01 * (1 + i % 30) for i in range(count)]


def _weights(models: list[nn.Module]) -> Tensor:
    return torch.cat([p.detach().flatten().double() for m in models for p in m.parameters()])


def _data(device: str) -> Data:
    x, y = inputs.uniform(SAMPLES, AMBIENT), torch.arange(SAMPLES) % 10
    return in_memory(x.to(device), y.to(device), 10)


def _at_once(models: list[nn.Module], data: Data) -> list[nn.Module]:
    models = [deepcopy(model) for model in models]
    train_ensemble(
        models,
        gradient_penalty,
        data,
        seeds=range(len(models)),
        strengths=_strengths(len(models)),
        epochs=1,
        batch_size=SIZE,
        lr=RATE,
    )
    return models


def _one_by_one(models: list[nn.Module], data: Data) -> list[nn.Module]:
    models = [deepcopy(model) for model in models]
    for seed, (model, strength) in enumerate(zip(models, _strengths(len(models)), strict=True)):
        objective = partial(gradient_penalty, strength=strength)
        train(model, objective, data, epochs=1, batch_size=SIZE, lr=RATE, seed=seed)
    return models


def _plain(models: list[nn.Module], data: Data, first: int = 0, total: int = 0) -> list[nn.Module]:
    """A loop as one writes it; in float64 it is the slow and sure one."""
    models, strengths = [deepcopy(model) for model in models], _strengths(total or len(models))
    for i, model in enumerate(models):
        wide = next(model.parameters()).dtype
        optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
        for batch in data.batches(SIZE, draws.number(first + i, "epoch", 0)):
            x = batch.x.to(wide).requires_grad_()
            loss = F.cross_entropy(model(x), batch.y, reduction="sum")
            (g,) = torch.autograd.grad(loss, x, create_graph=True)
            mean = (loss + strengths[first + i] * g.square().sum()) / len(x)
            optimizer.zero_grad()
            mean.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return models


@cache
def _pool(processes: int) -> ProcessPoolExecutor:
    """Started once, before anything is timed."""
    pool = ProcessPoolExecutor(processes, get_context("spawn"), torch.set_num_threads, (1,))
    atexit.register(pool.shutdown, wait=False, cancel_futures=True)
    return pool


def _part(first: int, stop: int, total: int) -> Tensor:
    """Of one process, which makes its models and data itself; weights come back."""
    return _weights(_plain(_models(total)[first:stop], _data("cpu"), first, total))


def _in_processes(count: int, processes: int) -> Tensor:
    bounds = [count * i // processes for i in range(processes + 1)]
    parts = zip(bounds, bounds[1:], strict=False)
    futures = [_pool(processes).submit(_part, *part, count) for part in parts]
    return torch.cat([future.result() for future in futures])


def _ready(setting: Setting) -> Contest:
    count, processes = setting.pick(100, 4), min(2, os.cpu_count() or 1)
    models = [model.to(setting.device) for model in _models(count)]
    start, data = _weights(models), _data(setting.device)
    read = lambda models: _weights(models) - start
    stacked, steps = Ensemble(models), SAMPLES // SIZE
    x = inputs.uniform(count * SIZE, AMBIENT).to(setting.device)
    wide = [inputs.doubled(model) for model in models]
    peers = {
        "one by one": Contestant(partial(_one_by_one, models, data), read),
        "one by one, a plain loop": Contestant(partial(_plain, models, data), read),
        f"a plain loop in {processes} processes": Contestant(
            partial(_in_processes, count, processes), lambda found: found - start.cpu()
        ),
    }
    return Contest(
        own=Contestant(partial(_at_once, models, data), read),
        floor=Floor(
            f"{6 * steps} stacked forward passes: 2 plain steps for each of {steps}",
            inputs.times(6 * steps, lambda: inputs.forward(stacked, x)),
        ),
        peers=peers,
        exact=lambda: read(_plain(wide, data)),
        within=2e-2,
        reason="of the change of all weights: Adam divides gradients near zero by their size",
        sizes={"n": SIZE, "D": AMBIENT, "K": 10, "members": count, "steps": steps},
        error=whole,
        waits=True,
    )


CASES = (
    Case("ensembles/train_ensemble/mlp", "100 perceptrons with a penalty on the gradient", _ready),
)
