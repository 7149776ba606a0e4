"""Members of the catalog as Hypothesis draws them, against samples and against finite differences.

Monte Carlo errs by ERRORS standard errors with probability 2e-9 where means are normal; differences of
second order at steps h and 2h must err in the proportion 1 : 4.
"""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from manifoldlab import calculus, linalg, strategies
from manifoldlab.manifolds.base import Manifold
from manifoldlab.problems.quadrature import Quadrature
from manifoldlab.statistics import FALSE_ALARM, kolmogorov_p

ERRORS = 6.0
FEW = settings(max_examples=3)
MANIFOLDS = strategies.manifolds(dims=(1, 2))
PROBLEMS = strategies.problems(lambda problem: type(problem).__name__ != "Tube")  # cut at its rim
DENSITIES = strategies.of_densities(
    lambda manifold, law: SimpleNamespace(manifold=manifold, densities=law)  # type: ignore[arg-type,return-value]
)


def source(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed + 2**24)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=source(seed), dtype=torch.float64)


def errors(samples: Tensor) -> float:
    """How far from 0 the mean over samples (m, ...) is, in standard errors."""
    size = (samples.std(0) / len(samples) ** 0.5).clamp_min(1e-15)
    return float((samples.mean(0).abs() / size).max())


@FEW
@pytest.mark.parametrize("family", PROBLEMS)
@given(data=st.data())
def test_samples_obey_steins_identity(family: str, data: st.DataObject) -> None:
    """E 1{y = k} (a.grad log p(x, k) phi + a.grad phi) = 0 and E (1{y = k} - p(k | x)) phi = 0 for waves phi.

    The first holds the gradient of each log p(x, k) to the samples of its class, the second what is
    between the classes.
    """
    case = data.draw(PROBLEMS[family])
    problem = case.problem
    x, y = problem.sample(150 if isinstance(problem, Quadrature) else 3000, source(case.seed))[:2]
    flat, x = x.flatten(1), x.requires_grad_()
    logits = problem.log_joint(x)
    a = linalg.unit(normal(case.seed, 3, flat.shape[1]))
    turns = normal(case.seed + 1, flat.shape[1], 3) / flat.std() / flat.shape[1] ** 0.5
    phase = flat @ turns
    for k in range(problem.num_classes):
        (slope,) = torch.autograd.grad(logits[:, k].sum(), x, retain_graph=True)
        own = (y == k).double()[:, None]
        along = slope.flatten(1) @ a.mT * phase.cos() - phase.sin() * (a @ turns).diagonal()
        assert errors((own * along).detach()) < ERRORS
        share = logits.detach().softmax(1)[:, k, None]
        assert errors((own - share) * phase.cos().detach()) < ERRORS


@FEW
@pytest.mark.parametrize("family", DENSITIES)
@given(data=st.data())
def test_samples_follow_the_integral_of_their_density(family: str, data: st.DataObject) -> None:
    """On curves, by the trapezoidal rule on 40,000 intervals; the integral ends at the prior."""
    case = data.draw(DENSITIES[family])
    law, axis = case.problem.densities, case.problem.manifold.axes[0]
    z, y = law.sample(4000, source(case.seed))
    if np.isfinite(axis.high - axis.low):
        z = axis.low + torch.remainder(z - axis.low, axis.high - axis.low)
        grid = torch.linspace(axis.low, axis.high, 40_001, dtype=torch.float64)
    else:
        s = torch.linspace(-1, 1, 40_003, dtype=torch.float64)[1:-1]
        grid = s / (1 - s.square())
    height = law.log_joint(grid[:, None]).exp().nan_to_num()
    rising = torch.cumulative_trapezoid(height, grid, dim=0)
    rising = torch.cat([torch.zeros_like(rising[:1]), rising])
    assert rising[-1].sum().item() == pytest.approx(1, abs=1e-4)
    for k in range(law.num_classes):
        cdf = lambda v, k=k: np.interp(v, grid, rising[:, k] / rising[-1, k]).clip(0, 1)
        assert kolmogorov_p(z[y == k, 0], cdf) > FALSE_ALARM
        count, share = int((y == k).sum()), rising[-1, k].item()
        assert abs(count - 4000 * share) < ERRORS * (4000 * share * (1 - share)) ** 0.5 + 1e-9


def flat(manifold: Manifold) -> Any:
    return lambda z: manifold.embed(z).flatten(1)


def second(manifold: Manifold, z: Tensor, way: Tensor, h: float) -> Tensor:
    """(embed(z + h way) - 2 embed(z) + embed(z - h way)) / h^2"""
    f = flat(manifold)
    found: Tensor = (f(z + h * way) - 2 * f(z) + f(z - h * way)) / h**2
    return found


@FEW
@pytest.mark.parametrize("family", MANIFOLDS)
@given(data=st.data())
def test_curvature_and_volume_by_differences(family: str, data: st.DataObject) -> None:
    """Of steps h and 2h; and no curve on the manifold bends more than the reach allows."""
    manifold, seed = data.draw(MANIFOLDS[family]), data.draw(st.integers(0, 99))
    z, f = strategies.some_points(manifold), flat(manifold)
    here = calculus.frame(f, z)
    way = normal(seed, *z.shape)
    inner = (here.triangle @ way[:, :, None])[:, :, 0]  # of the frame
    form = calculus.second_fundamental_form(f, z)
    exact = torch.einsum("nDij,ni,nj->nD", form, inner, inner)
    scale = 2e-3 * min(manifold.reach, 1.0) / inner.norm(dim=1).max().item()
    near, far = (
        (here.normal(second(manifold, z, way, h)) - exact).norm().item() for h in (scale, 2 * scale)
    )
    rounding = 1e-15 * f(z).abs().max().item() * 100 / scale**2
    assert near < far / 3.5 + rounding
    assert near < 1e-3 * exact.norm().item() + rounding
    bend = exact.norm(dim=1) / inner.square().sum(1)
    assert (bend <= (1 + 1e-9) / manifold.reach).all() or not manifold.reach_certified
    axes = scale * torch.eye(z.shape[1], dtype=torch.float64)
    jacobian = torch.stack([(f(z + e) - f(z - e)) / (2 * scale) for e in axes], 2)
    volume = torch.linalg.slogdet(jacobian.mT @ jacobian).logabsdet / 2
    assert torch.allclose(volume, manifold.log_volume(z), atol=1e-4)


@FEW
@pytest.mark.parametrize("family", MANIFOLDS)
@given(data=st.data())
def test_nothing_near_is_nearer_than_the_nearest_point(family: str, data: st.DataObject) -> None:
    manifold, seed = data.draw(MANIFOLDS[family]), data.draw(st.integers(0, 99))
    z, f = strategies.some_points(manifold), flat(manifold)
    m = manifold.embed(z)
    offset = calculus.frame(f, z).normal(normal(seed, *m.flatten(1).shape))
    x = m + 0.4 * min(manifold.reach, 1.0) * linalg.unit(offset).reshape(m.shape)
    found = manifold.embed(manifold.coordinates(x))
    assert torch.allclose(found, m, atol=1e-9)
    least = (x - found).flatten(1).norm(dim=1)
    for size in (1e-3, 0.03, 0.3):
        moved = z + size * normal(seed + 1, 200, *z.shape)
        inside = (manifold.interior(moved.flatten(0, 1)) > 0).reshape(moved.shape[:2])
        distance = (
            (x - manifold.embed(moved.flatten(0, 1)).reshape(200, *x.shape)).flatten(2).norm(dim=2)
        )
        assert (distance >= least - 1e-12)[inside].all()
