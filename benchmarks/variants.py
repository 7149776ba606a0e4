"""What a GPU offers beside eager float32, for one job of a network: other kinds of numbers, other launches.

Each is a contestant like any other: it is timed only if its error is within what the case allows. None is
made on a CPU, where torch.compile gains nothing (0 to 5 %) and bfloat16 is wrong by 5 to 40 %.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks import inputs
from manifoldlab.benchmarking.case import Absent, Contestant, as_it_is

Job = Callable[[nn.Module, Tensor], Tensor]
Read = Callable[[Tensor], Tensor]


def on_gpu(
    job: Job, model: nn.Module, x: Tensor, read: Read = as_it_is
) -> dict[str, Contestant | Absent]:
    """Of the network as probes have it prepared."""
    return all_of(job, inputs.prepared(model), x, read) if x.is_cuda else {}


def all_of(
    job: Job, model: nn.Module, x: Tensor, read: Read = as_it_is
) -> dict[str, Contestant | Absent]:
    last = x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
    found: dict[str, Contestant | Absent] = {
        "TF32": Contestant(partial(_in_tf32, job, model, last), read),
        "bfloat16": Contestant(partial(_in_bfloat16, job, model, last), read),
        "torch.compile": Contestant(_Compiled(job, model, last), read),
    }
    if x.is_cuda:
        found["CUDA graph"] = Contestant(_Captured(job, model, last), read)
    return found


def _in_tf32(job: Job, model: nn.Module, x: Tensor) -> Tensor:
    before = torch.get_float32_matmul_precision()
    convolutions = torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    try:
        return job(model, x)
    finally:
        torch.set_float32_matmul_precision(before)
        torch.backends.cudnn.allow_tf32 = convolutions


def _in_bfloat16(job: Job, model: nn.Module, x: Tensor) -> Tensor:
    with torch.autocast(x.device.type, torch.bfloat16):
        return job(model, x).float()


class _Compiled:
    """A job of the compiled network, which is compiled at the first call."""

    def __init__(self, job: Job, model: nn.Module, x: Tensor):
        self.job, self.model, self.x = job, model, x
        self.compiled: nn.Module | None = None

    def __call__(self) -> Tensor:
        if self.compiled is None:
            self.compiled = torch.compile(self.model)
        return self.job(self.compiled, self.x)


class _Captured:
    """A job whose kernels are launched at once; captured at the first call, after three on a side stream."""

    def __init__(self, job: Job, model: nn.Module, x: Tensor):
        self.run = partial(job, model, x)
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> Tensor:
        if self.graph is None:
            self._capture()
        assert self.graph is not None
        self.graph.replay()
        return self.found

    def _capture(self) -> None:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.found = self.run()
        self.graph = graph
