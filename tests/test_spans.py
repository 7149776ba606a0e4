"""Spans of columns that are not orthonormal, against QR in float64."""

import pytest
import torch
from torch import Tensor

from manifoldlab import linalg
from manifoldlab.spans import spanned

AMBIENT, K = 300, 16


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def of_condition(*conditions: float) -> Tensor:
    """(n, D, k) with singular values from 1 to 1 / condition, evenly spaced in their logarithms."""
    exponents = torch.linspace(0, 1, K, dtype=torch.float64)
    left, right = torch.linalg.qr(gaussian(AMBIENT, K)).Q, torch.linalg.qr(gaussian(K, K, seed=1)).Q
    return torch.stack([(left * c**-exponents) @ right.T for c in conditions])


def by_qr(columns: Tensor, v: Tensor) -> Tensor:
    return linalg.project(torch.linalg.qr(columns.double()).Q, v.double())


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("condition", [1.0, 10.0, 200.0, 3e4])
def test_projects_as_well_as_the_columns_are_known(condition: float, kind: torch.dtype) -> None:
    """In float32 the first two are certain, the others are not."""
    columns, v = of_condition(condition, 1.0).to(kind), gaussian(5, 2, AMBIENT, seed=2).to(kind)
    found = spanned(columns).to_tangent(v[0], v)
    error = (found - by_qr(columns, v)).norm() / found.norm()
    assert found.dtype == kind and found.shape == v.shape
    assert error < 3 * torch.finfo(kind).eps * (1 + condition / 3), error


def test_one_pass_would_not_do() -> None:
    """Of the first pass alone the error is some eps cond^2."""
    columns, v = of_condition(50.0).float(), gaussian(1, AMBIENT, seed=2).float()
    geometry = spanned(columns)
    truth = by_qr(columns, v)
    once = geometry._projected(v[:, None])[:, 0]
    errors = [(p - truth).norm() / truth.norm() for p in (once, geometry.to_tangent(v, v))]
    assert errors[0] > 3 * errors[1]


def test_directions_may_lead_and_pictures_keep_their_shape() -> None:
    columns, v = of_condition(3.0, 3.0), gaussian(2, 3, 2, 3, 10, 10, seed=2)
    geometry = spanned(columns)
    assert geometry.dim == K
    found = geometry.to_tangent(v[0, 0], v)
    torch.testing.assert_close(found, by_qr(columns, v))
    torch.testing.assert_close(geometry.to_tangent(v[0, 0], v[1, 2]), found[1, 2])


def test_columns_that_are_not_independent_are_refused() -> None:
    columns = of_condition(2.0, 2.0, 2.0).float()
    columns[1, :, 4] = columns[1, :, 3]
    line = "the set of columns has 15 independent directions, not 16, in 1 of 3 samples, the first is 1"
    with pytest.raises(ValueError, match=line):
        spanned(columns)
    columns[1, 0, 4] = torch.nan
    with pytest.raises(ValueError, match="the set of columns is not finite in 1 samples, first 1"):
        spanned(columns)
    with pytest.raises(ValueError, match=r"have 1 <= k <= D, not \(3, 16, 300\)"):
        spanned(columns.mT)
