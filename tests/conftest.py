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


def forget_the_toy() -> None:
    """That of another test."""
    sys.modules.pop("toy_experiment", None)
    catalog._modules.cache_clear()
    records.sources.cache_clear()


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The experiment `toy` of an installed package; gives the folder of the marks of its runs."""
    package, log = tmp_path / "package", tmp_path / "log"
    info = package / "toy-1.0.dist-info"
    for folder in (info, log):
        folder.mkdir(parents=True)
    (package / "toy_experiment.py").write_text(TOY)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[manifoldlab.experiments]\ntoy = toy_experiment\n")
    monkeypatch.syspath_prepend(package)
    monkeypatch.setenv("TOY_LOG", str(log))
    forget_the_toy()
    yield log
    forget_the_toy()
