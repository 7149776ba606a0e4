"""Many runs of one experiment: what is recorded is found, the rest goes to an engine.

A run that fails leaves HASH12.error beside the records, and the next sweep tries it again. One
that another process is just making is waited for at the end.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, final

from manifoldlab import files, records
from manifoldlab.engines.base import Done, Engine


@final
@dataclass(frozen=True)
class Job:
    """One run, and what to do where it is recorded already."""

    experiment: str
    config: Any  # of the experiment's Config
    out: Path
    sources: str  # which its process must have, too
    label: str = ""  # what tells it from the others
    again: bool = False  # even if it is recorded
    renew: bool = False  # if it is recorded by other sources
    wait: bool = False  # where another process is making it

    @property
    def folder(self) -> Path:
        name = records.name(self.experiment, records.plain(self.config))
        return self.out / self.experiment / name

    @property
    def error(self) -> Path:
        return self.folder.with_suffix(".error")

    @property
    def lock(self) -> Path:
        return files.beside(self.folder, "lock")

    @property
    def work(self) -> Path:
        """For checkpoints, which are of the sources that wrote them."""
        return files.beside(self.folder, f"work-{self.sources}")

    def redo(self, found: records.Run | None) -> bool:
        return found is None or self.again or (self.renew and found.stale)


class Reporter(Protocol):
    def begin(self, job: Job) -> None: ...
    def end(self, job: Job, error: str | None) -> None: ...


class Failure(NamedTuple):
    job: Job
    error: str  # its last line


@final
@dataclass
class Tally:
    """What became of the runs."""

    found: int = 0
    stale: int = 0  # of those found
    done: int = 0
    failures: list[Failure] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)  # a line for each record that is done again


# Makes the record or finds it; None while another process makes it.
Perform = Callable[[Job], records.Run | None]


def pending(jobs: Sequence[Job], tally: Tally) -> list[Job]:
    """Those to be done; the others are counted."""
    left = []
    for job in jobs:
        try:
            found = records.find(job.folder)
        except ValueError as error:
            tally.damaged.append(str(error))
            found = None
        if job.redo(found):
            left.append(job)
        elif found is not None:
            tally.found += 1
            tally.stale += found.stale
    return left


def sweep(
    jobs: Sequence[Job], engine: Engine, perform: Perform, tally: Tally, reporter: Reporter
) -> None:
    """Does the jobs, and at last those that another process was making meanwhile."""
    elsewhere = []
    with closing(engine.map(perform, jobs, lambda index: reporter.begin(jobs[index]))) as results:
        for done in results:
            job = jobs[done.item]
            if done.error is None and done.value is None:
                # what it makes is new: no need to do it again, as was asked of old records
                elsewhere.append(replace(job, wait=True, again=False, renew=job.again or job.renew))
                continue
            error = _error(job, done)
            if error is None:
                tally.done += 1
            else:
                tally.failures.append(Failure(job, error))
            reporter.end(job, error)
    if elsewhere:
        sweep(elsewhere, engine, perform, tally, reporter)


def tidy(parent: Path) -> None:
    """Removes what killed processes left beside whole records."""
    for folder in {parent / path.name.split(".")[1] for path in parent.glob(".*.*")}:
        if folder.exists():
            with files.lock(files.beside(folder, "lock"), wait=False) as ours:
                if ours:
                    files.clear_beside(folder)


def _error(job: Job, done: Done) -> str | None:
    """The last line of what went wrong, all of which is kept in a file."""
    error = done.error
    if error is None and records.find(job.folder) is None:
        error = f"its record is not in {job.folder}: do the workers write to the same folder?"
    if error is None:
        return None
    about = {"experiment": job.experiment, "config": records.plain(job.config)}
    with suppress(OSError):  # a full disk, perhaps, which is then the error itself
        files.write_text(job.error, f"{json.dumps(about)}\n{error.rstrip()}\n")
    return error.strip().splitlines()[-1]
