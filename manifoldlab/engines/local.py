"""Processes of this machine; a run whose process dies is done once more, in a new one.

A pool of the standard library breaks as a whole when one of its processes is killed, and does not
say which item that one had; here each process has a pipe of its own.
"""

import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from pickle import PicklingError
from typing import Any, final

from manifoldlab.engines.base import Done, attempt

TRIES = 2  # a run that has killed two processes would kill a third
LOST = f"its process died, {TRIES} times, of "
PATIENCE = 10.0  # seconds to write a checkpoint in, after SIGTERM

Function = Callable[[Any], Any]


@final
@dataclass(frozen=True)
class Local:
    jobs: int = 1
    address: str = ""

    def __post_init__(self) -> None:
        if self.address:
            raise ValueError(f"the engine local is this machine, not at {self.address!r}")

    def map(
        self, function: Function, items: Sequence[Any], started: Callable[[int], None]
    ) -> Generator[Done, None, None]:
        waiting, tries = deque(range(len(items))), [0] * len(items)
        with _workers(min(self.jobs, len(items)), function) as workers:
            while waiting or any(worker.index is not None for worker in workers):
                for worker in workers:
                    if waiting and worker.index is None:
                        index = waiting.popleft()
                        tries[index] += 1
                        started(index)
                        worker.begin(index, items[index])
                for done in (worker.end() for worker in _ready(workers)):
                    if (done.error or "").startswith(LOST) and tries[done.item] < TRIES:
                        waiting.append(done.item)
                    else:
                        yield done


@final
class Worker:
    """A process, and the item that it has."""

    def __init__(self, function: Function):
        self.function = function
        self.index: int | None = None
        self.start()

    def start(self) -> None:
        # spawned, for a fork of a process that has used torch's threads may hang
        context = get_context("spawn")
        self.pipe, there = context.Pipe()
        self.process = context.Process(target=_serve, args=(there, self.function))
        resource_tracker.ensure_running()  # which would unblock the signal when it is started
        # Ctrl-C goes to every process of a terminal; the new one inherits that it is deaf to it
        heard = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, heard)
        there.close()

    def begin(self, index: int, item: Any) -> None:
        self.index = index
        with suppress(BrokenPipeError):  # it has died meanwhile, which `end` will find
            self.pipe.send(item)

    def end(self) -> Done:
        """What became of the item; a process that has died is replaced."""
        index, self.index = self.index, None
        assert index is not None
        try:
            return Done(index, *self.pipe.recv())
        except (EOFError, ConnectionResetError):
            self.stop()
            code = self.process.exitcode or 0
            self.start()
        return Done(
            index, None, LOST + (signal.Signals(-code).name if code < 0 else f"exit {code}")
        )

    def stop(self) -> None:
        self.process.join(PATIENCE)
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _ready(workers: Sequence[Worker]) -> list[Worker]:
    """Those that are done or dead; waits for the first."""
    busy = [worker for worker in workers if worker.index is not None]
    signs = wait([sign for w in busy for sign in (w.pipe, w.process.sentinel)])
    return [w for w in busy if w.pipe in signs or w.process.sentinel in signs]


@contextmanager
def _workers(count: int, function: Function) -> Iterator[list[Worker]]:
    workers: list[Worker] = []
    try:
        with _one_thread():
            workers += [Worker(function) for _ in range(count)]
            yield workers
    finally:
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.stop()


@contextmanager
def _one_thread() -> Iterator[None]:
    """For the processes that are started meanwhile, which share the cores."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        del os.environ["OMP_NUM_THREADS"]
        os.environ.update({} if before is None else {"OMP_NUM_THREADS": before})


def _serve(pipe: Connection, function: Function) -> None:
    """The life of a worker, until its pipe or SIGTERM ends it."""
    signal.signal(signal.SIGTERM, _leave)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the parent has gone
        while True:
            result = attempt(function, pipe.recv())
            try:
                pipe.send(result)
            except (TypeError, AttributeError, PicklingError) as error:
                pipe.send((None, f"{type(error).__name__}: {error}"))


def _leave(number: int, frame: object) -> None:
    del frame
    raise SystemExit(128 + number)  # so that nothing half-written is left
