"""Bad input on the command line: one clear line, status 2, and nothing lost or half-written."""

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from manifoldlab import catalog, checkpoints, records
from manifoldlab.architecture import Architecture
from manifoldlab.sweep import Job

Run = Callable[..., tuple[int, str, str]]
Refused = Callable[[tuple[int, str, str]], str]
WORDS = ("run", "toy_training", "--epochs", "2", "--out")


def job(out: Path) -> Job:
    """Of those words."""
    config = catalog.module("experiments", "toy_training").Config(epochs=2)
    return Job("toy_training", config, out, records.sources("toy_training"))


@contextmanager
def stopped(after: float, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ends a run as soon as that share of it is done."""

    def pause(seconds: float) -> None:
        del seconds
        left[0] -= 1
        if not left[0]:
            raise OSError("lost")

    left = [int(after * 24)]
    with monkeypatch.context() as patched:
        patched.setattr(catalog.module("experiments", "toy_training").time, "sleep", pause)
        yield


@pytest.fixture
def checkpoint(toy: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That of a run which stopped in the midst of its second training."""
    with stopped(0.75, monkeypatch):
        assert run(*WORDS, str(tmp_path)) == (2, "", "manifoldlab: lost\n")
    return job(tmp_path).work / "one.safetensors"


def of_another(path: Path) -> None:
    """Of the same kind of training, of another network."""
    tensors, facts = checkpoints.load(path)
    facts["training"]["model"] = facts["training"]["model"].replace("8", "9")
    checkpoints.save(path, tensors, facts)


def of_other_shapes(path: Path) -> None:
    tensors, facts = checkpoints.load(path)
    checkpoints.save(path, tensors | {"model.0.weight": torch.zeros(9, 3)}, facts)


def without(path: Path) -> None:
    tensors, facts = checkpoints.load(path)
    checkpoints.save(path, {k: t for k, t in tensors.items() if k != "generator.1"}, facts)


SPOILED: dict[str, Callable[[Path], object]] = {
    "looks like a web page": lambda path: path.write_text("<!DOCTYPE html><html>log in</html>"),
    "it is cut short": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "it is empty": lambda path: path.write_bytes(b""),
    "weights_only=True": lambda path: torch.save({"a": torch.zeros(2)}, path),
    "is of no training": lambda path: checkpoints.save(path, {"a": torch.zeros(2)}, {}),
    "is of another training: model is": of_another,
    "its 0.weight is (9, 3) of torch.float32, the model's (8, 3)": of_other_shapes,
    "it has no generator.1": without,
}


@pytest.mark.parametrize("line", SPOILED)
def test_a_run_does_not_go_on_from_what_is_no_checkpoint_of_it(
    checkpoint: Path, tmp_path: Path, run: Run, refused: Refused, line: str
) -> None:
    """It names the file, which is as it was found; without it the same command runs."""
    SPOILED[line](checkpoint)
    found = checkpoint.read_bytes()
    said = refused(run(*WORDS, str(tmp_path)))
    assert line in said and str(checkpoint) in said
    assert checkpoint.read_bytes() == found and not records.load("toy_training", tmp_path)
    checkpoint.unlink()
    assert run(*WORDS, str(tmp_path), "--quiet") == (0, "", "")


def test_the_state_of_a_training_is_no_model(
    checkpoint: Path, tmp_path: Path, run: Run, refused: Refused
) -> None:
    said = refused(run("probe", "--model", str(checkpoint), "--samples", "4"))
    assert f"{checkpoint} is the state of a training after step 4, not of a network" in said
    assert "model.safetensors" in said


def test_the_network_of_a_run_of_another_architecture_is_no_model(
    tmp_path: Path, run: Run, refused: Refused
) -> None:
    facts = {"architecture": Architecture("mlp", (3,), 2, {"width": 4}).facts()}
    state = Architecture("mlp", (3,), 2, {"width": 5}).build(0).state_dict()
    checkpoints.save(tmp_path / "model.safetensors", state, facts)
    said = refused(run("probe", "--model", str(tmp_path), "--samples", "4"))
    assert "does not fit" in said and str(tmp_path / "model.safetensors") in said


@contextmanager
def files_of(size: int) -> Iterator[None]:
    """No file can grow past so many bytes: what a disk does that fills up in mid-write."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_disk_that_is_full_at_a_checkpoint_leaves_the_one_before(
    checkpoint: Path, tmp_path: Path, run: Run, refused: Refused
) -> None:
    before = checkpoint.read_bytes()
    with files_of(len(before) - 1):
        said = refused(run(*WORDS, str(tmp_path)))
    assert f"manifoldlab: cannot write the checkpoint {checkpoint}: File too large" in said
    assert checkpoint.read_bytes() == before
    assert sorted(p.name for p in checkpoint.parent.iterdir()) == [
        "ensemble.safetensors",
        "one.safetensors",
    ]
    assert run(*WORDS, str(tmp_path), "--quiet") == (0, "", "")


def test_a_disk_that_is_full_at_the_record_leaves_the_checkpoints(
    checkpoint: Path, tmp_path: Path, run: Run, refused: Refused
) -> None:
    """The samples are larger than any checkpoint: the next call has only to write them."""
    words = (*WORDS, str(tmp_path), "--size", "100000")
    with files_of(100_000):
        said = refused(run(*words))
    assert f"cannot write the record {tmp_path}/toy_training/" in said and "File too large" in said
    (work,) = (p for p in checkpoint.parents[1].iterdir() if p != checkpoint.parent)
    assert ".work-" in work.name and len(list(work.iterdir())) == 2
    assert run(*words, "--quiet") == (0, "", "")
    (made,) = records.load("toy_training", tmp_path)
    assert len(made.samples()["long"]) == 100_000 and not work.exists()


def test_a_disk_that_is_full_at_the_end_is_named_with_the_file(tmp_path: Path, run: Run) -> None:
    """And what was found is printed all the same."""
    out = tmp_path / "probe.json"
    with files_of(1000):
        status, shown, said = run("probe", "--samples", "100", "--out", str(out))
    assert status == 2 and said == f"manifoldlab: {out}: File too large\n" and "omega" in shown
    assert not list(tmp_path.iterdir())
    with files_of(1000):
        status, shown, said = run("verify", "E1", "--profile", "quick", "--out", str(tmp_path))
    assert status == 2 and "E1" in shown and not list(tmp_path.iterdir())
    assert said.splitlines()[-1] == f"manifoldlab: {tmp_path}/laws.json: File too large"
