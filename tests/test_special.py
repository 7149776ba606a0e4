"""Bessel functions and von Mises-Fisher normalizers against 80-digit references."""

import functools
import json
import math
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mpf
from torch import Tensor
from torch.func import hessian, jacfwd, jacrev, jvp, vmap
from torch.utils._python_dispatch import TorchDispatchMode

from manifoldlab import special
from manifoldlab.special import bessel_ratio, bessel_ratio_derivative, log_bessel, vmf_margin

HERE = Path(__file__)
ORACLE = runpy.run_path(str(HERE.with_name("make_special_grid.py")))
GRID = json.loads(HERE.with_name("special_grid.json").read_text())
PRECISION = 1e-12  # promised by THEORY.md, section 1
Transform = Callable[[Callable[[Tensor], Tensor]], Callable[[Tensor], Tensor]]
NORMALIZERS = [special.log_vmf_normalizer, special.scaled_log_vmf_normalizer]
PUBLIC = [log_bessel, bessel_ratio, bessel_ratio_derivative]


def real(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def column(order: float, name: str) -> Tensor:
    """One column of the committed grid; `k` or one of the oracle's FIELDS."""
    index = ["order", "k", *ORACLE["FIELDS"]].index(name)
    return real(*(float(row[index]) for row in GRID["bessel"] if row[0] == order))


def error(value: Tensor, expected: Tensor, scale: Tensor | float = 0.0) -> float:
    """Largest error relative to the expected value or, where it is larger, to the scale."""
    assert value.isfinite().all()
    return float(((value - expected).abs() / expected.abs().clamp_min(scale)).max())


def derivatives(f: Callable[[Tensor], Tensor], k: Tensor, count: int) -> list[Tensor]:
    """f, f', ..., elementwise, by autograd."""
    k = k.detach().clone().requires_grad_()
    found = [f(k)]
    for _ in range(count):
        found += torch.autograd.grad(found[-1].sum(), k, create_graph=True)
    return [v.detach() for v in found]


# References.


@pytest.mark.parametrize("order", [0, 0.5, 3.5, 15, 100, 499])
def test_oracle_agrees_with_mpmath(order: float) -> None:
    with mpmath.workdps(60):
        for k in (1e-3, 0.3, 10, 300, 2400, 2600, 1e4, 1e6):
            found = ORACLE["reference"](order, k)
            lower, upper = (mpmath.besseli(mpf(order) + i, mpf(k)) for i in (0, 1))
            assert abs(mpmath.log(lower) - mpf(k) - found["log_bessel"]) < mpf(10) ** -48
            assert abs(upper / lower / found["ratio"] - 1) < mpf(10) ** -48


def test_grid_is_what_its_script_writes() -> None:
    assert ORACLE["grid"]() == GRID


# Bessel functions on the grid.


@pytest.mark.parametrize("order", ORACLE["ORDERS"])
def test_log_bessel_and_its_derivatives(order: float) -> None:
    k = column(order, "k")
    value, slope, curvature = derivatives(lambda k: log_bessel(order, k), k, 2)
    assert error(value, column(order, "log_bessel"), 1.0) < PRECISION
    # F' and F'' have zeros near k = nu^2: there 1/k and nu/k^2 are the sizes of their terms.
    assert error(slope, column(order, "log_bessel_slope"), 0.5 / k) < PRECISION
    assert error(curvature, column(order, "log_bessel_curvature"), 0.5 / k**2) < PRECISION


@pytest.mark.parametrize("order", ORACLE["ORDERS"])
def test_ratio_and_its_derivatives(order: float) -> None:
    k = column(order, "k")
    by_autograd = derivatives(lambda k: bessel_ratio(order, k), k, 2)
    names = ("ratio", "ratio_derivative", "ratio_second_derivative")
    for found, name in zip(by_autograd, names, strict=True):
        assert error(found, column(order, name)) < PRECISION
    direct, slope = derivatives(lambda k: bessel_ratio_derivative(order, k), k, 1)
    assert torch.equal(direct, by_autograd[1]) and torch.equal(slope, by_autograd[2])


def test_the_identity_for_the_derivative_is_no_substitute() -> None:
    """Control: A' = 1 - A^2 - (2 nu + 1) A/k, from exact digits of A rounded to float64."""
    rows = column(0, "k") == 1e8
    k, a, exact = (column(0, name)[rows] for name in ("k", "ratio", "ratio_derivative"))
    assert error(1 - a**2 - a / k, exact) > 0.5


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 4000), st.floats(-8, 12))
def test_any_order_and_argument(twice_the_order: int, exponent: float) -> None:
    order, k = twice_the_order / 2, 10.0**exponent
    found = ORACLE["reference"](order, k)
    argument = real(k)
    expected = [real(float(v)) for v in found.values()]
    assert error(log_bessel(order, argument), expected[0], 1.0) < PRECISION
    assert error(bessel_ratio(order, argument), expected[4]) < PRECISION
    assert error(bessel_ratio_derivative(order, argument), expected[5]) < PRECISION


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 40), st.floats(0, 40))
def test_real_orders_around_the_switch(order: float, k: float) -> None:
    """Neighbours on both sides of R = 30, and the recurrence I_{nu-1} - I_{nu+1} = 2 nu/k I_nu."""
    argument = real(max(k, 1e-3))
    lower, upper = bessel_ratio(order, argument), bessel_ratio(order + 1, argument)
    assert error(lower * (upper + (2 * order + 2) / argument), real(1.0)) < 1e-14


# Bessel functions at the edges of their domain.


@pytest.mark.parametrize("order", [0, 0.5, 7.25, 30, 2000])
def test_zero(order: float) -> None:
    ratio = derivatives(lambda k: bessel_ratio(order, k), real(0.0), 2)
    assert [float(v) for v in ratio] == pytest.approx([0, 0.5 / (order + 1), 0], rel=1e-14, abs=0)
    assert float(log_bessel(order, real(0.0))) == (0 if order == 0 else -math.inf)
    if order == 0:
        found = derivatives(lambda k: log_bessel(0, k), real(0.0), 2)
        assert [float(v) for v in found] == [0, -1, 0.5]


@pytest.mark.parametrize("f", PUBLIC)
@pytest.mark.parametrize("order", [0, 3.5, 40])
def test_points_do_not_disturb_one_another(f: Callable[..., Tensor], order: float) -> None:
    """A batch over the whole range, with a nan and a negative argument, in any shape."""
    k = real(1e-8, 1e-3, 1.0, 29.0, 31.0, 1e4, 1e12, math.nan, -1.0, 5.0, 1e300, 1e6)
    k = k.reshape(3, 1, 4).requires_grad_()
    value = f(order, k)
    (gradient,) = torch.autograd.grad(value[k < 1e13].nan_to_num().sum(), k)
    assert value.shape == k.shape
    alone = torch.stack([f(order, single) for single in k.detach().flatten()])
    assert torch.allclose(value.flatten(), alone, rtol=0, atol=0, equal_nan=True)
    assert gradient.flatten()[:7].isfinite().all() and value.flatten()[7:9].isnan().all()
    assert f(order, k[:0]).shape == (0, 1, 4)


@pytest.mark.parametrize("f", PUBLIC)
def test_float32_is_rounded_float64(f: Callable[..., Tensor]) -> None:
    k = torch.logspace(-8, 12, 50, dtype=torch.float32).requires_grad_()
    value = f(20.5, k)
    assert value.dtype == torch.float32 and torch.equal(value, f(20.5, k.double()).float())
    (gradient,) = torch.autograd.grad(value.sum(), k)
    assert gradient.dtype == torch.float32 and gradient.isfinite().all()


def test_refusals() -> None:
    with pytest.raises(ValueError, match="order -0.5"):
        log_bessel(-0.5, real(1.0))
    with pytest.raises(ValueError, match="order nan"):
        bessel_ratio(math.nan, real(1.0))
    with pytest.raises(ValueError, match="int64"):
        bessel_ratio(1, torch.tensor([1]))
    with pytest.raises(ValueError, match=r"R\^1"):
        special.log_vmf_normalizer(1, real(1.0))
    with pytest.raises(ValueError, match=r"\(3,\) and \(2,\) for points of shape \(4, 3\)"):
        vmf_margin(torch.zeros(4, 3), torch.zeros(3), torch.zeros(2), radius=1, noise=1)
    with pytest.raises(ValueError, match="noise 0"):
        vmf_margin(torch.zeros(4, 3), torch.zeros(3), torch.zeros(3), radius=1, noise=0)
    with pytest.raises(NotImplementedError, match="beyond its second"):
        derivatives(lambda k: bessel_ratio_derivative(1, k), real(1.0), 2)


# Transforms.


@pytest.mark.parametrize("order", [0, 2.5, 40])
def test_gradients_by_finite_differences(order: float) -> None:
    k = real(3.0, 45.0).requires_grad_()
    for function in PUBLIC:
        f = functools.partial(function, order)
        assert torch.autograd.gradcheck(f, k, check_forward_ad=True, check_batched_grad=True)
        if function is not bessel_ratio_derivative:
            assert torch.autograd.gradgradcheck(f, k)


@pytest.mark.parametrize("second", [jacfwd, jacrev])
@pytest.mark.parametrize("first", [jacfwd, jacrev])
@pytest.mark.parametrize("order", [0, 2.5])
def test_function_transforms(order: float, first: Transform, second: Transform) -> None:
    """Each order of forward and reverse; forward over forward is the one torch gets wrong."""
    k = real(4.0, 1e5)
    for function in PUBLIC[:2]:
        f = functools.partial(function, order)
        known = derivatives(f, k, 2)
        for g, expected in zip((f, first(f), second(first(f))), known, strict=True):
            assert error(vmap(g)(k), expected) < 1e-15


def test_jvp_and_batches_along_another_dimension() -> None:
    k = real(0.3, 4.0, 29.5, 1e5)
    known = derivatives(lambda k: log_bessel(2.5, k), k, 3)
    value, tangent = jvp(lambda k: log_bessel(2.5, k), (k,), (2 * k,))
    assert torch.equal(value, known[0]) and error(tangent, 2 * k * known[1]) < 1e-15
    thrice = vmap(jacfwd(jacfwd(jacfwd(lambda k: log_bessel(2.5, k)))))
    assert error(thrice(k), known[3]) < 1e-15
    columns = vmap(lambda k: log_bessel(2.5, k), in_dims=1, out_dims=1)(k.reshape(2, 2))
    assert torch.equal(columns, known[0].reshape(2, 2))


class _Operations(TorchDispatchMode):
    """Names of all operations run."""

    names: ClassVar[set[str]] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.names.add(str(func))
        return func(*args, **(kwargs or {}))


def test_nothing_is_read_back_from_the_device() -> None:
    operations = _Operations()
    with operations:
        for order in (0, 3.5, 40):
            derivatives(functools.partial(log_bessel, order), real(1.0, 50.0), 2)
        special.scaled_log_vmf_normalizer(3, real(1.0))
        vmf_margin(torch.ones(2, 3), torch.ones(3), torch.zeros(3), radius=1.0, noise=0.1)
    assert "aten.mul.Tensor" in operations.names
    forbidden = ("_local_scalar_dense", "is_nonzero", "nonzero", "equal", "index.")
    assert not [name for name in operations.names if any(f"aten.{f}" in name for f in forbidden)]


# The von Mises-Fisher law.


def test_sphere_area() -> None:
    known = {1: 2, 2: 2 * math.pi, 3: 4 * math.pi, 4: 2 * math.pi**2}
    for n, area in known.items():
        assert special.log_sphere_area(n) == pytest.approx(math.log(area), rel=1e-15)


@pytest.mark.parametrize("n", ORACLE["DIMENSIONS"])
def test_normalizers(n: int) -> None:
    rows = [list(map(float, row[1:])) for row in GRID["normalizer"] if row[0] == n]
    kappa, *expected = (real(*values) for values in zip(*rows, strict=True))
    for normalizer, known in zip(NORMALIZERS, expected, strict=True):
        assert error(normalizer(n, kappa), known, 1.0) < PRECISION


@pytest.mark.parametrize("order", ORACLE["ORDERS"])
def test_derivatives_of_normalizers(order: float) -> None:
    n, k = int(2 * order + 2), column(order, "k")
    names = ("ratio", "ratio_derivative", "ratio_second_derivative")
    plain = derivatives(lambda k: special.log_vmf_normalizer(n, k), k, 3)[1:]
    scaled = derivatives(lambda k: special.scaled_log_vmf_normalizer(n, k), k, 3)[1:]
    for name, found in zip(names, plain, strict=True):
        assert error(-found, column(order, name)) < PRECISION
    for name, found in zip(("ratio_less_one", *names[1:]), scaled, strict=True):
        assert error(-found, column(order, name)) < PRECISION


@pytest.mark.parametrize("n", [2, 3, 50, 62, 4000])
def test_normalizers_at_zero(n: int) -> None:
    plain = derivatives(lambda k: special.log_vmf_normalizer(n, k), real(0.0), 2)
    scaled = derivatives(lambda k: special.scaled_log_vmf_normalizer(n, k), real(0.0), 2)
    area = special.log_sphere_area(n)
    assert [float(v) for v in plain] == pytest.approx([-area, 0, -1 / n], rel=1e-15, abs=0)
    assert [float(v) for v in scaled] == pytest.approx([-area, 1, -1 / n], rel=1e-15, abs=0)


@pytest.mark.parametrize("order", [0, 0.5, 29, 30, 31, 2000])
def test_growth_near_zero_has_no_large_terms(order: float) -> None:
    """L = k^2/4(nu+1) - k^4/32(nu+1)^2(nu+2) + ..., with no log Gamma(nu+1) left to cancel."""
    k = real(0.0, 1e-8, 1e-4, 1e-3)
    series = k**2 / (4 * (order + 1)) - k**4 / (32 * (order + 1) ** 2 * (order + 2))
    assert error(special._log_growth(order, k), series, 1.0) < 1e-16


def margin_case(n: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Points on and off the sphere of radius 1.5 (5, n), and two locations of different size."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(7, n, generator=generator, dtype=torch.float64)
    vectors /= torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    distance = real(1.5, 1.5, 1.4, 1e-3, 4.0)
    return vectors[:5] * distance[:, None], vectors[5] * 20, vectors[6] * 0.5


@pytest.mark.parametrize("noise", [1e-4, 1e-2, 0.3, 1.0])
@pytest.mark.parametrize("n", [2, 3, 10, 100, 3000])
def test_margin_and_its_gradient(n: int, noise: float) -> None:
    x, a, b = margin_case(n, seed=n)
    x = x[:: 1 if n < 1000 else 3].requires_grad_()
    margin = vmf_margin(x, a, b, radius=1.5, noise=noise)
    (gradient,) = torch.autograd.grad(margin.sum(), x)
    for i, point in enumerate(x.tolist()):
        arguments = (point, a.tolist(), b.tolist())
        exact = ORACLE["margin_and_gradient"](*arguments, radius=1.5, noise=noise)
        assert error(margin[i].detach(), real(float(exact[0])), 1.0) < 1e-10
        slope = real(*map(float, exact[1]))
        assert float((gradient[i] - slope).norm() / slope.norm()) < 1e-10


def test_margin_from_absolute_values_loses_digits() -> None:
    """Control: the same density ratio by four values of log C_n."""
    x, a, b = margin_case(3, seed=1)
    pull = 1.5 * x / 1e-4**2
    norms = [v.norm(dim=-1) for v in (a, a + pull, b, b + pull)]
    parts = [special.log_vmf_normalizer(3, norm) for norm in norms]
    exact = vmf_margin(x, a, b, radius=1.5, noise=1e-4)
    assert error(parts[0] - parts[1] - parts[2] + parts[3], exact, 1.0) > 1e-9


def test_margin_between_equal_and_uniform_laws() -> None:
    x, a, _ = margin_case(4, seed=2)
    x[0], uniform = 0, torch.zeros_like(a)
    x.requires_grad_()
    assert not vmf_margin(x, a, a, radius=1.0, noise=0.1).any()
    nothing = vmf_margin(x, uniform, uniform, radius=1.0, noise=0.1)
    against = vmf_margin(x, a, uniform, radius=1.0, noise=0.1)
    reverse = vmf_margin(x, uniform, a, radius=1.0, noise=0.1)
    assert not nothing.any() and torch.equal(against, -reverse)
    (gradient,) = torch.autograd.grad((nothing + against).sum(), x)
    # At the centre k_a = a and k_b = 0, where A vanishes: r/tau^2 A(20) a/20.
    expected = 100 * bessel_ratio(1, a.norm()) * a / a.norm()
    assert error(gradient[0], expected) < 1e-13 and gradient.isfinite().all()


def test_margin_transforms() -> None:
    x, a, b = margin_case(3, seed=3)
    x.requires_grad_()

    def margin(x: Tensor) -> Tensor:
        return vmf_margin(x, a, b, radius=1.5, noise=0.4)

    assert torch.autograd.gradgradcheck(margin, x[:2])
    x = x.detach()
    assert error(vmap(margin)(x), margin(x)) < 1e-14
    assert vmap(hessian(margin))(x).shape == (5, 3, 3)
    rounded = vmf_margin(x.float(), a.float(), b.float(), radius=1.5, noise=1e-3)
    assert rounded.dtype == torch.float32
    exact = vmf_margin(x.float().double(), a.float(), b.float(), radius=1.5, noise=1e-3)
    assert torch.equal(rounded, exact.float())
