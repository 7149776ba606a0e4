"""dask.distributed: processes of many machines; a run that is lost with its worker is done again.

`--engine cluster=tcp://HOST:8786` goes to a scheduler that is there, `--engine cluster` starts one
with its workers on this machine. The workers need this package and see the folder of results.
"""

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, final

from manifoldlab.engines.base import Done, attempt

if TYPE_CHECKING:
    from distributed import Client

TOPIC = "manifoldlab started"
KILLED = "its worker died"
# One run at a time for a worker, or those that wait there share the blame for its death; and twice
# as often as `local` a run may kill one, all in all, before it is given up.
OWN = {
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.scheduler.allowed-failures": 1,
}
PATIENCE = 30.0  # seconds for a scheduler and a first worker to answer
PAUSE = 0.02  # seconds between two looks

Function = Callable[[Any], Any]
Renew = Callable[[], None]


@final
@dataclass(frozen=True)
class Cluster:
    jobs: int = 1
    address: str = ""

    def map(
        self, function: Function, items: Sequence[Any], started: Callable[[int], None]
    ) -> Generator[Done, None, None]:
        if not items:
            return
        with self._client() as (client, renew):
            client.subscribe_topic(TOPIC, lambda event: started(event[1]))
            lost = []
            for done in _all(client, function, list(enumerate(items)), renew):
                if (done.error or "").startswith(KILLED):
                    lost.append(done.item)
                else:
                    yield done
            # The scheduler suspects all that a dead worker had to do: each by itself will show.
            for index in lost:
                yield from _all(client, function, [(index, items[index])], renew)

    @contextmanager
    def _client(self) -> Iterator[tuple["Client", Renew]]:
        """And what is done where no workers are left."""
        try:
            from dask import config
            from distributed import Client, LocalCluster
        except ModuleNotFoundError as error:
            how = "python -m pip install 'manifoldlab[cluster]'"
            raise ValueError(f"the engine cluster needs dask.distributed: {how}") from error
        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what is lost, `map` tells
        if self.address:
            with Client(self.address, timeout=PATIENCE) as client:
                try:
                    client.wait_for_workers(1, timeout=PATIENCE)
                except TimeoutError as error:
                    raise ValueError(f"the scheduler {self.address} has no workers") from error
                yield client, _leave_alone
            return
        with (
            config.set(OWN),
            LocalCluster(
                n_workers=self.jobs,
                threads_per_worker=1,
                memory_limit=None,
                dashboard_address=None,
                silence_logs=logging.CRITICAL,
            ) as cluster,
            Client(cluster) as client,
        ):
            yield client, partial(_renew, cluster, self.jobs)


def _leave_alone() -> None:
    """A foreign cluster: whoever has started it may start workers, too."""


def _renew(cluster: Any, jobs: int) -> None:
    """Other workers: dask does not replace one that dies in the instant in which it starts."""
    cluster.scale(0)
    cluster.scale(jobs)


def _all(
    client: "Client", function: Function, items: Sequence[tuple[int, Any]], renew: Renew
) -> Generator[Done, None, None]:
    """Items and their indices, as they are done."""
    from distributed import as_completed

    # not pure: an item that was done before is done again, when it is asked for again
    futures = client.map(_work, *zip(*items, strict=True), function=function, pure=False, key="run")
    index = {future.key: i for future, (i, _) in zip(futures, items, strict=True)}
    ready, seen = as_completed(futures), monotonic()
    while not ready.is_empty():
        for future in ready.next_batch(block=False):
            yield _done(index[future.key], future)
            future.release()  # else it would be computed again when its worker is lost
        if client.scheduler_info()["workers"]:
            seen = monotonic()
        elif monotonic() - seen > PATIENCE:
            renew()
            seen = monotonic()
        sleep(PAUSE)


def _work(index: int, item: Any, function: Function) -> tuple[Any, str | None]:
    from distributed import get_worker

    get_worker().log_event(TOPIC, index)
    try:
        return attempt(function, item)
    except SystemExit as left:  # which would end the worker, and then the next one
        return None, f"SystemExit: {left}"


def _done(index: int, future: Any) -> Done:
    """An answer that is lost with its worker is computed again, and can then fail."""
    from distributed import KilledWorker

    if future.status == "cancelled":
        return Done(index, None, "the scheduler has gone")
    try:
        return Done(index, *future.result())
    except KilledWorker as error:
        return Done(index, None, f"{KILLED}, {error.allowed_failures + 1} times")
    except Exception as error:
        return Done(index, None, str(error) or type(error).__name__)
