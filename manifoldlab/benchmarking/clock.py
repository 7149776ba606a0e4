"""Time of a call: of the wall, and of the cores. A GPU is waited for before and after.

With one thread on a CPU a call has taken what the core spent on it, whatever else ran meanwhile: the
time of the wall has that of other processes in it, and says so by how much more it is.
"""

from dataclasses import dataclass
from time import perf_counter, process_time
from typing import NamedTuple, final

import torch

from manifoldlab.benchmarking.case import Call

SLACK = 1e-3  # seconds of the wall that a system takes now and then
SHARE = 0.25  # of a reading; a core that was lent for longer comes back with cold caches


class Reading(NamedTuple):
    """Seconds a call."""

    wall: float
    core: float
    calls: int = 1

    @property
    def interrupted(self) -> bool:
        return (self.wall - self.core) * self.calls > SLACK + SHARE * self.core * self.calls


@final
@dataclass(frozen=True)
class Clock:
    device: str = "cpu"
    threads: int = 1
    waits: bool = False

    @property
    def of_core(self) -> bool:
        return self.device == "cpu" and self.threads == 1 and not self.waits

    def read(self, call: Call, calls: int = 1) -> Reading:
        self._wait()
        wall, core = perf_counter(), process_time()
        for _ in range(calls):
            call()
        self._wait()
        core, wall = process_time() - core, perf_counter() - wall
        return Reading(wall / calls, core / calls, calls)

    def seconds(self, reading: Reading) -> float:
        return reading.core if self.of_core else reading.wall

    def disturbed(self, reading: Reading) -> bool:
        """Of several threads, or of a GPU, this cannot be told from the reading alone."""
        return self.of_core and reading.interrupted

    def _wait(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()
