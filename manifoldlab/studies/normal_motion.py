"""What training does to N = W_1 (I - Pi), the first weights across the span of the points.

Pi projects on that span. Factors are what a law says that the next step takes N times: in networks of
one layer, two logits with m = y f, f = w.x + b and w = W_1[1] - W_1[0], which moves twice as fast as
each of the two rows,

    l2 attacks of radius eps    1 - 2 eta eps E s(-m) / |w|,        m the margin of attacked points
    noise sigma                 1 - 2 eta sigma^2 E s(m) s(-m),     m that of noisy ones, in the mean

with the rate eta and the logistic function s (law D4).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from manifoldlab import gradients, linalg
from manifoldlab.architecture import Architecture
from manifoldlab.expectations import gauss_hermite
from manifoldlab.interfaces import Batch
from manifoldlab.probes.tangent_alignment import tangent_alignment
from manifoldlab.studies.flats import Flats
from manifoldlab.studies.watching import Factor

ORDER = 48  # of the quadrature over noisy margins


def constant(value: float) -> Factor:
    return lambda model, batch: torch.tensor(value, dtype=torch.float64)


unknown = constant(torch.nan)


def first_weights(model: nn.Module) -> Tensor:
    """W_1 of every member of an ensemble, (E, width, D)."""
    return next(m for m in model.modules() if isinstance(m, nn.Linear)).weight.detach()


def row_difference(model: nn.Module) -> Tensor:
    """w of networks of one layer, (E, 1, D); no step moves the sum of the two rows, but decay."""
    return first_weights(model).diff(dim=1)


def is_linear(architecture: Architecture) -> bool:
    return architecture.options.get("depth") == 0


def weights_of(architecture: Architecture) -> Callable[[nn.Module], Tensor]:
    return row_difference if is_linear(architecture) else first_weights


def margins(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """m = y f of networks of one layer (E, n), and |w| (E, 1)."""
    w = row_difference(model)
    found: Tensor = gradients.margin(model(batch.x), batch.y)
    return found.reshape(len(w), -1), w.flatten(1).norm(dim=1, keepdim=True)


def of_attacks(model: nn.Module, batch: Batch, *, rate: float, radius: float) -> Tensor:
    m, size = margins(model, batch)
    hit = (radius * size - m).sigmoid().mean(1, keepdim=True)  # s(-(m - eps |w|))
    return (1 - 2 * rate * radius * hit / size)[:, 0]


def of_noise(model: nn.Module, batch: Batch, *, rate: float, noise: float) -> Tensor:
    m, size = margins(model, batch)
    nodes = gauss_hermite(1, ORDER)
    noisy = m + noise * size * nodes.points[:, :, None]  # (nodes, E, n)
    mean = nodes.weights @ (noisy.sigmoid() * (-noisy).sigmoid()).mean(2)
    return 1 - 2 * rate * noise**2 * mean


@final
@dataclass(frozen=True, eq=False)
class NormalMotion:
    """What is measured of the networks at a step, (E,) each."""

    flats: Flats
    batch: Batch  # other points, without noise
    weights: Callable[[nn.Module], Tensor]
    start: Tensor  # N(0), (E, width, D)
    rectifiers: bool

    def __call__(self, model: nn.Module, product: Tensor) -> dict[str, Tensor]:
        normal = self.flats.unseen(self.weights(model))
        factor = product.expand(len(normal))
        omega = tangent_alignment(model, self.batch, self.flats).omega
        g = gradients.input_gradient(model, self.batch.x, self.batch.y, gradients.margin)
        square = self.flats.unseen(g.reshape(len(normal), -1, g.shape[1])).square().sum(2)  # (E, n)
        return {
            "moved": self._distance(normal, torch.ones_like(factor)),
            "off": self._distance(normal, factor),
            "size": normal.flatten(1).norm(dim=1) / self.start.flatten(1).norm(dim=1),
            "kept": linalg.inner(normal, self.start) / linalg.squared_norm(self.start),
            "predicted": factor,
            "omega": omega.reshape(len(normal), -1).nanmean(1),
            "gradient": square.mean(1),
            "chi_square": self._in_law(model, square),
        }

    def _distance(self, normal: Tensor, factor: Tensor) -> Tensor:
        """max |N(t) - factor N(0)| / max |N(0)|"""
        change = (normal - factor[:, None, None] * self.start).abs()
        return change.amax((1, 2)) / self.start.abs().amax((1, 2))

    def _in_law(self, model: nn.Module, square: Tensor) -> Tensor:
        """m D |(I - Pi) g|^2 / k over its mean in the law of two layers of rectifiers."""
        if not self.rectifiers:
            return torch.full_like(square[:, 0], torch.nan)
        weights = first_weights(model)
        members, width, ambient = weights.shape
        x = self.batch.x.reshape(members, -1, ambient)
        active = (x @ weights.mT > 0).sum(2)
        degrees = ambient - self.flats.span.shape[2]
        ratio: Tensor = width * ambient * square / active / degrees
        return ratio.nanmean(1)
