"""dask.distributed: processes of many machines; a run that is lost with its worker is done again.

`--engine cluster=tcp://HOST:8786` goes to a scheduler that is there, `--engine cluster` starts one
with its workers on this machine. The workers need this package and see the folder of results.
"""

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from manifoldlab.engines.base import Done, attempt

if TYPE_CHECKING:
    from distributed import Client

TOPIC = "manifoldlab started"
PATIENCE = 30.0  # seconds for a scheduler and a first worker to answer

Function = Callable[[Any], Any]


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
        with self._client() as client:
            from distributed import as_completed

            client.subscribe_topic(TOPIC, lambda event: started(event[1]))
            # not pure: an item that was done before is done again, when it is asked for again
            futures = client.map(
                _work, range(len(items)), items, function=function, pure=False, key="run"
            )
            index = {future.key: i for i, future in enumerate(futures)}
            for future in as_completed(futures):
                yield _done(index[future.key], future)
                future.release()  # else it would be computed again when its worker is lost

    @contextmanager
    def _client(self) -> Iterator["Client"]:
        try:
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
                yield client
            return
        with (
            LocalCluster(
                n_workers=self.jobs,
                threads_per_worker=1,
                memory_limit=None,
                dashboard_address=None,
                silence_logs=logging.CRITICAL,
            ) as cluster,
            Client(cluster) as client,
        ):
            yield client


def _work(index: int, item: Any, function: Function) -> tuple[Any, str | None]:
    from distributed import get_worker

    get_worker().log_event(TOPIC, index)
    try:
        return attempt(function, item)
    except SystemExit as left:  # which would end the worker, and then the next one
        return None, f"SystemExit: {left}"


def _done(index: int, future: Any) -> Done:
    error = future.exception() if future.status != "cancelled" else "the scheduler has gone"
    return Done(index, None, str(error)) if error else Done(index, *future.result())
