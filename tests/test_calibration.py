"""Calibration: its formula against drawn gradients, its bars against drawn grounds, and a tiny run."""

import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from manifoldlab import linalg, records
from manifoldlab.data.in_memory import in_memory
from manifoldlab.experiments import calibrate, calibration_coverage
from manifoldlab.interfaces import Batch
from manifoldlab.studies import calibration, estimators
from manifoldlab.studies.calibration import Entry, Facts, factor, line, nearest, quote
from manifoldlab.studies.calibration_grounds import ground
from manifoldlab.studies.estimators import USUAL, agreement
from manifoldlab.tangents.denoiser import Denoiser, small_network


def facts(**changes: object) -> Facts:
    return replace(Facts("local_pca_32", 2, 20, 1000, 0.9), **changes)  # type: ignore[arg-type]


def pair(one: Entry) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return one.estimated, one.true


def entry(family: str, capture: float, leak: float, true: list[float], noise: float = 0.0) -> Entry:
    estimated = [leak + (capture - leak) * a + noise for a in true]
    return Entry(facts(), family, family, capture, leak, tuple(true), tuple(estimated))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_mean_estimated_share_of_isotropic_gradients(share: float) -> None:
    """In R^12, P of rank 3 and P^ of rank 4 at an angle; within 4 standard errors."""
    basis, wrong = linalg.random_frame(12, 3, 0), linalg.random_frame(12, 4, 1)
    estimated = torch.linalg.qr(torch.cat([basis, basis[:, :1]], 1) + 0.3 * wrong).Q
    capture = (basis.mT @ estimated).square().sum().item() / 3
    leak = (4 - 3 * capture) / 9
    random = torch.Generator().manual_seed(0)
    draw = lambda: torch.randn(20_000, 12, generator=random, dtype=torch.float64)
    tangent = linalg.unit(draw() @ basis @ basis.mT)
    normal = draw()
    normal = linalg.unit(normal - normal @ basis @ basis.mT)
    g = share**0.5 * tangent + (1 - share) ** 0.5 * normal
    seen = (g @ estimated).square().sum(1)
    error = seen.std().item() / len(g) ** 0.5
    assert abs(seen.mean().item() - (leak + (capture - leak) * share)) < 4 * error


def test_a_line_is_the_inverse_of_the_formula_and_knows_what_it_misses() -> None:
    exact = line(entry("x", 0.9, 0.05, [0.1, 0.4, 1.0]))
    assert exact is not None and exact.off < 1e-12
    assert np.allclose([exact(0.05), exact(0.05 + 0.85 * 0.3), exact(2.0)], [0.0, 0.3, 1.0])
    bent = replace(entry("x", 0.9, 0.05, [0.0, 0.5, 1.0]), estimated=(0.1, 0.3, 0.9))
    seen = line(bent)
    slope, intercept = np.polyfit(bent.estimated, bent.true, 1)
    assert seen is not None and np.allclose([seen.slope, seen.intercept], [slope, intercept])
    assert np.isclose(seen.off, max(abs(seen(a) - t) for a, t in zip(*pair(bent), strict=True)))
    assert seen.off > 0.05


def test_exact_estimators_have_no_error_bar() -> None:
    entries = [entry(f"family {k}", 0.9, 0.02, [0.1, 0.5, 0.9]) for k in range(20)]
    assert factor(entries, "local_pca_32") < 1e-12
    found = quote(entries, facts(), 0.02 + 0.88 * 0.4)
    assert np.allclose([found.value, found.low, found.high], 0.4)


def test_bars_cover_new_grounds_at_their_rate() -> None:
    """200 times 15 families of random errors and a new one: 90 % within 4 standard errors of 1.5 %."""
    random = np.random.default_rng(0)
    make = lambda k: entry(f"{k}", 0.9, 0.05, [0.3, 0.6], 0.05 * float(random.standard_normal()))
    hits = []
    for _ in range(400):
        entries, new = [make(k) for k in range(15)], make(99)
        found = [quote(entries, new.facts, value) for value in new.estimated]
        hits.append(np.mean([q.low <= t <= q.high for q, t in zip(found, new.true, strict=True)]))
    assert np.mean(hits) > 0.9 - 4 * 0.015


def test_too_few_families_or_no_difference_say_nothing() -> None:
    few = [entry(f"{k}", 0.9, 0.05, [0.2, 0.8]) for k in range(5)]
    assert quote(few, facts(), 0.5)[1:3] == (0.0, 1.0)
    blind = [entry(f"{k}", 0.1, 0.09, [0.1, 0.9]) for k in range(30)]
    assert quote(blind, facts(), 0.5)[1:3] == (0.0, 1.0)
    with pytest.raises(ValueError, match="autoencoder is not calibrated, but local_pca_32"):
        nearest(few, facts(estimator="autoencoder"))


def test_bars_grow_with_the_distance_of_the_nearest_ground() -> None:
    noise = 0.02 * np.random.default_rng(2).standard_normal(20)
    entries = [entry(f"{k}", 0.9, 0.05, [0.2, 0.8], n) for k, n in enumerate(noise)]
    width = lambda f: quote(entries, f, 0.5).high - quote(entries, f, 0.5).low
    assert width(facts()) < 0.2 < width(facts(agreement=0.87))
    assert width(facts(dim=4)) == 1.0


def test_the_nearest_is_near_in_agreement_and_dimension() -> None:
    near = replace(entry("a", 0.9, 0.0, [0.5]), facts=facts(agreement=0.85))
    far = replace(entry("b", 0.9, 0.0, [0.5]), facts=facts(dim=16, agreement=0.9))
    assert nearest([far, near], facts()).ground == "a"


def test_nothing_is_said_beyond_what_was_seen() -> None:
    entries = [entry(f"{k}", 0.9, 0.02, [0.1, 0.5]) for k in range(20)]
    low, high = entries[0].estimated
    for estimated, width in ((low - 0.06, 1), (low - 0.04, 0), (high + 0.04, 0), (high + 0.06, 1)):
        found = quote(entries, facts(), estimated)
        assert np.isclose(found.high - found.low, width, atol=1e-6)


def test_pictures_are_read_by_pictures_where_there_are_any() -> None:
    vector = replace(entry("a", 0.9, 0.0, [0.5]), facts=facts())
    picture = replace(entry("b", 0.9, 0.0, [0.5]), facts=facts(dim=16, pictures=True))
    assert nearest([vector, picture], facts(pictures=True)).ground == "b"
    assert nearest([vector, picture], facts()).ground == "a"
    assert nearest([vector], facts(pictures=True)).ground == "a"


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    entries = [entry(f"{k}", 0.9 - k / 100, 0.05, [0.2, 0.7]) for k in range(3)]
    calibration.write(entries, tmp_path / "table.json")
    assert calibration.read(tmp_path / "table.json") == entries
    assert calibration.read(tmp_path / "none.json") == []


class Work:
    folder = Path("unused")

    def __call__(self, done: float, what: str = "") -> None:
        assert 0 <= done <= 1


def test_a_tiny_run_keeps_the_bound_of_a4() -> None:
    names = ("local_pca_8", "local_pca_40", "autoencoder")
    config = replace(
        calibrate.FAST, samples=160, held_out=12, epochs=2, width=8, estimators=names, dim=1
    )
    found = calibrate.main(config, Work())
    assert found.samples["capture"].shape == (2, 3)
    assert found.samples["true"].shape == (2, 5) and found.samples["estimated"].shape == (2, 3, 5)
    assert np.all(found.samples["capture"] <= 1 + 1e-12)
    assert found.samples["true"][:, 0].min() > 0.9  # Bayes gradients of a sphere are nearly tangent
    for name in names:
        assert found.metrics[f"{name} A4"]["agrees"]
    assert np.isfinite(found.samples["score"]).all()
    more = replace(config, rank=3, estimators=names[:1])
    wide = calibrate.main(more, Work()).samples
    assert np.all(wide["rank"] == 3) and np.all(wide["dim"] == 1)
    assert np.all(wide["capture"] > found.samples["capture"][:, :1])  # more directions see more
    assert not wide["pictures"].any()
    twin = replace(more, ground="digits_twin", dim=3, rank=0, blur=0.2, samples=100)
    assert calibrate.main(twin, Work()).samples["pictures"].all()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"ground": "spher"}, "did you mean sphere?"),
        ({"estimators": ("pca",)}, "no estimator called 'pca'"),
        ({"samples": 3}, "samples must be 4 or more"),
        ({"noise": 0.0}, "noise must be positive"),
    ],
)
def test_wrong_fields(changes: dict[str, object], line: str) -> None:
    with pytest.raises(ValueError, match=line.replace("?", r"\?")):
        replace(calibrate.FAST, **changes)


@pytest.mark.parametrize(
    ("name", "dim", "ambient", "line"),
    [
        ("helix", 2, 20, "helix has no member of dimension 2"),
        ("sphere", 2, 2, r"lives in R\^3, which does not fit into R\^2"),
        ("nowhere", 2, 2, "no ground called 'nowhere'"),
    ],
)
def test_grounds_that_there_are_not(name: str, dim: int, ambient: int, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        ground(name, dim=dim, ambient=ambient, noise=0.1, blur=0.0, seed=0, root="")


def test_a_twin_is_blurred_and_nothing_else() -> None:
    make = partial(ground, dim=3, ambient=20, noise=0.1, seed=0, root="")
    x = make("digits_twin", blur=0.0).sample(50, torch.Generator().manual_seed(0)).x
    blurred = make("digits_twin", blur=0.3)
    assert blurred == make("digits_twin", blur=0.0).noisier(0.3)
    assert 0.2 < (blurred.sample(50, torch.Generator().manual_seed(0)).x - x).std() < 0.4
    with pytest.raises(ValueError, match="only twins are blurred, by 0.3: sphere has noise 0.1"):
        make("sphere", blur=0.3)


def test_coverage_of_a_stored_table_and_its_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(1)
    noise = 0.03 * random.standard_normal(24)
    entries = [entry(f"{k}", 0.9, 0.05, [0.2, 0.5, 0.8], n) for k, n in enumerate(noise)]
    monkeypatch.setattr(calibration, "STORED", tmp_path / "table.json")
    monkeypatch.setattr(calibration.read, "__defaults__", (tmp_path / "table.json",))
    with pytest.raises(ValueError, match="there is no stored table"):
        calibration_coverage.main(calibration_coverage.Config(), Work())
    calibration.write(entries, tmp_path / "table.json")
    outcome = calibration_coverage.main(calibration_coverage.Config(), Work())
    assert outcome.metrics["local_pca_32, coverage"]["agrees"]
    assert outcome.samples["local_pca_32_true"].shape == (72,)
    assert 0.03 < outcome.metrics["local_pca_32, bar"]["measured"] < 0.15
    wide = calibration_coverage.main(calibration_coverage.Config(rate=0.99), Work())
    assert wide.metrics["local_pca_32, bar"]["measured"] == 0.5  # 24 families cannot promise that
    config = records.plain(calibration_coverage.Config())
    folder = tmp_path / "calibration_coverage" / records.name("calibration_coverage", config)
    folder.parent.mkdir()
    records.save(folder, "calibration_coverage", config, outcome, seconds=1.0)
    script = Path(__file__).parents[1] / "paper_figs" / "fig_calibration.py"
    command = [sys.executable, str(script), "--results", str(tmp_path), "--out", str(tmp_path)]
    here = os.environ | {"PYTHONPATH": str(script.parents[1])}
    drawn = subprocess.run(command, env=here, capture_output=True, text=True)
    assert drawn.returncode == 0, drawn.stderr
    assert (tmp_path / "calibration.png").stat().st_size > 10_000


def test_entries_are_means_over_seeds(tmp_path: Path) -> None:
    config = replace(calibrate.FAST, samples=200, estimators=("local_pca_32",))
    plain = records.plain(config)
    folder = tmp_path / "calibrate" / records.name("calibrate", plain)
    folder.parent.mkdir()
    two = np.array([[0.8], [0.9]])
    samples = {"capture": two, "agreement": two - 0.1, "rank": np.full((2, 1), 3), "dim": [2, 2]}
    samples |= {
        "ambient": [20, 20],
        "pictures": [False] * 2,
        "true": np.array([[0.2, 1.0], [0.4, 1.0]]),
    }
    samples["estimated"] = samples["true"][:, None] * 0.9
    records.save(folder, "calibrate", plain, records.Outcome({}, samples), seconds=1.0)
    (found,) = calibration.entries_of(records.load("calibrate", tmp_path))
    assert np.allclose([found.capture, found.facts.agreement], [0.85, 0.75])
    assert np.allclose(found.leak, (3 - 0.85 * 2) / 18)
    assert np.allclose(found.true, [0.3, 1.0]) and np.allclose(found.estimated, [0.27, 0.9])
    assert (found.facts.dim, found.facts.pictures) == (2, False)
    other = records.plain(replace(config, rank=5))
    samples |= {"pictures": [True] * 2}
    folder = folder.parent / records.name("calibrate", other)
    records.save(folder, "calibrate", other, records.Outcome({}, samples), seconds=1.0)
    both = {
        entry.facts.dim: entry
        for entry in calibration.entries_of(records.load("calibrate", tmp_path))
    }
    assert both[5].facts.pictures and both[5].ground.endswith("by 5 directions")


def test_a_bar_has_the_error_of_its_line_once() -> None:
    """Of grounds that are all alike and bent nothing but the line's own error is left."""
    bent = [
        replace(entry(f"{k}", 0.9, 0.05, [0.0, 0.5, 1.0]), estimated=(0.1, 0.3, 0.9))
        for k in range(20)
    ]
    seen = line(bent[0])
    found = quote(bent, facts(), 0.5)
    assert seen is not None and factor(bent, "local_pca_32") == 0
    assert np.isclose(found.high - found.value, seen.off) and seen.off > 0.05


def test_a_family_is_not_calibrated_by_itself() -> None:
    """Two grounds a family that err alike: by each other they would have no error."""
    noise = 0.05 * np.random.default_rng(3).standard_normal(20)
    ones = [
        replace(entry(f"{k}", 0.9, 0.05, [0.2, 0.8], n), facts=facts(agreement=0.5 + k / 100))
        for k, n in enumerate(noise)
    ]
    twins = [replace(one, ground=f"{one.ground} {k}") for one in ones for k in range(2)]
    assert factor(twins, "local_pca_32") > 0.1


def test_agreement_is_that_of_different_halves() -> None:
    """Of pure noise in R^20 two estimates of 2 directions have about 2 / 20 in common, of a flat all."""
    random = torch.Generator().manual_seed(0)
    noise = torch.randn(400, 20, generator=random)
    flat = noise * torch.tensor([1.0] * 2 + [0.0] * 18) + 1e-6 * noise
    for x, low, high in ((noise, 0.0, 0.4), (flat, 0.999, 1.001)):
        batch = Batch(x[:30], torch.zeros(30).long())
        data = in_memory(x, torch.zeros(400).long(), 1)
        assert low < agreement("local_pca_16", data, batch, dim=2, training=USUAL) < high


def test_overlap_is_the_mean_sum_of_squared_cosines() -> None:
    """Of planes at known angles, which differ from sample to sample."""
    angles = torch.tensor([[0.1, 0.5], [1.0, 0.2], [1.5, 1.2]], dtype=torch.float64)
    first = torch.eye(5, dtype=torch.float64)[:, :2].expand(3, -1, -1)
    second = torch.zeros(3, 5, 2, dtype=torch.float64)
    for i in (0, 1):
        second[:, i, i], second[:, 2 + i, i] = angles[:, i].cos(), angles[:, i].sin()
    expected = float(angles.cos().square().sum(1).mean())
    assert estimators.overlap(first, second) == pytest.approx(expected, rel=1e-14)


def test_noise_of_a_denoiser_is_in_units_of_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their deviation about the mean of each channel."""
    x = 5 + 3 * torch.randn(2000, 4, generator=torch.Generator().manual_seed(0))
    data = in_memory(x, torch.zeros(2000).long(), 1)
    monkeypatch.setattr(estimators, "denoiser", lambda *args, **options: small_network(x, 0.3))
    found = estimators.estimator("denoiser_0.5", data, dim=2)
    assert isinstance(found, Denoiser)
    assert found.sigma == pytest.approx(0.5 * float(x.std(0).square().mean().sqrt()), rel=1e-3)
