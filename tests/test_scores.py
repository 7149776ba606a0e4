"""Scores against the exact ones of problems, of the truth's denoiser and of trained ones."""

from collections.abc import Callable
from functools import partial
from math import hypot
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from manifoldlab import catalog, linalg
from manifoldlab.architecture import Architecture
from manifoldlab.checkpoints import save
from manifoldlab.data.fresh_samples import fresh_samples
from manifoldlab.data.in_memory import in_memory
from manifoldlab.densities.gaussians import Gaussians
from manifoldlab.interfaces import Batch, Data, Reference
from manifoldlab.manifolds.flat import Flat
from manifoldlab.manifolds.placed import Placed
from manifoldlab.models.denoiser import Denoiser
from manifoldlab.problems.base import BayesClassifier, Isotropic
from manifoldlab.problems.gaussian_subspace import GaussianSubspace
from manifoldlab.problems.quadrature import Quadrature
from manifoldlab.scores.denoised import denoised
from manifoldlab.scores.edm import edm
from manifoldlab.scores.implied import implied
from manifoldlab.scores.saved import saved
from manifoldlab.scores.stationary import spectrum, stationary
from manifoldlab.studies import trained_denoiser as study
from manifoldlab.studies.trained_denoiser import Schooling, moments, trained_denoiser

ERRORS = 6  # standard errors: a false alarm in 5e8
PLANE = Placed(Flat(2), codim=2, seed=1)
MEANS = ((0.6, 0.0), (-0.6, 0.3))
COVARIANCES = (((0.5, 0.1), (0.1, 0.3)), ((0.1, 0.0), (0.0, 0.4)))
FLAT = GaussianSubspace(PLANE, Gaussians(MEANS, COVARIANCES, (0.4, 0.6)), 0.1)
CURVED: Isotropic = catalog.module("problems", "von_mises_sphere").examples(0)[0]
PROBLEMS = {"flat": FLAT, "circle": CURVED}


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def exact(problem: Isotropic, sigma: float, conditional: bool = False) -> Reference:
    return implied(BayesClassifier(problem.noisier(sigma)), conditional=conditional)


def ideal(problem: Isotropic) -> Callable[..., Tensor]:
    """E[clean | x] by quadrature: with m on the manifold and the problem's own noise t, x has noise
    hypot(t, s), and the clean sample is s^2 / (t^2 + s^2) of the way from x to E[m | x]."""

    def clean(x: Tensor, sigma: float, y: Tensor | None = None) -> Tensor:
        assert y is None
        total = hypot(problem.noise, sigma)
        foot = Quadrature(problem.manifold, problem.densities, total).denoise(x)
        return x + (sigma / total) ** 2 * (foot - x)

    return clean


# the truth


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("sigma", [0.05, 0.4])
def test_the_score_of_the_ideal_denoiser_is_exact(name: str, sigma: float) -> None:
    problem = PROBLEMS[name]
    batch = problem.noisier(sigma).sample(5, source())
    found, wanted = denoised(ideal(problem), sigma=sigma)(batch), exact(problem, sigma)(batch)
    assert (found - wanted).abs().max() < 1e-9 * wanted.abs().max()
    other = exact(problem, 1.5 * sigma)(batch)
    assert (found - other).norm() > 0.1 * wanted.norm()


def posterior_mean(x: Tensor, sigma: float, y: Tensor | None = None) -> Tensor:
    """E[clean | x, y] of the classes of FLAT: m + S (S + s^2 I)^-1 (x - m), S their whole covariance."""
    assert y is not None
    frame, eye = PLANE.frame, torch.eye(4, dtype=torch.float64)
    clean = torch.empty_like(x)
    for label, (mean, spread) in enumerate(zip(MEANS, COVARIANCES, strict=True)):
        center = PLANE.origin + frame @ torch.tensor(mean, dtype=torch.float64)
        within = frame @ torch.tensor(spread, dtype=torch.float64) @ frame.mT
        whole = within + FLAT.noise**2 * eye
        gain = whole @ torch.linalg.inv(whole + sigma**2 * eye)
        rows = y == label
        clean[rows] = center + (x[rows] - center) @ gain.mT
    return clean


@pytest.mark.parametrize("sigma", [0.05, 0.5])
def test_conditional_scores_are_those_of_the_class(sigma: float) -> None:
    batch = FLAT.noisier(sigma).sample(40, source())
    found = denoised(posterior_mean, sigma=sigma, conditional=True)(batch)
    wanted = exact(FLAT, sigma, conditional=True)(batch)
    assert (found - wanted).abs().max() < 1e-11 * wanted.abs().max()
    assert (found - exact(FLAT, sigma)(batch)).norm() > 0.05 * wanted.norm()


def test_fresh_noise_averages_the_score_around_x() -> None:
    """A linear score is its own average: in standard errors of so many draws."""
    sigma, draws = 0.5, 400
    linear = lambda x, sigma, y=None: x / (1 + sigma**2)
    batch = Batch(torch.randn(5, 3, generator=source(), dtype=torch.float64), torch.zeros(5).long())
    at = partial(denoised, linear, sigma=sigma)
    still = at()(batch)
    assert (still + batch.x / (1 + sigma**2)).abs().max() < 1e-14
    moved = at(draws=draws)(batch)
    error = sigma / (1 + sigma**2) / draws**0.5
    assert 0 < (moved - still).abs().max() < ERRORS * error
    many = Batch(torch.zeros(1000, 3, dtype=torch.float64), torch.zeros(1000).long())
    spread = at(draws=4)(many).square().mean().sqrt() / (sigma / (1 + sigma**2) / 4**0.5)
    assert abs(spread - 1) < ERRORS / (2 * 3000) ** 0.5
    assert torch.equal(moved, at(draws=draws)(batch))
    assert not torch.equal(moved, at(draws=draws, seed=1)(batch))
    assert (at(draws=draws, chunk=7)(batch) - moved).abs().max() < 1e-14


def test_what_a_score_needs() -> None:
    for options, line in (
        ({"sigma": 0.0}, "noise level of a score is positive and finite, not 0.0"),
        ({"sigma": 1.0, "draws": -1}, "draws of noise are 0 or more"),
        ({"sigma": 1.0, "chunk": 0}, "a chunk 1 or more"),
    ):
        with pytest.raises(ValueError, match=line):
            denoised(posterior_mean, **options)


# what every score keeps to


def denoiser(folder: Path) -> Path:
    case = Architecture("denoiser", (3, 8, 8), None, {"width": 4, "classes": 2})
    model = case.build(0)
    for i, p in enumerate(model.parameters()):
        p.data += 0.1 * torch.randn(p.shape, generator=source(i))
    save(folder / "denoiser.safetensors", model.state_dict(), {"architecture": case.facts()})
    return folder / "denoiser.safetensors"


def published(folder: Path) -> Path:
    options = {"width": 8, "multipliers": (1,), "blocks": 1, "classes": 2}
    model = Architecture("song_unet", (3, 8, 8), None, options).build(0)
    for i, p in enumerate(model.parameters()):
        p.data += 0.1 * torch.randn(p.shape, generator=source(i))
    save_file({f"model.{k}": t for k, t in model.network.state_dict().items()}, folder / "edm")
    return folder / "edm"


def images(n: int) -> Tensor:
    return torch.rand(n, 3, 8, 8, generator=source())


def classifier(x: Tensor) -> Tensor:
    return torch.stack([x.flatten(1).square().sum(1) / -k for k in (2, 3)], 1)


MAKERS: dict[str, Callable[[Path], Reference]] = {
    "denoised": lambda _: denoised(lambda x, sigma, y=None: x / (1 + sigma**2), sigma=0.3, draws=2),
    "implied": lambda _: implied(classifier, conditional=True),
    "saved": lambda folder: saved(denoiser(folder), sigma=0.3, conditional=True, chunk=2),
    "edm": lambda folder: edm(published(folder), sigma=0.3, conditional=True, chunk=2),
    "stationary": lambda _: stationary(
        spectrum([Batch(images(20), torch.zeros(20).long())]), sigma=0.3
    ),
}
WITHOUT_LABELS = ("stationary",)  # those of all classes


def test_every_score_is_held_to_the_contract() -> None:
    assert sorted(MAKERS) == catalog.names("scores")


@pytest.mark.parametrize("name", MAKERS)
def test_a_score_is_a_field_like_x(name: str, tmp_path: Path) -> None:
    score = MAKERS[name](tmp_path)
    x, y = torch.rand(4, 3, 8, 8, generator=source()), torch.tensor([0, 1, 1, 0])
    found = score(Batch(x.clone(), y))
    assert found.shape == x.shape and found.dtype == x.dtype and found.isfinite().all()
    assert not found.requires_grad and found.flatten(1).unique(dim=0).shape[0] == 4
    assert torch.equal(score(Batch(x, y)), found)
    with torch.inference_mode():
        assert torch.equal(score(Batch(x.clone(), y.clone())), found)
    if name != "denoised":  # whose noise is that of the rows
        alone = torch.cat([score(Batch(x[i : i + 1], y[i : i + 1])) for i in range(4)])
        assert (alone - found).abs().max() < 1e-5 * found.abs().max()
        changed = (score(Batch(x, 1 - y)) - found).abs().max() > 1e-3 * found.abs().max()
        assert bool(changed) == (name not in WITHOUT_LABELS)


def test_checkpoints_that_give_no_score_are_refused(tmp_path: Path) -> None:
    for name, options, line in (
        ("mlp", {}, "is of mlp, which is no denoiser"),
        ("denoiser", {}, "knows no classes: it has no conditional score"),
    ):
        case = Architecture(name, (3,), 2 if name == "mlp" else None, options)
        path = tmp_path / f"{name}.safetensors"
        save(path, case.build(0).state_dict(), {"architecture": case.facts()})
        with pytest.raises(ValueError, match=line) as refusal:
            saved(path, sigma=0.1, conditional=True)
        assert str(path) in str(refusal.value) and "\n" not in str(refusal.value)


# trained ones


def school(problem: Isotropic, epochs: int, folder: Path) -> Denoiser:
    schooling = Schooling(epochs, 256, lr=1e-2, dropped=0.5, width=48)
    return trained_denoiser(fresh_samples(problem, 4096, seed=1), schooling, folder=folder)


@pytest.fixture(scope="module", params=PROBLEMS)
def trained(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Isotropic, Denoiser, Denoiser]:
    """Of 48 steps, and of 640 on the flat and 1440 on the circle."""
    problem, epochs = PROBLEMS[request.param], {"flat": 40, "circle": 90}[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    return problem, school(problem, 3, folder / "short"), school(problem, epochs, folder / "long")


def clearly_positive(gain: Tensor) -> bool:
    return bool(gain.mean() > ERRORS * gain.std() / len(gain) ** 0.5)


@pytest.mark.parametrize("sigma", [0.2, 0.5])
@pytest.mark.parametrize("conditional", [False, True])
def test_a_trained_score_comes_near_the_exact_one_of_its_level(
    trained: tuple[Isotropic, Denoiser, Denoiser], sigma: float, conditional: bool
) -> None:
    """Nearer by training, and nearer to it than to that of another level, each in standard errors of
    the paired difference of squared errors, and than to that of the other kind, conditional or not.

    Measured: mean cosines of 0.972 to 0.9996, relative errors of 3 to 13 %.
    """
    problem, early, late = trained
    batch = problem.noisier(sigma).sample(2000, source(7))
    rough = batch._replace(x=batch.x.float())
    of = lambda model: denoised(model, sigma=sigma, conditional=conditional)(rough).double()
    found, wanted = of(late), exact(problem, sigma, conditional)(batch)
    error = linalg.squared_norm(found - wanted)
    assert clearly_positive(linalg.squared_norm(of(early) - wanted) - error)
    others = [exact(problem, factor * sigma, conditional)(batch) for factor in (1 / 1.5, 1.5)]
    for other in [*others, exact(problem, sigma, not conditional)(batch)]:
        assert clearly_positive(linalg.squared_norm(found - other) - error)


def test_one_noise_level_is_trained_at_that_level(tmp_path: Path) -> None:
    schooling = Schooling(4, 256, lr=1e-2, sigma=0.3, conditional=False, width=8)
    model = trained_denoiser(fresh_samples(FLAT, 512), schooling, folder=tmp_path)
    assert model.levels == (0.3, 0.3) and model.classes == 0
    batch = Batch(torch.zeros(2, 4), torch.zeros(2).long())
    assert denoised(model, sigma=0.3)(batch).isfinite().all()
    with pytest.raises(ValueError, match=r"for noise from 0.3 to 0.3 is asked for 0.4"):
        denoised(model, sigma=0.4)(batch)
    with pytest.raises(ValueError, match="a denoiser without classes is given labels"):
        denoised(model, sigma=0.3, conditional=True)(batch)


def pictures(seed: int = 0, classes: int = 2) -> Data:
    x = 0.3 + 0.1 * torch.rand(24, 2, 8, 8, generator=source(seed))
    return in_memory(x, torch.arange(24) % classes, classes)


def test_a_denoiser_has_the_moments_of_its_data(tmp_path: Path) -> None:
    data = pictures()
    x = next(data.batches(24, None)).x.double()
    found = moments(data)
    mean = x.mean((0, 2, 3))
    deviation = (x - mean[:, None, None]).square().mean().sqrt()
    assert found.samples == 24
    assert (torch.tensor(found.mean, dtype=torch.float64) - mean).abs().max() < 1e-12
    assert abs(found.deviation - deviation) < 1e-12
    model = trained_denoiser(data, Schooling(0, width=4), folder=tmp_path)
    assert (
        model.sigma_data == found.deviation and model.levels[0] < 1.2 * deviation < model.levels[1]
    )
    start = denoised(model, sigma=0.02)(Batch(x.float(), torch.zeros(24).long()))  # of N(mean, d^2)
    wanted = (mean[:, None, None] - x) / (deviation**2 + 0.02**2)
    assert (start - wanted).abs().max() < 1e-4 * wanted.abs().max()


def test_a_denoiser_is_trained_once_and_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, schooling = pictures(), Schooling(4, 8, width=4, depth=1)
    whole = trained_denoiser(data, schooling, folder=tmp_path / "whole")
    told: list[float] = []

    def killed(done: float) -> None:
        told.append(done)
        if done > 0.5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(study, "train", partial(study.train, every=5))
        with pytest.raises(KeyboardInterrupt):
            trained_denoiser(data, schooling, folder=tmp_path / "killed", advance=killed)
        assert not (tmp_path / "killed" / "denoiser.safetensors").exists()
        again = trained_denoiser(data, schooling, folder=tmp_path / "killed", advance=told.append)
    same(again, whole)
    assert told == [i / 12 for i in range(1, 8)] + [i / 12 for i in range(6, 13)]
    monkeypatch.setattr(study, "train", None)  # what is kept is not trained
    same(trained_denoiser(data, schooling, folder=tmp_path / "whole"), whole)
    for other, options, line in (
        (pictures(1), {}, "of other data or training: denoiser is"),
        (data, {"width": 5}, "'width': 4.*there.*'width': 5.*here"),
    ):
        with pytest.raises(ValueError, match=line) as refusal:
            changed = Schooling(4, 8, depth=1, **{"width": 4, **options})
            trained_denoiser(other, changed, folder=tmp_path / "whole")
        assert "\n" not in str(refusal.value)


def same(one: torch.nn.Module, other: torch.nn.Module) -> None:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs) and not one.training


def test_what_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    flat = in_memory(torch.full((4, 1, 8, 8), 0.5), torch.zeros(4).long(), 1)
    with pytest.raises(ValueError, match=r"all samples of shape \(1, 8, 8\) are the same"):
        trained_denoiser(flat, Schooling(1), folder=tmp_path)
    for options, line in (({"memory": 0.0}, "share of all steps"), ({"sigma": -1.0}, "not -1.0")):
        with pytest.raises(ValueError, match=line):
            Schooling(**options)


def test_fresh_noise_keeps_the_labels_of_its_samples() -> None:
    """Of a denoiser that moves a point by its label times the squared noise, the score is the label."""
    model = lambda x, sigma, y=None: x + sigma**2 * y[:, None].double()
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    batch = Batch(x, torch.tensor([4, 0, 2, 1, 3]))
    for draws in (0, 1, 3):
        score = denoised(model, sigma=0.4, conditional=True, draws=draws, chunk=4)
        assert (score(batch) - batch.y[:, None]).abs().max() < 1e-13


def test_an_implied_score_is_of_all_classes_or_of_the_label_s() -> None:
    matrix = torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    batch, model = Batch(x, torch.tensor([0, 1, 1, 0, 1])), lambda x: x @ matrix
    assert torch.allclose(implied(model)(batch), (x @ matrix).softmax(1) @ matrix.mT)
    assert torch.allclose(implied(model, conditional=True)(batch), matrix.mT[batch.y])
