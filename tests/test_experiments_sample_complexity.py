"""Gradients come to those of Bayes with the samples: the closed form, the experiment and its figure."""

import runpy
import subprocess
import sys
from dataclasses import replace
from math import erfc, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy
import torch
from torch import Tensor

from manifoldlab import linalg, records
from manifoldlab.data.samples import samples
from manifoldlab.experiments import sample_complexity
from manifoldlab.experiments.sample_complexity import Config, Found, main
from manifoldlab.interfaces import Batch
from manifoldlab.logistic_ridge import normal_nodes
from manifoldlab.manifolds.flat import Flat
from manifoldlab.manifolds.placed import Placed
from manifoldlab.studies import gradient_fields
from manifoldlab.studies.logistic_samples import LogisticSamples, proportional
from manifoldlab.studies.scaled_problems import PROBLEMS, Point, gaussian, gaussian_law
from manifoldlab.training import silent

ROOT = Path(__file__).parents[1]
TINY = Config(
    dim=2,
    ambient=6,
    size=200,
    sizes=(100, 200, 400),
    ambients=(4, 6, 9),
    dims=(1, 2, 4),
    seeds=3,
    width=8,
    steps=20,
    probes=50,
)


class Progress:
    def __init__(self, folder: Path):
        self.folder, self.told = folder, list[float]()

    def __call__(self, done: float, what: str = "") -> None:
        self.told.append(done)


def minimum(x: Tensor, y: Tensor) -> Tensor:
    """The logistic rule of samples x (n, D), y = 0 or 1, with an intercept, by Newton's method."""
    signed = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1) * (2 * y - 1)[:, None]
    w = signed.new_zeros(signed.shape[1])
    for _ in range(30):
        wrong = torch.sigmoid(-signed @ w)
        hessian = (signed * (wrong * (1 - wrong))[:, None]).mT @ signed
        w = w + torch.linalg.solve(hessian, wrong @ signed)
    return w[:-1]


def test_the_limit_is_the_inverse_of_the_fisher_information() -> None:
    covariance = torch.tensor([[1.3, 0.4], [0.4, 0.6]], dtype=torch.float64)
    rules = LogisticSamples(torch.tensor([0.8, -0.5], dtype=torch.float64), covariance)
    nodes, weights = (t[::8] for t in normal_nodes())
    z = torch.cartesian_prod(nodes, nodes) @ torch.linalg.cholesky(covariance).mT + rules.mean
    margin = z @ rules.rule
    density = torch.outer(weights, weights).flatten() * 64
    density = density * torch.sigmoid(margin) * torch.sigmoid(-margin)
    fisher = (z * density[:, None]).mT @ z
    assert torch.allclose(rules.limit() @ fisher, torch.eye(2, dtype=torch.float64), atol=1e-9)


def test_all_orders_are_the_mean_of_fitted_rules() -> None:
    """At 10 samples a dimension the term of order 1 / n is a quarter off."""
    problem, n = gaussian(4, 36, 0.6), 400
    frame = problem.manifold.frame  # type: ignore[union-attr]
    found = []
    for seed in range(40):
        batch = problem.sample(n, torch.Generator().manual_seed(seed))
        w = minimum(batch.x, batch.y)
        across = w - frame @ (frame.mT @ w)
        found.append((across.square().sum() / w.square().sum()).item())
    law = gaussian_law(Point(4, 40, n), 0.6)
    error = np.std(found, ddof=1) / sqrt(len(found))
    assert abs(np.mean(found) - law.all_orders.omega) < 4 * error
    assert abs(np.mean(found) - law.leading.omega) > 8 * error


def test_all_orders_come_to_the_first_and_end_where_samples_are_separable() -> None:
    for n in (10**4, 10**6):
        law = gaussian_law(Point(3, 9, n), 0.5)
        for whole, leading in zip(law.all_orders, law.leading, strict=True):
            assert abs(whole / leading - 1) < 5 * 9 / n + 1e-7
    a, b, step = proportional(1.25, 0.1)
    assert a > 2.5 and b > 0 and step > 0
    with pytest.raises(ValueError, match=r"^0.5 dimensions a sample .* there may be no best rule$"):
        proportional(1.25, 0.5)


def test_leading_terms_are_those_of_the_docstring() -> None:
    density = lambda m: scipy.stats.norm.pdf(m, 2 * 1.25**2, 2 * 1.25) / (4 * np.cosh(m / 2) ** 2)
    c = scipy.integrate.quad(density, -30, 40)[0]
    law = gaussian_law(Point(4, 32, 1000), 0.6)
    size = 4 * 1.25**2
    assert law.leading.omega == pytest.approx(28 / (c * 0.36 * size * 1000), rel=1e-9)
    both = 28 / 0.36 + 3  # along the flat the deviation is 1, in the 3 directions across w
    assert law.leading.misalignment == pytest.approx(both / (2 * c * size * 1000), rel=1e-9)


def test_fields_of_linear_classifiers() -> None:
    manifold, weights = Placed(Flat(2), codim=3), linalg.random_frame(5, 4, 7)
    x = torch.randn(20, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    models = [lambda x, w=w: x @ w for w in (weights[:, :2], weights[:, 2:], weights[:, :2] * 3)]
    found = gradient_fields.compared(models, Batch(x, torch.arange(20) % 2), manifold)
    rules = torch.stack([weights[:, 1] - weights[:, 0], weights[:, 3] - weights[:, 2]])
    normal = rules - rules @ manifold.frame @ manifold.frame.mT
    assert torch.allclose(found.omega[:2], normal.square().sum(1) / rules.square().sum(1))
    assert torch.allclose(found.misalignment, torch.tensor([0.0, 1.0, 0.0]).double(), atol=1e-12)


def test_linear_models_are_trained_to_the_minimum(tmp_path: Path) -> None:
    config, point = replace(TINY, seeds=2), Point(2, 6, 400)
    problem = PROBLEMS["gaussian"](2, 4, 0.6)
    networks = sample_complexity.trained(config, problem, point, tmp_path, silent)
    for seed, network in enumerate(networks):
        own = sample_complexity.draws.number(sample_complexity.draws.number(seed, *point), "data")
        (batch,) = samples(problem, 400, seed=own, dtype=torch.float64).batches(400, None)
        w, rows = minimum(batch.x, batch.y), network[-1].weight.double()  # type: ignore[index]
        assert (rows[1] - rows[0] - w).norm() < 5e-3 * w.norm()


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, records.Outcome]:
    folder = tmp_path_factory.mktemp("work")
    configs = (replace(TINY, problem="gaussian"), replace(TINY, problem="sphere"))
    return {c.problem: main(c, Progress(folder / c.problem)) for c in configs}


def rates(outcome: records.Outcome, name: str) -> list[Any]:
    """In n, in D - d and in d."""
    return [outcome.metrics[f"{name}: rate in {scan}"] for scan in ("n", "D - d", "d")]


def test_linear_models_beside_their_law(outcomes: dict[str, records.Outcome]) -> None:
    outcome = outcomes["gaussian"]
    predicted = [rate["predicted"] for rate in rates(outcome, "omega")]
    assert predicted == pytest.approx([-1, 1, 0], abs=1e-9)
    assert [rate["predicted"] for rate in rates(outcome, "misalignment")][0] == pytest.approx(-1)
    i = TINY.points().index(Point(2, 6, 200))
    found, law = outcome.samples, gaussian_law(Point(2, 6, 200), 0.6)
    assert found["omega"].shape == found["accuracy"].shape == (len(TINY.points()), 3)
    assert (
        found["all_orders_omega"][i] == law.all_orders.omega and found["bayes_omega"].max() < 1e-20
    )
    assert found["leading_misalignment"][i] == law.leading.misalignment
    # deviation of the share of right ones among 500 samples
    right = erfc(-1.25 / sqrt(2)) / 2
    assert abs(found["bayes_accuracy"][i] - right) < 5 * sqrt(right * (1 - right) / 500)


def test_networks_on_a_sphere(outcomes: dict[str, records.Outcome]) -> None:
    outcome = outcomes["sphere"]
    in_n, in_codim, in_dim = rates(outcome, "omega")
    assert in_n["predicted"] == in_codim["predicted"] == 0 and "predicted" not in in_dim
    found = outcome.samples
    assert (
        all(np.isfinite(array).all() for array in found.values())
        and "all_orders_omega" not in found
    )
    assert found["bayes_omega"].min() > 1e-6
    null = [point.codim / point.ambient for point in TINY.points()]
    assert found["null_omega"].tolist() == pytest.approx(null)


def test_steps_against_the_claim_are_found() -> None:
    points = [Point(1, 4, n) for n in (10, 20, 40, 80)]
    rows = np.array([[0.5, 0.6], [0.7, 0.9], [0.8, 0.95], [0.1, 0.2]])
    found = {p: Found(row, row, row, 0.0, 1.0) for p, row in zip(points, rows, strict=True)}
    against = sample_complexity.against
    assert against("omega", points, found).tolist() == pytest.approx([0.3, 0.35])
    assert against("misalignment", points[::-1], found).tolist() == pytest.approx([0.7, 0.75])


def test_a_run_is_reproduced_and_tells_how_far_it_is(
    outcomes: dict[str, records.Outcome], tmp_path: Path
) -> None:
    progress = Progress(tmp_path)
    assert main(replace(TINY, problem="sphere"), progress).metrics == outcomes["sphere"].metrics
    assert progress.told == sorted(progress.told) and 0.8 < progress.told[-1] <= 1


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"sizes": (100, 200)}, r"a rate needs 3 sizes or more, not \(100, 200\)"),
        ({"noise": 1.0}, "noise lies between 0 and 1, not at 1.0"),
        ({"seeds": 1}, "seeds must be 2 or more, not 1"),
        ({"ambients": (2, 6, 8)}, r"no manifold of dimension 2 in R\^2"),
        ({"size": 50}, r"50 samples in R\^9 may be separable: 8 a dimension are needed"),
    ],
)
def test_bad_fields_have_one_line(wrong: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=f"^{line}$"):
        replace(TINY, **wrong)


def test_the_figure(outcomes: dict[str, records.Outcome], tmp_path: Path) -> None:
    script = ROOT / "paper_figs" / "fig_sample_complexity.py"
    line = f"there are no records in {tmp_path}/sample_complexity; make them with: "
    with pytest.raises(SystemExit) as missing:
        runpy.run_path(str(script))["draw"](tmp_path)
    assert missing.value.code == line + (
        "manifoldlab sweep sample_complexity --problem gaussian,sphere"
    )
    (tmp_path / "sample_complexity").mkdir()
    for problem, outcome in outcomes.items():
        config = records.plain(TINY) | {"problem": problem}
        folder = tmp_path / "sample_complexity" / records.name("sample_complexity", config)
        records.save(folder, "sample_complexity", config, outcome, seconds=1.0)
    words = [sys.executable, str(script), "--results", str(tmp_path), "--out", str(tmp_path)]
    done = subprocess.run(words, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pdf, png = map(Path, done.stdout.split())
    assert pdf.read_bytes().startswith(b"%PDF") and png.read_bytes().startswith(b"\x89PNG")
