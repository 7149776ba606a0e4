"""How tests call the command: in this process, for an import of torch takes seconds."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from manifoldlab import app, catalog, records

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Exit status, output and errors of a command."""

    def called(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            app.main(arguments)
        shown = capsys.readouterr()
        status = left.value.code
        assert isinstance(status, int)
        return status, shown.out, shown.err

    return called


@pytest.fixture
def refused() -> Callable[[tuple[int, str, str]], str]:
    """The one line of a command that was refused."""

    def line(result: tuple[int, str, str]) -> str:
        status, out, err = result
        assert status == 2 and out == "" and err.startswith("manifoldlab: ")
        assert err.count("\n") == 1 and "Traceback" not in err
        return err

    return line


TOY = '''
"""Twice a number is twice a number: a toy for tests of runs and sweeps."""

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from manifoldlab.records import Outcome


@dataclass(frozen=True)
class Inner:
    width: int = 3
    """How wide."""


@dataclass(frozen=True)
class Config:
    number: float = 1.0
    """What is doubled."""
    seed: int = 0
    way: Literal["well", "raises", "dies", "dies once", "leaves", "nan", "objects"] = "well"
    widths: tuple[int, ...] = (2, 3)
    limit: int | None = None
    loud: bool = False
    seconds: float = 0.0
    size: int = 1000
    inner: Inner = Inner()

    def __post_init__(self):
        if self.seed < 0:
            raise ValueError(f"a seed is not negative, {self.seed} is")


FAST = Config(number=0.5)


def main(config, progress):
    """Leaves a mark START.PID at its start and at its end."""
    log = Path(os.environ["TOY_LOG"])
    name = f"{config.number:g}-{config.seed}"
    (log / f"{name}.{os.getpid()}.{time.monotonic_ns()}.start").touch()
    progress(0.0, "waits")
    time.sleep(config.seconds)
    if config.way == "raises":
        raise ArithmeticError("of the toy")
    if config.way == "dies" or (config.way == "dies once" and not (log / name).exists()):
        (log / name).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if config.way == "leaves":
        sys.exit(3)
    (progress.folder / "checkpoint").write_text("half of it")
    progress(1.0)
    (log / f"{name}.{os.getpid()}.{time.monotonic_ns()}.end").touch()
    metrics = {
        "twice": {"predicted": 2 * config.number, "measured": 2 * config.number, "agrees": True},
        "number": float("nan") if config.way == "nan" else config.number,
        "threads": os.environ["OMP_NUM_THREADS"],
    }
    kind = object if config.way == "objects" else float
    return Outcome(metrics, {"numbers": np.full(config.size, config.number, dtype=kind)})
'''


TRAINED = '''
"""Networks are trained, and go on where a killed process stopped."""

import os
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from manifoldlab import schedules
from manifoldlab.architecture import Architecture
from manifoldlab.data.in_memory import in_memory
from manifoldlab.descent import Recipe
from manifoldlab.ensembles import train_ensemble
from manifoldlab.evaluation import evaluate
from manifoldlab.manifolds.sphere import Sphere
from manifoldlab.objectives.noise_augmentation import noise_augmentation
from manifoldlab.probes.tangent_alignment import tangent_alignment
from manifoldlab.records import Outcome
from manifoldlab.training import train


@dataclass(frozen=True)
class Config:
    epochs: int = 20
    seed: int = 0
    lr: float = 0.01
    width: int = 16
    members: int = 2
    pause: float = 0.0  # seconds a step
    size: int = 10  # of what takes long to record


FAST = Config(epochs=4)


def main(config, progress):
    """One network with BatchNorm, and an ensemble; 6 batches an epoch, the last one of 11 samples."""
    mark = f"{config.epochs}-{config.seed}.{os.getpid()}.{time.monotonic_ns()}"
    (Path(os.environ["TOY_LOG"]) / f"{mark}.start").touch()
    x = torch.randn(91, 3, generator=torch.Generator().manual_seed(config.seed))
    x = x / x.norm(dim=1, keepdim=True)
    data = in_memory(x, (x[:, 0] * x[:, 1] > 0).long(), 2)
    network = Architecture("mlp", (3,), 2, {"width": config.width})
    members = [network.build(seed) for seed in range(config.members)]
    torch.manual_seed(config.seed)
    normed = nn.Sequential(nn.Linear(3, 8, bias=False), nn.BatchNorm1d(8), nn.SiLU(), nn.Linear(8, 2))

    def advance(start, done):
        time.sleep(config.pause)
        progress((start + done) / 2, "trains")

    recipe = Recipe(schedule=schedules.cosine, ema=0.9, clip=1.0)
    options = {"epochs": config.epochs, "batch_size": 16, "lr": config.lr, "recipe": recipe, "every": 2}
    history = train_ensemble(
        members, noise_augmentation, data, seeds=range(config.members),
        strengths=[0.1 * i for i in range(config.members)],
        checkpoint=progress.folder / "ensemble.safetensors", advance=partial(advance, 0), **options,
    )
    one = train(
        normed, partial(noise_augmentation, strength=0.1), data,
        checkpoint=progress.folder / "one.safetensors", advance=partial(advance, 1), **options,
    )
    found = evaluate(tangent_alignment, normed, data.batches(16, None), Sphere(2))
    tensors = {f"normed.{name}": value for name, value in normed.state_dict().items()}
    for i, member in enumerate(members):
        tensors |= {f"{i}.{name}": value for name, value in member.state_dict().items()}
    metrics = {"loss": history.loss[:, -1].tolist(), "one": one.loss[-1].item(), "steps": one.steps}
    metrics["omega"] = found.omega.mean().item()
    samples = {"loss": history.loss.numpy(), "omega": found.omega.numpy()}
    samples["long"] = torch.arange(config.size).numpy()
    return Outcome(metrics, samples, tensors, {"architecture": network.facts()})
'''


def forget_the_toy() -> None:
    """That of another test."""
    for name in ("toy_experiment", "toy_training"):
        sys.modules.pop(name, None)
    catalog._modules.cache_clear()
    records.sources.cache_clear()


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The experiments of an installed package; gives the folder of the marks of their runs."""
    package, log = tmp_path / "package", tmp_path / "log"
    info = package / "toy-1.0.dist-info"
    for folder in (info, log):
        folder.mkdir(parents=True)
    (package / "toy_experiment.py").write_text(TOY)
    (package / "toy_training.py").write_text(TRAINED)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    entries = "[manifoldlab.experiments]\ntoy = toy_experiment\ntoy_training = toy_training\n"
    (info / "entry_points.txt").write_text(entries)
    monkeypatch.syspath_prepend(package)
    monkeypatch.setenv("TOY_LOG", str(log))
    forget_the_toy()
    yield log
    forget_the_toy()


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests neither use nor leave what users have in their cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MANIFOLDLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
