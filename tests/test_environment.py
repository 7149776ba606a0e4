"""An environment says where and with what a result was made."""

import json
from pathlib import Path

import pytest

import manifoldlab
from manifoldlab import environment, files


def test_an_environment_is_complete_and_json(tmp_path: Path) -> None:
    files.write_json(tmp_path / "environment.json", environment.environment("cpu"))
    found = json.loads((tmp_path / "environment.json").read_text())
    assert found["manifoldlab"] == manifoldlab.__version__
    assert set(found["packages"]) == set(environment.PACKAGES) and found["packages"]["torch"]
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
