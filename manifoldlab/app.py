"""The `manifoldlab` command. Torch is imported only when a command needs it."""

import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import manifoldlab
from manifoldlab import catalog, environment, files

if TYPE_CHECKING:
    from manifoldlab import options

Rows = list[dict[str, Any]]  # of laws.json
INTERRUPTED = 130  # as shells report SIGINT


def main(arguments: Sequence[str] | None = None) -> None:
    """Exits 0 if all went well, 1 if a law is refuted or a run failed, 2 after wrong use, in one line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows no such letter
    try:
        sys.exit(_run(list(sys.argv[1:] if arguments is None else arguments)))
    except KeyboardInterrupt as stop:
        _complain(str(stop) or "interrupted")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # the reader, `head` perhaps, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except ModuleNotFoundError as error:
        if error.name not in environment.PACKAGES:
            raise
        name = environment.PACKAGES[error.name]
        _complain(f"this command needs {name}: python -m pip install {name}")
    except FloatingPointError as error:  # a training that diverged
        _complain(" ".join(str(error).split()))
        sys.exit(1)
    except OSError as error:
        _complain(_of_system(error))
    except ValueError as error:
        _complain(" ".join(str(error).split()))
    sys.exit(2)


def _of_system(error: OSError) -> str:
    """What happened to which file, without the number of the error."""
    line = str(error) if error.strerror is None else error.strerror
    return " ".join((line if error.filename is None else f"{error.filename}: {line}").split())


def _check_seed(seed: int) -> None:
    if not 0 <= seed < 2**32:
        raise ValueError(f"--seed lies between 0 and 2**32 - 1, not at {seed}")


def _complain(line: str) -> None:
    print(f"manifoldlab: {line}", file=sys.stderr)


def _run(arguments: list[str]) -> int:
    if arguments in (["--version"], ["-V"]):
        print(f"manifoldlab {manifoldlab.__version__}")
        return 0
    from manifoldlab import options

    command = options.parse(arguments)
    _check_alone(command)
    match command:
        case options.Verify():
            return verify(command)
        case options.List():
            return list_members(command)
        case options.Probe():
            return probe(command)
        case options.Bench():
            from manifoldlab import benching

            return benching.run(command)
        case options.Figures():
            from manifoldlab import figures

            return figures.draw(command)
        case options.Summarize():
            from manifoldlab import summaries

            return summaries.write(command)
        case options.Data():
            from manifoldlab import holdings

            return holdings.show(command)
        case options.Selfcheck():
            from manifoldlab import selfcheck

            return selfcheck.run(command)
        case _:
            return of_experiment(command)


def _check_alone(command: "options.Command") -> None:
    """Of many processes each would do the same, and write the same files."""
    from manifoldlab import options

    if environment.processes() > 1 and not isinstance(command, options.Run | options.Probe):
        name = type(command).__name__.lower()
        raise ValueError(f"torchrun is for run and probe; call {name} without it")


def verify(command: "options.Verify") -> int:
    from manifoldlab import listing

    _check_seed(command.seed)
    if command.jobs < 0:
        raise ValueError(f"--jobs counts processes, 0 for one a core, not {command.jobs}")
    known = listing.laws()
    for law in command.laws:
        if law not in known:
            raise ValueError(catalog.unknown("law", law, list(known)))
    files.check_writable(command.out)
    try:
        rows = _verified(command)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted, nothing was written to {command.out}") from None
    made_with = environment.environment(rows[0]["device"])
    bad = [row for row in rows if not _is_good(row)]
    _print_verdicts(command, rows, bad)  # before a full disk can be in the way
    files.write_json(command.out / "laws.json", rows)
    files.write_json(command.out / "environment.json", made_with)
    _write_page(command.out, rows, made_with)
    if not command.quiet:
        print(f"Report: {command.out / 'report.html'}")
        if command.profile == "quick":
            again = " ".join(["manifoldlab verify", *command.laws, "--profile full"])
            print(f"More cases: {again}")
    return 1 if bad else 0


def _is_good(row: dict[str, Any]) -> bool:
    return (row["verdict"], row["control"]["verdict"]) == ("verified", "rejected")


def _verified(command: "options.Verify") -> Rows:
    from manifoldlab import arguments, verification
    from manifoldlab.report import terminal

    device = arguments.device(command.device)
    known = verification.laws()
    chosen = [known[law] for law in dict.fromkeys(command.laws or known)]
    options: dict[str, Any] = {"profile": command.profile, "seed": command.seed, "device": device}
    jobs = command.jobs or (environment.cores() if device == "cpu" else 1)
    rows = []
    with terminal.progress(len(chosen), quiet=command.quiet) as reporter:
        if min(jobs, len(chosen)) > 1:
            for row in verification.check_laws(chosen, jobs=jobs, **options):
                reporter.end(row)
                rows.append(row)
        else:
            for law in chosen:
                reporter.begin(law.id, verification.steps(law))
                rows.append(verification.check_law(law, advance=reporter.advance, **options))
                reporter.end(rows[-1])
    order = [law.id for law in chosen]
    return sorted(rows, key=lambda row: order.index(row["id"]))


def _print_verdicts(command: "options.Verify", rows: Rows, bad: Rows) -> None:
    from manifoldlab.report import terminal

    if bad or not command.quiet:
        terminal.console().print(terminal.verdicts(bad if command.quiet else rows))
    for failure in terminal.failures(bad):
        print(f"{failure}\n")


def _write_page(folder: Path, rows: Rows, made_with: dict[str, Any]) -> None:
    report = folder / "report.html"
    report.unlink(missing_ok=True)  # no page of another run beside these numbers
    from manifoldlab.report import page

    try:
        files.write_text(report, page.render(rows, made_with))
    except KeyboardInterrupt:
        what = f"interrupted: laws.json and environment.json are in {folder}, report.html is not"
        raise KeyboardInterrupt(what) from None


def of_experiment(command: "options.Run | options.Sweep | options.Explain") -> int:
    from manifoldlab import options

    given = command.command if isinstance(command, options.Explain) else command
    if given.experiment not in catalog.names("experiments"):
        known = catalog.names("experiments")
        raise ValueError(catalog.unknown("experiment", given.experiment, known))
    from manifoldlab import running

    match command:
        case options.Run():
            return running.run(command)
        case options.Sweep():
            return running.run_all(command)
        case options.Explain():
            return running.explain(command)


def list_members(command: "options.List") -> int:
    from manifoldlab import listing

    lines = listing.members(command.kind, command.results) if command.kind else listing.kinds()
    width = max(map(len, lines), default=0)
    for name, text in lines.items():
        print(f"{name:{width}}  {text}".rstrip())
    return 0


def probe(command: "options.Probe") -> int:
    _check_seed(command.seed)
    if command.samples < 1 or command.batch < 1:
        given = f"--samples {command.samples} --batch {command.batch}"
        raise ValueError(f"a probe needs samples, at least one at a time, not {given}")
    if command.out is not None:
        files.check_file(command.out)
    if command.probe not in catalog.names("probes"):
        raise ValueError(catalog.unknown("probe", command.probe, catalog.names("probes")))
    from manifoldlab import probing

    result = probing.run(command)
    first = environment.rank() == 0  # of the processes of torchrun, which all have the result
    if not command.quiet and first:
        result.show()
    if command.out is not None and first:
        files.write_json(command.out, result.record())
    return 0
