"""Smooth positive densities given by a formula on the points of a manifold.

p_y(m) = exp(w_y(m)) interior^6 / Z_y with respect to volume; Z_y by composite Gauss-Legendre
quadrature, so in dimensions 1 to 3. A function of the point is as periodic, or as twisted, as the
chart; `interior` falls linearly to 0 at an edge, so the density has five derivatives there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import inf, isinf
from typing import final

import torch
from numpy.polynomial.legendre import leggauss, legvander
from torch import Tensor

from manifoldlab import mixtures, panels
from manifoldlab.densities.base import Densities, check_priors, draw_labels
from manifoldlab.interfaces import Chart, Patch
from manifoldlab.nearest_point import jacobian

EDGE_POWER = 6
ORDERS = (16, 10)  # nodes of a box, an axis: of the rule that counts and of the one that checks it
TOLERANCE = 1e-13  # of Z_y, by which the two may differ on a box; the error left is far less
MOST_NODES = 2**21
FIRST = {1: 4, 2: 2, 3: 1}  # boxes of a patch, an axis, by the dimension
CELLS = {1: 256, 2: 32, 3: 12}  # the same, an axis, for the envelope of the sampler
MEMORY = 2**24  # numbers at a time, in points or in their tangents


@final
@dataclass(frozen=True)
class Tilt:
    """strength (sin(a_y.m/scale + alpha_y) + sin(b_y.m/scale + beta_y)/2) - |m|^2 / (2 spread^2).

    a_y, b_y are standard normal, so that a change of m by `scale` turns the phases by about 1 in
    every ambient dimension. A finite spread makes the density integrable where M is not bounded.
    """

    num_classes: int
    strength: float = 1.0
    scale: float = 1.0
    spread: float = inf
    seed: int = 0

    def __call__(self, m: Tensor) -> Tensor:
        flat = m.flatten(1)
        waves = _waves(flat.shape[1], self.num_classes, self.seed)
        first, second, phases = (t.to(m) for t in waves)
        unit = flat / self.scale
        total = (unit @ first + phases[0]).sin() + (unit @ second + phases[1]).sin() / 2
        return self.strength * total - (flat / self.spread).square().sum(1, keepdim=True) / 2


@lru_cache(maxsize=16)
def _waves(ambient: int, num_classes: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(2, ambient, num_classes, generator=generator, dtype=torch.float64)
    phases = torch.rand(2, num_classes, generator=generator, dtype=torch.float64)
    return normal[0], normal[1], 2 * torch.pi * phases


@final
@dataclass(frozen=True)
class Smooth(Densities):
    """`log_weight` w takes points (n, *shape) to (n, K).

    `sample` is by rejection under a piecewise constant envelope: the largest of 3^d values in a
    cell, raised by their range. A proposal whose density exceeds the envelope raises it there and
    starts the draw anew, so the law is exact but for an excess that no proposal ever met.
    """

    chart: Chart
    log_weight: Callable[[Tensor], Tensor]
    priors: mixtures.Vector

    def __post_init__(self) -> None:
        check_priors(self.priors, self)
        if self.dim not in CELLS:
            raise ValueError(f"quadrature is for dimensions 1 to 3, not {self.dim}: {self!r}")
        patch, low, high = self._boxes(2)
        self._log_mass_at(patch, (low + high) / 2)

    @property
    def num_classes(self) -> int:
        return len(self.priors)

    @property
    def dim(self) -> int:
        return self.chart.dim

    def log_joint(self, z: Tensor) -> Tensor:
        constant = torch.tensor(self.priors, dtype=torch.float64).log() - self.log_masses
        return self._log_weight(z) + self.chart.log_volume(z)[:, None] + constant.to(z)

    @cached_property
    def log_masses(self) -> Tensor:
        """log Z_y, (K,): boxes are halved until two quadratures agree on each."""
        patch, low, high = self._boxes(FIRST[self.dim])
        finished: list[Tensor] = []
        nodes, change = 0, torch.tensor(inf)
        while len(patch):
            nodes += len(patch) * ORDERS[0] ** self.dim
            if nodes > MOST_NODES or change.isnan().any():
                raise ValueError(
                    f"densities whose mass does not converge: two quadratures differ by a part "
                    f"{change.max():.1e} of it, with {nodes} nodes to come: {self!r}"
                )
            fine, axis = self._log_integrals(patch, low, high, ORDERS[0])
            coarse, _ = self._log_integrals(patch, low, high, ORDERS[1])
            total = torch.cat([*finished, fine]).logsumexp(0)
            change = ((fine - total).exp() - (coarse - total).exp()).abs()
            agree = (change <= TOLERANCE * total.abs().clamp_min(1)).all(1)
            finished.append(fine[agree])
            low, high = panels.split(low[~agree], high[~agree], axis[~agree])
            patch = patch[~agree].repeat(2)
        return torch.cat(finished).logsumexp(0)

    def _boxes(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Every patch cut into `count` boxes an axis: which patch (m,), low and high (m, d)."""
        found = []
        for index, patch in enumerate(self.chart.patches()):
            low, high = torch.tensor([patch.low, patch.high], dtype=torch.float64)
            low, high = panels.grid(low, high, (count,) * self.dim)
            found.append((torch.full((len(low),), index), low, high))
        which, low, high = map(torch.cat, zip(*found, strict=True))
        return which, low, high

    def _log_integrals(
        self, patch: Tensor, low: Tensor, high: Tensor, order: int
    ) -> tuple[Tensor, Tensor]:
        """Of boxes, (m, K), and the axis (m,) along which each is farthest from a polynomial."""
        s, log_weights = panels.nodes(low, high, order)
        values = self._log_mass_at(patch.repeat_interleave(s.shape[1]), s.flatten(0, 1))[1]
        parts = values.reshape(*s.shape[:2], -1) + log_weights[:, :, None]
        log_integral = parts.logsumexp(1)
        shares = (parts - log_integral[:, None]).exp().sum(2)
        shares = shares.reshape(-1, *(order,) * self.dim, 1)
        last = torch.from_numpy(legvander(leggauss(order)[0], order - 1)[:, -2:])
        along = [shares.movedim(i + 1, 1).flatten(2).sum(2) for i in range(self.dim)]
        tails = torch.stack([(marginal @ last).abs().sum(1) for marginal in along], 1)
        return log_integral, tails.argmax(1)

    def _log_mass(self, patch: Patch, s: Tensor) -> Tensor:
        """log of exp(w) interior^6 with respect to the patch's parameters: (m, d) -> (m, K)."""
        ambient = self.chart.embed(patch.coordinates(s[:1])).numel()
        parts = torch.split(s, max(1, MEMORY // (ambient * (self.dim + 1))))
        return torch.cat([self._log_mass_of_part(patch, part) for part in parts])

    def _log_mass_of_part(self, patch: Patch, s: Tensor) -> Tensor:
        z = patch.coordinates(s)
        weight = self._log_weight(z)
        if weight.shape != (len(z), self.num_classes):
            raise ValueError(
                f"log weights of shape {tuple(weight.shape)} at {len(z)} points for "
                f"{self.num_classes} priors: {self!r}"
            )
        if weight.isnan().any() or (weight == inf).any() or weight.amax() == -inf:
            raise ValueError(f"densities that are not positive and finite everywhere: {self!r}")
        change: Tensor = torch.linalg.slogdet(jacobian(patch.coordinates, s)).logabsdet
        return weight + (self.chart.log_volume(z) + change)[:, None]

    def _log_weight(self, z: Tensor) -> Tensor:
        interior = self.chart.interior(z)
        inside = interior > 0
        edge = EDGE_POWER * interior.where(inside, 1).log()
        weight = self.log_weight(self.chart.embed(z))
        return torch.where(inside[:, None], weight + edge[:, None], -inf)

    @cached_property
    def _envelope(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Boxes, and log constants (m, K) above the density on each."""
        patch, low, high = self._boxes(CELLS[self.dim])
        s = panels.nodes(low, high, 3)[0]
        mass = self._log_mass_at(patch.repeat_interleave(s.shape[1]), s.flatten(0, 1))[1]
        values = mass.reshape(*s.shape[:2], -1)
        top, bottom = values.amax(1), values.amin(1)
        # top + (top - bottom), in logarithms, and more than rounding
        raised = top + (2 - (bottom - top).exp()).log() + 1e-9
        return patch, low, high, raised.where(top > -inf, -inf)

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        y = draw_labels(self.priors, n, generator)
        z = torch.empty(n, self.dim, dtype=torch.float64)
        for k in range(self.num_classes):
            z[y == k] = self._draw(k, int((y == k).sum()), generator)
        return z, y

    def _draw(self, k: int, n: int, generator: torch.Generator) -> Tensor:
        patch, low, high, log_envelopes = self._envelope
        log_envelope = log_envelopes[:, k].clone()
        accepted = [torch.empty(0, self.dim, dtype=torch.float64)]
        while (missing := n - sum(map(len, accepted))) > 0:
            proposals = (log_envelope + (high - low).log().sum(1)).softmax(0)
            count = missing + missing // 4 + 16
            cell = mixtures.draw_indices(proposals, count, generator)
            uniform = torch.rand(count, self.dim + 1, generator=generator, dtype=torch.float64)
            s = low[cell] + (high - low)[cell] * uniform[:, :-1]
            z, log_mass = self._log_mass_at(patch[cell], s)
            log_ratio = log_mass[:, k] - log_envelope[cell]
            if (log_ratio > 0).any():
                log_envelope.scatter_reduce_(0, cell, log_mass[:, k] + 0.1, "amax")
                accepted = accepted[:1]
            else:
                accepted.append(z[uniform[:, -1].log() < log_ratio])
        return torch.cat(accepted)[:n]

    def _log_mass_at(self, patch: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates (m, d) and log masses (m, K) at parameters of several patches."""
        z = torch.empty_like(s)
        log_mass = torch.empty(len(s), self.num_classes, dtype=torch.float64)
        for index, piece in enumerate(self.chart.patches()):
            chosen = patch == index
            if chosen.any():
                z[chosen] = piece.coordinates(s[chosen])
                log_mass[chosen] = self._log_mass(piece, s[chosen])
        return z, log_mass


def _size(chart: Chart) -> tuple[float, float]:
    """Root mean square extent of the middle of the manifold, and a spread that bounds the rest."""
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(256, chart.dim, generator=generator, dtype=torch.float64)
    ends = [(-1, 1) if isinf(axis.high - axis.low) else axis[:2] for axis in chart.axes]
    low, high = torch.tensor(ends, dtype=torch.float64).unbind(1)
    stretch = torch.tensor([1e3 if isinf(a.high - a.low) else 1.0 for a in chart.axes])
    z = low + (high - low) * uniform
    middle, far = chart.embed(z).flatten(1), chart.embed(z * stretch).flatten(1)
    extent, reach = ((m - middle.mean(0)).square().sum(1).mean().sqrt() for m in (middle, far))
    scale = float(f"{extent.item():.2g}")
    return scale, inf if reach < 100 * scale else scale


def examples(chart: Chart, seed: int) -> list[Densities]:
    """In three dimensions on bounded manifolds only; on others quadrature takes too many nodes."""
    scale, spread = _size(chart)
    if chart.dim > 3 or chart.dim == 3 and not isinf(spread):
        return []
    classes = 2 + seed % 2
    tilt = Tilt(classes, scale=scale, spread=spread, seed=seed)
    return [Smooth(chart, tilt, mixtures.uneven(classes))]
