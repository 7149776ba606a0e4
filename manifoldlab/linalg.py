"""Batched linear algebra on per-sample vectors of any shape."""

import torch
from torch import Tensor


def project(basis: Tensor, v: Tensor) -> Tensor:
    """Projection of v (..., n, *shape) on the span of the orthonormal columns (n, D, k)."""
    n, ambient = basis.shape[:2]
    lead = v.numel() // max(n * ambient, 1)  # -1 would be ambiguous for no samples
    flat = v.reshape(lead, n, ambient).transpose(0, 1)  # (n, m, D)
    return ((flat @ basis) @ basis.mT).transpose(0, 1).reshape(v.shape)


def squared_norm(v: Tensor) -> Tensor:
    return v.flatten(1).square().sum(1)


def inner(u: Tensor, v: Tensor) -> Tensor:
    return (u * v).flatten(1).sum(1)


def unit(v: Tensor) -> Tensor:
    """v / |v| sample by sample; a zero vector stays zero."""
    norm = squared_norm(v).sqrt().clamp_min(torch.finfo(v.dtype).tiny)
    return v / norm.reshape(-1, *[1] * (v.ndim - 1))


def random_frame(rows: int, columns: int, seed: int) -> Tensor:
    """Orthonormal columns (rows, columns), the same for the same seed."""
    if columns > rows:
        raise ValueError(f"no {columns} orthonormal columns in dimension {rows}")
    generator = torch.Generator().manual_seed(seed)
    gaussian = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    frame: Tensor = torch.linalg.qr(gaussian).Q
    return frame


def principal_angles(a: Tensor, b: Tensor) -> Tensor:
    """Angles between the spans of orthonormal columns (n, D, k) and (n, D, l), ascending.

    Small angles come from the sines (Bjoerck and Golub 1973): the arc cosine of 1 - 1e-16
    is 1e-8, the arc sine of 1e-16 is 1e-16.
    """
    if a.shape[-1] > b.shape[-1]:
        a, b = b, a
    cosine = torch.linalg.svdvals(a.mT @ b)  # descending
    sine = torch.linalg.svdvals(a - b @ (b.mT @ a)).flip(-1)  # ascending
    return torch.where(sine < 0.5**0.5, sine.clamp(max=1).asin(), cosine.clamp(max=1).acos())
