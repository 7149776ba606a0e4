"""Of projections and angles."""

import torch
from torch import Tensor

from manifoldlab import linalg
from manifoldlab.faults.base import Fault

MODULE = "linalg"


def _frames(count: int, dim: int) -> Tensor:
    return torch.stack([linalg.random_frame(5, dim, seed) for seed in range(count)])


def _vectors(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


FAULTS = (
    Fault(
        "A projector is the identity",
        MODULE,
        "return ((flat @ basis) @ basis.mT).transpose(0, 1).reshape(v.shape)",
        "return v.clone()",
        lambda: linalg.project(_frames(3, 2), _vectors(3, 5)),
        ("tests/test_linalg.py", "A1/helix", "A4/ellipsoid"),
    ),
    Fault(
        "A projector is its complement",
        MODULE,
        "return ((flat @ basis) @ basis.mT).transpose(0, 1).reshape(v.shape)",
        "return v - ((flat @ basis) @ basis.mT).transpose(0, 1).reshape(v.shape)",
        lambda: linalg.project(_frames(3, 2), _vectors(3, 5)),
        ("tests/test_linalg.py", "A1/helix", "B1/gaussian_subspace"),
    ),
    Fault(
        "A projector mixes up the leading directions with the samples",
        MODULE,
        "flat = v.reshape(lead, n, ambient).transpose(0, 1)",
        "flat = v.reshape(n, lead, ambient)",
        lambda: linalg.project(_frames(3, 2), _vectors(2, 3, 5)),
        ("tests/test_linalg.py",),
    ),
)
