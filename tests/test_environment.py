"""An environment says where and with what a result was made."""

import json
import os
import subprocess
from pathlib import Path

import pytest

import manifoldlab
from manifoldlab import environment, files


def test_an_environment_is_complete_and_json(tmp_path: Path) -> None:
    files.write_json(tmp_path / "environment.json", environment.environment("cpu"))
    found = json.loads((tmp_path / "environment.json").read_text())
    assert found["manifoldlab"] == manifoldlab.__version__
    assert (
        set(found["packages"]) == set(environment.PACKAGES.values()) and found["packages"]["torch"]
    )
    assert found["threads"]["OMP_NUM_THREADS"] and found["threads"]["torch"]
    assert found["hardware"]["cores"] and found["hardware"]["device"] == "cpu"
    assert found["commit"] and found["date"] and "/" not in found["command"][0]
    assert 1 <= environment.cores() <= found["hardware"]["cores"]


def test_the_module_is_called_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        environment.sys, "argv", ["/some/where/manifoldlab/__main__.py", "verify", "B1"]
    )
    command = environment.environment("cpu")["command"]
    assert command == ["python", "-m", "manifoldlab", "verify", "B1"]


def test_the_commit_is_read_and_its_index_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A lock on the index would outlive a process that is killed under it."""
    file, index = tmp_path / "package.py", tmp_path / ".git" / "index"
    git = ["git", "-c", "user.name=a", "-c", "user.email=a", "-C", str(tmp_path)]
    monkeypatch.setattr(environment, "__file__", str(file))
    commit = lambda: environment.environment("cpu")["commit"]
    assert commit() == "unknown"
    subprocess.run([*git, "init", "-q"], check=True)
    file.write_text("1")
    assert commit() == "unknown"
    subprocess.run([*git, "add", "package.py"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "a"], check=True)
    os.utime(file, ns=(1, 1))  # which git would note in the index, if it took a lock
    before = index.read_bytes()
    clean = commit()
    assert len(clean) == 12 and int(clean, 16) and index.read_bytes() == before
    file.write_text("2")
    assert commit() == f"{clean}-dirty" and index.read_bytes() == before
