"""Records: a run is a folder results/EXPERIMENT/HASH12, whole or absent, never done twice. No torch.

    run.json           configuration, metrics, seconds, environment, and a fingerprint of the sources
                       that the experiment can reach
    samples.npz        arrays, sample by sample
    model.safetensors  if the experiment trained one

HASH12 = sha256(canonical JSON of experiment and whole configuration). Beside the folders stand
HASH12.error of a run that failed, and, hidden, the lock and the work folder of one that goes on.
"""

import hashlib
import json
import math
import re
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, final

import manifoldlab
from manifoldlab import catalog, files
from manifoldlab.environment import environment
from manifoldlab.reachable import reachable

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

KEPT = ("experiment", "config", "metrics", "agrees", "seconds", "sources", "environment")


class Progress(Protocol):
    """What an experiment is handed beside its configuration."""

    @property
    def folder(self) -> Path:
        """Kept if the run is killed, gone once it is recorded: the place of checkpoints."""

    def __call__(self, done: float, what: str = "") -> None:
        """How much of the run is done, from 0 to 1, and what it does now."""


class Outcome(NamedTuple):
    """What the `main` of an experiment returns.

    A metric is a number, or what was predicted, measured and how sure it is:
    {"predicted": -1, "measured": -0.98, "low": -1.03, "high": -0.93, "agrees": True}.
    """

    metrics: Mapping[str, Any]  # JSON
    samples: Mapping[str, "np.ndarray[Any, Any]"] = {}
    tensors: Mapping[str, "Tensor"] | None = None  # of model.safetensors
    facts: Mapping[str, Any] = {}  # JSON beside them: the architecture


@final
@dataclass(frozen=True)
class Run:
    """A record; its samples are read when asked for."""

    experiment: str
    config: Mapping[str, Any]
    metrics: Mapping[str, Any]
    seconds: float
    sources: str
    environment: Mapping[str, Any]
    folder: Path

    @property
    def stale(self) -> bool:
        """Made by other sources than the present ones."""
        return self.sources != sources(self.experiment)

    @property
    def agrees(self) -> bool:
        """Whether all that was predicted was measured."""
        compared = (m for m in self.metrics.values() if isinstance(m, Mapping))
        return all(metric.get("agrees", True) for metric in compared)

    def samples(self) -> dict[str, "np.ndarray[Any, Any]"]:
        import numpy as np

        with np.load(self.folder / "samples.npz", allow_pickle=False) as found:
            return dict(found)


def plain(config: Any) -> dict[str, Any]:
    """The fields of a configuration as JSON has them."""
    return {f.name: _plain(f.name, getattr(config, f.name)) for f in fields(config)}


def _plain(name: str, value: Any) -> Any:
    if is_dataclass(value):
        return plain(value)
    if isinstance(value, list | tuple):
        return [_plain(name, item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"a configuration is made of finite numbers, {name} is {value}")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"a configuration is made of numbers and words, {name} is {value!r}")


def name(experiment: str, config: Mapping[str, Any]) -> str:
    """HASH12: 1 and 1.0 are one number, and so are 1e-3 and 0.001."""
    whole = {"experiment": experiment, "config": _canonical(config)}
    text = json.dumps(whole, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _canonical(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


@cache
def sources(experiment: str) -> str:
    """Fingerprint of the sources that the experiment can reach; of none, if there is no such experiment.

    What others are made of may change without a number of this one changing.
    """
    package, found = Path(manifoldlab.__path__[0]), dict[str, Path]()
    if experiment in catalog.names("experiments"):
        own = catalog.source("experiments", experiment)
        inside = (file for file in reachable(own) if file.is_relative_to(package))
        found = {str(file.relative_to(package)): file for file in inside}
        found[f"experiments/{own.name}"] = own
    digest = hashlib.sha256()
    for relative, file in sorted(found.items()):
        content = file.read_bytes()
        digest.update(f"{relative}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:12]


def save(
    folder: Path,
    experiment: str,
    config: Mapping[str, Any],
    outcome: Outcome,
    *,
    seconds: float,
    write_model: Callable[[Path], None] | None = None,
    replace: bool = False,
) -> Run:
    """Into a new folder, put in its place when all is written."""
    made_by = sources(experiment), environment(_device())
    run = Run(experiment, config, outcome.metrics, seconds, *made_by, folder)
    try:
        with files.whole_folder(folder, replace=replace) as new:
            _write_samples(new / "samples.npz", outcome.samples)
            if write_model is not None:
                write_model(new / "model.safetensors")
            files.write_json(new / "run.json", {key: getattr(run, key) for key in KEPT})
    except TypeError as error:
        raise ValueError(f"the metrics of {experiment} are no JSON: {error}") from error
    except OSError as error:  # a full disk, perhaps
        what = f"cannot write the record {folder}: {error.strerror}"
        raise OSError(error.errno, what) from error
    return read(folder)


def _device() -> str:
    torch = sys.modules.get("torch")
    return "cuda" if torch and torch.cuda.is_initialized() else "cpu"


def _write_samples(file: Path, samples: Mapping[str, "np.ndarray[Any, Any]"]) -> None:
    import numpy as np

    arrays = {key: np.asarray(value) for key, value in samples.items()}
    for key, array in arrays.items():
        if array.dtype.hasobject:
            raise ValueError(f"samples are arrays of numbers or words, {key} is of {array.dtype}")
    np.savez_compressed(file, allow_pickle=False, **arrays)


def read(folder: Path) -> Run:
    """One line about a record that is damaged."""
    file = folder / "run.json"
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        run = Run(folder=folder, **{key: found[key] for key in KEPT if key != "agrees"})
        whole = name(run.experiment, run.config) == folder.name.strip(".").removesuffix(".old")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is damaged: {type(error).__name__}: {error}") from error
    if not whole:
        raise ValueError(f"{file} is damaged: its configuration is not the one of its folder")
    if not zipfile.is_zipfile(folder / "samples.npz"):
        raise ValueError(f"{folder / 'samples.npz'} is damaged: it is missing or truncated")
    return run


def find(folder: Path) -> Run | None:
    """The record in its place, or in that of one about to be replaced; None if there is none."""
    places = (place for place in (folder, files.former(folder)) if place.exists())
    place = next(places, None)
    return None if place is None else read(place)


def load(
    experiment: str, root: Path = Path("results"), *, complain: Callable[[str], None] | None = None
) -> list[Run]:
    """All whole records of an experiment; a line, on standard error, for each that is damaged."""
    found = []
    for folder in _folders(root / experiment):
        try:
            found.append(find(folder))
        except ValueError as error:
            (complain or _complain)(str(error))
    return [run for run in found if run is not None]


def _folders(parent: Path) -> list[Path]:
    """Of records, whether or not one was being replaced when its process was killed."""
    if not parent.is_dir():
        return []
    matches = (
        re.fullmatch(r"([0-9a-f]{12})|\.([0-9a-f]{12})\.old", p.name) for p in parent.iterdir()
    )
    return sorted({parent / (match[1] or match[2]) for match in matches if match})


def _complain(line: str) -> None:
    print(line, file=sys.stderr)


def note(runs: Sequence[Run]) -> str:
    """What a figure says of its records: by which sources they were made, and whether that is stale."""
    made_by = sorted({run.sources for run in runs})
    stale = sum(run.stale for run in runs)
    line = f"{len(runs)} runs, sources {', '.join(made_by)}"
    return (
        f"{line}; {stale} of them STALE: made by other sources than the present" if stale else line
    )
