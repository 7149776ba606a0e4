"""`manifoldlab run`: one experiment, recorded once; wrong words in one line each, nothing half-written."""

import errno
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from manifoldlab import catalog, files, records

Run = Callable[..., tuple[int, str, str]]
Refused = Callable[[tuple[int, str, str]], str]


def marks(toy: Path, what: str) -> int:
    return len(list(toy.glob(f"*.{what}")))


def left(out: Path) -> list[str]:
    """What is in the folder of records beside them."""
    return sorted(p.name for p in (out / "toy").iterdir() if not p.is_dir() or p.name[0] == ".")


def test_a_run_is_recorded_once(toy: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "out"
    status, shown, _ = run("run", "toy", "--number", "3", "--out", str(out))
    assert status == 0 and "twice" in shown and "yes" in shown and "Recorded:" in shown
    status, shown, _ = run("run", "toy", "--number=3.0", "--seed", "0", "--out", str(out))
    assert status == 0 and "Found:" in shown and "STALE" not in shown
    assert marks(toy, "end") == 1 and left(out) == []
    (made,) = records.load("toy", out)
    assert made.metrics["number"] == 3 and made.samples()["numbers"].sum() == 3000
    assert run("run", "toy", "--number", "3", "--again", "--quiet", "--out", str(out))[1:] == (
        "",
        "",
    )
    assert marks(toy, "end") == 2 and len(records.load("toy", out)) == 1 and left(out) == []


def test_fields_are_read_by_their_types(toy: Path, tmp_path: Path, run: Run) -> None:
    words = ["--number", "-1e-3", "--widths", "5", "-6", "7", "--limit", "4", "--loud"]
    words += ["--inner.width", "9", "--way", "nan", "--fast", "--quiet", "--out", str(tmp_path)]
    assert run("run", "toy", *words)[0] == 0
    (made,) = records.load("toy", tmp_path)
    assert made.config == {
        "number": -0.001,
        "seed": 0,
        "way": "nan",
        "widths": [5, -6, 7],
        "limit": 4,
        "loud": True,
        "seconds": 0.0,
        "size": 1000,
        "inner": {"width": 9},
    }
    assert made.metrics["number"] is None
    assert run("run", "toy", "--fast", "--out", str(tmp_path), "--quiet")[0] == 0
    assert {r.config["number"] for r in records.load("toy", tmp_path)} == {-0.001, 0.5}


def test_help_shows_the_claim_and_the_fields(toy: Path, run: Run) -> None:
    for command in ("run", "sweep"):
        status, shown, _ = run(command, "toy", "--help")
        assert status == 0 and "Twice a number is twice a number" in shown
        for word in (
            "--number FLOAT",
            "What is doubled.",
            "--inner.width INT",
            "--again",
            "--fast",
        ):
            assert word in shown
        status, shown, _ = run(command, "--help")
        assert status == 0 and "EXPERIMENT" in shown


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--numbr", "3"], "no field or option called '--numbr' (did you mean --number?)"),
        (["--agian"], "no field or option called '--agian' (did you mean --again?)"),
        (["--inner.widht", "3"], "(did you mean --inner.width?)"),
        (["--inner", "3"], "no field or option called '--inner'"),
        (["--number", "x"], "--number is a number, not 'x'"),
        (["--number"], "--number is a number, not ''"),
        (["--number", "1", "2"], "--number is a number, not '1 2'"),
        (["--number", "nan"], "finite numbers, number is nan"),
        (["--seed", "1.5"], "--seed is a whole number, not '1.5'"),
        (["--seed", "0:3"], "--seed is a whole number, not '0:3'"),
        (["--seed", "1", "--seed", "2"], "--seed is given twice"),
        (["--seed", "-1"], "a seed is not negative, -1 is"),
        (["--way", "wel"], "--way is one of 'well', 'raises', "),
        (["--limit", "x"], "--limit is a whole number or None, not 'x'"),
        (["--loud", "maybe"], "--loud is True or False, not 'maybe'"),
        (["--widths", "1", "x"], "--widths is a row of a whole number, ..., not '1 x'"),
        (["seed"], "run takes one experiment, and then --options, not 'seed'"),
        (["--way", "objects"], "samples are arrays of numbers or words, numbers is of object"),
    ],
)
def test_wrong_words_have_one_line(
    toy: Path, tmp_path: Path, run: Run, refused: Refused, words: list[str], line: str
) -> None:
    assert line in refused(run("run", "toy", *words, "--out", str(tmp_path / "out")))
    assert not records.load("toy", tmp_path / "out")


def test_an_unknown_experiment_is_refused(toy: Path, run: Run, refused: Refused) -> None:
    assert "no experiment called 'tyo' (did you mean toy?)" in refused(run("run", "tyo"))
    assert "no experiment called 'tyo'" in refused(run("sweep", "tyo", "--help"))


def test_an_experiment_without_main_is_refused(toy: Path, run: Run, refused: Refused) -> None:
    member = catalog.module("experiments", "toy")
    kept = member.main
    try:
        del member.main
        assert "toy_experiment.py must define main" in refused(run("run", "toy"))
    finally:
        member.main = kept


def test_results_that_cannot_be_written_are_refused_before(
    toy: Path, tmp_path: Path, run: Run, refused: Refused
) -> None:
    file = tmp_path / "file"
    file.touch()
    line = refused(run("run", "toy", "--out", str(file)))
    assert f"cannot write results to {file}/toy: Not a directory" in line
    assert marks(toy, "start") == 0


def test_a_full_disk_leaves_nothing_and_the_old_record(
    toy: Path, tmp_path: Path, run: Run, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("run", "toy", "--out", str(tmp_path), "--quiet")[0] == 0
    (old,) = records.load("toy", tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    for words in (["--again"], ["--seed", "1"]):
        line = refused(run("run", "toy", *words, "--out", str(tmp_path)))
        assert f"cannot write the record {tmp_path}/toy/" in line
        assert line.endswith(": No space left on device\n")
    assert records.load("toy", tmp_path) == [old]
    assert [name for name in left(tmp_path) if "work" not in name] == []


def limit_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))


def test_a_write_that_the_system_cuts_short_leaves_nothing(toy: Path, tmp_path: Path) -> None:
    """A real one, in a process that may write no file of more than 200 bytes."""
    words = ["run", "toy", "--out", str(tmp_path / "out")]
    code = f"from manifoldlab.app import main; main({words!r})"
    path = f"{toy.parent / 'package'}{os.pathsep}{Path(files.__file__).parents[1]}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        preexec_fn=limit_files,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("manifoldlab: ") and done.stderr.count("\n") == 1
    assert done.stderr.endswith(": File too large\n")
    assert not records.load("toy", tmp_path / "out")
    assert [name for name in left(tmp_path / "out") if "work" not in name] == []


def test_a_damaged_record_is_made_anew(toy: Path, tmp_path: Path, run: Run) -> None:
    assert run("run", "toy", "--out", str(tmp_path), "--quiet")[0] == 0
    (made,) = records.load("toy", tmp_path)
    (made.folder / "run.json").write_text("{")
    status, shown, _ = run("run", "toy", "--out", str(tmp_path))
    assert status == 0 and "Recorded:" in shown and marks(toy, "end") == 2
    assert len(records.load("toy", tmp_path)) == 1


def test_a_stale_record_is_shown_as_such_and_made_anew_when_asked(
    toy: Path, tmp_path: Path, run: Run
) -> None:
    assert run("run", "toy", "--out", str(tmp_path), "--quiet")[0] == 0
    (made,) = records.load("toy", tmp_path)
    file = made.folder / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"sources": "0" * 12}))
    status, shown, _ = run("run", "toy", "--out", str(tmp_path))
    assert status == 0 and "Found:" in shown and "STALE" in shown
    assert "1 runs, 1 stale" in run("list", "results", "--results", str(tmp_path))[1]
    status, shown, _ = run("run", "toy", "--out", str(tmp_path), "--again")
    assert status == 0 and "Recorded:" in shown and "STALE" not in shown


def test_checkpoints_stay_until_the_run_is_recorded(toy: Path, tmp_path: Path, run: Run) -> None:
    with pytest.raises(ArithmeticError):
        run("run", "toy", "--way", "raises", "--out", str(tmp_path))
    assert left(tmp_path) == []
    assert run("run", "toy", "--out", str(tmp_path))[0] == 0
    assert left(tmp_path) == []  # the toy writes a checkpoint into its folder


def test_a_training_that_diverges_ends_in_one_line(toy: Path, tmp_path: Path, run: Run) -> None:
    """Which names the step, the objective and the last finite checkpoint, for there is one to go on from."""
    words = ["run", "toy_training", "--lr", "1e30", "--epochs", "2", "--out", str(tmp_path)]
    for _ in range(2):
        status, shown, said = run(*words)
        assert status == 1 and shown == "" and said.count("\n") == 1
        assert said.startswith("manifoldlab: all members: 0 from step ")
        assert "not finite: noise_augmentation; the last finite checkpoint is " in said
    assert not records.load("toy_training", tmp_path)


def test_a_model_is_kept_with_its_facts(
    toy: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from manifoldlab import checkpoints

    def main(config: object, progress: records.Progress) -> records.Outcome:
        facts = {"architecture": {"name": "mlp"}}
        return records.Outcome({"a": 1}, tensors={"w": torch.arange(3.0)}, facts=facts)

    monkeypatch.setattr(catalog.module("experiments", "toy"), "main", main)
    assert run("run", "toy", "--out", str(tmp_path))[0] == 0
    (made,) = records.load("toy", tmp_path)
    tensors, facts = checkpoints.load(made.folder / "model.safetensors")
    assert torch.equal(tensors["w"], torch.arange(3.0)) and facts["architecture"]["name"] == "mlp"


def test_results_are_listed(toy: Path, tmp_path: Path, run: Run, refused: Refused) -> None:
    out = tmp_path / "out"
    assert "there is no folder" in refused(run("list", "results", "--results", str(out)))
    for seed in ("0", "1"):
        assert run("run", "toy", "--seed", seed, "--out", str(out), "--quiet")[0] == 0
    first = records.load("toy", out)[0].folder
    (first / "samples.npz").write_bytes(b"")
    (out / "toy" / "0123456789ab.error").write_text("{}\nwhy")
    (out / "verify").mkdir()
    status, shown, _ = run("list", "results", "--results", str(out))
    assert status == 0 and shown.splitlines() == [
        "toy  1 runs, 1 damaged, 1 failed",
        f"{first}/samples.npz is damaged: it is missing or truncated",
    ]
