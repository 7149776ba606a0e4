"""Tangent spaces of a pretrained diffusion network in the convention of EDM (Karras et al. 2022).

Such a network takes pictures in [-1, 1], and maps (y, s) to E[clean | y] for y = clean + s * noise.
Pictures here lie in [0, 1], and a noise level here is in their unit, half of the published number:

    D(x, sigma) = (network(2 x - 1, 2 sigma) + 1) / 2,   dD/dx = the network's own Jacobian.

The level of s = 0.5 at which the CIFAR-10 network was used is sigma = 0.25, that of ImageNet-64, s = 1.2,
is 0.6. Class-conditional networks take one-hot labels (n, num_classes) as a third argument.
"""

from typing import final

from torch import Tensor, nn
from torch.nn.functional import one_hot

from manifoldlab.tangents.base import Estimator
from manifoldlab.tangents.denoiser import Denoiser, small_network


def diffusion(
    network: nn.Module,
    sigma: float,
    dim: int,
    *,
    num_classes: int = 0,
    symmetric: bool = True,
    most: int = 20,
    tolerance: float = 1e-3,
    seed: int = 0,
    chunk: int = 2**19,
) -> Denoiser:
    """sigma in the unit of pictures in [0, 1]; num_classes of 0 is an unconditional network."""
    if num_classes < 0:
        raise ValueError(f"0 classes, of an unconditional network, or more, not {num_classes}")
    return Denoiser(
        OfPixels(network, num_classes),
        sigma,
        dim,
        symmetric=symmetric,
        conditional=num_classes > 0,
        most=most,
        tolerance=tolerance,
        seed=seed,
        chunk=chunk,
    )


@final
class OfPixels(nn.Module):
    """An EDM network as a denoiser of pictures in [0, 1]."""

    def __init__(self, network: nn.Module, num_classes: int = 0):
        super().__init__()
        self.network, self.num_classes = network, num_classes

    def forward(self, x: Tensor, sigma: float, *label: Tensor) -> Tensor:
        level = x.new_full((len(x),), 2 * sigma)
        hot = [one_hot(y, self.num_classes).to(x) for y in label]
        denoised: Tensor = self.network(2 * x - 1, level, *hot)
        return (denoised + 1) / 2


def examples(x: Tensor) -> list[Estimator]:
    return [diffusion(small_network(x, 0.3), 0.25, 2)]
