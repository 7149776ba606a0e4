"""Any densities on any curve, surface or solid, blurred by isotropic noise tau: by quadrature.

    log p(x, y) = log int q_y(z) N(x; embed(z), tau^2 I) dz

Composite Gauss-Legendre: panels on which the density and the chart are resolved, and which near x
are no longer than EDGE tau / sqrt(1 + dist(x, M) / reach), for the exponent |x - m|^2 / 2 tau^2 is that
much steeper off M, and shorter still at an edge of M (`cover`). Only panels with weight are kept.
Squared distances are sums of squares of differences and relative to the nearest point, so that logit
differences keep their digits at any tau.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import ceil, inf, log, pi
from typing import final

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from manifoldlab import cover, panels
from manifoldlab.cover import Limits, Panels, Selection
from manifoldlab.densities.base import Densities
from manifoldlab.densities.smooth import Smooth, Tilt
from manifoldlab.interfaces import Patch
from manifoldlab.manifolds.base import Manifold
from manifoldlab.manifolds.closed_curve import ClosedCurve
from manifoldlab.manifolds.torus_of_revolution import TorusOfRevolution
from manifoldlab.nearest_point import jacobian
from manifoldlab.problems.base import Isotropic, Problem, check_chart, check_noise, check_points

TOLERANCE = (
    1e-10  # what halving every panel may change, in the scale max(1, (|x|^2 + r^2) / 2 tau^2)
)
RESOLVED = 1e-13  # likewise for the mass of the densities on the first panels
MOST_PANELS = 2**14


@final
@dataclass(frozen=True)
class Quadrature(Isotropic):
    manifold: Manifold
    densities: Densities
    noise: float
    order: int = 10  # Gauss-Legendre nodes of a panel, an axis
    edge: float = 2.5  # longest edge of a panel, in units of the noise
    budget: int = 2**25  # numbers held at a time: pairs of a sample and a panel, x nodes x D

    def __post_init__(self) -> None:
        check_noise(self.noise, self)
        check_chart(self.densities, self.manifold, self)
        if not 1 <= self.manifold.dim <= 3:
            raise ValueError(
                f"quadrature is for dimensions 1 to 3, not {self.manifold.dim}: {self!r}"
            )
        if self.order < 2 or not 0 < self.edge < inf:
            raise ValueError(f"a rule has order >= 2 and a finite edge > 0, not {self!r}")

    def log_joint(self, x: Tensor) -> Tensor:
        return self._integrated(x, moments=False)[0]

    def denoise(self, x: Tensor) -> Tensor:
        """E[m | x], the posterior mean of the clean point, (n, *shape)."""
        log_joint, mean = self._integrated(x, moments=True)
        return torch.einsum("nk,nkD->nD", log_joint.softmax(1), mean).reshape(x.shape)

    def _integrated(self, x: Tensor, moments: bool) -> tuple[Tensor, Tensor]:
        """log_joint (n, K) and, where asked for, E[m | x, y] (n, K, D); float64 within, as x without.

        In float32 a difference x - m of 1e-3 keeps four digits, and its square over tau^2 as many.
        """
        check_points(x, self)
        flat = x.flatten(1).double()
        selection = self._select(flat.detach())
        if len(x):
            self._refuse_if_coarse(flat.detach(), selection)
        total, mean = self._summed(flat, selection, self.order, moments)
        return total.to(x.dtype), mean.to(x.dtype)

    def _select(self, x: Tensor) -> Selection:
        if not bool(x.isfinite().all()):
            bad = x[~x.isfinite().all(1)][0]
            raise ValueError(f"points that are not finite: {bad[:6].tolist()}: {self!r}")
        first = Panels(*(t.to(x.device) for t in self._integrand.resolved))
        limits = Limits(self.noise, self.manifold.reach, self.edge)
        return cover.select(self._integrand.embed, first, x, limits)

    @torch.no_grad()
    def _refuse_if_coarse(self, x: Tensor, selection: Selection) -> None:
        """Doubles the nodes at the point that is farthest from the manifold."""
        worst = int(selection.nearest.argmax())
        point, one = x[worst : worst + 1], selection.of(worst)
        doubled = ceil(self.order * 2 ** (1 / self.manifold.dim))
        here, mean = self._summed(point, one, self.order, moments=True)
        finer, finer_mean = self._summed(point, one, doubled, moments=True)
        radius = one.panels.lattice.norm(dim=2).amax().item()
        scale = max(1.0, (point.square().sum().item() + radius**2) / (2 * self.noise**2))
        score = (mean - finer_mean).abs().amax().item() / self.noise**2
        change = max((here - finer).abs().amax().item(), score) / scale
        if not change <= TOLERANCE:
            raise ValueError(
                f"quadrature of order {self.order} on panels of {self.edge} noises changes by "
                f"{change:.1e} when its nodes are doubled, more than {TOLERANCE:.0e}, "
                f"{one.nearest.item():.3g} from the manifold at {point[0, :6].tolist()}; "
                f"take a higher order or a shorter edge: {self!r}"
            )

    def _summed(
        self, x: Tensor, selection: Selection, order: int, moments: bool
    ) -> tuple[Tensor, Tensor]:
        """Integrals over chunks of pairs, each redone in the backward pass instead of kept."""
        found, pairs, nearest = selection
        shift = nearest.square() / (2 * self.noise**2)
        size = max(1, self.budget // (order**self.manifold.dim * x.shape[1]))
        keep = len(pairs.sample) <= size or not (x.requires_grad and torch.is_grad_enabled())
        parts = []
        chunks = (torch.split(pairs.sample, size), torch.split(pairs.panel, size))
        for sample, panel in zip(*chunks, strict=True):
            of_chunk, place = torch.unique(panel, return_inverse=True)
            points, log_weight = self._integrand.nodes(found.pick(of_chunk), order)
            arguments = (x[sample], points, log_weight, place, shift[sample], moments)
            parts.append(
                self._of_pairs(*arguments)
                if keep
                else checkpoint(self._of_pairs, *arguments, use_reentrant=False)
            )
        pair_log, pair_mean = (torch.cat(t) for t in zip(*parts, strict=True))
        total, mean = _gathered(pair_log, pair_mean, pairs.sample, len(x))
        constant = self.manifold.ambient * log(2 * pi * self.noise**2) / 2
        return total - (shift + constant)[:, None], mean

    def _of_pairs(
        self,
        x: Tensor,
        points: Tensor,
        log_weight: Tensor,
        place: Tensor,
        shift: Tensor,
        moments: bool,
    ) -> tuple[Tensor, Tensor]:
        """Of each pair the log integral (p, K) and the mean point of each class, (p, K, D)."""
        m = points[place]  # (p, nodes, D)
        square = (x[:, None] - m).square().sum(2)
        exponent = shift[:, None] - square / (2 * self.noise**2)
        terms = exponent[:, :, None] + log_weight[place]  # (p, nodes, K)
        total = terms.logsumexp(1)
        if not moments:
            return total, total.new_empty(len(x), 0, 0)
        share = (terms - total[:, None]).exp().nan_to_num(0.0)
        return total, torch.einsum("pqk,pqD->pkD", share, m)

    @property
    def _integrand(self) -> "Integrand":
        return integrand(self.manifold, self.densities, self.order)


@final
@dataclass(frozen=True)
class Integrand:
    """q_y on the panels of a manifold, whatever the noise."""

    manifold: Manifold
    densities: Densities
    order: int

    @torch.no_grad()
    def nodes(self, found: Panels, order: int) -> tuple[Tensor, Tensor]:
        """Points (m, nodes, D) and log(weight * q_y) with respect to dz (m, nodes, K)."""
        s, log_weight = panels.nodes(found.low, found.high, order)
        patch = found.patch.repeat_interleave(s.shape[1])
        points, density = self._at(patch, s.flatten(0, 1))
        points, density = (torch.unflatten(t, 0, s.shape[:2]) for t in (points, density))
        return points, density + log_weight[:, :, None]

    def _at(self, patch: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """Points (m, D), and log q_y with respect to the parameters s, (m, K)."""
        points = s.new_empty(len(s), self.manifold.ambient)
        density = s.new_empty(len(s), self.densities.num_classes)
        for index, piece in enumerate(self._patches):
            chosen = patch == index
            z = piece.coordinates(s[chosen])
            change = torch.linalg.slogdet(jacobian(piece.coordinates, s[chosen])).logabsdet
            points[chosen] = self.manifold.embed(z).flatten(1)
            density[chosen] = self.densities.log_joint(z) + change[:, None]
        return points, density

    def embed(self, patch: Tensor, s: Tensor) -> Tensor:
        points = s.new_empty(len(s), self.manifold.ambient)
        for index, piece in enumerate(self._patches):
            chosen = patch == index
            points[chosen] = self.manifold.embed(piece.coordinates(s[chosen])).flatten(1)
        return points

    @cached_property
    def _patches(self) -> tuple[Patch, ...]:
        return self.manifold.patches()

    @cached_property
    @torch.no_grad()
    def resolved(self) -> Panels:
        """Panels on which the order resolves every q_y: halved until that changes no mass."""
        patch, low, high = self._boxes()
        found: list[Panels] = []
        total = torch.zeros(self.densities.num_classes, dtype=torch.float64)
        count = 0
        while len(patch):
            whole = cover.measured(self.embed, patch, low, high)
            axes = ~cover.regular_axes(whole)
            mass, halves = self._masses(whole), self._halves(whole)
            change, count = (mass - halves).abs(), count + len(patch)
            axes |= ~(change <= RESOLVED * (total + halves.sum(0))).all(1)[:, None]
            if count > MOST_PANELS or not halves.isfinite().all():
                raise ValueError(
                    f"{count} panels of order {self.order} do not resolve the densities: halving "
                    f"them changes a mass by {change.amax().item():.1e}: {self!r}"
                )
            empty = (halves == 0).all(1)  # below exp(-700): the far end of an infinite axis
            good = ~axes.any(1)
            total = total + halves[good | empty].sum(0)
            found.append(whole.pick(good & ~empty))
            again = ~(good | empty)
            low, high, parent = panels.split_axes(low[again], high[again], axes[again])
            patch = patch[again][parent]
        return Panels(*(torch.cat(t) for t in zip(*found, strict=True)))

    def _masses(self, found: Panels) -> Tensor:
        """int q_y over each panel, (m, K)."""
        return self.nodes(found, self.order)[1].exp().sum(1)

    def _halves(self, found: Panels) -> Tensor:
        """The same from its 2^d parts."""
        every = torch.ones_like(found.low, dtype=torch.bool)
        low, high, parent = panels.split_axes(found.low, found.high, every)
        parts = self._masses(found.pick(parent)._replace(low=low, high=high))
        return parts.new_zeros(len(found.patch), parts.shape[1]).index_add(0, parent, parts)

    def _boxes(self) -> tuple[Tensor, Tensor, Tensor]:
        cuts = {1: 16, 2: 6, 3: 4}[self.manifold.dim]
        boxes = []
        for index, piece in enumerate(self._patches):
            first, last = (torch.tensor(t, dtype=torch.float64) for t in (piece.low, piece.high))
            low, high = panels.grid(first, last, (cuts,) * self.manifold.dim)
            boxes.append((torch.full((len(low),), index), low, high))
        patch, low, high = (torch.cat(t) for t in zip(*boxes, strict=True))
        return patch, low, high


integrand = lru_cache(maxsize=64)(Integrand)  # the panels are found once for all noises


def _gathered(value: Tensor, mean: Tensor, sample: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Pairs (p, K) added up by sample in logarithms (n, K), and their means weighted by them."""
    top = value.detach().new_full((n, value.shape[1]), -inf)
    top = top.scatter_reduce(0, sample[:, None].expand_as(value), value.detach(), "amax")
    top = top.where(top > -inf, 0)
    share = (value - top[sample]).exp()
    total = torch.zeros_like(top).index_add(0, sample, share)
    if not mean.numel():
        return top + total.log(), mean
    summed = mean.new_zeros(n, *mean.shape[1:]).index_add(0, sample, share[:, :, None] * mean)
    return top + total.log(), summed / total[:, :, None]


def examples(seed: int) -> list[Problem]:
    curve = ClosedCurve(ambient=2 + seed % 2, seed=seed)
    surface = TorusOfRevolution(2.0, 0.75)
    tilts = [Tilt(2 + seed % 2, seed=seed + k) for k in range(2)]
    priors = (0.4, 0.6) if seed % 2 == 0 else (0.5, 0.3, 0.2)
    return [
        Quadrature(curve, Smooth(curve, tilts[0], priors), 0.1 + seed % 3 / 10),
        Quadrature(surface, Smooth(surface, tilts[1], priors), 0.3),
    ]
