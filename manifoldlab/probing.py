"""`manifoldlab probe`: one probe on one model at points of one problem, summed up and recorded."""

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from manifoldlab import arguments, catalog, options
from manifoldlab.environment import environment
from manifoldlab.evaluation import evaluate
from manifoldlab.interfaces import Batch, Model, Probe
from manifoldlab.problems.base import BayesClassifier, Problem
from manifoldlab.report import terminal

NULL = "_null"  # ends the name of a field that says what an isotropic random gradient gives
Summary = dict[str, dict[str, float | None]]


@final
@dataclass(frozen=True)
class Result:
    command: options.Probe
    problem: Problem
    fields: dict[str, Tensor]  # each (n, ...)
    environment: dict[str, Any]

    def record(self) -> dict[str, Any]:
        command = self.command
        return {
            "probe": command.probe,
            "model": command.model,
            "problem": repr(self.problem),
            "samples": command.samples,
            "seed": command.seed,
            "summary": summary(self.fields),
            "fields": {name: field.tolist() for name, field in self.fields.items()},
            "environment": self.environment,
        }

    def show(self) -> None:
        command, console = self.command, terminal.console()
        console.print(f"{command.probe} of {command.model} on {self.problem!r}")
        console.print(terminal.fields(summary(self.fields)))
        threads, packages = self.environment["threads"], self.environment["packages"]
        print(
            f"{command.samples} samples, seed {command.seed}, {threads['torch']} threads, "
            f"manifoldlab {self.environment['manifoldlab']}, torch {packages['torch']}"
        )
        if command.out is not None:
            print(f"Record: {command.out}")


def run(command: options.Probe) -> Result:
    device = arguments.device(command.device)
    problem = arguments.problem(command.problem, command.seed)
    model = arguments.model(command.model, problem, device)
    # bound to the Bayes classifier, a probe that needs a score gets the exact one
    probe = catalog.module("probes", command.probe).example(BayesClassifier(problem))
    batch = problem.sample(command.samples, torch.Generator().manual_seed(command.seed))
    try:
        fields = _probed(probe, model, problem, batch, command.batch, device)
    except RuntimeError as error:  # of autograd, say, where the logits do not depend on x
        what = f"{command.probe} of {command.model} on {problem!r}"
        raise ValueError(f"{what}: {error}") from error
    return Result(command, problem, fields, environment(device))


def _probed(
    probe: Probe, model: Model, problem: Problem, batch: Batch, size: int, device: str
) -> dict[str, Tensor]:
    """Each batch on its own geometry: where classes have manifolds of their own, it differs."""
    parts = []
    for rows in torch.split(torch.arange(len(batch.x)), size):
        others = (batch.index, batch.region)
        index, region = (None if t is None else t[rows].to(device) for t in others)
        here = Batch(batch.x[rows].to(device), batch.y[rows].to(device), index, region)
        parts.append(evaluate(probe, model, [here], problem.geometry(here))._asdict())
    return {name: torch.cat([part[name] for part in parts]).cpu() for name in parts[0]}


def summary(fields: dict[str, Tensor]) -> Summary:
    """Over the samples, beside the null of each field; a field of several columns has several rows."""
    found: Summary = {}
    for name, field in fields.items():
        if not name.endswith(NULL):
            nulls = _columns(name, fields[name + NULL]) if name + NULL in fields else {}
            for row, values in _columns(name, field.double()).items():
                null = nulls.get(row, nulls.get(name))  # of the column, or of all
                found[row] = _numbers(values) | {
                    "null": None if null is None else null.mean().item()
                }
    return found


def _columns(name: str, field: Tensor) -> dict[str, Tensor]:
    if field.ndim == 1:
        return {name: field}
    return {f"{name}[{i}]": column for i, column in enumerate(field.flatten(1).unbind(1))}


def _numbers(values: Tensor) -> dict[str, float | None]:
    return {
        "mean": values.mean().item(),
        "sd": values.std().item() if len(values) > 1 else None,
        "median": values.quantile(0.5).item(),
        "min": values.min().item(),
        "max": values.max().item(),
    }
