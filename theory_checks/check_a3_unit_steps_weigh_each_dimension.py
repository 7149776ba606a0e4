r"""A3. Steps of one length weigh tangent and normal space by their dimensions: along a random unit
vector u of a space of k dimensions E (g.u)^2 = |Pg|^2 / k, so that with r the ratio of root mean
squares off / on

    r^2 = (|Qg|^2 / (D - d)) / (|Pg|^2 / d),      omega = r^2 (D - d) / (r^2 (D - d) + d).

u is uniform on the sphere, hence E uu' = P / k: so it is for the vectors of an orthonormal basis,
each with its negative, which take the place of the random ones here and leave no error of sampling;
they come to `unit_steps` with all sorts of lengths. The steps are those of `on_off_robustness`, at
three sizes; with the negatives all odd powers of the size cancel, and the limit is extrapolated.
If g is isotropic, r^2 is a ratio of independent mean squares of d and D - d normal numbers, of law
F(D - d, d), which must give r^2 the probability that Beta((D - d) / 2, d / 2) gives omega.
"""

from collections.abc import Callable
from functools import partial
from math import lcm

import torch
from torch import Tensor

from manifoldlab import expectations
from manifoldlab.probes.on_off_robustness import Steps, on_off_robustness, unit_steps
from manifoldlab.statistics import Law, isotropic_omega_law, isotropic_r2_law
from manifoldlab.theorem import EXACT, Control, Identity, Sides, Theorem
from manifoldlab.verification import hold, reject
from theory_checks.landscapes import Landscape, everywhere, landscapes

SIZES = (5e-4, 1e-3, 2e-3)
StepRule = Callable[[Tensor, Tensor, int, int], Steps]


def balanced(vectors: Tensor, dim: int) -> Tensor:
    """An orthonormal basis of the span of dim of the vectors (m, n, *shape), and its negative.

    Repeated as often as there is room, with the lengths of the vectors.
    """
    flat = vectors.flatten(2).transpose(0, 1)  # (n, m, D)
    basis = torch.linalg.qr(flat[:, :dim].mT).Q.mT
    basis = torch.cat([basis, -basis], 1).repeat(1, len(vectors) // (2 * dim), 1)
    scaled: Tensor = basis * flat.norm(dim=2, keepdim=True)
    return scaled.transpose(0, 1).reshape(vectors.shape)


def balanced_steps(tangent: Tensor, normal: Tensor, dim: int, codim: int) -> Steps:
    return unit_steps(balanced(tangent, dim), balanced(normal, codim), dim, codim)


def balanced_steps_of_ambient(tangent: Tensor, normal: Tensor, dim: int, codim: int) -> Steps:
    """With D / d for (D - d) / d."""
    steps = balanced_steps(tangent, normal, dim, codim)
    return steps._replace(weight=(dim + codim) / dim)


def shares(case: Landscape, steps: StepRule = balanced_steps) -> Sides:
    """d on^2 and (D - d) off^2 over |g|^2, omega by steps and by gradient, the probability of r^2."""
    dim, size = case.manifold.dim, case.manifold.ambient
    codim = size - dim
    found = on_off_robustness(
        case.model,
        case.batch,
        case.manifold,
        sizes=SIZES,
        directions=2 * lcm(dim, codim),
        steps=steps,
        seed=case.seed,
    )
    gradient = case.gradient.flatten(1)[:, :, None]
    square = gradient.square().sum((1, 2))
    omega = case.across(gradient).square().sum((1, 2)) / square
    sizes = square.new_tensor(SIZES)
    on, off = (_limit((t / sizes).square()) for t in (found.on, found.off))
    left = [dim * on / square, codim * off / square, _limit(found.omega_steps), found.omega]
    right = [1 - omega, omega, omega, omega]
    left.append(_probability(isotropic_r2_law(size, dim), off / on))
    right.append(_probability(isotropic_omega_law(size, dim), omega))
    return Sides(torch.stack(left, 1), torch.stack(right, 1), torch.ones_like(omega))


def _limit(of_sizes: Tensor) -> Tensor:
    return expectations.limit(of_sizes.T)


def _probability(law: Law, values: Tensor) -> Tensor:
    return torch.from_numpy(law.cdf(values.cpu().numpy())).to(values)


def ambient_gap(case: Landscape) -> Tensor:
    """r^2 D / (r^2 D + d) - omega in the third place, with r^2 = omega d / ((1 - omega)(D - d))."""
    g = case.gradient.flatten(1)[:, :, None]
    omega = case.across(g).square().sum((1, 2)) / g.square().sum((1, 2))
    dim, size = case.manifold.dim, case.manifold.ambient
    normal = omega * size / (size - dim)
    gap = torch.zeros(len(omega), 5).to(omega)
    gap[:, 2] = normal / (normal + 1 - omega) - omega
    return gap


LAW = Theorem(
    id="A3",
    title="Unit steps weigh each dimension",
    statement=r"Random steps of length $\epsilon$ along and across $M$ change $f$ by mean squares"
    r" $\epsilon^2|Pg|^2/d$ and $\epsilon^2|Qg|^2/(D-d)$; with $r$ the ratio of their roots"
    r" $\omega = r^2(D-d)/(r^2(D-d)+d)$, and $r^2 \sim F(D-d, d)$ if $g$ is isotropic.",
    claim=Identity(),
    cases=everywhere,
    measure=shares,
    controls=(
        Control(
            "d/D in place of d/(D - d)",
            partial(shares, steps=balanced_steps_of_ambient),
            ambient_gap,
            landscapes,
            within=EXACT,
        ),
    ),
)


def test_holds(family: str) -> None:
    hold(LAW, family)


def test_fails_without_its_assumption(control: Control) -> None:
    reject(LAW, control)
