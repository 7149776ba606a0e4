"""What an engine is: a `map` that outlives the death of a worker."""

import traceback
from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple, Protocol


class Done(NamedTuple):
    """What became of one item: a value, or the error that took its place."""

    item: int  # which one, from 0
    value: Any
    error: str | None  # its last line says what went wrong


class Engine(Protocol):
    """Made of `jobs`, how many processes, and `address`, which is empty where none is given."""

    @property
    def jobs(self) -> int: ...

    def map(
        self,
        function: Callable[[Any], Any],
        items: Sequence[Any],
        started: Callable[[int], None],
    ) -> Generator[Done, None, None]:
        """Each item once, as it is done, each in a process of its own, which may do others after.

        An item whose process dies is done again; one that kills its processes is given up, with
        an error. `started` is told the index of an item whenever a process begins with it. To
        close the iterator ends the processes that it started.
        """


def attempt(function: Callable[[Any], Any], item: Any) -> tuple[Any, str | None]:
    """Value and error, where one of them is None; SystemExit and its like pass through."""
    try:
        return function(item), None
    except Exception:
        return None, traceback.format_exc()
