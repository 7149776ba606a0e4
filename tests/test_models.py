"""Architectures: logits of the right shape, samples that are not coupled, sizes as published."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from manifoldlab import catalog, linalg
from manifoldlab.models.base import Normalize
from manifoldlab.models.preact_resnet18 import preact_resnet18
from manifoldlab.models.resnet18 import imagenet_stem, resnet18

ON_VECTORS = {"mlp", "two_layer_relu"}
SMALL = sorted(ON_VECTORS | {"small_cnn"})


def built(name: str, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return catalog.find("models", name)(shape(name), 2).double().eval()


def shape(name: str) -> tuple[int, ...]:
    return (6,) if name in ON_VECTORS else (3, 8, 8)


def samples(name: str, n: int = 4) -> torch.Tensor:
    return torch.rand(n, *shape(name), generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize("name", catalog.names("models"))
def test_logits_of_samples_that_are_not_coupled(name: str) -> None:
    model, x = built(name), samples(name)
    logits = model(x)
    assert logits.shape == (4, 2) and logits.dtype == torch.float64
    alone = torch.cat([model(one[None]) for one in x])
    assert (logits - alone).abs().max() < 1e-12  # other sizes, other orders of summation
    assert torch.equal(built(name)(x), logits) and not torch.equal(built(name, 1)(x), logits)


@pytest.mark.parametrize("name", catalog.names("models"))
def test_gradient_penalties_reach_every_layer(name: str) -> None:
    model, x = built(name), samples(name).requires_grad_()
    (gradient,) = torch.autograd.grad(model(x)[:, 0].sum(), x, create_graph=True)
    linalg.squared_norm(gradient).sum().backward()
    assert any(p.grad is not None and p.grad.norm() > 0 for p in model.parameters())


@pytest.mark.parametrize("name", SMALL)
def test_small_ones_can_be_stacked(name: str) -> None:
    models, x = [built(name, seed) for seed in range(3)], samples(name)
    state = stack_module_state(models)
    together = vmap(lambda p, b: functional_call(models[0], (p, b), (x,)))(*state)
    assert (together - torch.stack([m(x) for m in models])).abs().max() < 1e-12


def test_outer_weights_are_fixed() -> None:
    model = built("two_layer_relu")
    assert [name for name, _ in model.named_parameters()] == ["inner.weight"]
    x = samples("two_layer_relu")
    by_hand = sum(
        (1 - 2 * (j % 2)) / 16 * (x @ w).clamp_min(0) for j, w in enumerate(model.inner.weight)
    )
    logits = model(x)
    assert (logits[:, 0] - logits[:, 1] - by_hand).abs().max() < 1e-6  # 1/16 = 256^(-1/2)


@pytest.mark.parametrize(
    ("model", "count"),
    [
        (resnet18((3, 224, 224), 1000, stem=imagenet_stem), 11_689_512),
        (resnet18((3, 32, 32), 10), 11_173_962),
        (preact_resnet18((3, 32, 32), 10), 11_172_170),
    ],
    ids=["imagenet", "cifar", "preact"],
)
def test_published_numbers_of_parameters(model: nn.Module, count: int) -> None:
    assert sum(p.numel() for p in model.parameters()) == count


def test_normalization_is_inside() -> None:
    x = torch.rand(2, 3, 4, 4, dtype=torch.float64)
    found = Normalize((0.1, 0.2, 0.3), (1.0, 2.0, 4.0))(x)
    assert torch.allclose(found[:, 2], (x[:, 2] - 0.3) / 4, rtol=1e-6)  # buffers are float32


@pytest.mark.parametrize(
    ("name", "given", "options", "line"),
    [
        ("mlp", (6,), {"depth": -1}, "depth counts hidden layers, 0 or more, not -1"),
        ("mlp", (6,), {"width": 0}, "width must be 1 or more, not 0"),
        ("small_cnn", (6,), {}, r"small_cnn takes images \(C, H, W\), not samples of shape \(6,\)"),
        ("resnet18", (3, 8), {}, r"resnet18 takes images \(C, H, W\)"),
        ("small_cnn", (1, 8, 8), {"mean": (0.1,)}, "need as many positive deviations"),
    ],
)
def test_wrong_sizes_are_refused(name, given, options, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        catalog.find("models", name)(given, 3, **options)


def test_two_layers_have_two_classes() -> None:
    with pytest.raises(ValueError, match="2 classes, not 3"):
        catalog.find("models", "two_layer_relu")((6,), 3)
