"""Tangent spaces as the range of a denoiser's Jacobian J = dD / dx at x and noise sigma (law C3).

For the ideal D(x) = E[m | x] the matrix J = Cov[m | x] / sigma^2 is symmetric, on the manifold equal to
the tangent projector up to O(sigma^2), and at m + N on it has the eigenvalues 1 / (1 - k_i): its leading
eigenvectors span the tangent space of the nearest point. A trained D is not quite symmetric: taken are

    the leading eigenvectors of (J + J')/2,   or, not symmetric, the leading left singular vectors of J,

by Krylov iteration with products of J and J'; `unsettled` says how far it got. No D x D matrix.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any, Protocol, final

import torch
from torch import Tensor, nn

from manifoldlab import krylov
from manifoldlab.architecture import Architecture
from manifoldlab.interfaces import Batch
from manifoldlab.jacobian_range import backward_product, forward_product
from manifoldlab.neighbours import check_finite
from manifoldlab.tangents.base import (
    Estimator,
    Spaces,
    check_dim,
    check_evaluating,
    check_rank,
    in_chunks,
    weights,
)

ROUNDING = 100  # eps of the largest eigenvalue: what sums of many terms make of one that is 0


class Denoise(Protocol):
    def __call__(self, x: Tensor, sigma: float, /, *label: Tensor) -> Tensor:
        """x (n, *shape) with noise sigma, and labels (n,) if it is conditional -> E[clean | x]"""


@final
@dataclass(frozen=True, eq=False)
class Denoiser(Estimator):
    model: Denoise = field(repr=False)
    sigma: float
    dim: int
    symmetric: bool = True
    conditional: bool = False  # on the labels of the batch
    extra: int = 4  # directions carried along beside the leading ones
    depth: int = 4  # of the Krylov space: 2 depth (dim + extra) D numbers a sample
    most: int = 20  # rounds of iteration
    tolerance: float = 1e-3
    seed: int = 0
    chunk: int = 2**19  # numbers of x in one pass of the network

    def __post_init__(self) -> None:
        if not 0 < self.sigma < torch.inf:
            raise ValueError(f"noise must have a positive and finite deviation, not {self.sigma}")
        if min(self.dim, self.most) < 1 or self.depth < 2 or self.extra < 0:
            raise ValueError(
                f"a denoiser's dim and most are >= 1, depth >= 2, extra >= 0: {self!r}"
            )
        check_evaluating(self.model)

    def spaces(self, batch: Batch) -> Spaces:
        check_finite(batch.x)
        check_dim(self.dim, prod(batch.x.shape[1:]), f"samples of shape {tuple(batch.x.shape[1:])}")
        if self.conditional and bool((batch.y < 0).any()):
            raise ValueError("a conditional denoiser needs the labels of a batch: use at(batch)")
        size = self.chunk // (prod(batch.x.shape[1:]) * (self.dim + self.extra))
        return in_chunks(self._of, batch, size)

    def facts(self) -> dict[str, Any]:
        kept = {name: value for name, value in vars(self).items() if name not in ("model", "chunk")}
        return {"estimator": "denoiser", "model": weights(self.model), **kept}

    @torch.no_grad()
    def _of(self, batch: Batch) -> Spaces:
        x, ambient = batch.x, batch.x[:1].numel()
        width = min(self.dim + self.extra, ambient)
        generator = torch.Generator().manual_seed(self.seed)
        start = torch.randn(ambient, width, generator=generator, dtype=torch.float64)
        found = krylov.leading(
            self._product(batch),
            start.to(x).expand(len(x), -1, -1),
            self.dim,
            depth=self.depth,
            most=self.most,
            tolerance=self.tolerance,
        )
        values = torch.cat([found.values, found.rest[:, None]], 1).clamp_min(0)
        check_rank(values[:, :-1], ROUNDING * torch.finfo(x.dtype).eps, "the denoiser's Jacobian")
        singular = values if self.symmetric else values.sqrt()
        ratio = singular / singular[:, -2:-1]
        blank = x.new_zeros(len(x), 0)
        return Spaces(found.vectors, blank, ratio[:, 0], ratio[:, -1], found.residual)

    def _product(self, batch: Batch) -> Callable[[Tensor], Tensor]:
        """(n, D, b) -> (J + J')/2 times it, or J J' times it"""
        x, labels = batch.x, (batch.y,) if self.conditional else ()

        def denoise(x: Tensor) -> Tensor:
            return self.model(x, self.sigma, *labels)

        check_denoised(x, denoise(x))
        size = self.chunk // max(1, x.numel())
        push, pull = forward_product(denoise, x, size), backward_product(denoise, x, size)

        def product(block: Tensor) -> Tensor:
            rows = block.movedim(2, 0).reshape(-1, *x.shape)
            image = (push(rows) + pull(rows)) / 2 if self.symmetric else push(pull(rows))
            return torch.flatten(image, 2).movedim(0, 2)

        return product


def check_denoised(x: Tensor, found: Tensor) -> None:
    if found.shape != x.shape:
        raise ValueError(
            f"a denoiser to samples of shape {tuple(found.shape[1:])}, "
            f"and samples of shape {tuple(x.shape[1:])}"
        )
    check_finite(found, "denoised points")


def examples(x: Tensor) -> list[Estimator]:
    """The Jacobian of a new network is a multiple of I, of which any directions will do."""
    new, moved = (small_network(x, size) for size in (0.0, 0.3))
    return [
        Denoiser(new, 0.5, 2),
        Denoiser(moved, 0.5, 2, symmetric=False, extra=1, tolerance=1e-2),
    ]


def small_network(x: Tensor, size: float) -> nn.Module:
    """With parameters moved by so much from where they start."""
    options = {"width": 4, "depth": 1}
    model = Architecture("denoiser", tuple(x.shape[1:]), None, options).build(0)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data += size * torch.randn(parameter.shape, generator=generator)
    return model.to(x).eval()
