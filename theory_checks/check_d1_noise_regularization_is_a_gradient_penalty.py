r"""D1. Noise regularization is gradient-norm regularization to leading order, with the constant of A2:

    R_s = sum_k E (f_k(x + s Lu) - f_k(x))^2 / s^2 = sum_k |L'g_k|^2 + s^2 b + O(s^4),     L = I or Q,
    b = sum_k tr(HGHG) / 2 + (tr HG)^2 / 4 + g'G grad tr(HG),      G = LL',

and so for every parameter of a smooth network, because Taylor's formula may be differentiated in the
parameters: grad R_s = grad sum_k |L'g_k|^2 + s^2 grad b + O(s^4). What either penalty does to training is
alike up to s^2, and b says what then differs.

The gradient norms are those of the objectives `gradient_penalty` and `normal_penalty`, differentiated as
in training; R_s comes from Gauss-Hermite quadrature and b from derivatives in coordinates along columns C
of all directions, or of the normal ones: those of t -> f(x + Ct) at 0.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from typing import Self, final

import torch
from torch import Tensor, nn

from manifoldlab import catalog, linalg
from manifoldlab.expectations import gauss_hermite
from manifoldlab.gradients import cross_entropy, logit
from manifoldlab.interfaces import Batch
from manifoldlab.manifolds.base import Manifold
from manifoldlab.objectives.gradient_penalty import gradient_penalty
from manifoldlab.objectives.normal_penalty import normal_penalty
from manifoldlab.strategies import SEEDS, Families, manifolds
from manifoldlab.theorem import Control, Rate, Sweep, Theorem
from manifoldlab.verification import hold, reject
from theory_checks.landscapes import Landscape, Ripples

SCALES = (1e-3, 2e-3, 4e-3, 8e-3)
CLASSES, WIDTH = 2, 6
LOUDNESS = 3.0  # of the weights, which are drawn small: f is to be bent
AMBIENT = 3  # at most, for quadrature in all directions
OF_CONTROLS = ("closed_curve", "sphere", "torus_of_revolution")  # families that cost little


@final
@dataclass(frozen=True)
class Network:
    """A perceptron at the points of a landscape."""

    landscape: Landscape
    depth: int
    seed: int = 0

    def on(self, device: str) -> Self:
        same = device == self.landscape.device  # and what it knows of itself is kept
        return self if same else replace(self, landscape=self.landscape.on(device))

    @cached_property
    def model(self) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            build = catalog.find("models", "mlp")
            model: nn.Module = build(self.manifold.shape, CLASSES, width=WIDTH, depth=self.depth)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(LOUDNESS)
        return model.double().to(self.landscape.device)

    @property
    def manifold(self) -> Manifold:
        return self.landscape.manifold

    @property
    def batch(self) -> Batch:
        return self.landscape.batch

    @cached_property
    def columns(self) -> tuple[Tensor, Tensor]:
        """Orthonormal ones (n, D, k) of all of space, and of the normal space."""
        whole = torch.linalg.qr(self.landscape.frame, mode="complete").Q
        return whole, whole[:, :, self.manifold.dim :]

    def gradient_norm(self, objective: Callable[..., Tensor]) -> Tensor:
        """The mean over the points of what the objective penalizes, for both logits together."""
        x = self.batch.x
        both = Batch(x.repeat(2, 1), torch.arange(2, device=x.device).repeat_interleave(len(x)))
        penalized: Tensor = objective(self.model, both, torch.Generator(), strength=1.0, head=logit)
        return 2 * (penalized - cross_entropy(self.model(both.x), both.y).mean())

    def squared_change(self, columns: Tensor, scale: float) -> Tensor:
        """R_s, the mean over the points."""
        x, nodes = self.batch.x, gauss_hermite(columns.shape[2])
        moves = torch.einsum("mk,nDk->mnD", nodes.points.to(x), columns)
        moved = self.model((x + scale * moves).flatten(0, 1)).unflatten(0, moves.shape[:2])
        change = (moved - self.model(x)).square().sum(2)  # (m, n)
        mean: Tensor = (nodes.weights.to(x) @ change).mean()
        return mean / scale**2

    def constants(self, turning: float = 1.0, rest: float = 1.0) -> list[Tensor]:
        """b and b_Q, means over the points; `turning` weighs third derivatives, `rest` the others."""
        return [rest * others + turning * third for others, third in self.bends]

    @cached_property
    def bends(self) -> list[tuple[Tensor, Tensor]]:
        """tr(HGHG) / 2 + (tr HG)^2 / 4 and g'G grad tr(HG), for G = I and G = Q."""
        return [self._bend(columns) for columns in self.columns]

    def _bend(self, columns: Tensor) -> tuple[Tensor, Tensor]:
        t = columns.new_zeros(len(columns), columns.shape[2], requires_grad=True)
        logits = self.model(self.batch.x + (columns @ t[:, :, None])[:, :, 0])
        slope: Callable[[Tensor], Tensor] = lambda f: torch.autograd.grad(
            f.sum(), t, create_graph=True
        )[0]
        others, third = torch.zeros_like(t[:, 0]), torch.zeros_like(t[:, 0])
        for f in logits.unbind(1):
            gradient = slope(f)
            hessian = torch.stack([slope(g) for g in gradient.unbind(1)], 1)
            trace = hessian.diagonal(dim1=1, dim2=2).sum(1)
            others = others + hessian.square().sum((1, 2)) / 2 + trace.square() / 4
            third = third + (gradient * slope(trace)).sum(1)
        return others.mean(), third.mean()

    def sides(self, totals: list[Tensor]) -> Tensor:
        """Two totals and their parameter gradients, in units of those of the gradient norms: (q,)."""
        found = []
        for total, (value, gradient) in zip(totals, self.units, strict=True):
            found += [(total / value)[None], self._gradient(total) / gradient.norm()]
        return torch.cat(found).detach()

    @cached_property
    def units(self) -> list[tuple[Tensor, Tensor]]:
        """The gradient norms in all directions and along normals, and their gradients."""
        normal = partial(normal_penalty, geometry=self.manifold)
        norms = [self.gradient_norm(objective) for objective in (gradient_penalty, normal)]
        return [(norm.detach(), self._gradient(norm)) for norm in norms]

    def _gradient(self, total: Tensor) -> Tensor:
        parameters = list(self.model.parameters())
        slopes = torch.autograd.grad(total, parameters, retain_graph=True, materialize_grads=True)
        return torch.cat([slope.flatten() for slope in slopes])


def excess(case: Network, turning: float = 1.0) -> Sweep:
    """What noise adds to the gradient norms and to their slopes, relatively, against s^2 b."""
    return _sweep(case, case.constants(turning))


def excess_of_all_directions(case: Network) -> Sweep:
    """With b in place of b_Q."""
    return _sweep(case, case.constants()[:1] * 2)


def _sweep(case: Network, constants: list[Tensor]) -> Sweep:
    ones = [
        torch.cat([torch.ones_like(value)[None], linalg.unit(g[None])[0]])
        for value, g in case.units
    ]
    scales = case.batch.x.new_tensor(SCALES)
    changes = [[case.squared_change(c, scale) for c in case.columns] for scale in SCALES]
    left = torch.stack([case.sides(totals) for totals in changes]) - torch.cat(ones)
    return Sweep(scales, left, scales.square()[:, None] * case.sides(constants))


def turning_gap(case: Network) -> Tensor:
    return case.sides(case.constants(rest=0.0))[None]


def directions_gap(case: Network) -> Tensor:
    whole, normal = case.constants()
    return case.sides([0 * whole, normal - whole])[None]


def matters(gap: Callable[[Network], Tensor], case: Network) -> bool:
    """Whether a gap is a tenth of the constants or more."""
    whole = case.sides(case.constants())
    return bool(gap(case).norm() > 0.1 * whole.norm())


def is_small(manifold: Manifold) -> bool:
    return manifold.dim < manifold.ambient <= AMBIENT


@cache
def networks() -> Families:
    """About every manifold of the catalog that fits, of one or two hidden layers."""

    def network(manifold: Manifold, number: int) -> Network:
        ripples = Ripples(manifold.ambient, number)
        return Network(Landscape(manifold, ripples, number, n=3), 1 + number % 2, number)

    found = manifolds((1, 2), (0, 1), fits=is_small).items()
    return {name: m.flatmap(lambda m: SEEDS.map(partial(network, m))) for name, m in found}


def mattering(gap: Callable[[Network], Tensor]) -> Families:
    return {name: networks()[name].filter(partial(matters, gap)) for name in OF_CONTROLS}


LAW = Theorem(
    id="D1",
    title="Noise regularization is a gradient penalty",
    statement=r"$E|f(x+\sigma u)-f(x)|^2/\sigma^2 = |g|^2 + \sigma^2 b + O(\sigma^4)$ for smooth networks,"
    r" $b = \frac{1}{2}\mathrm{tr}\,H^2 + \frac{1}{4}(\mathrm{tr}\,H)^2 + g\cdot\nabla\Delta f$, and likewise"
    r" for the gradients in the parameters, and for noise along normals with $|Qg|^2$ and $b_Q$.",
    claim=Rate(power=2),
    cases=networks,
    measure=excess,
    controls=(
        Control(
            "without the third derivatives",
            partial(excess, turning=0.0),
            turning_gap,
            partial(mattering, turning_gap),
        ),
        Control(
            "the constant of all directions for noise along normals",
            excess_of_all_directions,
            directions_gap,
            partial(mattering, directions_gap),
        ),
    ),
)


def test_holds(family: str) -> None:
    hold(LAW, family)


def test_fails_without_its_assumption(control: Control) -> None:
    reject(LAW, control)
