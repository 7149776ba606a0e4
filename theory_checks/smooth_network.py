"""A smooth network of few directions, as a problem: its logits need not be those of any density.

logits = V tanh(W s + b) of s = C'x, C of a few orthonormal columns; by law E2 every network's logits
are log p(x, y) up to a function of x, which is what makes its energies its own.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from manifoldlab import linalg
from manifoldlab.interfaces import Batch

WIDTH = 16
LOUDNESS = 2.0  # of the logits


@final
@dataclass(frozen=True)
class SmoothNetwork:
    size: int  # D
    num_classes: int
    seed: int = 0
    directions: int = 2

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.size,)

    @cached_property
    def columns(self) -> Tensor:
        """C, (D, directions)"""
        return linalg.random_frame(self.size, self.directions, self.seed + 2**18)

    @cached_property
    def _weights(self) -> tuple[Tensor, Tensor, Tensor]:
        """W, b and V."""
        generator = torch.Generator().manual_seed(self.seed + 2**19)
        rows = self.directions + 1 + self.num_classes
        drawn = torch.randn(WIDTH, rows, generator=generator, dtype=torch.float64)
        inner, bias, outer = torch.split(drawn, [self.directions, 1, self.num_classes], 1)
        return inner, bias.squeeze(1), LOUDNESS * WIDTH**-0.5 * outer.T

    def log_joint(self, x: Tensor) -> Tensor:
        """Logits (n, K)."""
        inner, bias, outer = (weights.to(x) for weights in self._weights)
        s = x.flatten(1) @ self.columns.to(x)
        return (s @ inner.mT + bias).tanh() @ outer.mT

    def sample(self, n: int, generator: torch.Generator) -> Batch:
        """Standard normal points with any labels: those of no density."""
        x = torch.randn(n, self.size, generator=generator, dtype=torch.float64)
        return Batch(x, torch.randint(self.num_classes, (n,), generator=generator))
