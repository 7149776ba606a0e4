"""What a call computes, moves and holds: FLOP, bytes, and the peak of its memory.

FLOP are those of products and convolutions; bytes those of the tensors that each kernel reads and writes;
memory is what torch has allocated at once above what was there before.
"""

import os
from itertools import accumulate
from typing import Any, NamedTuple, final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from manifoldlab.benchmarking.case import Call


class Work(NamedTuple):
    flop: int
    bytes: int


@final
class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Not torch's FlopCounterMode, whose account by module hooks into backward passes and breaks some."""

    flop = bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        found = func(*args, **given)
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.flop += formula(*args, **given, out_val=found)
        if not func.is_view:
            self.bytes += _size((args, given)) + _size(found)
        return found


def _size(values: Any) -> int:
    if isinstance(values, Tensor):
        return values.numel() * values.element_size()
    if isinstance(values, dict):
        return _size(list(values.values()))
    return sum(map(_size, values)) if isinstance(values, list | tuple) else 0


def work(call: Call) -> Work:
    """Of what torch does; other libraries do theirs unseen."""
    counter = _Counter()  # type: ignore[no-untyped-call]
    with counter:
        call()
    return Work(int(counter.flop), counter.bytes)


def peak(call: Call, device: str) -> int:
    """Bytes."""
    if device != "cpu":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or it prints that it starts and stops
    kinds = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=kinds, profile_memory=True) as seen:
        call()
    events = seen.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    return int(max(accumulate((size for _, size in changes), initial=0)))
