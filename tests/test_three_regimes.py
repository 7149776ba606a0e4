"""Trainings on known ground: what is measured, where linear models end, and the figure of it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import ndtr

from manifoldlab import records
from manifoldlab.experiments.three_regimes import Config, Study, main
from manifoldlab.interfaces import Batch
from manifoldlab.studies.grounds import GROUNDS, SHIFT, THIN, pair
from manifoldlab.studies.leave_one_out import best, jackknife
from manifoldlab.studies.measuring import Gauge, Reading, tabulated
from manifoldlab.studies.regimes import claims
from manifoldlab.studies.robust_trainings import TRAININGS
from tests.test_paper_figs import run as draw

TINY = Config(
    problem="distractor",
    count=3,
    seeds=3,
    samples=64,
    epochs=1,
    batch_size=32,
    width=4,
    held_out=40,
    linear_epochs=1,
)


class Working:
    """The progress of a run."""

    def __init__(self, folder: Path):
        self.folder, self.seen = folder, list[float]()

    def __call__(self, done: float, what: str = "") -> None:
        self.seen.append(done)


def made(config: Config, folder: Path) -> records.Outcome:
    folder.mkdir()
    return main(config, Working(folder))


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> records.Outcome:
    return made(TINY, tmp_path_factory.mktemp("outcome") / "run")


def test_a_run_has_every_number_of_every_seed(outcome: records.Outcome, tmp_path: Path) -> None:
    samples = outcome.samples
    for name in Reading._fields:
        assert samples[name].shape == (3, 3) and samples[f"weak_{name}"].shape == (1, 3)
        assert samples[f"initial_{name}"].shape == (1, 3) and np.ndim(samples[f"bayes_{name}"]) == 0
    assert np.isfinite([m["measured"] for m in outcome.metrics.values()]).all()
    assert {"best alignment", "excessive accuracy, lost", "linear cosine"} <= set(outcome.metrics)
    again = made(TINY, tmp_path / "again")
    assert again.metrics == outcome.metrics
    assert all(np.array_equal(samples[name], again.samples[name]) for name in samples)


def test_the_closed_form_is_that_of_the_largest_robust_margin(outcome: records.Outcome) -> None:
    """By another formula: the strength is |gamma w|, and the accuracy that of a normal margin."""
    samples = outcome.samples
    classes = pair(GROUNDS["distractor"]())
    assert classes is not None
    mean, covariance = classes.mean.numpy(), classes.covariance.numpy()
    assert (
        len(samples["linear_strengths"]) == 2 < len(samples["strengths"])
    )  # the last is beyond |mu|
    for k, gamma in enumerate(samples["linear_gamma"]):
        w = np.linalg.inv(covariance + gamma * np.eye(len(mean))) @ mean
        assert gamma * np.linalg.norm(w) == pytest.approx(samples["linear_strengths"][k], rel=1e-9)
        accuracy = ndtr(w @ mean / np.sqrt(w @ covariance @ w))
        assert samples["closed_accuracy"][k] == pytest.approx(accuracy, rel=1e-12)
        assert samples["closed_cosine"][k] == pytest.approx(1, rel=1e-12)


def test_a_pair_is_what_its_problem_is_made_of() -> None:
    problem = GROUNDS["distractor"]()
    classes = pair(problem)
    assert classes is not None
    frame = torch.cat([problem.signal, problem.distractor], 1)  # type: ignore[attr-defined]
    within = torch.zeros(12, dtype=torch.float64)
    within[:4] = torch.tensor([1.0, 0.4, 0.2, SHIFT / 2])
    values = torch.full((12,), THIN**2, dtype=torch.float64)
    values[:3] += torch.tensor([1.0, 0.36, 0.09], dtype=torch.float64)
    assert torch.allclose(frame.mT @ classes.mean, within, atol=1e-10)
    assert torch.allclose(frame.mT @ classes.covariance @ frame, torch.diag(values), atol=1e-10)
    assert pair(GROUNDS["sphere"]()) is None


@pytest.mark.parametrize("name", GROUNDS)
def test_bayes_agrees_with_itself_and_hardly_leaves_the_manifold(name: str) -> None:
    problem = GROUNDS[name]()
    batch = problem.sample(60, torch.Generator().manual_seed(0))
    gauge = Gauge(problem, batch)
    reading = gauge.read(gauge.bayes)
    assert reading.truth == pytest.approx(1) and reading.score == pytest.approx(1)
    assert batch.x.shape[1:] == (12,) and 0.6 < reading.accuracy <= 1
    if name == "distractor":
        assert reading.alignment < 0.1  # by design: the thin direction tells most
    else:
        assert reading.alignment > 0.99 and reading.off < 0.1 * reading.on


def test_a_linear_model_reads_as_its_weights_say() -> None:
    problem = GROUNDS["subspace"]()
    gauge = Gauge(problem, problem.sample(50, torch.Generator().manual_seed(1)), step=1e-4)
    w = torch.randn(12, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    reading = gauge.read(lambda x: torch.stack([-x @ w, x @ w], 1) / 2)
    tangent = gauge.geometry.basis[0].mT @ w
    share = float(tangent.square().sum() / w.square().sum())
    assert reading.alignment == pytest.approx(share, rel=1e-12)
    assert reading.norm == pytest.approx(float(w.norm()), rel=1e-12)
    ratio = share / (1 - share) * 9 / 3  # (on / off)^2 of steps of one length, law A3
    assert (reading.on / reading.off) ** 2 == pytest.approx(
        ratio, rel=0.2
    )  # of 8 random steps each
    logits = gauge.batch.x @ w
    slope = (logits.sigmoid() * (-logits).sigmoid()).square().mean()  # of a probability, twice
    expected = 1e-8 * 2 * float(slope * tangent.square().sum()) / 3
    assert reading.on**2 == pytest.approx(expected, rel=0.3)  # of 8 random steps each
    right = ((logits > 0) == gauge.batch.y.bool()).double().mean()
    assert reading.accuracy == pytest.approx(float(right))


def test_a_bent_model_reads_as_the_formulas_say() -> None:
    """Gradients of another size and direction at every sample, on a manifold that turns."""
    problem = GROUNDS["sphere"]()
    gauge = Gauge(problem, problem.sample(20, torch.Generator().manual_seed(1)))
    w = torch.randn(12, problem.num_classes, generator=torch.Generator().manual_seed(2)).double()
    model = lambda x: (3 * x @ w).tanh()
    reading = gauge.read(model)
    x, y = gauge.batch[:2]
    project = gauge.geometry.basis @ gauge.geometry.basis.mT

    def fields(of: Callable[[torch.Tensor], torch.Tensor], label: torch.Tensor, at: torch.Tensor):  # type: ignore[no-untyped-def]
        """Gradients of the margin, of the label's logit and of the marginal, (3, D)."""
        rows = torch.func.jacrev(lambda x: of(x[None])[0])(at)
        logits = of(at[None])[0]
        others = logits.clone()
        others[label] = -torch.inf
        return torch.stack(
            [rows[label] - rows[others.argmax()], rows[label], logits.softmax(0) @ rows]
        )

    own, bayes = (
        torch.stack([fields(of, label, at) for at, label in zip(x, y, strict=True)], 1)
        for of in (model, problem.log_joint)
    )  # (3, n, D)
    cosine = torch.cosine_similarity
    along, true_along = ((project @ v[..., None]).squeeze(3) for v in (own, bayes))
    margins, tangents = own[0], along[0]
    assert reading.alignment == pytest.approx(
        float(tangents.square().sum() / margins.square().sum())
    )
    assert reading.norm == pytest.approx(float(margins.square().sum(1).mean().sqrt()))
    assert reading.truth == pytest.approx(float(cosine(margins, bayes[0]).mean()))
    assert reading.score == pytest.approx(float(cosine(along[1], true_along[1]).mean()))
    marginal = cosine(tangents, true_along[2]).square().mean().sqrt()
    assert reading.marginal == pytest.approx(float(marginal))
    assert gauge.nulls == {"alignment": 2 / 12, "truth": 0, "score": 0, "marginal": 2**-0.5}


def test_tangents_are_looked_up_by_index(tmp_path: Path) -> None:
    study = Study(replace(TINY, problem="circle"), Working(tmp_path))
    table = tabulated(study.problem, study.pool)
    for data in study.data():
        batch = next(data.batches(32, 5))
        assert torch.equal(batch.x, study.pool.x[batch.index])
        x, v = study.pool.x[batch.index], batch.x.flip(1)
        exact = study.problem.geometry(batch).to_tangent(x, v)
        assert torch.allclose(table.at(batch).to_tangent(x, v), exact, atol=1e-12)


def test_what_is_best_is_chosen_by_the_others() -> None:
    values = np.array([[0.0, 0.0, 9.0], [1.0, 1.0, 1.0], [0.5, 3.0, 0.5]])
    expected = [np.delete(values, k, 1).mean(1).argmax() for k in range(3)]
    assert best(values).tolist() == expected == [0, 0, 2]


def test_the_jackknife_has_no_bias_of_a_square() -> None:
    """The square of a mean errs by variance / n; its jackknife is exact for quadratic functions."""
    x = torch.randn(4, 6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = jackknife(lambda mean: mean.square().sum(-1), x).mean(1)
    pairs = x @ x.mT
    unbiased = (pairs.sum((1, 2)) - pairs.diagonal(dim1=1, dim2=2).sum(1)) / 30
    assert torch.allclose(found, unbiased, atol=1e-14)


@pytest.mark.parametrize("name", TRAININGS)
def test_every_training_takes_a_strength_a_sample(name: str) -> None:
    problem = GROUNDS["sphere"]()
    x, y = problem.sample(12, torch.Generator().manual_seed(0))[:2]
    objective = TRAININGS[name].build(tabulated(problem, Batch(x, y)))
    model = torch.nn.Linear(12, 3).double()
    ends = x.new_tensor([TRAININGS[name].low, TRAININGS[name].high]).repeat(6)
    bound: Callable[..., torch.Tensor] = objective
    batch = Batch(x, y, torch.arange(12))
    loss = bound(model, batch, torch.Generator().manual_seed(1), strength=ends)
    assert loss.ndim == 0 and loss.isfinite()


def test_claims_are_of_the_seed_that_they_are_about() -> None:
    """Where every seed is alike, the best strength is the middle one."""
    rise = np.repeat([[0.5], [0.9], [0.1]], 3, 1) + 0.01 * np.arange(3)
    samples = dict.fromkeys(Reading._fields, rise)
    samples |= {
        f"{part}_{name}": rise[:1] for name in Reading._fields for part in ("weak", "initial")
    }
    samples |= {"off": 3 * rise, "weak_off": 2 * rise[:1]}
    found = claims(samples | {"bayes_alignment": 0.9})
    assert found["best truth, gained"]["measured"] == pytest.approx(0.4)
    assert found["excessive truth, lost"]["measured"] == pytest.approx(0.8)
    assert found["aligned accuracy, lost"]["measured"] == pytest.approx(-0.4)
    assert found["weak off / on"]["measured"] == pytest.approx(2)
    assert found["aligned off / on"]["measured"] == pytest.approx(3)
    assert found["best alignment"]["measured"] == pytest.approx(0.91)
    assert found["best alignment"]["predicted"] == pytest.approx(0.85)
    assert found["aligned accuracy, lost"]["agrees"] and found["best truth"]["agrees"] is False


@pytest.mark.parametrize(
    ("field", "value", "line"),
    [
        ("problem", "plane", "no problem 'plane', but subspace, distractor"),
        ("objective", "luck", "no objective 'luck', but gradient_penalty"),
        ("count", 1, "count must be 2 or more, not 1"),
        ("seeds", 1, "seeds must be 2 or more, not 1"),
        ("lr", 0.0, "lr must be positive, not 0.0"),
        ("low", 5.0, "strengths go from low to high, 0 < low < high, not 5.0 to 3.0"),
        ("low", -1.0, "0 < low < high, not -1.0 to 3.0"),
    ],
)
def test_wrong_fields_have_one_line(field: str, value: object, line: str) -> None:
    with pytest.raises(ValueError, match=line.replace("(", r"\(")):
        replace(TINY, **{field: value})  # type: ignore[arg-type]


def test_the_figure_is_drawn_from_records(outcome: records.Outcome, tmp_path: Path) -> None:
    options = ("--results", tmp_path, "--out", tmp_path / "figures")
    missing = draw("fig_three_regimes.py", *options)
    assert missing.returncode == 1 and missing.stderr.count("\n") == 1
    assert "there are no records in" in missing.stderr and "manifoldlab sweep" in missing.stderr
    for objective in ("adversarial", "mart"):
        config = records.plain(replace(TINY, objective=objective))
        folder = tmp_path / "three_regimes" / records.name("three_regimes", config)
        folder.parent.mkdir(exist_ok=True)
        records.save(folder, "three_regimes", config, outcome, seconds=1.0)
    drawn = draw("fig_three_regimes.py", *options)
    assert drawn.returncode == 0, drawn.stderr
    pdf, png = map(Path, drawn.stdout.split())
    assert pdf.read_bytes().startswith(b"%PDF") and png.read_bytes().startswith(b"\x89PNG")
