"""The words of the command line: one dataclass a command, read by tyro. No torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import FlagCreatePairsOff, Positional, arg

Profile = Literal["quick", "full", "thorough"]
Device = Literal["auto", "cpu", "cuda"]


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
    """manifolds, densities, problems, probes, laws, ...; none lists the kinds."""


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


Command = Verify | List | Probe


def parse(arguments: list[str]) -> Command:
    command: Command = tyro.extras.subcommand_cli_from_dict(
        {"verify": Verify, "list": List, "probe": Probe},
        prog="manifoldlab",
        description="Theory of perceptually aligned gradients, checked where the truth is known.",
        args=arguments,
        config=(FlagCreatePairsOff,),
    )
    return command
