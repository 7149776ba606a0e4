"""Many processes as one: the group that torchrun starts, sums over it, BatchNorm over the global batch.

A process that was started alone is a group of one, and nothing here costs it anything.
"""

import atexit
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from time import sleep
from typing import Any, final

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

TOGETHER = 16  # steps from one agreement of many processes to the next; a device waits for each
PAUSE = 0.1  # seconds at the end
BACKENDS = "cpu:gloo,cuda:nccl"  # where there are GPUs: each kind of tensor by its own


def join() -> None:
    """Joins the group that torchrun has started, if it has and this process is not in it yet."""
    if not dist.is_available() or dist.is_initialized() or not dist.is_torchelastic_launched():
        return
    gpus = torch.cuda.is_available()
    if gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group(BACKENDS if gpus else "gloo")
    atexit.register(leave)


def leave() -> None:
    """A thread of gloo lets go of the last tensors, for which it waits for the interpreter's lock;
    once the interpreter has ended that aborts the process, so it is given the lock before."""
    if dist.is_initialized():
        sleep(PAUSE)
        dist.destroy_process_group()


def processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if processes() > 1 else 0


def rows(n: int) -> tuple[int, int]:
    """Start and stop of this process's part of n rows: as equal as can be, perhaps empty."""
    return n * rank() // processes(), n * (rank() + 1) // processes()


def add_up(value: Tensor) -> None:
    """In place, over the group; no gradient flows through."""
    if processes() > 1:
        dist.all_reduce(value)


def mean(own: Tensor, rows: int) -> Tensor:
    """Of means over `rows` rows here, that over the rows of all; no gradient flows through."""
    if processes() == 1:
        return own
    count = torch.tensor(float(rows), dtype=own.dtype, device=own.device)
    sums = own * count if rows else torch.zeros_like(own)  # the mean over no rows is nan
    for value in (sums, count):
        dist.all_reduce(value)
    return sums / count


def copy_first(tensors: Iterable[Tensor]) -> None:
    """Gives every process the values of the first."""
    if processes() > 1:
        for tensor in tensors:
            sent = tensor.detach().contiguous()
            dist.broadcast(sent, 0)
            tensor.detach().copy_(sent)


def of_first(flag: bool) -> bool:
    """What the first process says; none goes on before all have come here."""
    said = torch.tensor(int(flag and rank() == 0))
    add_up(said)
    return bool(said)


def check_alike(value: int, what: str) -> None:
    """Refuses a number that differs from the first process's."""
    first = torch.tensor(value)
    copy_first([first])
    if value != int(first):
        raise ValueError(f"{what} is {value} in process {rank()} and {int(first)} in the first")


def gather(own: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """What each process has, `sizes[rank]` rows of it, on all of them."""
    if processes() == 1:
        return [own]
    padded = own.new_zeros((max(sizes), *own.shape[1:]))
    padded[: len(own)] = own
    found = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(found, padded)
    return [part[:size] for part, size in zip(found, sizes, strict=True)]


@contextmanager
def stop_signal(listen: bool) -> Iterator[Callable[[int], bool]]:
    """Whether to stop at a step, since SIGTERM has come to any process: all stop at the same one.

    Only the main thread can listen; the former handler is put back.
    """
    if not listen or threading.current_thread() is not threading.main_thread():
        yield lambda step: False
        return
    asked: list[int] = []
    former = signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    try:
        yield lambda step: _anywhere(bool(asked), step)
    finally:
        signal.signal(signal.SIGTERM, former if former is not None else signal.SIG_DFL)


def _anywhere(flag: bool, step: int) -> bool:
    if processes() == 1:
        return flag
    if step % TOGETHER:
        return False
    count = torch.tensor(int(flag))
    dist.all_reduce(count)
    return bool(count)


@final
class _Total(torch.autograd.Function):
    """The sum over all processes; its gradient is the sum of theirs, to any order."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return total(gradients[0])


def total(value: Tensor) -> Tensor:
    """The sum over all processes, with gradients of any order."""
    if processes() == 1:
        return value
    added: Tensor = _Total.apply(value)  # type: ignore[no-untyped-call]
    return added


@final
class BatchNorm(nn.Module):
    """Another module's BatchNorm, with its parameters and buffers, over the samples of all processes.

    torch's SyncBatchNorm is for GPUs. Mean first, then variance about it: two sums, no cancellation.
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(self, other: _BatchNorm):
        super().__init__()
        self.momentum, self.eps, self.training = other.momentum, other.eps, other.training
        for name in ("weight", "bias"):
            self.register_parameter(name, getattr(other, name))
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(other, name))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training and self.running_mean is not None:
            moments = self.running_mean, self.running_var
            return F.batch_norm(x, *moments, self.weight, self.bias, eps=self.eps)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        dims = [0, *range(2, x.ndim)]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        own = wide.new_tensor([x.numel() // x.shape[1]])
        sums = total(torch.cat([wide.sum(dims), own]))
        mean, count = sums[:-1] / sums[-1].detach(), sums[-1].detach()
        if x.numel() <= x.shape[1] and bool(count <= 1):  # a device waits for such shares alone
            raise ValueError("BatchNorm needs two samples or more in each batch, not one")
        centred = wide - mean.reshape(shape)
        variance = total(centred.square().sum(dims)) / count
        self._track(mean.detach(), variance.detach() * count / (count - 1))
        scaled = centred * (variance + self.eps).rsqrt().reshape(shape)
        if self.weight is not None and self.bias is not None:
            scaled = scaled * self.weight.reshape(shape) + self.bias.reshape(shape)
        return scaled.to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        """Running moments; without momentum they are plain averages, as in torch."""
        if (
            self.running_mean is None
            or self.running_var is None
            or self.num_batches_tracked is None
        ):
            return
        self.num_batches_tracked += 1
        share = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        for moment, now in ((self.running_mean, mean), (self.running_var, variance)):
            moment.copy_((1 - share) * moment + share * now)


def convert(model: nn.Module) -> nn.Module:
    """The model with every BatchNorm over all processes: it keeps its parameters, buffers and names."""
    if isinstance(model, _BatchNorm):
        return BatchNorm(model)
    for name, child in model.named_children():
        setattr(model, name, convert(child))
    return model
