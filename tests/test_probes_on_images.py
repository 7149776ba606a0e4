"""Probes of pictures: against closed forms of linear models, Parseval, and published weights' layouts."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from manifoldlab.gradients import logit
from manifoldlab.interfaces import Batch, Geometry
from manifoldlab.models.alexnet import convolutions
from manifoldlab.models.small_cnn import small_cnn
from manifoldlab.perception import Perception, hidden
from manifoldlab.probes import lpips_alignment as lpips
from manifoldlab.probes.lpips_alignment import lpips_alignment
from manifoldlab.probes.on_off_robustness import head_change
from manifoldlab.probes.perceptual_alignment import perceptual_alignment, scaled
from manifoldlab.probes.signal_robustness import signal_robustness
from manifoldlab.probes.spectral_alignment import spectral_alignment
from manifoldlab.probing import summary

ERRORS = 6  # standard errors: a false alarm in 5e8
SHAPE = (2, 8, 8)


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=source(seed), dtype=torch.float64)


class Nowhere(Geometry):
    """For probes that ask nothing of tangent spaces."""

    dim = 1

    def to_tangent(self, x: Tensor, v: Tensor) -> Tensor:
        raise AssertionError


def linear(weight: Tensor) -> Any:
    """Logits (n, 2) whose first one has the gradient `weight` (*shape)."""
    return lambda x: torch.stack([(x * weight).flatten(1).sum(1), torch.zeros(len(x)).to(x)], 1)


def zeros(n: int, shape: tuple[int, ...] = SHAPE, region: Tensor | None = None) -> Batch:
    where = None if region is None else region.expand(n, *shape)
    return Batch(torch.zeros(n, *shape).double(), torch.zeros(n).long(), region=where)


# signal_robustness


def left_half() -> Tensor:
    region = torch.zeros(SHAPE, dtype=torch.bool)
    region[..., :3] = True
    return region


def test_noise_on_the_signal_against_noise_beside_it_of_a_linear_model() -> None:
    """E |sigma g_R.u| = sigma |g_R| (2/pi)^(1/2); the variance of |.| is 1 - 2/pi of the square."""
    weight, region, count = normal(*SHAPE), left_half(), 4000
    found = signal_robustness(
        linear(weight),
        zeros(2, region=region),
        Nowhere(),
        sizes=(0.1, 2.0),
        directions=count,
        change=head_change(logit),
    )
    sizes = torch.tensor([0.1, 2.0], dtype=torch.float64)
    relative = (torch.pi / 2 - 1) ** 0.5 / count**0.5
    for changed, part in ((found.signal, weight[region]), (found.distractor, weight[~region])):
        wanted = sizes * part.norm() * (2 / torch.pi) ** 0.5
        assert ((changed / wanted - 1).abs() < ERRORS * relative).all()
    wanted = weight[region].norm() / weight[~region].norm()
    assert ((found.ratio / wanted - 1).abs() < 1.5 * ERRORS * relative).all()
    turned = signal_robustness(
        linear(weight), zeros(1, region=~region), Nowhere(), change=head_change(logit)
    )
    assert (turned.ratio.log() * wanted.log() < 0).all()  # the ratio changes sides with the region


def test_what_depends_on_the_signal_only_is_still_beside_it() -> None:
    weight, region = normal(*SHAPE), left_half()
    found = signal_robustness(linear(weight * region), zeros(3, region=region), Nowhere())
    assert (found.distractor == 0).all() and (found.signal > 0).all() and (found.signal <= 2).all()


def test_an_isotropic_gradient_has_the_null_ratio() -> None:
    """In standard errors of E |g_R|^2 - null^2 E |g_N|^2 = 0."""
    region = left_half()
    null = signal_robustness(linear(normal(*SHAPE)), zeros(1, region=region), Nowhere()).ratio_null
    assert abs(null.item() - (3 / 5) ** 0.5) < 1e-12
    g = normal(4000, *SHAPE, seed=3)
    difference = g[:, region].square().sum(1) - null**2 * g[:, ~region].square().sum(1)
    assert difference.mean().abs() < ERRORS * difference.std() / 4000**0.5


def test_a_batch_without_a_region_is_refused() -> None:
    model = linear(normal(*SHAPE))
    with pytest.raises(ValueError, match="needs batch.region, where the label's evidence is"):
        signal_robustness(model, zeros(2), Nowhere())
    wrong = zeros(2)._replace(region=torch.zeros(2, *SHAPE))
    with pytest.raises(ValueError, match=r"a region \(2, 2, 8, 8\) of torch.float32 for samples"):
        signal_robustness(model, wrong, Nowhere())


# spectral_alignment


def spectra(g: Tensor, s: Tensor, **options: Any) -> Any:
    """Of gradients g (n, *shape) against fields s: each sample has a model of its own."""
    model = lambda x: torch.stack([(x * g).flatten(1).sum(1), x.new_zeros(len(x))], 1)
    batch = zeros(len(g), tuple(g.shape[1:]))
    return spectral_alignment(model, batch, Nowhere(), reference=lambda _: s, **options)


@pytest.mark.parametrize("shape", [SHAPE, (1, 9, 6), (7,)])
def test_shares_add_up_and_products_too(shape: tuple[int, ...]) -> None:
    """Parseval, for energies and for the inner product; both scale-free."""
    g, s = normal(5, *shape, seed=1), normal(5, *shape, seed=2)
    found = spectra(g, s)
    for share in (found.share, found.reference_share, found.share_null):
        assert (share >= 0).all() and (share.sum(1) - 1).abs().max() < 1e-12
    products = (found.share * found.reference_share).sqrt() * found.cosine
    cosine = (g * s).flatten(1).sum(1) / (g.flatten(1).norm(dim=1) * s.flatten(1).norm(dim=1))
    assert (products.sum(1) - cosine).abs().max() < 1e-12
    for name, a, b in zip(found._fields, found, spectra(1e3 * g, 1e-3 * s), strict=True):
        assert (a - b).abs().max() < 1e-12, name


def wave(rows: int, columns: int) -> Tensor:
    """cos 2 pi (a i + b j) / 8 in one channel: its energy is at that frequency alone."""
    i, j = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    one = (2 * torch.pi * (rows * i + columns * j) / 8).double().cos()
    return torch.stack([one, torch.zeros_like(one)])[None]


@pytest.mark.parametrize(
    ("rows", "columns", "band"), [(0, 0, 0), (0, 1, 2), (1, 1, 2), (2, 0, 3), (1, 2, 3), (4, 4, 3)]
)
def test_a_wave_is_in_its_band(rows: int, columns: int, band: int) -> None:
    """Of 8 pixels: edges at half a period a picture, one and two periods."""
    found = spectra(wave(rows, columns), wave(rows, columns))
    only = torch.zeros(1, 4, dtype=torch.float64)
    only[0, band] = 1
    assert (found.share - only).abs().max() < 1e-12 and abs(found.overlap - 1) < 1e-12
    assert abs(found.cosine[0, band] - 1) < 1e-12
    other = spectra(wave(rows, columns), wave(3, 3) if band < 3 else wave(0, 0))
    assert other.overlap < 1e-12


def test_shares_do_not_see_where_things_are_and_cosines_do() -> None:
    g = normal(3, *SHAPE)
    found = spectra(g, g.roll(3, 3))
    assert (found.share - found.reference_share).abs().max() < 1e-12
    assert (found.overlap - 1).abs().max() < 1e-12
    assert found.cosine[:, 3].max() < 0.6 and (found.cosine[:, 0] - 1).abs().max() < 1e-12


def test_nulls_are_those_of_white_noise() -> None:
    """In standard errors of 4000 gradients; a band without frequencies has neither share nor cosine."""
    n = 4000
    g, s = normal(n, *SHAPE, seed=5), normal(1, *SHAPE, seed=6).expand(n, *SHAPE)
    found = spectra(g, s)
    error = found.share.std(0) / n**0.5
    assert ((found.share.mean(0) - found.share_null[0]).abs() <= ERRORS * error).all()
    squares = found.cosine.square()
    error = squares.std(0) / n**0.5
    assert ((squares.mean(0) - found.cosine_null[0].square()).abs() <= ERRORS * error).all()
    assert (found.share_null[0] == torch.tensor([1, 0, 8, 55]).double() / 64).all()
    assert (found.cosine[:, 1] == 0).all() and found.cosine_null[0, 1] == 0
    wanted = torch.minimum(found.share_null, found.reference_share).sum(1)
    assert (found.overlap_null - wanted).abs().max() < 1e-12


def test_edges_ascend() -> None:
    for edges in ((0.2, 0.1), (0.0, 0.1), (0.1, 0.1), (0.1, 1.5)):
        with pytest.raises(ValueError, match="edges of bands ascend from above 0"):
            spectra(normal(1, *SHAPE), normal(1, *SHAPE), edges=edges)


def test_a_summary_has_the_null_of_each_band() -> None:
    found = summary(spectra(normal(5, *SHAPE), normal(5, *SHAPE, seed=2))._asdict())
    assert found["share[2]"]["null"] == 8 / 64 and found["share[3]"]["null"] == 55 / 64


# perception


def network() -> nn.Module:
    model = small_cnn((1, 8, 8), 3, width=4).double()
    for i, p in enumerate(model.parameters()):
        p.data = 0.5 * normal(*p.shape, seed=20 + i)
    return model


LAYERS = ("2", "4")


def test_distances_are_those_of_the_formula() -> None:
    model, (a, b) = network(), (torch.rand(2, 3, 1, 8, 8, generator=source()).double())
    weights = tuple(torch.rand(width, generator=source(2)).double() for width in (4, 8))
    found = Perception(hidden(model, LAYERS), weights).distance(a, b)
    plain = Perception(hidden(model, LAYERS)).distance(a, b)
    for sample in range(3):
        total, cosine = 0.0, 0.0
        for depth, weight in zip((3, 5), weights, strict=True):  # how many modules are run
            one, other = (model[:depth](t[sample : sample + 1])[0] for t in (a, b))
            one, other = (t / t.square().sum(0).sqrt() for t in (one, other))
            total += ((one - other).square() * weight[:, None, None]).sum(0).mean()
            cosine += (one * other).sum(0).mean() / 2
        assert abs(found[sample] - total) < 1e-8  # the published 1e-10 beside lengths
        assert abs(1 - plain[sample] - cosine) < 1e-8
    assert (Perception(hidden(model, LAYERS)).distance(a, a) == 0).all()


def test_no_layer_of_that_name() -> None:
    with pytest.raises(ValueError, match="no layer '77' of Sequential, which has 0, 1, 2"):
        hidden(network(), ("77",))
    with pytest.raises(ValueError, match="weights of 1 layers for features of 2"):
        Perception(hidden(network(), LAYERS), (torch.ones(4),)).distance(*normal(2, 1, 1, 8, 8))


def test_perceptual_alignment_shows_fields_to_the_network() -> None:
    model, weight, s = network(), normal(1, 8, 8), normal(4, 1, 8, 8, seed=2)
    features = hidden(model, LAYERS)
    probe = partial(
        perceptual_alignment, linear(weight), zeros(4, (1, 8, 8)), Nowhere(), features=features
    )
    found = probe(reference=lambda _: s)
    shown = lambda v: (1 + scaled(v)) / 2
    distance = Perception(features).distance
    wanted = 1 - distance(shown(weight.expand(4, 1, 8, 8)), shown(s))
    assert (found.similarity - wanted).abs().max() < 1e-12
    own = probe(reference=lambda _: 3 * weight.expand(4, 1, 8, 8))
    assert (own.similarity - 1).abs().max() < 1e-12 and own.similarity_null.max() < 1 - 1e-3
    assert not any(p.grad is not None for p in model.parameters())
    assert all(not m._forward_hooks for m in model.modules())


# LPIPS


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Weights as torchvision and lpips lay them out; random ones."""
    folder = tmp_path_factory.mktemp("weights")
    features = convolutions(3, 64)
    for i, p in enumerate(features.parameters()):
        p.data = 0.1 * torch.randn(p.shape, generator=source(i))
    backbone = {f"features.{k}": t for k, t in features.state_dict().items()}
    backbone |= {"classifier.6.bias": torch.zeros(1000)}
    widths = (64, 192, 384, 256, 256)
    heads = {
        f"lin{i}.model.1.weight": torch.rand(1, width, 1, 1, generator=source(i))
        for i, width in enumerate(widths)
    }
    torch.save(backbone, folder / "alexnet.pth")
    torch.save(heads, folder / "alex.pth")
    return folder / "alexnet.pth", folder / "alex.pth"


def test_lpips_is_the_published_sum(files: tuple[Path, Path]) -> None:
    """Written out from the names of the weights. With those of the package lpips and the same random
    AlexNet its own code gave the same numbers to 1.5e-8."""
    a, b = 2 * torch.rand(2, 2, 3, 40, 33, generator=source()) - 1
    found = lpips.published(backbone=files[0], heads=files[1]).distance(a, b)
    state, heads = (torch.load(path, weights_only=True) for path in files)
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    one, other = ((t - shift[:, None, None]) / scale[:, None, None] for t in (a, b))
    total = torch.zeros(2)
    for i, name in enumerate((0, 3, 6, 8, 10)):
        options = {"stride": 4, "padding": 2} if i == 0 else {"padding": 2 if i == 1 else 1}
        kernel = state[f"features.{name}.weight"], state[f"features.{name}.bias"]
        if i in (1, 2):
            one, other = (nn.functional.max_pool2d(t, 3, 2) for t in (one, other))
        one, other = (nn.functional.conv2d(t, *kernel, **options).relu() for t in (one, other))
        units = [t / (t.square().sum(1, keepdim=True).sqrt() + 1e-10) for t in (one, other)]
        square = (units[0] - units[1]).square()
        total += (heads[f"lin{i}.model.1.weight"] * square).sum(1).mean((1, 2))
    assert (found - total).abs().max() < 1e-5 * total.max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("shape", "size"), [((3, 32, 31), 0), ((1, 32, 32), 0), ((1, 8, 8), 32)])
def test_lpips_keeps_the_contract_of_probes(
    files: tuple[Path, Path], dtype: torch.dtype, shape: tuple[int, ...], size: int
) -> None:
    metric = lpips.published(backbone=files[0], heads=files[1])
    weight, field = normal(*shape).to(dtype), normal(4, *shape, seed=2).to(dtype)
    batch = Batch(torch.zeros(4, *shape, dtype=dtype), torch.zeros(4).long())
    probe = partial(lpips_alignment, linear(weight), metric=metric, size=size)
    found = probe(batch, Nowhere(), reference=lambda b: field[: len(b.x)])
    assert all(f.shape == (4,) and f.dtype == dtype and not f.requires_grad for f in found)
    half = probe(Batch(batch.x[:2], batch.y[:2]), Nowhere(), reference=lambda b: field[:2])
    assert (half.one_minus_lpips - found.one_minus_lpips[:2]).abs().max() < 1e-5
    same = probe(batch, Nowhere(), reference=lambda b: 7 * weight.expand(4, *shape))
    assert (same.one_minus_lpips - 1).abs().max() < 1e-6
    assert (found.one_minus_lpips < 0.999).all() and (found.one_minus_lpips_null < 0.999).all()


def test_missing_weights_say_where_they_were_looked_for(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    batch = zeros(1, (3, 32, 32))
    with pytest.raises(ValueError) as refusal:
        lpips_alignment(linear(normal(3, 32, 32)), batch, Nowhere(), reference=lambda b: b.x)
    line, path = str(refusal.value), tmp_path / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"
    assert f"{path}: torchvision.models.alexnet(" in line and "\n" not in line
    with pytest.raises(ValueError, match=r"not there; .*gone.pth: it comes with the package lpips"):
        lpips.published(backbone=files[0], heads=tmp_path / "gone.pth")
    path.parent.mkdir(parents=True)
    path.write_bytes(files[0].read_bytes())
    with pytest.raises(
        ValueError, match=r"is damaged: \d+ bytes of digest [0-9a-f]{8}, not 7be5be79"
    ):
        lpips.published(heads=files[1])


def test_what_lpips_cannot_take_is_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    metric = lpips.published(backbone=files[0], heads=files[1])
    for shape, size, line in (
        ((5,), 0, r"pictures of 1 or 3 channels, not for \(5,\)"),
        ((2, 32, 32), 0, r"not for \(2, 32, 32\)"),
        ((1, 28, 28), 0, r"31 x 31 or more, not of 28 x 28: size=... stretches them"),
        ((1, 28, 28), 30, r"not of 30 x 30"),
    ):
        given = zeros(1, shape), Nowhere()
        with pytest.raises(ValueError, match=line):
            lpips_alignment(
                linear(normal(*shape)), *given, reference=lambda b: b.x, metric=metric, size=size
            )
    cut, other, words = (tmp_path / name for name in ("cut.pth", "other.pth", "words.pth"))
    cut.write_bytes(files[0].read_bytes()[:1000])
    torch.save({"features.0.weight": torch.zeros(3)}, other)
    torch.save(["no weights"], words)
    for path, line in (
        (cut, "cut.pth cannot be read as weights that torch saved"),
        (other, r"other.pth does not fit AlexNet: its features.0.weight is \(3,\)"),
        (words, "words.pth holds no weights by name, but a list"),
        (files[1], "alex.pth does not fit AlexNet: it has no features.0.weight"),
    ):
        with pytest.raises(ValueError, match=line) as refusal:
            lpips.published(backbone=path, heads=files[1])
        assert "\n" not in str(refusal.value)
