"""The words of the command line: one dataclass a command, read by tyro. No torch."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import FlagCreatePairsOff, Positional, Suppress, arg

Profile = Literal["quick", "full", "thorough"]
Device = Literal["auto", "cpu", "cuda"]
Fields = tuple[tuple[str, tuple[str, ...]], ...]  # of an experiment: names and their words


@dataclass(frozen=True)
class Verify:
    """Verify the theorems: draw cases, measure each law, hold its controls to failing.

    Exit status: 0 all verified, 1 a law is refuted or a control is not rejected, 2 wrong use.
    """

    laws: Annotated[Positional[tuple[str, ...]], arg(metavar="LAW")] = ()
    """Identifiers such as A1 or B1t; none means all."""
    profile: Profile = "full"
    """quick: under 90 s; full: under 15 min; thorough: ten times the cases of full, fresh ones."""
    seed: int = 0
    """Another seed, other cases."""
    out: Path = Path("results/verify")
    """Where laws.json, environment.json and report.html go."""
    device: Device = "cpu"
    jobs: int = 0
    """Processes; 0 means one a core on a CPU, and one on a GPU."""
    quiet: bool = False
    """Print what is refuted, and nothing else."""


@dataclass(frozen=True)
class List:
    """List the members of a kind, or the kinds."""

    kind: Annotated[Positional[str], arg(metavar="KIND")] = ""
    """manifolds, densities, problems, probes, laws, results, ...; none lists the kinds."""
    results: Path = Path("results")
    """Where the records are that `list results` lists."""


@dataclass(frozen=True)
class Probe:
    """Run a probe on a model at points of a problem; beside each field its isotropic null."""

    model: str = "bayes"
    """bayes; a checkpoint, FILE.safetensors or the folder of a run that has one; or FILE.py:NAME:
    a function of x (n, *shape) to logits (n, K), an nn.Module, or a function without arguments
    that makes one."""
    problem: str = "von_mises_sphere"
    """A problem of the catalog, or Python that builds one, such as
    'VonMisesSphere(Sphere(2), random_von_mises_fisher(2, (1, 1), 0), 0.1)'."""
    probe: str = "tangent_alignment"
    """`manifoldlab list probes` names them."""
    samples: int = 256
    batch: int = 64
    """So many samples at a time."""
    seed: int = 0
    """Of the points, and of the example of the problem."""
    device: Device = "cpu"
    out: Path | None = None
    """A JSON file for the summary, the fields sample by sample, and the environment."""
    quiet: bool = False
    """Print no table."""


@dataclass(frozen=True)
class Run:
    """Run an experiment and record it, unless it is recorded: run EXPERIMENT --field value ...

    `run EXPERIMENT --help` shows the fields. Exit status: 0 it is recorded, 2 wrong use.
    """

    experiment: Annotated[Positional[str], arg(metavar="EXPERIMENT")]
    fast: bool = False
    """Start from the two-minute version of the configuration."""
    out: Path = Path("results")
    """The record goes to EXPERIMENT/HASH12 in this folder."""
    again: bool = False
    """Even if it is recorded; the old record stays until the new one is whole."""
    quiet: bool = False
    """Print nothing."""
    fields: Suppress[Fields] = ()


@dataclass(frozen=True)
class Sweep:
    """Run an experiment for all values of its fields: sweep EXPERIMENT --field values ...

    Values are one word: 'a,b,c', 'lin:a:b:n', 'log:a:b:n', or 'a:b' for the whole numbers from a
    to b - 1; of a field of several numbers 'a,b;c,d'. What is recorded is not done again, what
    failed is. `sweep EXPERIMENT --help` shows the fields. Exit status: 0 all is recorded, 1 a run
    failed, 2 wrong use.
    """

    experiment: Annotated[Positional[str], arg(metavar="EXPERIMENT")]
    fast: bool = False
    """Start from the two-minute version of the configuration."""
    out: Path = Path("results")
    """Records go to EXPERIMENT/HASH12 in this folder."""
    again: bool = False
    """Do all runs again, recorded or not."""
    renew: bool = False
    """Do again what is stale: recorded by other sources than the present."""
    jobs: int = 0
    """Processes; 0 means one a core."""
    engine: str = "local"
    """local, or cluster: processes of dask.distributed, on this machine or, as
    cluster=tcp://HOST:8786, of a scheduler that runs already."""
    quiet: bool = False
    """Print what failed, and nothing else."""
    fields: Suppress[Fields] = ()


@dataclass(frozen=True)
class Figures:
    """Draw the figures of paper_figs from records; where they are missing, say what makes them.

    Exit status: 0 drawn, 1 one that was asked for by name has no records, or drawing failed.
    """

    names: Annotated[Positional[tuple[str, ...]], arg(metavar="NAME")] = ()
    """`manifoldlab list figures` has them; none means all that have records."""
    results: Path = Path("results")
    """Where the records are."""
    out: Path = Path("docs/figures")
    """Where NAME.pdf and NAME.png go."""


@dataclass(frozen=True)
class Summarize:
    """Write the records of experiments as JSON without samples, to be committed.

    Exit status: 0 written, 1 an experiment that was asked for, or every one, has no records.
    """

    names: Annotated[Positional[tuple[str, ...]], arg(metavar="EXPERIMENT")] = ()
    """None means all that have records."""
    results: Path = Path("results")
    """Where the records are."""
    out: Path = Path("docs/results")
    """Where EXPERIMENT.json goes."""


@dataclass(frozen=True)
class Explain:
    """What `run EXPERIMENT --help` asks for."""

    command: "Run | Sweep"


@dataclass(frozen=True)
class Data:
    """List the data sets that are found, where, with counts, and checksums verified.

    Those that are missing are listed with the files that were looked for, and where users get them.
    Nothing is downloaded. Exit status: 0, or 1 if a file is damaged or not the published one.
    """

    root: str = ""
    """The folder that holds them; none means the environment variable MANIFOLDLAB_DATA."""


@dataclass(frozen=True)
class Bench:
    """Time public functions beside their floors and beside other libraries; each is first shown right.

    A floor are the passes, or the bytes, that no version avoids. Exit status: 0; 1 if a result is wrong,
    or a ratio is worse than in the file to compare with, by more than the noise of both; 2 wrong use.
    """

    only: tuple[str, ...] = ()
    """Names such as probes, probes/tangent_alignment or probes/tangent_alignment/resnet18."""
    device: str = "cpu"
    """cpu or cuda."""
    threads: int = 1
    """Of torch, on a CPU."""
    scale: bool = False
    """Measure as well how time and memory grow with batch, D, k and classes."""
    fast: bool = False
    """Tiny sizes, one round: whether everything runs and is right; the times mean nothing."""
    compare: Path | None = None
    """bench.json of an earlier run."""
    read: Path | None = None
    """bench.json of an earlier run, to show or to compare, in place of a run."""
    out: Path = Path("results/bench")
    """Where bench.json and bench.html go."""
    doc: Path | None = None
    """A Markdown file of costs to write; what it is made from is kept beside, in a folder of its name."""
    quiet: bool = False
    """Print no table."""


@dataclass(frozen=True)
class Selfcheck:
    """Plant faults in a copy of the sources, one at a time, and see which checks notice.

    A stopped command goes on where it was. Exit status: 0 all are caught, 1 a fault is missed, changes
    no result or cannot be planted, 2 wrong use.
    """

    only: str = ""
    """Faults whose name has these words, or those of one file of manifoldlab/faults."""
    out: Path = Path("results/selfcheck")
    """Where selfcheck.json goes, and what is kept for another run."""
    jobs: int = 0
    """Processes; 0 means one a core."""
    quiet: bool = False
    """Print what is not caught, and nothing else."""


Command = (
    Verify | List | Probe | Bench | Run | Sweep | Figures | Summarize | Data | Selfcheck | Explain
)
COMMANDS: dict[str, Callable[..., Any]] = {
    "verify": Verify,
    "list": List,
    "probe": Probe,
    "bench": Bench,
    "run": Run,
    "sweep": Sweep,
    "figures": Figures,
    "summarize": Summarize,
    "data": Data,
    "selfcheck": Selfcheck,
}
OF_EXPERIMENTS: dict[str, type[Run] | type[Sweep]] = {"run": Run, "sweep": Sweep}


def parse(arguments: list[str]) -> Command:
    name, *words = arguments or [""]
    if name in OF_EXPERIMENTS and words and not words[0].startswith("-"):
        return _of_experiment(name, words[0], words[1:])
    command: Command = _parse(arguments)
    return command


def _parse(arguments: list[str]) -> Any:
    return tyro.extras.subcommand_cli_from_dict(
        COMMANDS,
        prog="manifoldlab",
        description="Theory of perceptually aligned gradients, checked where the truth is known.",
        args=arguments,
        config=(FlagCreatePairsOff,),
    )


def _of_experiment(name: str, experiment: str, words: list[str]) -> Command:
    """What is no option of the command is a field of the experiment, looked at later."""
    own, others = names(OF_EXPERIMENTS[name]), list[tuple[str, tuple[str, ...]]]()
    mine, option = [name, experiment], None
    if {"--help", "-h"} & set(words):
        return Explain(OF_EXPERIMENTS[name](experiment, fast="--fast" in words))
    for word in words:
        if word.startswith("--"):
            option, equals, value = word[2:].partition("=")
            option = option.replace("-", "_")
            if option in own:
                mine.append(word)
            elif option in dict(others):
                raise ValueError(f"--{option} is given twice")
            else:
                others.append((option, (value,) if equals else ()))
        elif option is None:
            raise ValueError(f"{name} takes one experiment, and then --options, not {word!r}")
        elif option in own:
            mine.append(word)
        else:
            others[-1] = (option, (*others[-1][1], word))
    command: Run | Sweep = replace(_parse(mine), fields=tuple(others))
    return command


def names(command: type) -> tuple[str, ...]:
    """Of the options of a command."""
    return tuple(
        field.name for field in fields(command) if field.name not in ("experiment", "fields")
    )
