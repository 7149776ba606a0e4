"""`manifoldlab run` killed with SIGKILL at random moments, and called again, leaves the same bits."""

import random
import signal
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from manifoldlab import app, records

Run = Callable[..., tuple[int, str, str]]
# Forked from a process that has imported torch once: a hundred commands in the time of ten.
FORKS = get_context("forkserver")
# The last of which an optimizer imports with its first step.
PRELOADED = ["manifoldlab.running", "manifoldlab.ensembles", "manifoldlab.probing", "torch._dynamo"]
FORKS.set_forkserver_preload(PRELOADED)
KILLS = 12


def called(words: list[str], seconds: float) -> int:
    """The exit status of a command that is given so many seconds to live."""
    process = FORKS.Process(target=app.main, args=(words,))
    process.start()
    process.join(seconds)
    process.kill()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def killed_until_done(words: list[str], moments: random.Random) -> int:
    """How often the command was killed before it could end; it is given a little longer each time."""
    for kills in range(100):
        status = called(words, moments.uniform(0, 0.5 * 1.1**kills))
        if status == 0:
            return kills
        assert status == -signal.SIGKILL
    raise AssertionError("the run never ends")


def test_a_run_killed_at_random_moments_leaves_the_same_record(
    toy: Path, tmp_path: Path, run: Run
) -> None:
    """Before, in the midst of and between two trainings, of a checkpoint, of the record."""
    moments, kills, seed = random.Random(0), 0, 0
    while kills < KILLS:
        words = ["run", "toy_training", "--epochs", "6", "--seed", str(seed), "--quiet"]
        words += ["--pause", "0.005", "--size", "300000", "--out"]
        assert run(*words, str(tmp_path / "whole"))[0] == 0
        kills += killed_until_done([*words, str(tmp_path / "killed")], moments)
        seed += 1
    whole, killed = (records.load("toy_training", tmp_path / out) for out in ("whole", "killed"))
    assert len(whole) == len(killed) == seed
    assert sorted(p.name for p in killed[0].folder.parent.iterdir()) == [
        r.folder.name for r in killed
    ]
    for one, other in zip(whole, killed, strict=True):
        check_same(one, other)


def check_same(one: records.Run, other: records.Run) -> None:
    assert (one.config, one.metrics, one.sources) == (other.config, other.metrics, other.sources)
    bits = [(r.folder / "model.safetensors").read_bytes() for r in (one, other)]
    assert bits[0] == bits[1]
    samples = one.samples(), other.samples()
    assert samples[0].keys() == samples[1].keys()
    assert all(np.array_equal(values, samples[1][name]) for name, values in samples[0].items())
