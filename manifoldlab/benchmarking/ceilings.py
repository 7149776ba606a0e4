"""What a device can do at most, measured: bytes copied and FLOP of a matrix product, each second."""

from collections.abc import Mapping
from statistics import median
from typing import Any

import torch

from manifoldlab.benchmarking.clock import Clock

DTYPES = (torch.float32, torch.float64, torch.bfloat16)
ROUNDS = 5


def measured(clock: Clock, *, small: bool = False) -> dict[str, Any]:
    """On a GPU float32 products are also timed in TF32, where the device has it."""
    side = 64 if small else 2048
    numbers = torch.ones(side * side * 16, device=clock.device)
    target = torch.empty_like(numbers)
    copied = 2 * numbers.numel() * numbers.element_size()
    found: dict[str, Any] = {"copy": copied / _seconds(clock, lambda: target.copy_(numbers))}
    for dtype in DTYPES:
        found[str(dtype).removeprefix("torch.")] = _product(clock, side, dtype)
    if clock.device != "cpu":
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high")
        found["tf32"] = _product(clock, side, torch.float32)
        torch.set_float32_matmul_precision(before)
    return found


def least(floor: Mapping[str, float], dtype: str, top: Mapping[str, float]) -> float:
    """Seconds that the floor's FLOP, or its bytes, take at the ceilings: more than any kernel can reach.

    Bytes that stay in a cache go faster, so that a small floor may take less.
    """
    return float(max(floor["flop"] / top[dtype], floor["bytes"] / top["copy"]))


def _product(clock: Clock, side: int, dtype: torch.dtype) -> float:
    a = torch.ones(side, side, device=clock.device, dtype=dtype)
    return 2 * side**3 / _seconds(clock, lambda: a @ a)


def _seconds(clock: Clock, call: Any) -> float:
    call()
    return median(clock.seconds(clock.read(call)) for _ in range(ROUNDS))
