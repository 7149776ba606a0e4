"""DDPM++ as published: sizes, names, the formula written out, and files that are refused."""

from math import log, sqrt
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import conv2d, conv_transpose2d, group_norm, linear, silu

from manifoldlab.architecture import Architecture
from manifoldlab.interfaces import Batch
from manifoldlab.models.denoiser import Denoiser
from manifoldlab.models.song_unet import song_unet
from manifoldlab.scores.edm import edm, edm_denoiser

SMALL: dict[str, Any] = {"width": 16, "multipliers": (1, 2), "blocks": 2, "attention": (4,)}
SHAPE = (3, 8, 8)


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(classes: int = 0) -> Denoiser:
    """Away from its start, where the last layer is zero."""
    model = Architecture("song_unet", SHAPE, None, SMALL | {"classes": classes}).build(0)
    for i, p in enumerate(model.parameters()):
        p.data += 0.1 * torch.randn(p.shape, generator=source(i))
    assert isinstance(model, Denoiser)
    return model.eval()


def as_published(model: Denoiser) -> dict[str, Tensor]:
    """With the names that EDM's own class gives, and what it has besides."""
    found = {f"model.{k}": t.clone() for k, t in model.network.state_dict().items()}
    for name in ("enc.4x4_down", "dec.8x8_up"):
        for layer in ("conv0", "skip"):
            found[f"model.{name}.{layer}.resample_filter"] = torch.full((1, 1, 2, 2), 0.25)
    return found | {"model.map_augment.weight": torch.randn(16, 9, generator=source())}


def pictures(n: int = 3) -> Batch:
    x = torch.rand(n, *SHAPE, generator=source(5))
    return Batch(x, torch.arange(n) % 2)


@pytest.mark.parametrize(("classes", "count"), [(0, 55_733_891), (10, 55_735_299)])
def test_the_published_number_of_parameters(classes: int, count: int) -> None:
    """55.7 million; the unused map_augment has 9 x 128 of them."""
    with torch.device("meta"):
        model = song_unet((3, 32, 32), classes=classes)
    assert sum(p.numel() for p in model.parameters()) + 9 * 128 == count


def names_of_a_block(resampled: bool, attends: bool) -> set[str]:
    layers = ["norm0", "conv0", "affine", "norm1", "conv1"]
    layers += ["skip"] if resampled else []
    layers += ["norm2", "qkv", "proj"] if attends else []
    return {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}


def test_the_published_names() -> None:
    with torch.device("meta"):
        model = song_unet((3, 32, 32), classes=10)
    assert isinstance(model, Denoiser)
    layers = ("map_label", "map_layer0", "map_layer1", "enc.32x32_conv")
    wanted = {f"{n}.{k}" for n in layers for k in ("weight", "bias")}
    wanted |= {f"dec.32x32_aux_{n}.{k}" for n in ("norm", "conv") for k in ("weight", "bias")}
    for size in ("32x32", "16x16", "8x8"):
        attended = size == "16x16"
        blocks = {f"enc.{size}_block{i}": (size == "32x32" and i == 0, attended) for i in range(4)}
        blocks |= {f"dec.{size}_block{i}": (True, attended and i == 4) for i in range(5)}
        blocks |= {f"enc.{size}_down": (True, False)} if size != "32x32" else {}
        blocks |= {f"dec.{size}_up": (True, False)} if size != "8x8" else {}
        for name, kind in blocks.items():
            wanted |= {f"{name}.{n}" for n in names_of_a_block(*kind)}
    wanted |= {f"dec.8x8_in0.{n}" for n in names_of_a_block(False, True)}
    wanted |= {f"dec.8x8_in1.{n}" for n in names_of_a_block(False, False)}
    assert set(model.network.state_dict()) == wanted


State = dict[str, Tensor]


def block_by_hand(state: State, name: str, x: Tensor, e: Tensor, sample: int = 0) -> Tensor:
    """`sample` -1 halves and 1 doubles, by the filter 1/4 of 2 x 2 as published."""

    def get(layer: str) -> tuple[Tensor, Tensor]:
        return state[f"{name}.{layer}.weight"], state[f"{name}.{layer}.bias"]

    def resampled(v: Tensor) -> Tensor:
        ones = torch.ones(v.shape[1], 1, 2, 2).to(v)
        if sample == 0:
            return v
        if sample < 0:
            return conv2d(v, ones / 4, stride=2, groups=v.shape[1])
        return conv_transpose2d(v, ones, stride=2, groups=v.shape[1])

    def normed(layer: str, v: Tensor) -> Tensor:
        return group_norm(v, min(32, v.shape[1] // 4), *get(layer), eps=1e-6)

    inside = conv2d(resampled(silu(normed("norm0", x))), *get("conv0"), padding=1)
    inside = inside + linear(e, *get("affine"))[:, :, None, None]
    inside = conv2d(silu(normed("norm1", inside)), *get("conv1"), padding=1)
    beside = resampled(x)
    if f"{name}.skip.weight" in state:
        beside = conv2d(beside, *get("skip"))
    out = (inside + beside) * sqrt(0.5)
    if f"{name}.qkv.weight" not in state:
        return out
    mixed = conv2d(normed("norm2", out), *get("qkv")).flatten(
        2
    )  # channels c, q k v of each in turn
    q, k, v = mixed[:, 0::3], mixed[:, 1::3], mixed[:, 2::3]
    weights = torch.einsum("ncq,nck->nqk", q, k / sqrt(q.shape[1])).softmax(2)
    attended = torch.einsum("nqk,nck->ncq", weights, v).reshape(out.shape)
    return (out + conv2d(attended, *get("proj"))) * sqrt(0.5)


def by_hand(state: State, x: Tensor, sigma: float, label: Tensor) -> Tensor:
    """EDM's denoiser of pictures in [-1, 1], sigma_data 0.5, from the names of the weights."""
    total = sqrt(sigma**2 + 0.25)
    get = lambda name: (state[f"{name}.weight"], state[f"{name}.bias"])
    waves = log(sigma) / 4 * 1e-4 ** (torch.arange(8).double() / 7)  # (width / 2,)
    e = torch.cat([waves.sin(), waves.cos()]).expand(len(x), -1)
    e = e + linear(sqrt(2) * label, *get("map_label"))
    e = silu(linear(silu(linear(e, *get("map_layer0"))), *get("map_layer1")))
    seen = [conv2d(x / total, *get("enc.8x8_conv"), padding=1)]
    for name, sample in (("8x8_block0", 0), ("8x8_block1", 0), ("4x4_down", -1)):
        seen.append(block_by_hand(state, f"enc.{name}", seen[-1], e, sample))
    for name in ("4x4_block0", "4x4_block1"):
        seen.append(block_by_hand(state, f"enc.{name}", seen[-1], e))
    out = seen[-1]
    for name in ("4x4_in0", "4x4_in1", *(f"4x4_block{i}" for i in range(3)), "8x8_up"):
        out = torch.cat([out, seen.pop()], 1) if "block" in name else out
        out = block_by_hand(state, f"dec.{name}", out, e, int("up" in name))
    for i in range(3):
        out = block_by_hand(state, f"dec.8x8_block{i}", torch.cat([out, seen.pop()], 1), e)
    assert not seen
    out = silu(group_norm(out, 4, *get("dec.8x8_aux_norm"), eps=1e-6))
    out = conv2d(out, *get("dec.8x8_aux_conv"), padding=1)
    return 0.25 / total**2 * x + 0.5 * sigma / total * out


@pytest.mark.parametrize("sigma", [0.01, 0.5, 20.0])
def test_it_is_the_published_network_on_pictures_from_minus_one_to_one(sigma: float) -> None:
    """Here x is in [0, 1], and the noise half of it."""
    model, (x, y, *_) = small(2).double(), pictures()
    found = 2 * model(x.double(), sigma / 2, y) - 1
    label = torch.eye(2).double()[y]
    wanted = by_hand(model.network.state_dict(), 2 * x.double() - 1, sigma, label)
    plain = 0.25 / (sigma**2 + 0.25) * (2 * x.double() - 1)
    assert (found - wanted).abs().max() < 1e-12 * wanted.abs().max()
    assert (wanted - plain).abs().max() > 1e-3 * wanted.abs().max()  # the network does something


def test_a_new_network_is_exact_for_a_gaussian() -> None:
    """Of pictures N(1/2, 1/16), as every denoiser starts."""
    model, x = song_unet(SHAPE, **SMALL).double(), pictures().x.double()
    wanted = 0.5 + 0.0625 / (0.0625 + 0.01) * (x - 0.5)
    assert (model(x, 0.1) - wanted).abs().max() < 1e-14


@pytest.mark.parametrize("classes", [0, 2])
def test_published_weights_are_read_to_the_bit(tmp_path: Path, classes: int) -> None:
    model, path, batch = small(classes), tmp_path / "edm.safetensors", pictures()
    save_file(as_published(model), path)
    found = edm_denoiser(path)
    assert (
        all(torch.equal(t, found.state_dict()[k]) for k, t in model.state_dict().items())
        and not found.training
    )
    labels = batch.y if classes else None
    score = edm(path, sigma=0.25, conditional=bool(classes))(batch)
    with torch.no_grad():
        assert torch.equal(score, (model(batch.x, 0.25, labels) - batch.x) / 0.0625)
    with pytest.raises(ValueError, match="it has not an? .*conditional score") as refusal:
        edm(path, sigma=0.25, conditional=not classes)
    assert str(path) in str(refusal.value)
    with pytest.raises(ValueError, match="for noise from 0.001 to 40 is asked for 50"):
        edm(path, sigma=50.0, conditional=bool(classes))(batch)


def without(name: str) -> Any:
    return lambda t: t.pop(f"model.{name}")


def changed(name: str, value: Tensor) -> Any:
    return lambda t: t.update({f"model.{name}": value})


DAMAGED: list[tuple[Any, str]] = [
    (without("enc.8x8_block1.conv1.bias"), "it has no enc.8x8_block1.conv1.bias"),
    (changed("enc.9", torch.zeros(1)), "which has no enc.9"),
    (changed("map_noise.freqs", torch.zeros(8)), "random Fourier features, as in NCSN"),
    (changed("enc.4x4_down.skip.resample_filter", torch.ones(1, 1, 4, 4)), "by another filter"),
    (
        changed("map_layer0.bias", torch.full((64,), torch.nan)),
        "map_layer0.bias that are not finite",
    ),
    (changed("map_layer0.bias", torch.zeros(63)), r"its map_layer0.bias is \(63,\)"),
    (lambda t: t.clear(), "it has no enc.32x32_conv.weight"),
    (without("enc.8x8_conv.weight"), "enc.8x8_conv.weight"),
]


@pytest.mark.parametrize(("damage", "line"), DAMAGED)
def test_foreign_weights_are_refused(tmp_path: Path, damage: Any, line: str) -> None:
    path, tensors = tmp_path / "edm.safetensors", as_published(small())
    damage(tensors)
    save_file(tensors, path)
    with pytest.raises(ValueError, match=line) as refusal:
        edm(path, sigma=0.25)
    assert str(path) in str(refusal.value) and "\n" not in str(refusal.value)


def test_what_is_no_file_of_weights_is_refused(tmp_path: Path) -> None:
    whole, cut = tmp_path / "edm.safetensors", tmp_path / "cut.safetensors"
    save_file(as_published(small()), whole)
    cut.write_bytes(whole.read_bytes()[:-100])
    (tmp_path / "edm.pkl").write_bytes(b"\x80\x04 a pickle")
    for name, line in (
        ("cut.safetensors", "it is cut short"),
        ("edm.pkl", "looks like a pickle"),
        ("none.safetensors", "there is no such file"),
    ):
        with pytest.raises(ValueError, match=line) as refusal:
            edm(tmp_path / name, sigma=0.25)
        assert "\n" not in str(refusal.value)


def test_sizes_that_do_not_fit_are_refused() -> None:
    for shape, options, line in (
        ((3, 9, 8), {}, "song_unet of 3 heights takes sides that are multiples of 4"),
        ((3, 8, 8), {"width": 12}, "a width that is one of 8, not shape .* and width 12"),
        ((3, 8, 8), {"multipliers": ()}, "smallest multiplier must be 1 or more, not 0"),
        ((8,), {}, "song_unet takes images"),
    ):
        with pytest.raises(ValueError, match=line):
            song_unet(shape, **options)
