"""A frozen network against the one that it was made of, in float64, where a fold is exact to rounding."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from manifoldlab.architecture import Architecture
from manifoldlab.frozen import frozen
from manifoldlab.gradients import input_gradient, margin

SHAPE = (3, 8, 8)


def drawn(model: nn.Module) -> nn.Module:
    """With statistics of batch norms that no fold can get right by accident."""
    generator = torch.Generator().manual_seed(0)
    for norm in norms(model):
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            if tensor is not None:
                tensor.data.uniform_(0.5, 1.5, generator=generator)
    return model.double().eval()


def norms(model: nn.Module) -> list[_BatchNorm]:
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


def assert_same_function(found: nn.Module, model: nn.Module) -> None:
    x = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = torch.arange(4) % 3
    torch.testing.assert_close(found(x), model(x), rtol=1e-12, atol=1e-12)
    gradients = [input_gradient(one, x, y, margin) for one in (found, model)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10 * float(gradients[1].norm()))


@pytest.mark.parametrize(("name", "left"), [("resnet18", 0), ("preact_resnet18", 9)])
def test_residual_networks_lose_norms_behind_convolutions(name: str, left: int) -> None:
    """Of the 17 norms of the preactivated network 9 follow a sum."""
    case = Architecture(name, SHAPE, 3, {"width": 4, "mean": (0.4,) * 3, "deviation": (0.2,) * 3})
    model = drawn(case.build(0)).train()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    found = frozen(model)
    assert model.training and all(p.requires_grad for p in model.parameters())
    assert all(tensor.equal(before[key]) for key, tensor in model.state_dict().items())
    assert not found.training and not any(p.requires_grad for p in found.parameters())
    assert len(norms(found)) == left
    assert_same_function(found, model.eval())


class Twice(nn.Module):
    """What the convolution puts out is read beside the norm, too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.first(x)
        return (self.norm(seen) * seen).mean((2, 3))


class Shared(Twice):
    """One convolution in two places."""

    def forward(self, x: Tensor) -> Tensor:
        return self.first(self.norm(self.first(x)).relu()).mean((2, 3))


class Looking(Twice):
    """A flow of data that depends on the data, which nothing can trace."""

    def forward(self, x: Tensor) -> Tensor:
        seen = self.norm(self.first(x))
        return (seen if bool(seen.sum() > 0) else -seen).mean((2, 3))


def plain(*layers: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def hooked() -> nn.Module:
    model = plain(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3))()
    model[0].register_forward_hook(lambda module, given, out: 2 * out)  # type: ignore[operator]
    return model


KEPT: dict[str, Callable[[], nn.Module]] = {
    "read twice": Twice,
    "shared": Shared,
    "looking": Looking,
    "hooked": hooked,
    "transposed": plain(nn.ConvTranspose2d(3, 3, 3), nn.BatchNorm2d(3)),
    "without statistics": plain(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3, track_running_stats=False)),
    "weights of a norm": plain(
        nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 3)), nn.BatchNorm2d(3)
    ),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_is_more_than_a_convolution_before_a_norm_stays(name: str) -> None:
    model = drawn(KEPT[name]())
    found = frozen(model)
    assert len(norms(found)) == 1
    assert_same_function(found, model)


def test_weights_have_channels_last_in_float32_only() -> None:
    for kind in (torch.float32, torch.float64):
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(kind)
        (weight,) = (p for p in frozen(model).parameters() if p.ndim == 4)
        last = weight.is_contiguous(memory_format=torch.channels_last)
        assert last == (kind == torch.float32)
