"""Runs a probe over a stream of batches."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from manifoldlab.interfaces import Batch, Geometry, Model, Probe


def evaluate(probe: Probe, model: Model, batches: Iterable[Batch], geometry: Geometry) -> Any:
    """The probe's record over all batches, its fields joined along the samples.

    Data that are not finite are refused before they reach the model, fields that are not finite
    after the probe: here, and not in the probes, because to look is to wait for the device.
    """
    parts = []
    for batch in batches:
        _check_finite("data", batch.x)
        part = probe(model, batch, geometry.at(batch))
        for name, field in part._asdict().items():
            _check_finite(f"{name} of {type(part).__name__}", field)
        parts.append(part)
    if not parts:
        raise ValueError("no batches to probe")
    return type(parts[0])(*(torch.cat(field) for field in zip(*parts, strict=True)))


def _check_finite(what: str, values: Tensor) -> None:
    bad = ~values.isfinite().flatten(1).all(1) if values.ndim > 1 else ~values.isfinite()
    if bool(bad.any()):
        where = bad.nonzero().flatten().tolist()
        raise ValueError(
            f"{what} not finite in {len(where)} of {len(values)} samples, first sample {where[0]}: "
            f"{values[where[0]].flatten()[:4].tolist()}"
        )
