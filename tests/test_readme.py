"""What the README says runs word for word, and what it names is there."""

import re
import shlex
from pathlib import Path

import pytest

from manifoldlab import catalog, listing, options

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = {name: (ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md")}


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


def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks("python")
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})
    lines = capsys.readouterr().out.splitlines()
    omega = {line.split()[0]: float(line.split()[-1]) for line in lines}
    assert omega["Tube"] < 1e-25  # the square of rounding
    assert 1e-5 < omega["VonMisesSphere"] < 1e-2  # of order tau^4 = 1e-4


def test_the_commands_are_right_use() -> None:
    given = [options.parse(words) for words in commands("manifoldlab")]
    assert {type(command) for command in given} == {options.Verify, options.List, options.Probe}
    for command in given:
        match command:
            case options.Verify():
                assert set(command.laws) <= listing.laws().keys()
            case options.List():
                assert listing.members(command.kind)
            case options.Probe():
                assert command.probe in catalog.names("probes")
                assert command.problem in catalog.names("problems")


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
