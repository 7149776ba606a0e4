"""`manifoldlab run` and `manifoldlab sweep`: experiments by their names, recorded, and shown."""

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, final

from manifoldlab import catalog, configuration, environment, files, options, records
from manifoldlab.engines.base import Engine
from manifoldlab.report import live, terminal
from manifoldlab.sweep import Job, Tally, pending, sweep, tidy

NEEDED = ("Config", "FAST", "main")


def default(name: str, *, fast: bool) -> Any:
    """The configuration that an experiment starts from."""
    module = catalog.module("experiments", name)
    missing = [member for member in NEEDED if member not in vars(module)]
    if missing:
        raise ValueError(f"{module.__file__} must define {' and '.join(missing)}")
    return module.FAST if fast else module.Config()


def explain(command: options.Explain) -> int:
    given = command.command
    start = default(given.experiment, fast=given.fast)
    claim = inspect.getdoc(catalog.module("experiments", given.experiment)) or ""
    configuration.show(given, start, claim)
    return 0


def run(command: options.Run) -> int:
    """Under torchrun the first process speaks for all."""
    start, quiet = default(command.experiment, fast=command.fast), command.quiet
    own = options.names(options.Run)
    config = configuration.configured(start, dict(command.fields), options=own)
    job = _job(command.experiment, config, command.out, again=command.again, wait=True)
    files.check_writable(job.folder.parent)
    known, quiet = _found(job), quiet or environment.rank() > 0
    with live.bar(command.experiment, quiet=quiet) as tell:
        made = perform(job, tell)
    if made is not None and not quiet:
        _show(made, found=known is not None and not command.again)
    return 0


def _job(experiment: str, config: Any, out: Path, **how: Any) -> Job:
    return Job(experiment, config, out.absolute(), records.sources(experiment), **how)


def _show(made: records.Run, *, found: bool) -> None:
    terminal.console().print(terminal.metrics(made.metrics))
    print(f"{'Found' if found else 'Recorded'}: {made.folder}, {made.seconds:.1f} s")
    if made.stale:
        print("STALE: made by other sources than the present ones; --again makes it anew")


def perform(job: Job, tell: Callable[[float, str], None] | None = None) -> records.Run | None:
    """The record, made or found; None while another process makes it.

    Of the processes that torchrun started all do the run, and the first one holds the lock,
    records, and has the record.
    """
    here = records.sources(job.experiment)
    if here != job.sources:
        raise ValueError(f"this process has sources {here}, and was asked by sources {job.sources}")
    job.folder.parent.mkdir(parents=True, exist_ok=True)
    first = environment.rank() == 0
    with files.lock(job.lock, wait=job.wait) if first else nullcontext(True) as ours:
        if not ours:
            return None
        found = _found(job)
        if _agreed(job.redo(found)):
            outcome, seconds = _outcome(job, tell)
            found = _recorded(job, outcome, seconds) if _agreed(True) and first else None
        if first:
            job.error.unlink(missing_ok=True)
            files.clear_beside(job.folder)
        return found


def _agreed(redo: bool) -> bool:
    """Among the processes of torchrun, as the first one says, when all have come here."""
    if environment.processes() == 1:
        return redo
    from manifoldlab import synchronized

    synchronized.join()
    return synchronized.of_first(redo)


def _found(job: Job) -> records.Run | None:
    try:
        return records.find(job.folder)
    except ValueError:  # damaged, and made anew
        return None


@final
@dataclass(frozen=True)
class Working:
    """The progress of a run, and its folder for checkpoints, one for each state of the sources."""

    place: Path
    tell: Callable[[float, str], None] | None

    @property
    def folder(self) -> Path:
        self.place.mkdir(exist_ok=True)
        return self.place

    def __call__(self, done: float, what: str = "") -> None:
        if self.tell is not None:
            self.tell(done, what)


def _outcome(job: Job, tell: Callable[[float, str], None] | None) -> tuple[records.Outcome, float]:
    """And the seconds that it took."""
    start = perf_counter()
    outcome = catalog.module("experiments", job.experiment).main(
        job.config, Working(job.work, tell)
    )
    return outcome, perf_counter() - start


def _recorded(job: Job, outcome: records.Outcome, seconds: float) -> records.Run:
    files.clear_new(job.folder)
    return records.save(
        job.folder,
        job.experiment,
        records.plain(job.config),
        outcome,
        seconds=seconds,
        write_model=_writer(outcome),
        replace=job.folder.exists() or files.former(job.folder).exists(),
    )


def _writer(outcome: records.Outcome) -> Callable[[Path], None] | None:
    if outcome.tensors is None:
        return None
    from manifoldlab import checkpoints

    return partial(checkpoints.save, tensors=outcome.tensors, facts=outcome.facts)


def run_all(command: options.Sweep) -> int:
    """A sweep."""
    engine, jobs = _engine(command), _jobs(command)
    files.check_writable(jobs[0].folder.parent)
    tally = Tally()
    left = pending(jobs, tally)
    shown = live.board(len(jobs), tally.found, engine.jobs, quiet=command.quiet)
    try:
        with shown as reporter:
            sweep(left, engine, perform, tally, reporter)
    except KeyboardInterrupt:
        what = f"{tally.found + tally.done} of {len(jobs)} runs are recorded in"
        where = jobs[0].folder.parent
        raise KeyboardInterrupt(f"interrupted: {what} {where}; the same command goes on") from None
    tidy(jobs[0].folder.parent)
    _sum_up(command, tally, jobs[0].folder.parent)
    return 1 if tally.failures else 0


def _engine(command: options.Sweep) -> Engine:
    if command.jobs < 0:
        raise ValueError(f"--jobs counts processes, 0 for one a core, not {command.jobs}")
    name, _, address = command.engine.partition("=")
    made: Engine = catalog.find("engines", name)(command.jobs or environment.cores(), address)
    return made


def _jobs(command: options.Sweep) -> list[Job]:
    """Each run once, whatever the number of ways in which the values give it."""
    name, words = command.experiment, dict(command.fields)
    start = default(name, fast=command.fast)
    if not words:
        raise ValueError(f"a sweep needs a field of {name} and its values, such as --seed 0:10")
    configs = list(configuration.grid(start, words, options=options.names(options.Sweep)))
    labels = configuration.labels(configs, words)
    how = {"again": command.again, "renew": command.renew}
    jobs = [
        _job(name, config, command.out, label=label, **how)
        for config, label in zip(configs, labels, strict=True)
    ]
    return list({job.folder: job for job in jobs}.values())


def _sum_up(command: options.Sweep, tally: Tally, folder: Path) -> None:
    if not command.quiet:
        print("\n".join(tally.damaged + [f"{tally.done} runs recorded, {tally.found} found"]))
        if tally.stale:
            print(
                f"{tally.stale} of the found are STALE: made by other sources than the present; "
                "--renew makes them anew"
            )
        print(f"Records: {folder}")
    for job, error in tally.failures:
        print(f"failed: {job.label}: {error} ({job.error})")
    if tally.failures:
        print(f"{len(tally.failures)} runs failed; the same command tries them again")
