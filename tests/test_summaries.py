"""Summaries of records: the same bytes from the same records, no samples, one line where there are none."""

import json
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from manifoldlab import records
from manifoldlab.app import main
from manifoldlab.records import Outcome
from manifoldlab.report import commands, paper


def recorded(root: Path, seed: int, value: float) -> None:
    config = {"seed": seed}
    folder = root / "dimension_gap" / records.name("dimension_gap", config)
    folder.parent.mkdir(parents=True, exist_ok=True)
    records.save(folder, "dimension_gap", config, Outcome({"slope": value}), seconds=1.0)


def test_rows_in_the_order_of_their_configurations(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (2, 0, 1):
        recorded(tmp_path / "results", seed, seed / 2)
    command = ["summarize", "--results", str(tmp_path / "results"), "--out", str(tmp_path / "docs")]
    written = []
    for words in (command, [*command, "dimension_gap"]):
        with pytest.raises(SystemExit) as end:
            main(words)
        assert end.value.code == 0
        written.append((tmp_path / "docs" / "dimension_gap.json").read_text())
    assert written[0] == written[1]
    rows = json.loads(written[0])["runs"]
    assert [row["config"]["seed"] for row in rows] == [0, 1, 2]
    assert [row["metrics"]["slope"] for row in rows] == [0, 0.5, 1]
    assert "3 runs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "status", "line"),
    [
        ("dimension_gap", 1, "there are no records in"),
        ("dimension_gab", 2, "did you mean dimension_gap?"),
    ],
)
def test_one_line_where_there_is_nothing(
    name: str, status: int, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["summarize", name, "--results", str(tmp_path), "--out", str(tmp_path / "docs")])
    said = capsys.readouterr().err
    assert end.value.code == status and line in said and said.count("\n") == 1


def test_a_command_is_without_the_folder_of_its_record() -> None:
    words = [
        "python",
        "-m",
        "manifoldlab",
        "run",
        "toy",
        "--out",
        "somewhere",
        "--a",
        "b c",
        "--jobs=2",
    ]
    assert commands.command({"command": words}) == "manifoldlab run toy --a 'b c'"
    assert commands.command({}) == ""


def made(tmp_path: Path, *values: str) -> list[records.Run]:
    """Records by commands that differ in a value."""
    facts = {"command": ["python", "-m", "manifoldlab", "run", "toy", "--a"]}
    one = {"experiment": "distractor", "config": {}, "metrics": {}, "seconds": 1.0, "sources": "x"}
    return [
        records.Run(
            **one, environment={"command": [*facts["command"], value]}, folder=tmp_path / value
        )
        for value in values
    ]


def test_commands_under_figures_are_all_that_there_are_or_the_first(tmp_path: Path) -> None:
    few = commands.lines(made(tmp_path, "1", "2", "2"), 100)
    assert few == ["manifoldlab run toy --a 1", "manifoldlab run toy --a 2"]
    many = commands.lines(made(tmp_path, *"12345"), 100)
    assert many[0] == "manifoldlab run toy --a 1"
    assert many[1:] == ["and 4 more, each in docs/results/distractor.json"]
    page = Figure()
    paper.footnote(page, made(tmp_path, "1"))
    assert page.get_supxlabel().splitlines()[0] == "manifoldlab run toy --a 1"
