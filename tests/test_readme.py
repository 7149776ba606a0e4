"""What the README says runs word for word, and what it names is there."""

import re
import shlex
from pathlib import Path

import pytest

from manifoldlab import app, arguments, catalog, configuration, listing, options, running

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = {name: (ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md")}

EXPERIMENTS = ("three_regimes",)  # those that it names


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands(program: str) -> list[list[str]]:
    lines = [
        shlex.split(line, comments=True) for block in blocks("sh") for line in block.split("\n")
    ]
    return [words[1:] for words in lines if words[:1] == [program]]


def test_the_first_screen_has_the_two_commands() -> None:
    first = "\n".join(README.split("\n")[:12])
    assert "\nmake verify " in first and "\nmake test " in first


def test_the_examples_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second goes on from the first, and the network that it saves is probed as is said."""
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for code in blocks("python"):
        exec(compile(code, "README.md", "exec"), names)
    lines = capsys.readouterr().out.splitlines()
    omega = {line.split()[0]: float(line.split(",")[0].split()[-1]) for line in lines}
    assert omega["Tube"] < 1e-25  # the square of rounding
    assert 1e-5 < omega["VonMisesSphere"] < 1e-2  # of order tau^4 = 1e-4
    assert omega["VonMisesSphere"] < omega["Sequential"] < 1 / 3  # what a random gradient has
    (words,) = (w for w in commands("manifoldlab") if "results/network.safetensors" in w)
    with pytest.raises(SystemExit, match="0"):
        app.main(words)
    assert "omega" in capsys.readouterr().out


def test_the_commands_are_right_use() -> None:
    given = [options.parse(words) for words in commands("manifoldlab")]
    assert {type(command) for command in given} == {*options.COMMANDS.values(), options.Explain}
    for command in given:
        match command:
            case options.Verify():
                assert set(command.laws) <= listing.laws().keys()
            case options.List():
                assert command.kind in listing.kinds()
            case options.Probe():
                assert command.probe in catalog.names("probes")
                assert arguments.problem(command.problem, command.seed)
            case options.Run() if command.experiment in catalog.names("experiments"):
                start = running.default(command.experiment, fast=command.fast)
                assert configuration.configured(start, dict(command.fields))
            case options.Sweep() if command.experiment in catalog.names("experiments"):
                start = running.default(command.experiment, fast=command.fast)
                assert len(list(configuration.grid(start, dict(command.fields)))) > 1
            case options.Run() | options.Sweep():
                assert command.experiment in EXPERIMENTS


def test_make_has_the_targets_and_profiles() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for words in commands("make"):
        assert f"\n{words[0]}:" in makefile
        for variable, _, value in (word.partition("=") for word in words[1:]):
            assert f"\n{variable} " in makefile
            assert options.parse(["verify", "--profile", value])


def test_the_table_has_every_law() -> None:
    assert re.findall(r"^\| ([A-Z]\w+) \|", README, re.MULTILINE) == list(listing.laws())


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", PAGES[page]):
        file, _, heading = target.partition("#")
        assert not file or (ROOT / file).exists(), target
        assert not heading or f"\n## {heading}\n" in PAGES[page].lower(), target


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page: str) -> None:
    for name in re.findall(r"`([a-z_./]+\.(?:py|cff|md|txt)|[a-z_]+/)`", PAGES[page]):
        found = [*ROOT.glob(name), *ROOT.glob(f"*/{name}")]
        assert found or name in ("mine.py", "manifolds/catenary.py"), name
