"""The leading eigenvectors of symmetric matrices A (D, D) of which only products are known.

Rayleigh-Ritz on the block Krylov space of B, A B, ..., A^(depth-1) B, started again from its best
vectors until |A B - B L| <= tolerance |A B|. That is subspace iteration and more, for as many products.
Where D is no larger than such a space, A itself is formed.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]  # (n, D, b) -> (n, D, b)


class Eigenvectors(NamedTuple):
    vectors: Tensor  # (n, D, d) orthonormal
    values: Tensor  # (n, d) descending
    rest: Tensor  # (n,) the largest of the others, as far as it was seen
    residual: Tensor  # (n,) |A B - B L| / |A B|
    rounds: Tensor  # (n,) that it took


def leading(
    product: Product, start: Tensor, dim: int, *, depth: int, most: int, tolerance: float
) -> Eigenvectors:
    """Those of the `dim` largest eigenvalues, from blocks like `start` (n, D, b), b >= dim."""
    ambient, width = start.shape[1:]
    if ambient <= depth * width:
        eye = torch.eye(ambient, dtype=start.dtype, device=start.device)
        whole = eye.expand(len(start), -1, -1)
        return _best(whole, product(whole), dim, dim, 0)[0]
    block = _orthonormal(start)
    found, block, image = _best(block, product(block), dim, width, 0)
    for rounds in range(1, most + 1):
        space, images = _space(product, block, image, depth)
        new, block, image = _best(space, images, dim, width, rounds)
        settled = found.residual <= tolerance  # these stay: no sample waits for another
        found = Eigenvectors(*(_chosen(settled, *pair) for pair in zip(found, new, strict=True)))
        if bool((found.residual <= tolerance).all()):
            break
    return found


def _chosen(settled: Tensor, old: Tensor, new: Tensor) -> Tensor:
    return torch.where(settled.reshape(-1, *[1] * (old.ndim - 1)), old, new)


def _space(product: Product, block: Tensor, image: Tensor, depth: int) -> tuple[Tensor, Tensor]:
    """An orthonormal basis of the Krylov space, and A times it."""
    space, images = block, image
    for _ in range(depth - 1):
        block = images[:, :, -block.shape[2] :]
        for _ in range(2):  # twice: of a block that is all in the space only rounding is left
            block = _orthonormal(block - space @ (space.mT @ block))
        space = torch.cat([space, block], 2)
        images = torch.cat([images, product(block)], 2)
    return space, images


def _best(
    space: Tensor, images: Tensor, dim: int, width: int, rounds: int
) -> tuple[Eigenvectors, Tensor, Tensor]:
    """Ritz vectors, and the `width` first of them with their images to go on from."""
    form = space.mT @ images
    values, turns = torch.linalg.eigh((form + form.mT).double() / 2)
    values, turns = values.flip(1).to(space), turns.flip(2)[:, :, :width].to(space)
    block, image = space @ turns, images @ turns
    off = image[:, :, :dim] - block[:, :, :dim] * values[:, None, :dim]
    size = image[:, :, :dim].flatten(1).norm(dim=1).clamp_min(torch.finfo(off.dtype).tiny)
    residual = off.flatten(1).norm(dim=1) / size
    rest = values[:, dim] if values.shape[1] > dim else torch.zeros_like(residual)
    took = torch.full_like(residual, rounds)
    found = Eigenvectors(block[:, :, :dim], values[:, :dim], rest, residual, took)
    return found, block, image


def _orthonormal(block: Tensor) -> Tensor:
    columns: Tensor = torch.linalg.qr(block).Q
    return columns
