"""How far apart two pictures are to a network (Zhang et al. 2018, eq. 1).

    d(a, b) = sum_l mean_space sum_c w_lc (a^_lc - b^_lc)^2,    a^ = a / |a|_c

with a_l what the network's layer l makes of picture a, scaled to length 1 over its channels c at each
place. LPIPS has learned w; without them w = 1 / 2L for L layers, so that 1 - d is the mean over layers
and places of the cosine of channels: 1 for the same picture, 0 for what has nothing in common.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn

Features = Callable[
    [Tensor], Sequence[Tensor]
]  # pictures (n, *shape) -> (n, C, *space) of each layer
SMALL = 1e-10  # what the published code adds to lengths


@final
@dataclass(frozen=True, eq=False)
class Perception:
    features: Features
    weights: tuple[Tensor, ...] = ()  # (C,) a layer; none given, 1 / 2L

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """(n,)"""
        return self.distances(a[None], b)[0]

    @torch.no_grad()
    def distances(self, pictures: Tensor, other: Tensor) -> Tensor:
        """Of each of (m, n, *shape) and the other (n, *shape), (m, n), by one pass of the network."""
        many, n = pictures.shape[:2]
        layers = [
            layer.reshape(many + 1, n, *layer.shape[1:])
            for layer in self.features(torch.cat([pictures, other[None]]).flatten(0, 1))
        ]
        weights = self.weights or [layer.new_tensor(0.5 / len(layers)) for layer in layers]
        if len(weights) != len(layers):
            raise ValueError(f"weights of {len(weights)} layers for features of {len(layers)}")
        found = []
        for one in range(many):
            pairs = zip(layers, weights, strict=True)
            found.append(torch.stack([_apart(f[one], f[-1], w) for f, w in pairs]).sum(0))
        return torch.stack(found)


def _apart(one: Tensor, other: Tensor, weight: Tensor) -> Tensor:
    square = (_unit(one) - _unit(other)).square().flatten(2)  # (n, C, places)
    return (weight.to(square).reshape(1, -1, 1) * square).sum(1).mean(1)


def _unit(features: Tensor) -> Tensor:
    wide = features if features.ndim > 2 else features[..., None]  # a vector is at one place
    found: Tensor = wide / (wide.norm(dim=1, keepdim=True) + SMALL)
    return found


def hidden(network: nn.Module, layers: tuple[str, ...]) -> Features:
    """What modules of a network put out, called by the names that `named_modules` gives them."""
    modules = dict(network.named_modules())
    for name in layers:
        if name not in modules:
            known = ", ".join(filter(None, modules))
            raise ValueError(f"no layer {name!r} of {type(network).__name__}, which has {known}")

    def features(x: Tensor) -> list[Tensor]:
        found: dict[str, Tensor] = {}
        hooks = [
            modules[name].register_forward_hook(partial(_keep, found, name)) for name in layers
        ]
        try:
            network(x)
        finally:
            for hook in hooks:
                hook.remove()
        return [found[name] for name in layers]

    return features


def _keep(found: dict[str, Tensor], name: str, module: nn.Module, given: Any, out: Tensor) -> None:
    del module, given
    found[name] = out
