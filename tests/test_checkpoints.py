"""Checkpoints come back bit by bit, and what is none is refused in a line that says what it is."""

import errno
import os
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from manifoldlab import checkpoints

TENSORS = {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.tensor(3, dtype=torch.uint8)}
FACTS = {"step": 7, "model": {"name": "mlp"}}


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "new" / "model.safetensors"
    checkpoints.save(path, TENSORS, FACTS)
    tensors, facts = checkpoints.load(path)
    assert facts == FACTS and tensors.keys() == TENSORS.keys()
    assert all(
        torch.equal(tensors[k], t) and tensors[k].dtype == t.dtype for k, t in TENSORS.items()
    )
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    checkpoints.save(path, TENSORS, FACTS)
    before = path.read_bytes()

    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(OSError, match="cannot write the checkpoint .*No space left on device"):
        checkpoints.save(path, TENSORS, {"step": 8})
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def whole(folder: Path) -> bytes:
    checkpoints.save(folder / "whole", TENSORS, FACTS)
    return (folder / "whole").read_bytes()


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (lambda folder: b"", "it is empty"),
        (lambda folder: b"<!DOCTYPE html><html>not found", "a web page, '<!DOCTYPE html>"),
        (lambda folder: b"\n <html><body>", "a web page"),
        (lambda folder: pickle.dumps({"a": 1}), "a pickle, which is not read"),
        (lambda folder: b"PK\x03\x04" + bytes(64), "as torch.save writes"),
        (lambda folder: b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer"),
        (lambda folder: whole(folder)[:-5], "it is cut short"),
        (lambda folder: whole(folder)[:40], "it is cut short: 40 bytes"),
        (lambda folder: bytes(range(1, 100)), "it is no safetensors file"),
    ],
)
def test_what_is_none_is_refused(tmp_path: Path, content, line: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content(tmp_path))
    with pytest.raises(ValueError, match=line) as refusal:
        checkpoints.load(path)
    assert str(path) in str(refusal.value) and "\n" not in str(refusal.value)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no such file"):
        checkpoints.load(tmp_path / "none")
    with pytest.raises(ValueError, match="it is a folder"):
        checkpoints.load(tmp_path)


@pytest.mark.parametrize(
    ("other", "line"),
    [
        (nn.Linear(3, 2), r"its weight is \(2, 3\), the model's \(2, 4\)"),
        (nn.Linear(4, 2, bias=False), r"run.safetensors does not fit mlp: it has no bias \(2,\)"),
        (nn.Bilinear(4, 2, 2), "its weight is"),
    ],
)
def test_another_architecture_is_refused(other: nn.Module, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        checkpoints.check_fits(nn.Linear(4, 2), other.state_dict(), "mlp", "run.safetensors")
    with pytest.raises(ValueError, match=r"which has no c \(1,\)"):
        extra = {**nn.Linear(4, 2).state_dict(), "c": torch.zeros(1)}
        checkpoints.check_fits(nn.Linear(4, 2), extra, "mlp", "run.safetensors")
