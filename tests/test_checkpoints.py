"""Checkpoints come back bit by bit, and what is none is refused in a line that says what it is."""

import errno
import os
import pickle
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
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


def test_floats_come_back_to_the_last_bit(tmp_path: Path) -> None:
    facts = {"loss": [0.1 + 0.2, 1e-310, -0.0, 2**80], "name": "\u03bb"}
    checkpoints.save(tmp_path / "a", {"t": torch.tensor([float("nan"), -0.0, 1e-40])}, facts)
    tensors, found = checkpoints.load(tmp_path / "a")
    assert repr(found) == repr(facts)
    bits = torch.tensor([float("nan"), -0.0, 1e-40]).view(torch.int32)
    assert torch.equal(tensors["t"].view(torch.int32), bits)


def test_weights_that_share_memory_are_saved_each(tmp_path: Path) -> None:
    weight = torch.arange(6.0)
    checkpoints.save(tmp_path / "a", {"one": weight, "two": weight, "part": weight[::2]}, {})
    found, _ = checkpoints.load(tmp_path / "a")
    assert torch.equal(found["one"], found["two"]) and found["part"].tolist() == [0, 2, 4]
    found["one"] += 1  # which changes neither the file nor the other
    assert torch.equal(found["two"], weight)
    assert torch.equal(checkpoints.load(tmp_path / "a")[0]["one"], weight)


@pytest.mark.parametrize("facts", [{"a": float("nan")}, {"a": {1, 2}}, {"a": torch.zeros(2)}])
def test_facts_that_are_no_json_are_refused(tmp_path: Path, facts: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="the facts of .*model are no JSON: "):
        checkpoints.save(tmp_path / "model", TENSORS, facts)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    checkpoints.save(path, TENSORS, FACTS)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    line = "cannot write the checkpoint .*model.safetensors: No space left on device"
    with pytest.raises(OSError, match=line) as refusal:
        checkpoints.save(path, TENSORS, {"step": 8})
    assert refusal.value.errno == errno.ENOSPC
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


@contextmanager
def files_of(size: int) -> Iterator[None]:
    """No file can grow past so many bytes: what a disk does that fills up in mid-write."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_disk_that_fills_in_mid_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    checkpoints.save(path, TENSORS, FACTS)
    before, line = path.read_bytes(), "cannot write the checkpoint .*: File too large"
    with files_of(4096), pytest.raises(OSError, match=line):
        checkpoints.save(path, {"a": torch.zeros(5000)}, {})
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def whole(folder: Path) -> bytes:
    checkpoints.save(folder / "whole", TENSORS, FACTS)
    return (folder / "whole").read_bytes()


def by_torch(folder: Path) -> bytes:
    torch.save({"a": torch.zeros(3)}, folder / "by_torch")
    return (folder / "by_torch").read_bytes()


def padded(folder: Path) -> bytes:
    """A checkpoint whose first byte, of the length of its header, is that of a pickle; cut short."""
    start = whole(folder)
    header = start[8 : 8 + int.from_bytes(start[:8], "little")].ljust(0x180)
    return len(header).to_bytes(8, "little") + header


IMPOSTORS: list[tuple[Callable[[Path], bytes], str]] = [
    (lambda folder: b"", "it is empty"),
    (
        lambda folder: b"<!DOCTYPE html><html>not found",
        r"b'<!DOCTYPE html.*' and looks like a web page",
    ),
    (lambda folder: b"\n <html><body>", "a web page"),
    (lambda folder: pickle.dumps({"a": 1}), r"a pickle, .* not read; .*weights_only=True"),
    (by_torch, r"as torch.save writes: a pickle inside, .* not read; .*weights_only=True"),
    (lambda folder: b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer"),
    (lambda folder: whole(folder)[:-5], r"it is cut short: (\d+) bytes of (\d+)"),
    (lambda folder: whole(folder)[:40], r"it is cut short: 40 bytes, of which the header alone"),
    (padded, r"it is cut short: 392 bytes of 417"),
    (lambda folder: whole(folder) + b"more", "it is damaged: "),
    (lambda folder: whole(folder).replace(b"F32", b"F3}"), "it is damaged: "),
    (lambda folder: whole(folder).replace(b'"dtype"', b"'dtype'"), "its header is damaged: "),
    (lambda folder: bytes(range(1, 100)), "it is no safetensors file"),
]


@pytest.mark.parametrize(("content", "line"), IMPOSTORS)
def test_what_is_none_is_refused(
    tmp_path: Path, content: Callable[[Path], bytes], line: str
) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content(tmp_path))
    with pytest.raises(ValueError, match=line) as refusal:
        checkpoints.load(path)
    assert str(path) in str(refusal.value) and "\n" not in str(refusal.value)


def test_every_beginning_of_a_checkpoint_is_refused(tmp_path: Path) -> None:
    content, path = whole(tmp_path), tmp_path / "model.safetensors"
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match="it is (cut short|empty|no safetensors file)"):
            checkpoints.load(path)
    path.write_bytes(content)
    assert checkpoints.load(path)[1] == FACTS


def test_facts_that_are_no_json_in_a_file_are_refused(tmp_path: Path) -> None:
    save_file(TENSORS | {"a": torch.zeros(2)}, tmp_path / "a", metadata={checkpoints.FACTS: "{"})
    with pytest.raises(ValueError, match="its header holds no JSON"):
        checkpoints.load(tmp_path / "a")


def test_weights_from_elsewhere_have_no_facts(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "a", metadata={"format": "pt"})
    assert checkpoints.load(tmp_path / "a")[1] == {}


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no such file"):
        checkpoints.load(tmp_path / "none")
    with pytest.raises(ValueError, match="it is a folder"):
        checkpoints.load(tmp_path)


@pytest.mark.parametrize(
    ("other", "line"),
    [
        (nn.Linear(3, 2), r"its weight is \(2, 3\) of .*, the model's \(2, 4\) of torch.float32"),
        (nn.Linear(4, 2).double(), r"its weight is \(2, 4\) of torch.float64, the model's .*32"),
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


def test_what_is_written_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a loss of power the name would be that of an empty file."""
    done, path = list[tuple[str, int]](), tmp_path / "a.safetensors"
    sync, rename = os.fsync, os.replace

    def flushed(descriptor: int) -> None:
        done.append(("flushed", os.fstat(descriptor).st_size))
        sync(descriptor)

    def renamed(source: str, target: Path) -> None:
        done.append(("named", os.stat(source).st_size))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", renamed)
    checkpoints.save(path, {"x": torch.ones(1000)}, {})
    assert done == [("flushed", path.stat().st_size), ("named", path.stat().st_size)]
