"""`manifoldlab sweep`: every run once, whatever is killed meanwhile, and wrong words in one line each."""

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from functools import partial
from pathlib import Path
from typing import final

import pytest
from rich.console import Console

from manifoldlab import catalog, configuration, files, ranges, records
from manifoldlab.engines.base import Done
from manifoldlab.engines.local import Local
from manifoldlab.report import live
from manifoldlab.sweep import Job, Tally, sweep

ROOT = Path(files.__file__).parents[1]
Run = Callable[..., tuple[int, str, str]]
Refused = Callable[[tuple[int, str, str]], str]


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("a,b,c", ["a", "b", "c"]),
        ("1,2,1", ["1", "2"]),
        ("0:4", ["0", "1", "2", "3"]),
        ("-2:1,7", ["-2", "-1", "0", "7"]),
        ("lin:0:1:5", ["0", "0.25", "0.5", "0.75", "1"]),
        ("lin:1:-1:3", ["1", "0", "-1"]),
        ("lin:3:9:1", ["3"]),
        ("log:1e-5:1e2:8", ["1e-05", "0.0001", "0.001", "0.01", "0.1", "1", "10", "100"]),
        ("0,log:1:100:3", ["0", "1", "10", "100"]),
        ("log:100:1:3", ["100", "10", "1"]),
        ("logit", ["logit"]),
        ("tcp://host:80", ["tcp://host:80"]),
    ],
)
def test_ranges(word: str, wanted: list[str]) -> None:
    assert ranges.values(word) == wanted


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("log:0:1:3", "a logarithmic range has positive ends, not 'log:0:1:3'"),
        ("log:1:-1:3", "a logarithmic range has positive ends"),
        ("log:1:2", "a range is log:FIRST:LAST:COUNT, not 'log:1:2'"),
        ("lin:1:2:3:4", "a range is lin:FIRST:LAST:COUNT"),
        ("lin:a:2:3", "a range is lin:FIRST:LAST:COUNT"),
        ("lin:1:2:2.5", "a range is lin:FIRST:LAST:COUNT"),
        ("lin:1:inf:3", "a range has finite ends, not 'lin:1:inf:3'"),
        ("lin:1:2:0", "a range has 1 to 100000 values, 'lin:1:2:0' has 0"),
        ("log:1:2:1000000000", "has 1000000000"),
        ("3:3", "a range has 1 to 100000 values, '3:3' has 0"),
        ("5:3", "'5:3' has 0"),
        ("1,,2", "an empty value in '1,,2'"),
        ("", "an empty value in ''"),
    ],
)
def test_malformed_ranges_have_one_line(word: str, line: str) -> None:
    with pytest.raises(ValueError) as refused:
        ranges.values(word)
    assert line in str(refused.value) and "\n" not in str(refused.value)


def test_a_grid_is_the_product_and_typed(toy: Path) -> None:
    default = catalog.module("experiments", "toy").Config()
    words = {
        "number": ["log:0.1:10:3"],
        "seed": ["0:2"],
        "widths": ["1,2;3"],
        "loud": ["True,False"],
    }
    found = [(c.number, c.seed, c.widths, c.loud) for c in configuration.grid(default, words)]
    assert len(found) == len(set(found)) == 3 * 2 * 2 * 2
    assert found[0] == (0.1, 0, (1, 2), True) and found[1][3] is False and found[-1][0] == 10.0
    assert {type(one) for numbers in found for one in numbers[:2]} == {float, int}
    alike = list(configuration.grid(default, {"seed": ["0:2"], "number": ["3"]}))
    assert configuration.labels(alike, ["seed", "number"]) == ["seed=0", "seed=1"]
    assert configuration.labels(alike[:1], ["seed", "number"]) == ["seed=0 number=3.0"]
    inner = list(configuration.grid(default, {"inner.width": ["1,2"], "limit": ["None,4"]}))
    assert [(c.inner.width, c.limit) for c in inner] == [(1, None), (1, 4), (2, None), (2, 4)]
    for config in inner:
        assert (
            configuration.configured(default, split(configuration.written(config, default)))
            == config
        )


def split(words: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for word in words:
        if word.startswith("--"):
            found[word[2:]] = []
        else:
            found[list(found)[-1]].append(word)
    return found


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "a sweep needs a field of toy and its values, such as --seed 0:10"),
        (["--sed", "0:3"], "no field or option called '--sed' (did you mean --seed?)"),
        (["--seed", "0:3", "--jbos", "2"], "(did you mean --jobs?)"),
        (["--seed", "lin:0:1:3"], "--seed is a whole number, not '0.5'"),
        (["--number", "1,a"], "--number is a number, not 'a'"),
        (["--number", "log:0:1:3"], "a logarithmic range has positive ends"),
        (["--seed", "1", "2"], "--seed of a sweep has one word of values, not '1 2'"),
        (["--seed", "0:1000", "--number", "0:1000"], "up to 100000 runs, this one 1000000"),
        (["--seed", "0:2", "--jobs", "-1"], "--jobs counts processes, 0 for one a core, not -1"),
        (["--seed", "0:2", "--engine", "clutser"], "no engines called 'clutser' (did you mean"),
        (["--seed", "0:2", "--engine", "local=x"], "the engine local is this machine"),
        (["--seed", "-1:2"], "a seed is not negative, -1 is"),
        (["--number", "inf"], "finite numbers, number is inf"),
    ],
)
def test_wrong_words_have_one_line(
    toy: Path, tmp_path: Path, run: Run, refused: Refused, words: list[str], line: str
) -> None:
    assert line in refused(run("sweep", "toy", *words, "--out", str(tmp_path / "out")))
    assert not (tmp_path / "out").exists() and not list(toy.iterdir())


def test_what_is_recorded_is_not_done_again_and_what_failed_is(
    toy: Path, tmp_path: Path, run: Run
) -> None:
    words = ("toy", "--seed", "0:3", "--way", "well,raises", "--jobs", "1", "--out", str(tmp_path))
    for found, done in ((0, 3), (3, 0)):
        status, shown, said = run("sweep", *words)
        assert status == 1 and f"{done} runs recorded, {found} found" in shown
        failed = [line for line in shown.splitlines() if line.startswith("failed: ")]
        assert len(failed) == 3 and "ArithmeticError: of the toy" in failed[0]
        assert "3 runs failed; the same command tries them again" in shown
        assert said.count("\n") == done + 3 and "\x1b" not in said
    errors = sorted((tmp_path / "toy").glob("*.error"))
    about, _, trace = errors[0].read_text().partition("\n")
    assert json.loads(about)["config"]["way"] == "raises" and trace.startswith("Traceback")
    assert len(list(toy.glob("*.start"))) == 3 + 3 + 3
    status, shown, said = run("sweep", *words, "--quiet")
    assert status == 1 and shown.count("failed: ") == 3 and said == ""
    assert "3 runs, 3 failed" in run("list", "results", "--results", str(tmp_path))[1]


def test_a_failure_is_forgotten_when_the_run_is_recorded(
    toy: Path, tmp_path: Path, run: Run
) -> None:
    assert run("sweep", "toy", "--seed", "0", "--out", str(tmp_path))[0] == 0
    (made,) = records.load("toy", tmp_path)
    error = made.folder.with_suffix(".error")
    error.write_text("{}\nwhy")
    assert run("sweep", "toy", "--seed", "0", "--again", "--out", str(tmp_path))[0] == 0
    assert not error.exists() and len(list(toy.glob("*.end"))) == 2


def test_what_is_stale_is_counted_and_renewed_when_asked(
    toy: Path, tmp_path: Path, run: Run
) -> None:
    words = ("sweep", "toy", "--seed", "0:3", "--jobs", "1", "--out", str(tmp_path))
    assert run(*words)[0] == 0
    file = records.load("toy", tmp_path)[1].folder / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"sources": "0" * 12}))
    status, shown, _ = run(*words)
    assert status == 0 and "0 runs recorded, 3 found" in shown
    assert "1 of the found are STALE" in shown
    status, shown, _ = run(*words, "--renew")
    assert "1 runs recorded, 2 found" in shown and "STALE" not in shown
    assert len(list(toy.glob("*.end"))) == 4


def test_a_damaged_record_is_named_and_made_anew(toy: Path, tmp_path: Path, run: Run) -> None:
    words = ("sweep", "toy", "--seed", "0:2", "--jobs", "1", "--out", str(tmp_path))
    assert run(*words)[0] == 0
    file = records.load("toy", tmp_path)[0].folder / "samples.npz"
    file.write_bytes(file.read_bytes()[:-10])
    status, shown, _ = run(*words)
    assert status == 0 and f"{file} is damaged" in shown and "1 runs recorded, 1 found" in shown


def test_a_worker_that_dies_takes_no_other_run_with_it(toy: Path, tmp_path: Path, run: Run) -> None:
    ways = "well,dies,dies once,leaves"
    words = ("toy", "--seed", "0:2", "--way", ways, "--jobs", "2", "--out", str(tmp_path))
    status, shown, _ = run("sweep", *words)
    assert status == 1 and "4 runs recorded, 0 found" in shown
    assert shown.count("its process died, 2 times, of SIGKILL") == 2
    assert shown.count("its process died, 2 times, of exit 3") == 2
    made = records.load("toy", tmp_path)
    assert sorted(r.config["way"] for r in made) == ["dies once"] * 2 + ["well"] * 2
    assert {r.metrics["threads"] for r in made} == {"1"}
    assert hidden(tmp_path, "new") == []


def hidden(out: Path, what: str) -> list[str]:
    return [path.name for path in (out / "toy").glob(f".*.{what}*")]


def test_an_error_that_cannot_be_sent_is_told() -> None:
    """What comes back goes through a pipe: a value that does not is an error of its run alone."""
    done = {d.item: d for d in Local(1).map(unsendable, [False, True, False], lambda item: None)}
    assert [done[i].error is None for i in range(3)] == [True, False, True]
    assert "pickle" in (done[1].error or "")


def test_workers_are_deaf_to_interrupts() -> None:
    """Which are the parent's; the first worker, too, with whom Python starts a process of its own."""
    begun: list[int] = []
    done = list(Local(2).map(interrupted, [1, 2, 3, 4], begun.append))
    assert sorted(d.value for d in done) == [1, 2, 3, 4] and len(begun) == 4


def interrupted(item: int) -> int:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.05)
    return item


def unsendable(yes: bool) -> object:
    return (lambda: None) if yes else None


def started(toy: Path, tmp_path: Path, *words: str) -> "subprocess.Popen[str]":
    """A sweep in a session of its own."""
    path = os.pathsep.join([str(toy.parent / "package"), str(ROOT)])
    return subprocess.Popen(
        [sys.executable, "-m", "manifoldlab", "sweep", "toy", *words, "--out", str(tmp_path)],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # a shell that runs the tests in the background has them, and all they start, ignore it
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(toy: Path, pattern: str, count: int) -> None:
    end = time.monotonic() + 60
    while len(list(toy.glob(pattern))) < count:
        assert time.monotonic() < end, "the sweep does not start"
        time.sleep(0.01)


def wait_until_gone(session: int) -> None:
    end = time.monotonic() + 30
    while in_session(session):
        assert time.monotonic() < end, "a process of the sweep outlives it"
        time.sleep(0.01)


def in_session(session: int) -> list[int]:
    found = subprocess.run(["ps", "-s", str(session), "-o", "pid="], capture_output=True, text=True)
    return [int(pid) for pid in found.stdout.split()]


def test_an_interrupt_leaves_whole_records_and_no_process(toy: Path, tmp_path: Path) -> None:
    words = ("--seed", "0:8", "--seconds", "0.3", "--jobs", "2")
    out = tmp_path / "out"
    process = started(toy, out, *words)
    wait_for(toy, "*.end", 2)
    wait_for(toy, "*.start", 4)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "Traceback" not in said
    assert said.splitlines()[-1].startswith("manifoldlab: interrupted: ")
    assert said.endswith(f"of 8 runs are recorded in {out}/toy; the same command goes on\n")
    wait_until_gone(process.pid)
    assert hidden(out, "new") == [] == hidden(out, "lock")
    kept = len(records.load("toy", out))
    assert 2 <= kept < 8
    again = started(toy, out, *words)
    assert f"{8 - kept} runs recorded, {kept} found" in again.communicate(timeout=60)[0]


def test_no_record_is_lost_or_doubled_by_kills_at_random_moments(toy: Path, tmp_path: Path) -> None:
    """The whole sweep, or a worker of it, is killed; what was recorded stays as it was."""
    chance, total, kept = random.Random(0), 32, dict[str, int]()
    out = tmp_path / "out"
    # a record takes longer to write than its run, so that it is hit half-written, too
    words = ("--seed", f"0:{total}", "--size", "1000000", "--jobs", "2")
    for turn in range(4):
        if len(kept) == total:  # a fast machine may be done before
            break
        before = len(list(toy.glob("*.start")))
        process = started(toy, out, *words)
        wait_for(toy, "*.start", before + 1)
        time.sleep(chance.uniform(0, 0.2))
        if turn % 2:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            victim = chance.choice([p for p in in_session(process.pid) if p != process.pid])
            os.kill(victim, signal.SIGKILL)
            time.sleep(chance.uniform(0, 0.1))
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        kept |= unchanged(out, kept)
    process = started(toy, out, *words)
    shown = process.communicate(timeout=60)[0]
    assert (
        process.returncode == 0 and f"{total - len(kept)} runs recorded, {len(kept)} found" in shown
    )
    assert len(unchanged(out, kept)) == total
    assert hidden(out, "new") == hidden(out, "lock") == hidden(out, "work") == []


def unchanged(out: Path, kept: dict[str, int]) -> dict[str, int]:
    """All records, whole, with the times they were written at; those of before are the same."""
    lines: list[str] = []
    runs = records.load("toy", out, complain=lines.append)
    found = {run.folder.name: (run.folder / "run.json").stat().st_mtime_ns for run in runs}
    assert not lines and kept.items() <= found.items()
    assert all(run.samples()["numbers"].shape == (run.config["size"],) for run in runs)
    assert len({run.config["seed"] for run in runs}) == len(runs)
    return found


def test_two_sweeps_at_once_share_the_runs(toy: Path, tmp_path: Path) -> None:
    words = ("--seed", "0:12", "--seconds", "0.1", "--jobs", "1")
    both = [started(toy, tmp_path / "out", *words) for _ in range(2)]
    for process in both:
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert len(list(toy.glob("*.end"))) == len(records.load("toy", tmp_path / "out")) == 12


def test_a_process_of_other_sources_does_no_run(toy: Path, tmp_path: Path) -> None:
    from manifoldlab import running

    config = catalog.module("experiments", "toy").Config()
    with pytest.raises(ValueError, match="has sources .* asked by sources 000000000000"):
        running.perform(Job("toy", config, tmp_path, "0" * 12))


@final
class Elsewhere:
    """An engine whose workers write to another folder."""

    jobs = 1

    def map(
        self, function: object, items: Sequence[Job], started: Callable[[int], None]
    ) -> Generator[Done, None, None]:
        del function
        for index in range(len(items)):
            started(index)
            yield Done(index, "made", None)


def test_a_record_that_does_not_arrive_is_none(toy: Path, tmp_path: Path) -> None:
    config, tally = catalog.module("experiments", "toy").Config(), Tally()
    (tmp_path / "toy").mkdir()
    job = Job("toy", config, tmp_path, "0" * 12)
    sweep([job], Elsewhere(), lambda job: None, tally, live.Board(1, 0, 1))
    assert tally.done == 0 and "do the workers write to the same folder?" in tally.failures[0].error
    assert job.error.exists()


def test_the_table_counts_and_foretells(toy: Path, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    now = [0.0]
    monkeypatch.setattr(live, "monotonic", lambda: now[0])
    config = catalog.module("experiments", "toy").Config
    jobs = [Job("toy", config(seed=k), tmp_path, "", label=f"seed={k}") for k in range(8)]
    board = live.Board(total=10, found=2, jobs=2)
    assert board.left() is None
    for k, error in ((0, None), (1, "why"), (2, None)):
        board.begin(jobs[k])
        now[0] += 10
        board.end(jobs[k], error)
    board.begin(jobs[3])
    now[0] += 4
    counts = board.counts()
    assert list(counts.values()) == ["10", "2", "2", "1", "1", "0:00:34", "0:00:23"]
    screen = Console(width=100, file=io.StringIO())
    screen.print(board.table())
    shown = screen.file.getvalue()
    assert "running" in shown and "0:00:04  seed=3" in shown
