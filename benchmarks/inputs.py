"""Networks and points that cases are made of, the same for the same words."""

from collections.abc import Callable
from copy import deepcopy
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from manifoldlab.architecture import Architecture
from manifoldlab.frozen import frozen
from manifoldlab.interfaces import Batch

IMAGE = (3, 32, 32)


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def frames(n: int, ambient: int, k: int, seed: int = 0) -> Tensor:
    """Orthonormal columns (n, D, k)."""
    return torch.linalg.qr(normal(n, ambient, k, seed=seed).double()).Q.float()


def pictures(n: int, device: str, shape: tuple[int, ...] = IMAGE, classes: int = 10) -> Batch:
    return Batch(uniform(n, *shape).to(device), (torch.arange(n) % classes).to(device))


def network(
    name: str,
    device: str,
    shape: tuple[int, ...] = IMAGE,
    classes: int | None = 10,
    **options: Any,
) -> nn.Module:
    """In eval mode, with the statistics of a batch in its BatchNorm and biases that are not zero."""
    return _network(name, device, shape, classes, tuple(sorted(options.items())))


@lru_cache(maxsize=8)
def _network(
    name: str,
    device: str,
    shape: tuple[int, ...],
    classes: int | None,
    options: tuple[tuple[str, Any], ...],
) -> nn.Module:
    model = Architecture(name, shape, classes, dict(options)).build(0)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    if norms:
        for norm in norms:
            norm.momentum = None  # the mean of all batches, of which there is one
        with torch.no_grad():
            model.train()(uniform(16, *shape, seed=2))
    return model.eval().to(device)


def doubled(model: nn.Module) -> nn.Module:
    return deepcopy(model).double()


AFTER = {
    "conv1": "bn1",
    "conv2": "bn2",
    "0": "1",
}  # the BatchNorm that follows a convolution of ResNet18


def folded(model: nn.Module) -> nn.Module:
    """As fast as its forward pass gets: frozen, BatchNorm in the convolutions, channels last."""
    copy = deepcopy(model).requires_grad_(False)
    for block in list(copy.modules()):
        layers = dict(block.named_children())
        for name, after in AFTER.items():
            layer, norm = layers.get(name), layers.get(after)
            if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(block, name, fuse_conv_bn_eval(layer, norm))
                setattr(block, after, nn.Identity())
    return copy.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


@lru_cache(maxsize=8)
def prepared(model: nn.Module) -> nn.Module:
    """As `manifoldlab probe` prepares a network, once for all its batches."""
    return frozen(model)


def forward(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(x)
    return found


def passes(model: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    """One forward pass of the fastest form of a network."""
    return partial(forward, folded(model), _last(x))


def gradient_passes(model: nn.Module, x: Tensor, y: Tensor) -> Callable[[], Tensor]:
    """One forward pass and one backward pass to the input, likewise."""
    fast, x = folded(model), _last(x)

    def both() -> Tensor:
        here = x.detach().requires_grad_()
        return torch.autograd.grad(fast(here).gather(1, y[:, None]).sum(), here)[0]

    return both


def _last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def in_turn(*calls: Callable[[], Any]) -> Callable[[], None]:
    def all_of_them() -> None:
        for call in calls:
            call()

    return all_of_them


def times(count: int, call: Callable[[], Any]) -> Callable[[], None]:
    return in_turn(*[call] * count)
