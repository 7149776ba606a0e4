"""Training that is looked at: an objective that shows the model to an onlooker before each step.

Looks are at chosen steps; at all of them a factor is multiplied up, which a law predicts from the model
and the batch: a mean over its samples, and so over those of all processes that share it. Nothing of the
training is changed, and nothing is drawn.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor, nn

from manifoldlab import synchronized
from manifoldlab.interfaces import Batch, Objective, Source

Look = Callable[
    [nn.Module, Tensor], Mapping[str, Tensor]
]  # model, product so far (E,) -> (E,) each
Factor = Callable[[nn.Module, Batch], Tensor]  # -> (E,), of the step that is about to be taken


@final
@dataclass
class Watch:
    look: Look
    factor: Factor
    times: Sequence[int]  # steps before which to look
    product: Tensor  # of the factors so far, (E,)
    step: int = 0
    rows: list[Mapping[str, Tensor]] = field(default_factory=list)

    def __call__(self, model: nn.Module, batch: Batch) -> None:
        if self.step in self.times:
            self.rows.append(self.look(model, self.product))
        with torch.no_grad():
            factor = self.factor(model, batch)
            self.product = self.product * synchronized.mean(factor, len(batch.x))
        self.step += 1

    def curves(self) -> dict[str, Tensor]:
        """By name, (E, times)."""
        return {name: torch.stack([row[name] for row in self.rows], 1) for name in self.rows[0]}


@final
@dataclass(frozen=True)
class Watched:
    objective: Objective
    watch: Callable[[nn.Module, Batch], None]

    def __call__(self, model: nn.Module, batch: Batch, generator: Source) -> Tensor:
        self.watch(model, batch)
        return self.objective(model, batch, generator)
