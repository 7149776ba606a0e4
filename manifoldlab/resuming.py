"""The state of a training, all that the same steps follow from, as a checkpoint and back."""

import hashlib
import re
from dataclasses import dataclass, field
from functools import partial
from glob import escape
from os.path import commonprefix
from pathlib import Path
from time import perf_counter
from types import BuiltinFunctionType, FunctionType
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from manifoldlab import checkpoints, synchronized

TOTALS = ("losses", "running", "failed")
COUNTS = ("epoch", "batch", "samples", "step", "seconds")


@final
@dataclass
class State:
    model: nn.Module
    sources: tuple[torch.Generator, ...]  # one a member of an ensemble
    facts: dict[str, str]  # that tell this training from others
    optimizer: Optimizer
    rates: list[float]  # of the optimizer's groups, before the schedule
    average: list[Tensor]  # of the parameters, where one is wanted
    losses: Tensor  # (members, epochs) means over epochs
    running: Tensor  # (members,) losses times samples, of this epoch so far
    failed: Tensor  # (members,) the step in which one was no longer finite, or -1
    epoch: int = 0
    batch: int = 0  # of this epoch, likewise the samples
    samples: int = 0
    step: int = 0
    seconds: float = 0.0
    since: float = field(default_factory=perf_counter)  # where `seconds` count on
    saved: int | None = None  # the step of the last checkpoint

    @property
    def members(self) -> int:
        return len(self.sources)

    @property
    def device(self) -> torch.device:
        return self.losses.device

    @property
    def parameters(self) -> list[Tensor]:
        return [p for p in self.model.parameters() if p.requires_grad]

    def mark(self, bad: Tensor) -> None:
        """Members (members,) that are not finite as from this step."""
        self.failed.masked_fill_((self.failed < 0) & bad, self.step)

    def tensors(self) -> dict[str, Tensor]:
        moments = self.optimizer.state_dict()["state"].items()
        found = {f"model.{name}": t for name, t in self.model.state_dict().items()}
        found |= {
            f"optimizer.{i}.{name}": torch.as_tensor(t)
            for i, own in moments
            for name, t in own.items()
        }
        found |= {f"average.{i}": t for i, t in enumerate(self.average)}
        found |= {f"generator.{i}": g.get_state() for i, g in enumerate(self._generators())}
        return found | {name: getattr(self, name) for name in TOTALS}

    def _generators(self) -> list[torch.Generator]:
        """Also the global ones, which layers such as dropout draw from."""
        device = self.device
        own = [torch.cuda.default_generators[device.index]] if device.type == "cuda" else []
        return [*self.sources, torch.default_generator, *own]

    def save(self, path: Path) -> None:
        counts = {name: getattr(self, name) for name in COUNTS}
        if synchronized.rank() == 0:
            checkpoints.save(path, self.tensors(), {"training": self.facts, **counts})
        self.saved = self.step

    def load(self, path: Path) -> None:
        tensors, facts = checkpoints.load(path)
        _check_same(path, facts.get("training"), self.facts)
        try:
            self._take(path, tensors, facts)
        except KeyError as error:  # written by hand, perhaps, or by another version
            raise ValueError(f"checkpoint {path}: it has no {error.args[0]}") from error

    def _take(self, path: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        model = _under("model.", tensors)
        checkpoints.check_fits(self.model, model, "the model", f"checkpoint {path}")
        self.model.load_state_dict(model)
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in _under("optimizer.", tensors).items():
            index, _, name = key.partition(".")
            moments.setdefault(int(index), {})[name] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        for i, generator in enumerate(self._generators()):
            generator.set_state(tensors[f"generator.{i}"])
        for i, average in enumerate(self.average):
            average.copy_(tensors[f"average.{i}"])
        for name in TOTALS:
            getattr(self, name).copy_(tensors[name])
        for name in COUNTS:
            setattr(self, name, facts[name])
        self.saved = self.step


def clear(path: Path) -> None:
    """Removes what killed processes left half-written, under the names that `tempfile` gives."""
    if synchronized.rank() == 0:
        for left in path.parent.glob(f".{escape(path.name)}.{'?' * 8}"):
            left.unlink(missing_ok=True)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}


def _check_same(path: Path, theirs: dict[str, str] | None, ours: dict[str, str]) -> None:
    if theirs is None:
        raise ValueError(f"checkpoint {path} is of no training: it has no state to go on from")
    for name in ours | theirs:
        there, here = theirs.get(name, "not given"), ours.get(name, "not given")
        if there != here:
            start = max(0, len(commonprefix([there, here])) - 30)
            sides = [
                f"{'...' if start else ''}{side[start : start + 90]}" for side in (there, here)
            ]
            what = f"{name} is {sides[0]} there, {sides[1]} here"
            raise ValueError(f"checkpoint {path} is of another training: {what}")


def described(value: Any) -> str:
    """A function with its bound options, or another value, in words that are the same in each process."""
    match value:
        case partial():
            options = [f"{name}={described(option)}" for name, option in value.keywords.items()]
            return f"{described(value.func)}({', '.join([*map(described, value.args), *options])})"
        case type() | FunctionType() | BuiltinFunctionType():
            return value.__qualname__
        case Tensor():
            return str(value.tolist()) if value.numel() <= 8 else digest(value)
        case tuple() | list():
            return f"({', '.join(map(described, value))})"
    return re.sub(" at 0x[0-9a-f]+", "", " ".join(repr(value).split()))


def digest(*tensors: Tensor) -> str:
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(str((tensor.dtype, tuple(tensor.shape))).encode())
        flat = tensor.detach().cpu().flatten().contiguous()
        found.update(flat.view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:12]
