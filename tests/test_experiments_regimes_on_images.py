"""regimes_on_images: a tiny run through `main`, its networks one by one or at once, and wrong fields."""

import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from manifoldlab import records
from manifoldlab.architecture import Architecture
from manifoldlab.data.digits import digits
from manifoldlab.data.subset import subset
from manifoldlab.ensembles import stackable
from manifoldlab.experiments import regimes_on_images
from manifoldlab.experiments.regimes_on_images import FAST, Config, main
from manifoldlab.interfaces import Batch
from manifoldlab.manifolds.flat import Flat
from manifoldlab.manifolds.placed import Placed
from manifoldlab.objectives.noise_augmentation import noise_augmentation
from manifoldlab.studies import image_networks, regimes_table
from manifoldlab.studies.image_gauge import ImageGauge
from manifoldlab.studies.image_networks import Course, networks
from manifoldlab.studies.image_regimes import most_tangent
from manifoldlab.studies.image_trainings import BATCH, IMAGE_TRAININGS
from manifoldlab.tangents.local_pca import LocalPca

SCORES = ("score", "tangent_score", "perceptual", "on", "off")
TINY = replace(
    FAST,
    objective="noise_augmentation",
    low=0.1,
    high=1.0,
    count=2,
    seeds=2,
    samples=200,
    held_out=60,
    epochs=1,
    width=2,
    denoiser_epochs=1,
    denoiser_width=4,
)


class Work:
    def __init__(self, folder: Path):
        self.folder = folder

    def __call__(self, done: float, what: str = "") -> None:
        assert 0 <= done <= 1


def test_a_tiny_run_has_an_array_an_image_and_is_the_same_again(tmp_path: Path) -> None:
    first, again = (main(TINY, Work(tmp_path / name)) for name in ("one", "two"))
    for name in ("right", "on", "off", "noise_on", "noise_off", "score", "omega_local_pca_64"):
        assert first.samples[name].shape == (2, 2, 60)
        assert first.samples[f"weak_{name}"].shape == (1, 2, 60)
        assert np.array_equal(first.samples[name], again.samples[name])
    assert first.metrics == again.metrics
    assert {"best score, gained", "excessive accuracy, lost"} < set(first.metrics)
    assert first.metrics["noise left by the denoiser"]["measured"] < 1  # it is better than nothing
    assert first.samples["null_omega_local_pca_64"] == 1 - TINY.dim / 64 or TINY.dim == 0
    assert np.allclose(first.samples["strengths"], [0.1, 1.0])
    value, low, high = first.samples[
        "calibrated_local_pca_64"
    ].T  # by cross-entropy, then strengths
    assert len(value) == 3 and np.all(low <= value) and np.all(value <= high)
    weak = [m for n, m in first.metrics.items() if n.startswith("weak tangent share, local_pca_64")]
    assert [m["measured"] for m in weak] == [value[0]]


def test_the_figures_of_a_record(tmp_path: Path) -> None:
    folder = Path(__file__).parents[1]
    places = ["--results", str(tmp_path), "--out", str(tmp_path)]

    def draw(name: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(folder / "paper_figs" / f"fig_{name}.py"), *places]
        here = os.environ | {"PYTHONPATH": str(folder)}
        return subprocess.run(command, env=here, capture_output=True, text=True)

    names = ("regimes_on_images", "toy_to_real")
    for name in names:
        missing = draw(name)
        assert missing.returncode == 1 and "make them with: manifoldlab sweep" in missing.stderr
    config = records.plain(TINY)
    place = tmp_path / "regimes_on_images" / records.name("regimes_on_images", config)
    place.parent.mkdir()
    outcome = main(TINY, Work(tmp_path / "work"))
    records.save(place, "regimes_on_images", config, outcome, seconds=1.0)
    for name in names:
        drawn = draw(name)
        assert drawn.returncode == 0, drawn.stderr
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000


def test_training_is_given_the_spaces_of_its_images(tmp_path: Path) -> None:
    """Found once, they train the network that a search in every step would."""
    config = replace(TINY, objective="normal_penalty", dim=4)
    study = regimes_on_images.Study(config, Work(tmp_path / "a"))
    once, ground = study.robust(), study.ground
    both = replace(config, estimators=("local_pca_64", "local_pca_16"))
    held = regimes_on_images.Study(both, Work(tmp_path / "c")).ground.training_geometry
    assert held.estimator.neighbours == 64 and len(held.number) == TINY.samples
    again = regimes_on_images.Study(config, Work(tmp_path / "b"))
    again.ground.__dict__["training_geometry"] = ground.geometries["local_pca_64"].estimator
    for name, values in again.robust().items():
        assert np.allclose(values, once[name], atol=1e-3), name  # float32, cosines of small parts


def test_networks_one_by_one_are_those_at_once(tmp_path: Path) -> None:
    data, course = subset(digits(), 64), Course(2, 32, 1e-2)
    case = Architecture("small_cnn", (1, 8, 8), 10, {"width": 3})
    assert stackable(case.build(0))
    make = partial(
        networks, case, noise_augmentation, data, course, strengths=[0.1, 0.5], seeds=[3, 4]
    )
    told = list[float]()
    at_once = make(folder=tmp_path / "a", name="x", advance=told.append)
    assert told[-1] == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("manifoldlab.studies.image_networks.stackable", lambda model: False)
        alone = make(folder=tmp_path / "b", name="x", advance=told.append)
    for one, other in zip(at_once, alone, strict=True):
        for p, q in zip(one.parameters(), other.parameters(), strict=True):
            assert (p - q).abs().max() < 1e-5  # float32, 4 steps of Adam at 1e-2
    assert told[-1] == 1 and max(told) == 1


def test_the_gauge_of_a_linear_model_is_known() -> None:
    """Two logits 0 and <w, x> in R^3, of which the first two directions are tangent."""
    flat = Placed(Flat(2), 1, 0)
    w = torch.tensor([0.3, 0.4, 1.2], dtype=torch.float64)
    model = nn.Linear(3, 2, bias=False).double()
    model.weight.data = torch.stack([torch.zeros(3).double(), w])
    x = torch.randn(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    batch = Batch(x, torch.ones(40, dtype=torch.int64), torch.arange(40))
    field = torch.randn(40, 3, dtype=x.dtype, generator=torch.Generator().manual_seed(1))
    own = lambda v: [model(v)]
    gauge = ImageGauge(batch, {"flat": flat}, field, features=own, step=1e-3)
    found = gauge.read(model)
    assert gauge.nulls == pytest.approx({"score": 0, "omega_flat": 1 / 3})
    tangent = flat.to_tangent(x[:1], w[None])
    share = (w - tangent[0]).square().sum() / w.square().sum()
    along = torch.cosine_similarity(tangent, flat.to_tangent(x, field))
    assert torch.allclose(found["score"], torch.cosine_similarity(w[None], field))
    assert torch.allclose(found["tangent_score"], along)
    assert torch.allclose(found["omega_flat"], share.expand(40))
    assert torch.allclose(found["norm"], w.norm().expand(40))
    assert torch.equal(found["right"], (x @ w > 0).double())
    # across the flat there is one direction, along which probabilities change by p (1 - p) |Qw| each
    p = (x @ w).sigmoid()
    across = 2**0.5 * p * (1 - p) * (share * w.square().sum()).sqrt() * 1e-3
    assert torch.allclose(found["off"], across, rtol=1e-3)  # second order of a step of 1e-3
    # root mean squares over 4 directions and 40 samples; noise has 1 / 3 of its square across
    ratio = (found["noise_off"].square().mean() / across.square().mean()).sqrt().item()
    assert 0.4 < ratio / 3**-0.5 < 1.6


def test_networks_that_have_lost_their_classes_are_read_all_the_same() -> None:
    x = torch.rand(30, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    batch = Batch(x, torch.zeros(30).long(), torch.arange(30))
    flat = nn.Sequential(nn.Flatten(), nn.Linear(16, 10))
    flat[1].weight.data *= 1e-9  # a change of probabilities that float32 cannot see
    own = lambda v: [v]
    gauge = ImageGauge(
        batch, {"pca": LocalPca(x, 3, 8)}, torch.randn(30, 1, 4, 4), features=own, step=0.1
    )
    found = gauge.read(flat)
    assert all(bool(values.isfinite().all()) for values in found.values())
    assert 0 < found["on"].max() < 1e-9 and found["norm"].min() > 0


@pytest.mark.parametrize(
    ("field", "value", "line"),
    [
        ("objective", "adversary", "did you mean adversarial?"),
        ("estimators", (), "one or more, not none"),
        (
            "estimators",
            ("local_pca_1",),
            "a number of neighbours, 2 or more, not by '1'",
        ),
        ("sigma", 0.0, "sigma must be positive"),
        ("low", 100.0, "0 < low < high"),
        ("seeds", 1, "seeds must be 2 or more"),
    ],
)
def test_wrong_fields(field: str, value: object, line: str) -> None:
    with pytest.raises(ValueError, match=line.replace("?", r"\?")):
        replace(FAST, **{field: value})


def test_published_grids_are_the_defaults() -> None:
    """Of the code of Srinivas et al. 2023, in its own units: 10^-5 .. 10^4 for PGD, 10^-5 .. 10^2."""
    low, high = Config(objective="adversarial").ends
    assert np.allclose([low * BATCH, high * BATCH], [1e-5, 1e4])
    low, high = Config(objective="gradient_penalty").ends
    assert np.allclose([low, high], [6.103515625e-5, 610.3515625])
    assert Config().count == 30
    assert sum(training.published for training in IMAGE_TRAININGS.values()) == 4


def test_a_twin_is_read_by_its_exact_spaces(tmp_path: Path) -> None:
    config = replace(TINY, data="digits_twin", dim=3, blur=0.2, sigma=0.2)
    found = main(config, Work(tmp_path)).samples
    assert found["omega_exact"].shape == (2, 2, 60)
    assert found["null_omega_exact"] == 1 - 3 / 64
    assert found["bayes_right"].mean() >= found["right"].mean()
    # the score of noisier data is nearly that of the margin's class: Bayes follows it, networks do not
    assert found["bayes_score"].mean() > 0.8 > found["score"].mean()


def peak(share: list[float], right: list[float]) -> dict[str, np.ndarray]:
    """(strengths, seeds), cross-entropy at a share of 0.1 and an accuracy of 0.96."""
    noise = 0.001 * np.array([-1.0, 0.0, 1.0])
    rows = lambda values: np.array(values)[:, None] + noise
    found = {"omega_x": 1 - rows(share), "right": rows(right)}
    return found | {"weak_omega_x": 1 - rows([0.1]), "weak_right": rows([0.96])}


def test_three_regimes_by_the_tangent_share_and_their_absence() -> None:
    found = most_tangent(peak([0.2, 0.6, 0.3], [0.95, 0.93, 0.1]), "omega_x")
    values = {what.removeprefix("most tangent, x: "): m for what, m in found.items()}
    for what, value in {
        "share, gained": 0.5,
        "accuracy, lost": 0.03,
        "share, lost beyond": 0.3,
        "accuracy, lost beyond": 0.83,
    }.items():
        assert values[what]["agrees"] and np.isclose(values[what]["measured"], value)
    never = most_tangent(peak([0.05, 0.06, 0.07], [0.95, 0.9, 0.8]), "omega_x")
    assert not any(metric["agrees"] for metric in never.values())


def test_a_record_has_its_row(tmp_path: Path) -> None:
    config = records.plain(TINY)
    folder = tmp_path / "regimes_on_images" / records.name("regimes_on_images", config)
    folder.parent.mkdir()
    means = peak([0.2, 0.6, 0.3], [0.95, 0.93, 0.1])
    others = {f"{w}{n}": np.ones((1 if w else 3, 3)) for w in ("", "weak_") for n in SCORES}
    samples = {name: values[..., None] for name, values in (means | others).items()}
    records.save(folder, "regimes_on_images", config, records.Outcome({}, samples), seconds=1.0)
    (run,) = records.load("regimes_on_images", tmp_path)
    cells = regimes_table.row(run)
    assert len(cells) == len(regimes_table.HEADER)
    assert cells[:5] == ["digits", "noise augmentation", "x", "0.100", "0.600"]
    assert cells[5].startswith("+0.500 (") and cells[6].startswith("-0.030 (")


def test_what_a_score_is_worth_and_what_its_images_are(tmp_path: Path) -> None:
    """A denoiser that does nothing leaves all noise, one that knows the images none."""
    ground = regimes_on_images.Study(TINY, Work(tmp_path)).ground
    for denoiser, left in ((lambda x, s, y: x, 1.0), (lambda x, s, y: ground.batch.x, 0.0)):
        ground.__dict__.pop("noise_left", None)
        ground.__dict__["_denoiser"] = denoiser
        assert torch.allclose(ground.noise_left, torch.full((60,), left), atol=1e-5)
    assert ground.facts["local_pca_64"].pictures


@pytest.mark.parametrize(
    ("name", "shape", "device", "together"),
    [
        ("small_cnn", (1, 8, 8), "cpu", True),
        ("small_cnn", (3, 32, 32), "cpu", False),
        ("small_cnn", (3, 32, 32), "cuda", True),
        ("mlp", (3, 32, 32), "cpu", True),
    ],
)
def test_convolutions_of_large_pictures_are_trained_alone(
    name: str, shape: tuple[int, ...], device: str, together: bool
) -> None:
    model = Architecture(name, shape, 10, {"width": 3}).build(0)
    assert image_networks._faster(model, int(np.prod(shape)), device) == together
