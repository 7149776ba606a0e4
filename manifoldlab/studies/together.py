"""Several probes as one, for data that are dear to read: each batch is read once, for all of them.

A field of the record is called NAME_FIELD, by the name under which its probe is given.
"""

from collections import namedtuple
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from manifoldlab.interfaces import Batch, Geometry, Model, Probe


def together(probes: Mapping[str, Probe]) -> Probe:
    if not probes:
        raise ValueError("probes to run together are one or more, not none")

    def probe(model: Model, batch: Batch, geometry: Geometry) -> Any:
        found = {
            f"{name}_{field}": values
            for name, one in probes.items()
            for field, values in one(model, batch, geometry)._asdict().items()
        }
        return namedtuple("Together", found)(**found)

    return probe


class Answers(NamedTuple):
    right: Tensor  # (n,) 1 where the largest logit is the label's
    probability: Tensor  # (n,) of the label


@torch.no_grad()
def answers(model: Model, batch: Batch, geometry: Geometry) -> Answers:
    del geometry
    logits = model(batch.x)
    right = (logits.argmax(1) == batch.y).to(logits.dtype)
    return Answers(right, logits.softmax(1).gather(1, batch.y[:, None]).squeeze(1))
