"""Sweeps on a real cluster of dask.distributed, whose workers are killed in mid-run.

`make test-cluster` installs the extra `cluster` and runs this; `make test` does not look here.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from distributed import LocalCluster

from manifoldlab import records
from manifoldlab.engines.cluster import Cluster

Run = Callable[..., tuple[int, str, str]]
Refused = Callable[[tuple[int, str, str]], str]

# What a killed worker leaves open is its own affair, and in the parent dask's.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def address(toy: Path) -> Iterator[str]:
    """Of a scheduler with two worker processes, which see the toy."""
    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        dashboard_address=None,
        silence_logs=logging.CRITICAL,
    ) as cluster:
        yield cluster.scheduler_address


def kill_one_in_mid_run(toy: Path, running: int) -> Callable[[], int]:
    """In a thread: SIGKILL to the process of a run of half a second that has just begun."""
    killed: list[int] = []

    def watch() -> None:
        end = time.monotonic() + 60
        while not killed and time.monotonic() < end:
            ended = {mark.name.split(".")[0] for mark in toy.glob("*.end")}
            late = time.time() - 0.25
            new = [mark.name for mark in toy.glob("*.start") if mark.stat().st_mtime > late]
            begun = [name.split(".") for name in new]
            now = [int(pid) for name, pid, *_ in begun if name not in ended]
            if len(ended) >= running and now:
                os.kill(now[0], signal.SIGKILL)
                killed.append(now[0])
            time.sleep(0.01)

    thread = threading.Thread(target=watch)
    thread.start()

    def victim() -> int:
        thread.join()
        (pid,) = killed
        return pid

    return victim


def marks(toy: Path, what: str) -> dict[str, list[int]]:
    """The processes that began, or ended, each run."""
    found: dict[str, list[int]] = {}
    for mark in toy.glob(f"*.{what}"):
        name, pid, *_ = mark.name.split(".")
        found.setdefault(name, []).append(int(pid))
    return found


@pytest.mark.parametrize("own", [True, False], ids=["own", "foreign"])
def test_a_run_that_is_lost_with_its_worker_is_done_again(
    toy: Path, tmp_path: Path, run: Run, request: pytest.FixtureRequest, own: bool
) -> None:
    engine = "cluster" if own else f"cluster={request.getfixturevalue('address')}"
    victim = kill_one_in_mid_run(toy, running=2)
    words = ("--seed", "0:8", "--seconds", "0.5", "--jobs", "2", "--engine", engine)
    status, shown, _ = run("sweep", "toy", *words, "--out", str(tmp_path / "out"))
    killed = victim()
    assert status == 0 and "8 runs recorded, 0 found" in shown
    lines: list[str] = []
    made = records.load("toy", tmp_path / "out", complain=lines.append)
    assert not lines and sorted(r.config["seed"] for r in made) == list(range(8))
    assert all(r.samples()["numbers"].shape == (1000,) for r in made)
    begun, ended = marks(toy, "start"), marks(toy, "end")
    lost = [name for name, pids in begun.items() if killed in pids and killed not in ended[name]]
    assert len(lost) == 1 and len(begun[lost[0]]) == 2  # begun twice, the second time elsewhere
    assert len({pid for pids in begun.values() for pid in pids}) >= 3  # two, and a new one
    left = [p.name for p in (tmp_path / "out" / "toy").iterdir() if p.name.startswith(".")]
    assert left == []
    status, shown, _ = run("sweep", "toy", *words, "--out", str(tmp_path / "out"))
    assert status == 0 and "0 runs recorded, 8 found" in shown


def test_a_run_that_fails_or_kills_its_workers_takes_no_other_with_it(
    toy: Path, tmp_path: Path, run: Run
) -> None:
    words = ("--seed", "0:2", "--way", "well,raises,leaves,dies", "--engine", "cluster")
    status, shown, _ = run("sweep", "toy", *words, "--jobs", "2", "--out", str(tmp_path))
    assert status == 1 and "2 runs recorded, 0 found" in shown
    for line, count in (("ArithmeticError: of the toy", 2), ("SystemExit: 3", 2), ("died", 2)):
        assert shown.count(line) == count
    assert {r.config["way"] for r in records.load("toy", tmp_path)} == {"well"}


def test_each_item_is_done_once_in_a_process_of_the_cluster(address: str) -> None:
    begun: list[int] = []
    done = list(Cluster(1, address).map(process, [1, 2, 3], begun.append))
    assert sorted(d.item for d in done) == [0, 1, 2] == sorted(begun)
    assert all(d.error is None and d.value != os.getpid() for d in done)
    assert list(Cluster(1, address).map(process, [], begun.append)) == []


def process(item: int) -> int:
    del item
    return os.getpid()


def test_a_scheduler_that_is_not_there_has_one_line(
    toy: Path, tmp_path: Path, run: Run, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    from manifoldlab.engines import cluster

    monkeypatch.setattr(cluster, "PATIENCE", 1.0)
    for address, line in (
        ("tcp://127.0.0.1:9", "tcp://127.0.0.1:9"),
        ("nowhere", "missing port number in address 'nowhere'"),
    ):
        words = ("--seed", "0:2", "--engine", f"cluster={address}", "--quiet")
        assert line in refused(run("sweep", "toy", *words, "--out", str(tmp_path)))
    with LocalCluster(n_workers=0, dashboard_address=None) as empty:
        words = ("--seed", "0:2", "--engine", f"cluster={empty.scheduler_address}", "--quiet")
        line = refused(run("sweep", "toy", *words, "--out", str(tmp_path)))
    assert f"the scheduler {empty.scheduler_address} has no workers" in line
