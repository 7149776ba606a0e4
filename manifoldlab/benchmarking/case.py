"""A case: one public function at one size, beside its floor and its peers, and what is right.

The floor are the passes, or the bytes, that no version can avoid, under the same kernels. A peer does the
same job by another library, or by a few lines that people write themselves.
"""

import importlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

Call = Callable[[], Any]
Error = Callable[[Tensor, Tensor], float]  # found, exact


class Setting(NamedTuple):
    """Where a case runs; `small` is a size of which the times mean nothing."""

    device: str = "cpu"
    small: bool = False

    def pick(self, usual: int, small: int) -> int:
        return small if self.small else usual


def as_it_is(found: Any) -> Tensor:
    result: Tensor = found
    return result


@final
@dataclass(frozen=True)
class Contestant:
    call: Call
    read: Callable[[Any], Tensor] = as_it_is  # what is compared with the exact result; not timed


@final
@dataclass(frozen=True)
class Absent:
    """A peer whose library is not there."""

    why: str


@final
@dataclass(frozen=True)
class Floor:
    name: str
    call: Call


def each_sample(found: Tensor, exact: Tensor) -> float:
    """The largest |found - exact| / |exact| of a sample."""
    return float(_shares(found, exact).max())


WILD = 0.2


def typical(found: Tensor, exact: Tensor) -> float:
    """The median over samples, for networks with kinks: one that lies within rounding of some sample's path
    changes its gradient by per cents. Infinite where a sample is wrong by more than a fifth."""
    shares = _shares(found, exact)
    return float(shares.median()) if bool((shares < WILD).all()) else torch.inf


def _shares(found: Tensor, exact: Tensor) -> Tensor:
    """|found - exact| / |exact|, (n,)"""
    difference, size = (t.double().reshape(len(t), -1).norm(dim=1) for t in (found - exact, exact))
    share: Tensor = difference / size.clamp_min(torch.finfo(torch.float64).tiny)
    return share.nan_to_num(torch.inf, torch.inf)


def whole(found: Tensor, exact: Tensor) -> float:
    """|found - exact| / |exact| of all numbers together."""
    size = exact.double().norm().clamp_min(torch.finfo(torch.float64).tiny)
    return float(((found - exact).double().norm() / size).nan_to_num(torch.inf, torch.inf))


def largest(found: Tensor, exact: Tensor) -> float:
    """The largest |found - exact| over the largest |exact|, or over 1 where that is more."""
    size = exact.double().abs().amax().clamp_min(1.0)
    return float(((found - exact).double().abs().amax() / size).nan_to_num(torch.inf, torch.inf))


@final
@dataclass(frozen=True)
class Contest:
    """A case made ready: its inputs exist, and nothing has been computed."""

    own: Contestant
    floor: Floor
    exact: Callable[[], Tensor]  # in float64, by the slowest and surest way
    within: float  # the largest error allowed
    reason: str  # why so much
    sizes: Mapping[str, int]
    peers: Mapping[str, Contestant | Absent] = field(default_factory=dict)
    error: Error = each_sample
    dtype: torch.dtype = torch.float32
    waits: bool = False  # for other processes, or for a disk: time is then that of the wall


@final
@dataclass(frozen=True)
class Case:
    name: str  # kind/function/size
    about: str
    ready: Callable[[Setting], Contest]

    @property
    def kind(self) -> str:
        return self.name.partition("/")[0]


def library(module: str, make: Callable[[Any], Contestant]) -> Contestant | Absent:
    """What `make` builds with a module, or that it is absent."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return make(importlib.import_module(module))
        except ImportError as error:
            return Absent(f"{error}; make bench installs the peers".replace("\n", " "))
