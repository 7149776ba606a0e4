"""The experiments normal_weights and dimension_gap: what they stand on, what they predict, their figures."""

import importlib.util
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

import numpy as np
import pytest
import scipy
import torch
from torch import Tensor, nn

from manifoldlab import records
from manifoldlab.architecture import Architecture
from manifoldlab.ensembles import Ensemble, train_ensemble
from manifoldlab.experiments import dimension_gap, normal_weights
from manifoldlab.interfaces import Batch
from manifoldlab.objectives.cross_entropy import cross_entropy
from manifoldlab.probes.tangent_alignment import tangent_alignment
from manifoldlab.records import Outcome
from manifoldlab.studies import normal_motion
from manifoldlab.studies.flats import Flats
from manifoldlab.studies.flips import Rectifiers, first_root, flips, nearest_flip
from manifoldlab.studies.watching import Watch, Watched
from tests.test_ensembles import SEEDS, networks, points, weights

ROOT = Path(__file__).parents[1]
TINY = {
    "normal_weights": normal_weights.Config(
        dim=2, ambient=8, width=4, seeds=3, samples=16, steps=4, looks=3
    ),
    "dimension_gap": dimension_gap.Config(
        dim=2, codims=(128, 256, 512), width=8, seeds=3, samples=8, points=8, steps=4
    ),
}
MODULES = {"normal_weights": normal_weights, "dimension_gap": dimension_gap}


class Progress:
    def __init__(self, folder: Path):
        self.folder = folder
        self.shares: list[float] = []

    def __call__(self, done: float, what: str = "") -> None:
        self.shares.append(done)


def made(name: str) -> Outcome:
    with TemporaryDirectory() as folder:
        progress = Progress(Path(folder))
        outcome: Outcome = MODULES[name].main(TINY[name], progress)
    assert progress.shares == sorted(progress.shares) and progress.shares[-1] <= 1
    return outcome


outcome = cache(made)


def drawn(shift: float = 0.5) -> tuple[Flats, Batch]:
    flats = Flats.drawn(7, 2, shift, (0, 1, 2))
    return flats, flats.points(5, 1.0, (0, 1, 2), "seen")


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_points_lie_on_flats_of_their_own(shift: float) -> None:
    flats, batch = drawn(shift)
    x = batch.x.reshape(3, 5, 7)
    assert flats.unseen(x).abs().max() < 1e-14 and flats.span.shape == (3, 7, 2 + (shift > 0))
    assert (flats.unseen(x.roll(1, 0)).norm(dim=2) > 0.01).all()
    offset = x - flats.along(x)
    assert (offset.norm(dim=2) - shift).abs().max() < 1e-14
    v = torch.randn(4, 15, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for i in range(3):
        frame, rows = flats.span[i, :, :2], slice(5 * i, 5 * i + 5)
        expected = v[:, rows] @ frame @ frame.mT
        assert (flats.to_tangent(batch.x, v)[:, rows] - expected).abs().max() < 1e-14
    spread = flats.points(5, 1.0, (0, 1, 2), "seen", spread=0.1)
    noise = (spread.x - batch.x).reshape(3, 5, 7)
    assert (noise - flats.unseen(noise)).abs().max() < 1e-14 and noise.abs().min() > 0


def test_classes_are_normal_about_both_sides_of_the_origin() -> None:
    """Means +-separation along the first direction and 0 along the other; within 5 standard errors."""
    flats = Flats.drawn(7, 2, 0.5, (0,))
    batch = flats.points(2000, 0.7, (0,), "seen")
    z = batch.x @ flats.span[0, :, :2]
    for label, centre in ((0, -0.7), (1, 0.7)):
        own = z[batch.y == label]
        assert len(own) == 1000
        assert (own.mean(0) - torch.tensor([centre, 0.0])).abs().max() < 5 / 1000**0.5
        assert (own.var(0) - 1).abs().max() < 5 * (2 / 1000) ** 0.5


def test_the_margin_of_the_classes_is_tangent() -> None:
    """log p(z, 1) - log p(z, 0) = 2 separation z_1."""
    flats, batch = drawn()
    normal = flats.span[:, :, 0].repeat_interleave(5, 0)
    bayes = lambda x: torch.stack([0 * x[:, 0], 2 * (x * normal).sum(1)], 1)
    assert tangent_alignment(bayes, batch, flats).omega.max() < 1e-28


def test_a_watched_training_is_the_same() -> None:
    watched, plain = networks(), networks()
    look = lambda model, product: {"first": model.stacked[2].weight[:, 0, 0].detach().clone()}
    halves = lambda model, batch: torch.tensor(0.5)
    watch = Watch(look, halves, (0, 2, 6), torch.ones(3))
    run = {"seeds": SEEDS, "epochs": 2, "batch_size": 32}
    train_ensemble(watched, Watched(cross_entropy, watch), points(), **run)
    train_ensemble(plain, cross_entropy, points(), **run)
    for one, other in zip(watched, plain, strict=True):
        assert torch.equal(weights(one), weights(other))
    assert watch.step == 6 and torch.equal(watch.product, torch.full((3,), 0.5**6))
    watch(Ensemble(watched), next(points().batches(70, None)))
    first = watch.curves()["first"]
    assert first.shape == (3, 3) and first[:, 2].tolist() == [m[2].weight[0, 0] for m in plain]


def test_normal_gradients_of_rectifiers_have_their_law_at_the_start() -> None:
    """m D |(I - Pi) g|^2 / k over its mean is 1 on average, whatever the width; within 5 errors."""
    seeds = tuple(range(40))
    flats = Flats.drawn(12, 2, 0.0, seeds)
    batch = flats.points(20, 1.0, seeds, "seen")
    architecture = Architecture("two_layer_relu", (12,), 2, {"width": 16})
    model = Ensemble([architecture.build(seed).double() for seed in seeds])
    start = flats.unseen(normal_motion.first_weights(model))
    look = normal_motion.NormalMotion(flats, batch, normal_motion.first_weights, start, True)
    found = look(model, torch.ones(40, dtype=torch.float64))
    ratio = found["chi_square"]
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / 40**0.5 < 0.25
    assert found["moved"].abs().max() == 0 and (found["kept"] - 1).abs().max() < 1e-12
    smaller = normal_motion.NormalMotion(
        flats, batch, normal_motion.first_weights, start / 1.5, True
    )
    found = smaller(model, torch.full((40,), 1.2, dtype=torch.float64))
    for name, value in (("moved", 0.5), ("off", 0.3), ("size", 1.5), ("kept", 1.5)):
        assert (found[name] - value).abs().max() < 1e-12, name


def linear() -> tuple[Flats, Batch, Ensemble]:
    flats, batch = drawn()
    architecture = Architecture("mlp", (7,), 2, {"depth": 0})
    return flats, batch, Ensemble([architecture.build(seed).double() for seed in range(3)])


def slope_across(flats: Flats, model: Ensemble, loss: Tensor) -> Tensor:
    (slope,) = torch.autograd.grad(loss, model.stacked[2].weight)
    return flats.unseen(slope.diff(dim=1))


def test_attacks_shrink_one_layer_by_their_factor() -> None:
    """The worst point is x - eps y w / |w|."""
    flats, batch, model = linear()
    w = normal_motion.row_difference(model)
    unit = (w / w.norm(dim=2, keepdim=True)).expand(3, 5, 7).reshape(-1, 7)
    worst = batch.x - 0.4 * ((2 * batch.y - 1)[:, None] * unit)
    loss = 3 * cross_entropy(model, Batch(worst, batch.y), torch.Generator())
    factor = normal_motion.of_attacks(model, batch, rate=0.3, radius=0.4)
    after = flats.unseen(w) - 0.3 * slope_across(flats, model, loss)
    assert (after - factor[:, None, None] * flats.unseen(w)).abs().max() < 1e-14


def test_noise_shrinks_one_layer_by_its_factor() -> None:
    """Stein's lemma by the trapezoidal rule, which is exact to rounding for such integrands."""
    flats, batch, model = linear()
    factor = normal_motion.of_noise(model, batch, rate=0.3, noise=0.4)
    m, size = normal_motion.margins(model, batch)
    h = torch.linspace(-9, 9, 2001, dtype=torch.float64)
    density = torch.exp(-h.square() / 2) / (2 * torch.pi) ** 0.5
    noisy = m[..., None] + 0.4 * size[..., None] * h
    mean = torch.trapezoid(noisy.sigmoid() * (-noisy).sigmoid() * density, h).mean(1)
    assert (factor - (1 - 2 * 0.3 * 0.16 * mean)).abs().max() < 1e-9


def rectifiers(size: int = 6) -> tuple[Rectifiers, nn.Module]:
    architecture = Architecture("two_layer_relu", (size,), 2, {"width": 8, "scale": 1.0})
    models = [architecture.build(seed).double() for seed in range(3)]
    return Rectifiers.of(models), Ensemble(models)


def test_the_first_root_of_a_ray_is_that_of_the_network() -> None:
    """Before it no sign changes on a fine grid, and past it the sign has changed or f rests at 0."""
    few, model = rectifiers()
    generator = torch.Generator().manual_seed(0)
    x, ray = torch.randn(2, 3, 20, 6, generator=generator, dtype=torch.float64)
    f = lambda t: model((x + t * ray).reshape(-1, 6)).diff(dim=1).reshape(3, 20).neg()
    here, root = f(0), first_root(few, x, ray)
    assert (few.values(x) - here).abs().max() < 1e-14
    found = root.isfinite()
    assert 10 < found.sum() < 60
    for share in torch.linspace(0, 0.9999, 50).tolist():
        t = share * root.where(found, 100.0)[..., None]
        assert (f(t) * here.sign() > 0).all()
    past = f(1.0001 * root.where(found, 0.0)[..., None])
    assert (past * here.sign() <= 1e-12)[found].all()


def test_the_nearest_flip_of_a_linear_function_is_that_of_first_order() -> None:
    """max(0, w.x) - max(0, -w.x) = w.x"""
    w = torch.randn(3, 1, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    few = Rectifiers(torch.cat([w, -w], 1), torch.tensor([1.0, -1.0], dtype=torch.float64))
    x = torch.randn(3, 9, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    tail = lambda v: v * (torch.arange(6) >= 2)
    exact = (x @ w.mT)[..., 0].abs() / tail(w).norm(dim=2)
    assert (nearest_flip(few, x, tail) / exact - 1).abs().max() < 1e-12
    found = flips(few, few.inner, x, across=tail, along=lambda v: v - tail(v))
    assert (found["linear"] / exact - 1).abs().max() < 1e-12
    ratio = found["unit"] / found["chi_square"].sqrt() / found["linear"]
    assert (ratio - 2**0.5).abs().max() < 1e-12  # outer weights of 1, not of 1 / sqrt(2)


def test_more_rays_find_nothing_farther() -> None:
    few, _ = rectifiers()
    x = torch.randn(3, 20, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    one, many = (nearest_flip(few, x, lambda v: v, rays=rays) for rays in (1, 12))
    assert (many <= one).all() and (many < one).any()


def test_normal_weights_predicts_and_measures() -> None:
    config, found = TINY["normal_weights"], outcome("normal_weights")
    ways, kinds = normal_weights.trainings(config), normal_weights.networks(config)
    arrays = found.samples
    assert arrays["times"].tolist() == [0, 1, 4] and float(arrays["omega_null"]) == 0.75
    assert arrays["moved"].shape == (8, 5, 3, 3) and list(arrays["trainings"]) == list(ways)
    for kind in kinds:
        left = found.metrics[f"left by weight decay, {kind}"]
        assert left["predicted"] == (1 - 0.4 * 0.01) ** 4 and left["agrees"]
        for way in normal_weights.FROZEN:
            assert found.metrics[f"moved by {way}, {kind}"]["agrees"]
        for way in ("Adam", "normal noise in the points"):
            assert found.metrics[f"moved by {way}, {kind}"]["measured"] > 1e-4
    assert found.metrics["off the factors of attacks, depth 1"]["agrees"]
    assert found.metrics["left by attacks, depth 1"]["measured"] < 1
    known = np.isfinite(arrays["predicted"]).all((2, 3))
    assert known.sum() == 4 * len(kinds) + 2
    first = arrays["moved"][..., 0], 1 - arrays["kept"][..., 0]
    assert all(np.abs(values).max() < 1e-15 for values in first)


def test_dimension_gap_predicts_and_measures() -> None:
    config, found = TINY["dimension_gap"], outcome("dimension_gap")
    arrays = found.samples
    codims = np.array(config.codims)
    logs = [scipy.stats.chi(codim).expect(np.log) for codim in codims]
    assert np.allclose(np.log(arrays["law_in_units"][1]), -np.array(logs), rtol=0, atol=1e-8)
    slope = np.polyfit(np.log(codims), -np.array(logs), 1)[0]
    metrics = found.metrics
    assert abs(metrics["slope of the first order, descent"]["predicted"] - slope) < 1e-6
    factors = {"descent": 1, "variance 1/D": 514**0.5, "small weights": 4}
    factors |= {"before training": 1, "weight decay": (1 - 2 * 0.5 * 0.005) ** -4}
    for name, factor in factors.items():
        over = metrics[f"first order over the law, {name}"]
        assert abs(over["predicted"] / factor - 1) < 1e-12 and over["agrees"]
        assert metrics[f"first order off that at any point, {name}"]["agrees"]
    assert "predicted" not in metrics["slope of the true distance, attacks"]
    assert metrics["slope of the true distance, descent"]["agrees"]
    assert arrays["across"].shape == (7, 3, 3) and np.nanmin(arrays["across"]) > 0


@pytest.mark.parametrize("name", MODULES)
def test_the_same_again(name: str) -> None:
    first, second = outcome(name), made(name)
    assert first.metrics == second.metrics
    for key, array in first.samples.items():
        assert np.array_equal(array, second.samples[key], equal_nan=array.dtype.kind == "f")


@pytest.mark.parametrize(
    ("name", "fields", "line"),
    [
        ("normal_weights", {"dim": 63}, "a flat of dim 63 and its offset leave nothing of 64"),
        ("normal_weights", {"seeds": 1}, "seeds must be 2 or more, not 1"),
        ("normal_weights", {"looks": 2}, "looks must be 3 or more, not 2"),
        ("normal_weights", {"samples": 30}, "samples must be a multiple of 4, not 30"),
        ("normal_weights", {"shift": -1.0}, "the shift is a distance, not -1.0"),
        ("dimension_gap", {"codims": (8, 128, 256)}, "a slope needs three codims from 128 on"),
        ("dimension_gap", {"width": 0}, "width must be 1 or more, not 0"),
        ("dimension_gap", {"deviation": 0.0}, "weights is positive, not 0.0"),
    ],
)
def test_bad_fields_are_refused_in_one_line(name: str, fields: dict, line: str) -> None:
    with pytest.raises(ValueError, match=line) as error:
        MODULES[name].Config(**fields)
    assert "\n" not in str(error.value)


def figure(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "paper_figs" / f"fig_{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", MODULES)
def test_figures_are_drawn_from_records(name: str, tmp_path: Path) -> None:
    drawing = figure(name)
    with pytest.raises(SystemExit, match=f"make them with: manifoldlab run {name}"):
        drawing.draw(tmp_path)
    config = records.plain(TINY[name])
    folder = tmp_path / name / records.name(name, config)
    folder.parent.mkdir()
    records.save(folder, name, config, outcome(name), seconds=1.0)
    page = drawing.draw(tmp_path)
    page.savefig(tmp_path / "page.png", dpi=40)
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")
    assert "1 runs, sources" in page.get_supxlabel()
