r"""A2. At finite noise the ratio of A1 differs from omega by sigma^2 (b_Q - omega b) / |g|^2 + O(sigma^4),

    E (f(x + sigma Lu) - f(x))^2 = sigma^2 |L'g|^2 + sigma^4 b_L + O(sigma^6),      G = LL',
    b_L = tr(HGHG) / 2 + (tr HG)^2 / 4 + g'G grad tr(HG),       b = b_I,  b_Q with L = Q.

With h_k the k-th term of Taylor's formula the order sigma^4 is E h_2^2 + 2 E h_1 h_3. For u ~ N(0, I)
E h_2^2 = E (u'Hu)^2 / 4 = tr(H^2) / 2 + (tr H)^2 / 4, and of the fourth moments in
E h_1 h_3 = E (g_i u_i) (f_jkl u_j u_k u_l) / 6 three pairings are alike: g_i f_ikk / 2. A noise Lu puts
L'g and L'HL for g and H. For quadratic f nothing follows; for linear f nothing is left of b.
The left side comes from Gauss-Hermite quadrature, in units of sigma^2 |g|^2, the right one from the
derivatives by autograd, the gradient by `input_gradient` and the normal space by `to_tangent`.
"""

from functools import cache, partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import grad

from manifoldlab import expectations
from manifoldlab.gradients import input_gradient, margin
from manifoldlab.strategies import Families, drawn
from manifoldlab.theorem import Control, Rate, Sweep, Theorem
from manifoldlab.verification import hold, reject
from theory_checks.landscapes import Landscape, bayes_landscapes, landscapes

SCALES = (1e-3, 2e-3, 4e-3, 8e-3)


class Taylor(NamedTuple):
    """Of the margin along the columns C, and what is normal among them."""

    slope: Tensor  # (n, k) C'g
    hessian: Tensor  # (n, k, k) C'HC
    normal: Tensor  # (n, k, k) C'QC
    turning: Tensor  # (n, 2) g'G grad tr(HG) for G = I and G = Q


def excess(case: Landscape, turning: float = 1.0) -> Sweep:
    """Relative to sigma^2 |g|^2, all around and along normals, less 1 and omega; and the ratio's."""
    x = case.batch.x
    around = expectations.directions(lambda c: c, lambda c: c, case.columns)
    across = expectations.directions(case.across, case.across, case.columns)
    gradient = case.gradient.flatten(1)[:, :, None]
    square = gradient.square().sum((1, 2))
    omega = case.across(gradient).square().sum((1, 2)) / square
    change = partial(expectations.mean_squared_change, case.margin, x)
    left = []
    for scale in SCALES:
        whole, normal = change(around, scale), change(across, scale)
        unit = scale**2 * square
        relative = (whole / unit - 1, normal / unit - omega, normal / whole - omega)
        left.append(torch.stack(relative, 1))
    scales = x.new_tensor(SCALES)
    leading = _leading(taylor(case), turning)
    return Sweep(scales, torch.stack(left), scales.square()[:, None, None] * leading)


def taylor(case: Landscape) -> Taylor:
    x, columns = case.batch.x, case.columns
    gradient = input_gradient(case.model, x, case.batch.y, margin).flatten(1)
    vectors = columns.movedim(2, 0).reshape(-1, *x.shape)
    tangent = case.manifold.to_tangent(x, vectors)
    normal = columns.mT @ (vectors - tangent).flatten(2).permute(1, 2, 0)
    slope = (columns.mT @ gradient[:, :, None]).squeeze(2)

    whole = torch.eye(slope.shape[1]).to(x)
    forms = torch.stack([whole.expand_as(normal), normal])  # (2, n, k, k)
    along = (forms @ slope[:, :, None]).squeeze(3)
    hessian, change = _third(case, forms)
    return Taylor(slope, hessian, normal, (along * change).sum(2).T)


def _third(case: Landscape, forms: Tensor) -> tuple[Tensor, Tensor]:
    """C'HC (n, k, k), and grad tr(HG) along C for each form G, (m, n, k)."""
    x, columns = case.batch.x, case.columns
    size = forms.shape[3]
    rows = torch.eye(size).to(x)[:, None]  # (k, 1, k): each row of the Hessian at points of its own

    def value(t: Tensor) -> Tensor:  # (m, k, n, k)
        moves = (columns @ t[..., None]).reshape(-1, *x.shape)
        return case.margin(x + moves).sum()

    def trace(t: Tensor) -> tuple[Tensor, Tensor]:
        hessian = grad(lambda t: (grad(value)(t) * rows).sum())(t)
        return (hessian * forms.transpose(1, 2)).sum(), hessian

    change, hessian = grad(trace, has_aux=True)(x.new_zeros(len(forms), size, len(x), size))
    return hessian[0].transpose(0, 1), change.sum(1)


def _leading(at: Taylor, turning: float = 1.0) -> Tensor:
    """(b, b_Q, b_Q - omega b) / |g|^2, (n, 3); `turning` weighs the third derivatives."""
    bent = torch.stack([at.hessian, at.hessian @ at.normal], 1)  # (n, 2, k, k)
    trace = bent.diagonal(dim1=2, dim2=3).sum(2)
    squared = (bent * bent.mT).sum((2, 3))
    return _relative(at, squared / 2 + trace.square() / 4 + turning * at.turning)


def _relative(at: Taylor, b: Tensor) -> Tensor:
    """From b and b_Q (n, 2)."""
    square = at.slope.square().sum(1)
    omega = (at.slope[:, None] @ at.normal @ at.slope[:, :, None]).flatten() / square
    whole, normal = b.unbind(1)
    return torch.stack([whole, normal, normal - omega * whole], 1) / square[:, None]


def turning_gap(case: Landscape) -> Tensor:
    at = taylor(case)
    return _relative(at, at.turning)[None]


def bends(case: Landscape) -> bool:
    """Whether there is a constant to measure: Bayes margins are linear in some problems."""
    x = case.batch.x
    step = case.normal(*x.shape, stream=4)
    second = case.margin(torch.stack([x + step, x - step])).sum(0) - 2 * case.margin(x[None])[0]
    return bool(second.norm() > 0.1 * case.gradient.norm())


def turns(case: Landscape) -> bool:
    """Whether the third derivatives matter: a tenth of the constant or more."""
    at = taylor(case)
    return bool(_relative(at, at.turning).norm() > 0.1 * _leading(at).norm())


@cache
def bent() -> Families:
    bayes = {name: strategy.filter(bends) for name, strategy in bayes_landscapes().items()}
    return {**landscapes(), **{name: s for name, s in bayes.items() if drawn(s, 1)}}


def turning() -> Families:
    return {name: strategy.filter(turns) for name, strategy in landscapes().items()}


LAW = Theorem(
    id="A2",
    title="Finite noise adds a constant times its square",
    statement=r"$E(f(x+\sigma u)-f(x))^2 = \sigma^2|g|^2 + \sigma^4 b + O(\sigma^6)$,"
    r" $b = \frac{1}{2}\mathrm{tr}\,H^2 + \frac{1}{4}(\mathrm{tr}\,H)^2 + g\cdot\nabla\Delta f$; along"
    r" normals $b_Q$; so the ratio of A1 is"
    r" $\omega + \sigma^2(b_Q - \omega b)/|g|^2 + O(\sigma^4)$.",
    claim=Rate(power=2),
    cases=bent,
    measure=excess,
    controls=(
        Control(
            "without the third derivatives", partial(excess, turning=0.0), turning_gap, turning
        ),
    ),
)


def test_holds(family: str) -> None:
    hold(LAW, family)


def test_fails_without_its_assumption(control: Control) -> None:
    reject(LAW, control)
