"""What every network of the catalog keeps to, the formulas of each, and the published sizes."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import batch_norm, conv2d, linear, max_pool2d

from manifoldlab import architecture, catalog, linalg
from manifoldlab.architecture import Architecture
from manifoldlab.models.alexnet import alexnet
from manifoldlab.models.autoencoder import autoencoder
from manifoldlab.models.base import Normalize
from manifoldlab.models.denoiser import denoiser, preconditioning
from manifoldlab.models.preact_resnet18 import preact_resnet18
from manifoldlab.models.resnet18 import cifar_stem, imagenet_stem, resnet18

SHAPES = ((5,), (2, 9, 8))  # an odd height: halved and doubled it is another one
LARGE = (1, 63, 64)  # for what takes no smaller pictures


def examples(name: str) -> list[Architecture]:
    small = [case for shape in SHAPES for case in architecture.examples(name, shape, 2)]
    return small or architecture.examples(name, LARGE, 2)


CASES = [case for name in catalog.names("models") for case in examples(name)]
# These have no batch norm.
STACKED = ("mlp", "two_layer_relu", "small_cnn", "autoencoder", "denoiser", "alexnet", "song_unet")
each = pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.name}-{len(c.shape)}")


def normal(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def moved(model: nn.Module, seed: int = 7) -> nn.Module:
    """Away from where it starts: the last layer of a denoiser starts at zero."""
    for i, parameter in enumerate(model.parameters()):
        parameter.data += 0.2 * normal(*parameter.shape, seed=seed + i)
    return model


def built(case: Architecture, seed: int = 0) -> nn.Module:
    """In double precision, with statistics of batch norm that are not those of the start."""
    model = moved(case.build(seed).double()).eval()
    for i, module in enumerate(model.modules()):
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean += 0.3 * normal(*module.running_mean.shape, seed=100 + i)
            module.running_var *= normal(*module.running_var.shape, seed=200 + i).exp()
    return model


def samples(case: Architecture, n: int = 4) -> Tensor:
    return torch.rand(n, *case.shape, generator=torch.Generator().manual_seed(1)).double()


def called(case: Architecture, model: Callable[..., Tensor]) -> Callable[[Tensor], Tensor]:
    """A function of x alone: what is no classifier may take more."""
    return partial(model, sigma=0.3) if case.name in ("denoiser", "song_unet") else model


def test_every_model_has_examples() -> None:
    assert {case.name for case in CASES} == set(catalog.names("models"))


@each
def test_samples_are_not_coupled(case: Architecture) -> None:
    model, x = called(case, built(case)), samples(case)
    out = model(x)
    assert out.shape == ((4, 2) if case.num_classes else x.shape) and out.dtype == torch.float64
    alone = torch.cat([model(one[None]) for one in x])
    assert (out - alone).abs().max() < 1e-12 * out.abs().max()  # sums in other orders
    assert len(out.flatten(1).unique(dim=0)) == 4


@each
def test_float32_is_the_same_but_for_rounding(case: Architecture) -> None:
    exact = built(case)
    x = samples(case)
    out = called(case, exact)(x)
    rough = called(case, exact.float())(x.float())
    assert rough.dtype == torch.float32 and (rough - out).abs().max() < 1e-4 * out.abs().max()


@each
def test_a_gradient_penalty_has_the_right_gradient(case: Architecture) -> None:
    """Double backward against central differences along one direction of the parameters."""
    model, x = built(case), samples(case)

    def penalty() -> Tensor:
        point = x.clone().requires_grad_()
        out = called(case, model)(point).flatten(1)
        (gradient,) = torch.autograd.grad(out[:, 0].sum(), point, create_graph=True)
        return linalg.squared_norm(gradient).mean()

    parameters = list(model.parameters())
    directions = [normal(*p.shape, seed=50 + i) for i, p in enumerate(parameters)]
    slopes = torch.autograd.grad(penalty(), parameters, allow_unused=True)
    slope = sum((s * v).sum() for s, v in zip(slopes, directions, strict=True) if s is not None)
    step, values = 1e-6, []
    for sign in (1, -2):  # to one side, and from there to the other
        for p, v in zip(parameters, directions, strict=True):
            p.data += sign * step * v
        values.append(penalty())
    difference = (values[0] - values[1]) / (2 * step)
    # of the value, 1e-16 / step; of the third derivative, step^2 times what directions of length
    # sqrt(parameters) make of it
    assert abs(slope - difference) < 1e-5 * (abs(difference) + values[0])


@pytest.mark.parametrize("name", STACKED)
def test_stacked_networks_are_the_single_ones(name: str) -> None:
    """Values and gradients of a gradient penalty, with autograd through vmap, as ensembles do."""
    for case in (c for c in CASES if c.name == name):
        models, x = [built(case, seed) for seed in range(3)], samples(case)
        parameters, buffers = stack_module_state(models)
        points = x.expand(3, *x.shape).clone().requires_grad_()

        def one(p: dict[str, Tensor], b: dict[str, Tensor], x: Tensor) -> Tensor:
            return called(case, partial(_call, models[0], (p, b)))(x)  # noqa: B023

        together = vmap(one)(parameters, buffers, points)
        penalties = _penalty(together.flatten(2)[..., 0].sum(), points).flatten(1).sum(1)
        names = list(parameters)
        slopes = torch.autograd.grad(penalties.sum(), list(parameters.values()), allow_unused=True)
        for i, model in enumerate(models):
            point = x.clone().requires_grad_()
            out = called(case, model)(point)
            assert (together[i] - out).abs().max() < 1e-12 * out.abs().max()
            alone = _penalty(out.flatten(1)[:, 0].sum(), point).sum()
            own = dict(model.named_parameters())
            wanted = torch.autograd.grad(alone, [own[k] for k in names], allow_unused=True)
            for a, b in zip(slopes, wanted, strict=True):
                assert (a is None) == (b is None)
                assert a is None or (a[i] - b).abs().max() < 1e-11 * (1 + b.abs().max())


def _call(
    model: nn.Module, state: tuple[dict[str, Tensor], ...], x: Tensor, **more: float
) -> Tensor:
    out: Tensor = functional_call(model, state, (x,), more)
    return out


def _penalty(value: Tensor, x: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(value, x, create_graph=True)
    return gradient.square()


def test_those_that_can_be_stacked_are_those_without_batch_norm() -> None:
    found = {c.name for c in CASES if not any("running_mean" in k for k in c.build(0).state_dict())}
    assert found == set(STACKED)


@each
def test_normalization_is_inside_and_no_part_of_the_state(case: Architecture) -> None:
    if not {"mean", "deviation"} <= architecture.options_of(case.name).keys():
        return
    channels = case.shape[0]
    given = {"mean": (0.3,) * channels, "deviation": (0.7,) * channels}
    inside, outside = ({**case.options, "mean": (), "deviation": ()} | o for o in (given, {}))
    models = [
        built(Architecture(case.name, case.shape, case.num_classes, options))
        for options in (inside, outside)
    ]
    assert models[0].state_dict().keys() == models[1].state_dict().keys()
    x = samples(case)
    out = models[1]((x - 0.3) / 0.7)
    wanted = out if case.num_classes else out * 0.7 + 0.3
    # exact in double precision, though the networks are made in single
    assert (models[0](x) - wanted).abs().max() < 1e-12 * out.abs().max()


def test_normalization_by_channel() -> None:
    x = torch.rand(2, 3, 4, 4, dtype=torch.float64)
    normalize = Normalize((0.1, 0.2, 0.3), (1.0, 2.0, 4.0))
    assert torch.equal(normalize(x)[:, 2], (x[:, 2] - 0.3) / 4)
    assert (normalize.inverse(normalize(x)) - x).abs().max() < 1e-15


def test_of_two_layers_the_outer_one_is_fixed() -> None:
    model = Architecture("two_layer_relu", (6,), 2, {"width": 5}).build(0).double()
    assert [name for name, _ in model.named_parameters()] == ["inner.weight"]
    x = normal(4, 6, seed=0)
    signs = (1, -1, 1, -1, 1)
    by_hand = sum(
        s / 5**0.5 * (x @ w).clamp_min(0) for s, w in zip(signs, model.inner.weight, strict=True)
    )
    logits = model(x)
    assert (logits[:, 0] - logits[:, 1] - by_hand).abs().max() < 1e-14
    assert torch.equal(logits[:, 0], -logits[:, 1])


@pytest.mark.parametrize(("scale", "deviation"), [(None, 100**-0.5), (0.5, 0.5)])
def test_inner_weights_are_drawn_with_their_deviation(scale, deviation: float) -> None:  # type: ignore[no-untyped-def]
    options = {"width": 400, "scale": scale}
    weight = Architecture("two_layer_relu", (100,), 2, options).build(0).inner.weight / deviation
    # 40,000 squares of mean 1 and variance 2: 5 standard errors, a false alarm in 2e6
    assert abs(weight.square().mean() - 1) < 5 * (2 / 40_000) ** 0.5


COUNTS = [  # He et al. 2016a, as torchvision has it; the two CIFAR forms as their codes have them
    (lambda: resnet18((3, 224, 224), 1000, stem=imagenet_stem), 11_689_512),
    (lambda: resnet18((3, 32, 32), 10), 11_173_962),
    (lambda: preact_resnet18((3, 32, 32), 10, last_norm=False), 11_171_146),
    (lambda: preact_resnet18((3, 32, 32), 10), 11_172_170),
    (lambda: alexnet((3, 224, 224), 1000), 61_100_840),  # as torchvision states
]


@pytest.mark.parametrize(
    ("build", "count"), COUNTS, ids=["imagenet", "cifar", "preact", "last", "alexnet"]
)
def test_published_numbers_of_parameters(build: Callable[[], nn.Module], count: int) -> None:
    assert sum(p.numel() for p in build().parameters()) == count


def names_of_torchvision() -> set[str]:
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    found = {"conv1.weight", "fc.weight", "fc.bias"} | {f"bn1.{n}" for n in norm}
    for block in (f"layer{i}.{j}" for i in (1, 2, 3, 4) for j in (0, 1)):
        found |= {f"{block}.conv{k}.weight" for k in (1, 2)}
        found |= {f"{block}.bn{k}.{n}" for k in (1, 2) for n in norm}
    for i in (2, 3, 4):
        found |= {f"layer{i}.0.downsample.0.weight"}
        found |= {f"layer{i}.0.downsample.1.{n}" for n in norm}
    return found


def test_weights_of_torchvision_fit() -> None:
    options = {"stem": imagenet_stem, "mean": (0.485, 0.456, 0.406), "deviation": (0.2,) * 3}
    model = Architecture("resnet18", (3, 64, 64), 10, {"width": 2, **options}).build(0)
    assert set(model.state_dict()) == names_of_torchvision() and len(model.state_dict()) == 122


State = dict[str, Tensor]


def _normed(x: Tensor, state: State, name: str) -> Tensor:
    keys = ("running_mean", "running_var", "weight", "bias")
    return batch_norm(x, *(state[f"{name}.{key}"] for key in keys))


@pytest.mark.parametrize("stem", [cifar_stem, imagenet_stem])
def test_resnet18_is_the_published_one(
    stem: Callable[[int, int], tuple[nn.Module, nn.Module]],
) -> None:
    """He et al. 2016a, Figure 2 and Table 1, written out from the names of the weights."""
    case = Architecture("resnet18", (3, 33, 40), 2, {"width": 3, "stem": stem})
    model, x = built(case), samples(case)
    state, large = model.state_dict(), stem is imagenet_stem
    out = conv2d(x, state["conv1.weight"], stride=2 if large else 1, padding=3 if large else 1)
    out = _normed(out, state, "bn1").clamp_min(0)
    out = max_pool2d(out, 3, 2, 1) if large else out
    for layer in (1, 2, 3, 4):
        for block in (0, 1):
            name, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            inside = conv2d(out, state[f"{name}.conv1.weight"], stride=stride, padding=1)
            inside = _normed(inside, state, f"{name}.bn1").clamp_min(0)
            inside = conv2d(inside, state[f"{name}.conv2.weight"], padding=1)
            inside = _normed(inside, state, f"{name}.bn2")
            if stride == 2:
                out = conv2d(out, state[f"{name}.downsample.0.weight"], stride=2)
                out = _normed(out, state, f"{name}.downsample.1")
            out = (inside + out).clamp_min(0)
    logits = linear(out.mean((2, 3)), state["fc.weight"], state["fc.bias"])
    assert (model(x) - logits).abs().max() < 1e-12 * logits.abs().max()


@pytest.mark.parametrize("last", [True, False])
def test_preact_resnet18_is_the_published_one(last: bool) -> None:
    """He et al. 2016b, Figure 1b: the shortcut of a halving branches off behind the first activation."""
    case = Architecture("preact_resnet18", (3, 17, 12), 2, {"width": 3, "last_norm": last})
    model, x = built(case), samples(case)
    state = model.state_dict()
    out = conv2d(x, state["conv1.weight"], padding=1)
    for layer in (1, 2, 3, 4):
        for block in (0, 1):
            name, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            active = _normed(out, state, f"{name}.bn1").clamp_min(0)
            if stride == 2:
                out = conv2d(active, state[f"{name}.shortcut.0.weight"], stride=2)
            inside = conv2d(active, state[f"{name}.conv1.weight"], stride=stride, padding=1)
            inside = _normed(inside, state, f"{name}.bn2").clamp_min(0)
            out = out + conv2d(inside, state[f"{name}.conv2.weight"], padding=1)
    out = _normed(out, state, "bn").clamp_min(0) if last else out
    logits = linear(out.mean((2, 3)), state["linear.weight"], state["linear.bias"])
    assert (model(x) - logits).abs().max() < 1e-12 * logits.abs().max()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_decoder_parametrizes_a_surface(shape: tuple[int, ...]) -> None:
    """Of the latent dimension: its Jacobian has full rank."""
    model = moved(autoencoder(shape, latent=3, width=6).double())
    x = torch.rand(2, *shape, dtype=torch.float64)
    z = model.encode(x)
    assert z.shape == (2, 3) and torch.equal(model.decode(z), model(x))
    decoded = lambda z: model.decode(z[None]).flatten()
    jacobian = torch.autograd.functional.jacobian(decoded, z[0].detach())  # (D, 3)
    sizes = torch.linalg.svdvals(jacobian)
    assert sizes[-1] > 1e-6 * sizes[0]  # rounding leaves 1e-16


SIGMAS = torch.logspace(-6, 6, 49, dtype=torch.float64)


@pytest.mark.parametrize("sigma_data", [0.25, 0.5, 3.0])
def test_preconditioning_does_what_it_is_derived_from(sigma_data: float) -> None:
    """Karras et al. 2022, Appendix B.6."""
    skip, out, into, noise = preconditioning(SIGMAS, sigma_data)
    data, variance, one = sigma_data**2, SIGMAS.square(), torch.ones_like(SIGMAS)
    rest = variance / (variance + data)  # 1 - c_skip, without its cancellation
    pairs = [
        (into.square() * (data + variance), one),  # inputs have unit variance
        (skip + rest, one),
        # so have the targets of the network, (clean - c_skip noisy) / c_out
        ((rest.square() * data + skip.square() * variance) / out.square(), one),
        (skip * variance, rest * data),  # and no other c_skip has a smaller c_out
        ((4 * noise).exp(), SIGMAS),
    ]
    for found, wanted in pairs:
        assert (found / wanted - 1).abs().max() < 1e-14  # a few roundings


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_denoiser_starts_exact_for_a_gaussian(shape: tuple[int, ...]) -> None:
    """E[clean | x] = m + d^2 / (d^2 + s^2) (x - m), at all noises and in single precision, too."""
    options = {"width": 4, "sigma_data": 0.25, "mean": (0.5,) * shape[0]}
    model = Architecture("denoiser", shape, None, options).build(0).double()
    x = normal(len(SIGMAS), *shape, seed=3)
    share = (0.0625 / (0.0625 + SIGMAS.square())).reshape(-1, *[1] * len(shape))
    exact = 0.5 + share * (x - 0.5)
    assert (model(x, SIGMAS) - exact).abs().max() < 1e-14
    assert (model.float()(x.float(), SIGMAS.float()) - exact).abs().max() < 1e-5


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_denoiser_is_made_of_its_network_as_published(shape: tuple[int, ...]) -> None:
    case = Architecture("denoiser", shape, None, {"width": 4, "sigma_data": 0.25})
    model, x = built(case), samples(case)
    seen: list[Tensor] = []
    model.network.register_forward_hook(lambda _, given, out: seen.extend([*given, out]))
    found = model(x, 0.3)
    scaled, noise, _, out = seen
    total = math.hypot(0.3, 0.25)
    assert (scaled - x / total).abs().max() < 1e-14
    assert (noise - math.log(0.3) / 4).abs().max() < 1e-15
    wanted = (0.25 / total) ** 2 * x + 0.3 * 0.25 / total * out
    assert out.abs().max() > 0.1 and (found - wanted).abs().max() < 1e-14


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_each_sample_has_noise_of_its_own(shape: tuple[int, ...]) -> None:
    case = Architecture("denoiser", shape, None, {"width": 4})
    model, x, noises = built(case), samples(case), (1e-3, 0.1, 0.3, 10.0)
    alone = torch.cat([model(x[i : i + 1], sigma) for i, sigma in enumerate(noises)])
    together = model(x, torch.tensor(noises, dtype=torch.float64))
    assert (together - alone).abs().max() < 1e-12 * alone.abs().max()


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("inf"), float("nan")])
def test_a_denoiser_needs_noise(sigma: float) -> None:
    with pytest.raises(ValueError, match="noise must have a positive and finite deviation, not"):
        denoiser((3,))(torch.zeros(2, 3), sigma)


WRONG: list[tuple[str, tuple[int, ...], dict[str, object], str]] = [
    ("mlp", (6,), {"depth": -1}, "depth counts hidden layers, 0 or more, not -1"),
    ("mlp", (6,), {"width": 0}, "width must be 1 or more, not 0"),
    ("mlp", (2,), {"deviation": (1.0, 0.0)}, r"as many positive deviations, not \(1.0, 0.0\)"),
    ("small_cnn", (6,), {}, r"small_cnn takes images \(C, H, W\), not samples of shape \(6,\)"),
    ("small_cnn", (1, 8, 8), {"mean": (0.1, 0.2)}, r"1 channels .* not \(0.1, 0.2\) and \(\)"),
    ("resnet18", (3, 8), {}, r"resnet18 takes images \(C, H, W\)"),
    (
        "alexnet",
        (3, 62, 99),
        {},
        r"alexnet takes pictures of 63 x 63 or more, not of shape \(3, 62",
    ),
    ("preact_resnet18", (3, 8), {}, r"preact_resnet18 takes images \(C, H, W\)"),
    ("two_layer_relu", (6,), {"scale": -1.0}, "positive and finite, not -1.0"),
    ("autoencoder", (6,), {"latent": 0}, "latent must be 1 or more, not 0"),
    ("denoiser", (6,), {"sigma_data": 0.0}, "sigma_data must be positive and finite, not 0.0"),
]


@pytest.mark.parametrize(("name", "shape", "options", "line"), WRONG)
def test_wrong_options_are_refused(
    name: str, shape: tuple[int, ...], options: dict[str, object], line: str
) -> None:
    classes = 2 if architecture.is_classifier(name) else None
    with pytest.raises(ValueError, match=line) as refusal:
        Architecture(name, shape, classes, options).build(0)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", sorted({case.name for case in CASES if case.num_classes}))
def test_a_classifier_has_classes(name: str) -> None:
    shape = examples(name)[0].shape
    with pytest.raises(ValueError, match=r"num_classes must be 1 or more|2 classes"):
        Architecture(name, shape, 0).build(0)


def test_two_layers_have_two_classes() -> None:
    with pytest.raises(ValueError, match="2 classes, not 3"):
        Architecture("two_layer_relu", (6,), 3).build(0)
