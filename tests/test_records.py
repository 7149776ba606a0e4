"""Files are whole or not there, JSON is strict, and an environment says where a result was made."""

import json
import math
from pathlib import Path

import pytest

import manifoldlab
from manifoldlab import records


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    records.write_text(path, "old")
    records.write_text(path, "νέο")
    assert path.read_text(encoding="utf-8") == "νέο"
    assert path.stat().st_mode & 0o777 == 0o644
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("stop", [OSError("no space"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: BaseException
) -> None:
    path = tmp_path / "a.txt"
    records.write_text(path, "old")

    def replace(*_: object) -> None:
        raise stop

    monkeypatch.setattr(records.os, "replace", replace)
    with pytest.raises(type(stop)):
        records.write_text(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_numbers_that_are_not_finite_are_null(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    records.write_json(path, {"a": [1.5, math.nan, (math.inf, {"b": -math.inf})], "c": 2})
    text = path.read_text()
    assert json.loads(text) == {"a": [1.5, None, [None, {"b": None}]], "c": 2}
    assert "NaN" not in text and "Infinity" not in text


def test_what_is_no_json_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        records.write_json(tmp_path / "a.json", {"a": object()})
    assert not list(tmp_path.iterdir())


def test_a_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    records.check_writable(tmp_path / "a" / "b")
    assert not list((tmp_path / "a" / "b").iterdir())


def test_what_cannot_be_written_is_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ValueError, match=rf"^cannot write results to {file}/a: Not a directory$"):
        records.check_writable(file / "a")
    with pytest.raises(ValueError, match=r"it is a folder$"):
        records.check_file(tmp_path)
    records.check_file(tmp_path / "new.json")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]


def test_an_environment_is_complete_and_json(tmp_path: Path) -> None:
    environment = records.environment("cpu")
    records.write_json(tmp_path / "environment.json", environment)
    found = json.loads((tmp_path / "environment.json").read_text())
    assert found["manifoldlab"] == manifoldlab.__version__
    assert set(found["packages"]) == set(records.PACKAGES) and found["packages"]["torch"]
    assert found["threads"]["OMP_NUM_THREADS"] and found["threads"]["torch"]
    assert found["hardware"]["cores"] and found["hardware"]["device"] == "cpu"
    assert found["commit"] and found["date"] and "/" not in found["command"][0]


def test_the_module_is_called_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        records.sys, "argv", ["/some/where/manifoldlab/__main__.py", "verify", "B1"]
    )
    command = records.environment("cpu")["command"]
    assert command == ["python", "-m", "manifoldlab", "verify", "B1"]
