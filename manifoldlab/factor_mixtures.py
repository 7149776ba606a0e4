"""Mixtures of factor analyzers with isotropic noise, fitted to points by expectation and maximization.

What is unknown are the components that points come from (Tipping and Bishop 1999, Mixtures of
probabilistic principal component analyzers, section 3). With r_nj = p(j | x_n), component j gets the
weighted mean and, of the weighted covariance S_j, the d leading eigenvectors and eigenvalues l_i:

    s^2 = (tr S_j - sum_i l_i) / (D - d),    a_i^2 = l_i - s^2.

Eigenvectors are sought in the span of the last ones, U, and of S_j U (Rayleigh, Ritz), so that nothing is
larger than points or D x 2d. The span holds U, of all its frames the Ritz vectors have the largest
l_i, and the likelihood grows with each l_i above s^2: no round lowers it, and in the end they are those of
S_j. Where D <= 2d one round finds them.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from manifoldlab.factor_components import FactorComponents
from manifoldlab.mixtures import draw_indices

WARM = 4  # rounds for the frames alone, which start at random
LLOYD = 10  # rounds of k-means before them
Advance = Callable[[int, float], None]


class Fit(NamedTuple):
    law: FactorComponents  # of one class
    log_likelihood: Tensor  # (rounds,), nats a point; the last one is the law's
    dropped: tuple[int, ...]  # rounds after which a component was taken away: the next may be lower
    converged: bool


def silent(rounds: int, log_likelihood: float) -> None:
    """Told after each round how many were done, and what a point has got."""


def fit(
    x: Tensor,
    components: int,
    dim: int,
    *,
    seed: int = 0,
    tolerance: float = 1e-6,
    rounds: int = 500,
    floor: float = 1e-4,
    advance: Advance = silent,
) -> Fit:
    """Of points (n, D), in float64 on their device, from clusters that start at points drawn by `seed`.

    It stops when a round gains less than `tolerance` nats for each of D dimensions. s^2 is at least
    `floor` of the variance of a coordinate. A component that stands for fewer than dim + 2 points is
    taken away, the smallest first: its points would lie on its flat.
    """
    check(x, components, dim, floor)
    centre = x.double().mean(0)
    points = x.double() - centre
    least = floor * points.square().mean().item()
    law = _started(points, components, dim, least, torch.Generator().manual_seed(seed))
    found: list[float] = []
    dropped: list[int] = []
    while True:
        parts = law.parts(points)[:, 0]  # (n, J)
        found.append(parts.logsumexp(1).mean().item())
        advance(len(found), found[-1])
        kept = _kept(parts, dim + 2)
        still = len(found) > 1 and len(found) - 1 not in dropped and len(kept) == parts.shape[1]
        converged = still and found[-1] - found[-2] < tolerance * x.shape[1]
        if converged or len(found) == rounds:
            law = replace(law, means=law.means + centre)
            return Fit(law, torch.tensor(found, dtype=torch.float64), tuple(dropped), converged)
        dropped += [len(found)] * (len(kept) < parts.shape[1])
        law = maximized(points, parts[:, kept].softmax(1), law.frames[0, kept], least)


def _started(
    x: Tensor, components: int, dim: int, least: float, generator: torch.Generator
) -> FactorComponents:
    share = _clusters(x, components, generator)
    random = torch.randn(components, dim, x.shape[1], generator=generator, dtype=torch.float64)
    law = maximized(x, share, random.to(x.device), least)
    for _ in range(WARM):
        law = maximized(x, share, law.frames[0], least)
    return law


def maximized(x: Tensor, share: Tensor, start: Tensor, least: float) -> FactorComponents:
    """The best law for shares r (n, J) of centred points, its frames sought from `start` (J, d, D)."""
    count = share.sum(0)
    means = share.mT @ x / count[:, None]
    turned = _moment(x, share, means, start) / count[:, None, None]  # S U
    block: Tensor = torch.linalg.qr(torch.cat([start, turned], 1).mT).Q.mT  # (J, 2d, D)
    along = _along(x, means, block)  # (n, J, 2d)
    form = torch.einsum("njp,nj,njq->jpq", along, share, along) / count[:, None, None]
    values, vectors = torch.linalg.eigh(form)
    dim, ambient = start.shape[1:]
    values = values.flip(1)[:, :dim]  # descending
    frames = vectors.flip(2)[:, :, :dim].mT @ block
    total = share.mT @ x.square().sum(1) / count - means.square().sum(1)
    # of the first k factors only, where the next has no more than the noise: the least of all k
    taken = torch.nn.functional.pad(values.cumsum(1), (1, 0))
    left = ambient - torch.arange(dim + 1, device=x.device)
    variance = ((total[:, None] - taken) / left).amin(1).clamp_min(least)
    deviations = (values - variance[:, None]).clamp_min(0).sqrt()
    log_weights = (count / len(x)).log()
    parts = (log_weights, means, frames, deviations, variance.sqrt())
    return FactorComponents(*(part[None] for part in parts))


def _along(x: Tensor, means: Tensor, rows: Tensor) -> Tensor:
    """rows (x - mean) of each component, (n, J, p)."""
    feet = (rows @ means[:, :, None]).squeeze(2)
    return torch.unflatten(x @ rows.flatten(0, 1).mT, 1, rows.shape[:2]) - feet


def _moment(x: Tensor, share: Tensor, means: Tensor, rows: Tensor) -> Tensor:
    """sum_n r_nj rows (x_n - m_j) (x_n - m_j)', (J, p, D); what m_j takes from the last factor is 0."""
    weighted = share[:, :, None] * _along(x, means, rows)
    return torch.unflatten(weighted.flatten(1).mT @ x, 0, rows.shape[:2])


def _kept(parts: Tensor, least: int) -> Tensor:
    """Components (J,) but for the smallest, if it has too few points."""
    count = parts.softmax(1).sum(0)
    every = torch.arange(len(count), device=parts.device)
    return every[every != count.argmin()] if len(count) > 1 and count.min() < least else every


def _clusters(x: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Shares (n, J) of 0 and 1 by k-means from far points (Arthur and Vassilvitskii 2007)."""
    centres = x[draw_indices(torch.ones(len(x)), 1, generator).to(x.device)]
    for _ in range(count - 1):
        distance = _squares(x, centres).amin(1).clamp_min(0).cpu()
        chances = distance if distance.sum() > 0 else torch.ones_like(distance)
        centres = torch.cat([centres, x[draw_indices(chances, 1, generator).to(x.device)]])
    for _ in range(LLOYD):
        share = torch.nn.functional.one_hot(_squares(x, centres).argmin(1), count).to(x)
        size = share.sum(0)[:, None]
        centres = (share.mT @ x / size.clamp_min(1)).where(size > 0, centres)
    # an empty cluster has a hundredth of each point, so that its mean exists; it will be dropped
    return torch.where(share.sum(0) > 0, share, 0.01 / len(x))


def _squares(x: Tensor, centres: Tensor) -> Tensor:
    return x.square().sum(1)[:, None] - 2 * x @ centres.mT + centres.square().sum(1)


def check(x: Tensor, components: int, dim: int, floor: float) -> None:
    """Refuses points that are no table or not finite, and more unknown than they can tell."""
    if x.ndim != 2 or not bool(x.isfinite().all()):
        raise ValueError(f"points are a finite table (n, D), not of shape {tuple(x.shape)}")
    if components < 1 or not 1 <= dim < x.shape[1]:
        raise ValueError(
            f"{components} components of {dim} factors in dimension {x.shape[1]}: "
            "at least one of each, and fewer factors than dimensions"
        )
    if len(x) < components * (dim + 2):
        raise ValueError(
            f"{len(x)} points for {components} components of {dim} factors: "
            f"each needs {dim + 2}, all {components * (dim + 2)}"
        )
    if not 0 < floor < 1 or not x.std(0).any():
        raise ValueError(
            f"a floor strictly between 0 and 1 of a variance above 0, not {floor} of {x.var(0).mean():.3g}"
        )
