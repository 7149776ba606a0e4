"""The experiment causal_normal_penalty: what it sees by other formulas, its claims, its parts."""

import runpy
from dataclasses import replace
from functools import partial
from math import log
from pathlib import Path

import numpy as np
import pytest
import torch

from manifoldlab import gradients, records
from manifoldlab.architecture import Architecture
from manifoldlab.data.in_memory import in_memory
from manifoldlab.densities.gaussians import random_gaussians
from manifoldlab.ensembles import Ensemble
from manifoldlab.experiments import causal_normal_penalty
from manifoldlab.experiments.causal_normal_penalty import Config
from manifoldlab.geometries import Across, Tabulated
from manifoldlab.gradients import input_gradient
from manifoldlab.interfaces import Batch
from manifoldlab.manifolds.flat import Flat
from manifoldlab.manifolds.placed import Placed
from manifoldlab.objectives.normal_penalty import normal_penalty
from manifoldlab.problems.base import BayesClassifier
from manifoldlab.problems.gaussian_subspace import GaussianSubspace
from manifoldlab.studies.beside_bayes import Seen, beside_bayes, points

TINY = Config(
    ambient=5,
    samples=20,
    points=15,
    seeds=2,
    strengths=(0.1, 10.0),
    width=6,
    epochs=2,
    batch_size=10,
)


class Told:
    """A progress that remembers."""

    def __init__(self, folder: Path):
        self.folder, self.done = folder, [0.0]

    def __call__(self, done: float, what: str = "") -> None:
        self.done.append(done)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> records.Outcome:
    told = Told(tmp_path_factory.mktemp("causal"))
    found = causal_normal_penalty.main(TINY, told)
    assert told.done == sorted(told.done) and told.done[-1] <= 1
    assert len(list(told.folder.glob("flat *.safetensors"))) == 4
    return found


def test_the_record(outcome: records.Outcome) -> None:
    samples, metrics = outcome.samples, outcome.metrics
    assert list(samples["problems"]) == ["flat", "sphere"]
    assert samples["alignment"].shape == (2, 3, 2, 2)
    assert samples["alignment_bayes"].shape == samples["cosine_cross_entropy"].shape == (2, 2)
    assert samples["alignment_bayes"][0] == pytest.approx(1, abs=1e-9)  # B1
    assert samples["cosine_bayes"] == pytest.approx(1, abs=1e-12)
    share = 1 - samples["normal_square"] / samples["square"]
    assert (share >= 0).all() and (share <= 1).all()
    row = metrics["flat: accuracy - cross_entropy's"]
    best = [0.1, 10.0].index(metrics["flat: strength"]["measured"])
    gained = samples["accuracy"][0, 0, best] - samples["accuracy_cross_entropy"][0]
    assert row["measured"] == pytest.approx(gained.mean()) and row["predicted"] == 0


def test_the_same_again(outcome: records.Outcome, tmp_path: Path) -> None:
    again = causal_normal_penalty.main(TINY, Told(tmp_path))
    assert again.metrics == outcome.metrics
    for name, values in outcome.samples.items():
        assert (again.samples[name] == values).all(), name


def test_the_bound_is_that_of_a_constant(tmp_path: Path) -> None:
    """Of loss log 2; an optimum may use no more for its penalty."""
    config = replace(TINY, strengths=(1.0, 2.0), epochs=20)
    problem = causal_normal_penalty.problems(config)["flat"]
    known = causal_normal_penalty.compared_on("flat", problem, config, Told(tmp_path), 0.0)[1]
    assert (known["normal_penalty"].normal_square[0] * 1.0 < log(2)).all()


def test_an_ensemble_is_seen_as_its_members_are() -> None:
    problem = causal_normal_penalty.problems(TINY)["sphere"]
    bayes, here = BayesClassifier(problem), points(problem, 7, (0, 1), "points")
    built = [Architecture("mlp", (5,), 2, {"width": 4}).build(s).double() for s in range(4)]
    found = beside_bayes(Ensemble(built), bayes, here, copies=2, size=0.1)
    for i, model in enumerate(built):
        own = slice(7 * (i % 2), 7 * (i % 2) + 7)
        x, y = here.batch.x[own], here.batch.y[own]
        g = input_gradient(model, x, y, gradients.margin)
        exact = input_gradient(bayes, x, y, gradients.margin)
        tangent = problem.manifold.to_tangent(x, g)
        cosine = torch.nn.functional.cosine_similarity(g, exact)
        share = tangent.square().sum(1) / g.square().sum(1)
        place = i // 2, i % 2
        assert found.cosine[place] == pytest.approx(cosine.mean().item(), rel=1e-9)
        assert found.alignment[place] == pytest.approx(share.mean().item(), rel=1e-9)
        assert found.square[place] == pytest.approx(g.square().sum(1).mean().item(), rel=1e-9)
        right = (model(x).argmax(1) == y).double().mean().item()
        assert found.accuracy[place] == pytest.approx(right)
        assert 0 < found.on[place] < 0.1 * g.norm(dim=1).max()
    assert all(field.shape == (2, 2) for field in found) and isinstance(found, Seen)


def test_tangent_spaces_are_looked_up_by_index() -> None:
    manifold = causal_normal_penalty.problems(TINY)["sphere"].manifold
    generator = torch.Generator().manual_seed(0)
    x = causal_normal_penalty.problems(TINY)["sphere"].sample(6, generator).x
    v = torch.randn(3, 6, 5, generator=generator, dtype=torch.float64)
    table = Tabulated(manifold, manifold.tangent_basis(x))
    order = torch.tensor([4, 0, 5])
    batch = Batch(x[order], order, order)
    exact = manifold.to_tangent(x[order], v[:, order])
    for geometry in (table, table.at(batch), table.at(batch._replace(index=None))):
        assert torch.allclose(geometry.to_tangent(x[order], v[:, order]), exact, atol=1e-12)
        assert geometry.dim == 2
    across = Across(table, 5).at(batch)
    assert torch.allclose(across.to_tangent(x[order], v[:, order]), v[:, order] - exact)
    assert across.dim == 3


def test_the_two_penalties_add_up_to_the_whole() -> None:
    problem = causal_normal_penalty.problems(TINY)["sphere"]
    model = Architecture("mlp", (5,), 2, {"width": 4}).build(0).double()
    batch = problem.sample(9, torch.Generator().manual_seed(1))
    named = causal_normal_penalty.penalties(problem.manifold, TINY)
    loss = torch.nn.functional.cross_entropy(model(batch.x), batch.y)
    normal, whole, tangent = (
        partial(objective, strength=2.0)(model, batch, torch.Generator()) - loss
        for objective in named.values()
    )
    assert torch.allclose(normal + tangent, whole) and normal > 0 and tangent > 0
    assert named["normal_penalty"].func is normal_penalty  # type: ignore[attr-defined]


def test_an_excess_is_over_networks_of_other_strengths() -> None:
    seen = Seen(*np.zeros((10, 2, 1)))
    seen = seen._replace(loss=np.array([[0.3], [0.69]]), normal_square=np.array([[0.1], [0.0]]))
    found = causal_normal_penalty.excesses(seen, (1.0, 3.0))
    assert found[:, 0] == pytest.approx([0.4 - 0.69, 0.69 - 0.6])


def test_data_may_be_rows_of_a_larger_table() -> None:
    x, y = torch.arange(8.0).reshape(4, 2), torch.tensor([0, 1, 1, 0])
    for batch in in_memory(x, y, 2, first=100).batches(3, 5):
        assert batch.index is not None
        assert (x[batch.index - 100] == batch.x).all() and (y[batch.index - 100] == batch.y).all()


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"dim": 1}, "dim must be 2 or more, not 1"),
        ({"seeds": 1}, "seeds must be 2 or more, not 1"),
        ({"ambient": 3}, r"ambient is dim \+ 2 = 4 or more, not 3"),
        ({"noise": 0.2}, r"noise 0.2 in R\^16 would leave the reach, 1"),
        (
            {"strengths": (1.0, 0.1)},
            r"strengths are two or more, positive and grow, not \(1.0, 0.1\)",
        ),
        ({"strengths": (-1.0, 0.1)}, "strengths are two or more, positive and grow"),
        ({"strengths": (1.0,)}, "strengths are two or more, positive and grow"),
    ],
)
def test_wrong_fields(wrong: dict[str, object], line: str) -> None:
    with pytest.raises(ValueError, match=line) as refused:
        replace(Config(), **wrong)
    assert "\n" not in str(refused.value)


def test_the_head_may_be_the_loss() -> None:
    problem = causal_normal_penalty.problems(TINY)["flat"]
    head = replace(TINY, head="cross_entropy")
    named = causal_normal_penalty.penalties(problem.manifold, head)
    assert all(o.keywords["head"] is gradients.cross_entropy for o in named.values())  # type: ignore[attr-defined]
    seen = Seen(*np.ones((10, 2, 2)))
    found = dict.fromkeys(causal_normal_penalty.LABELS, seen)
    rows = causal_normal_penalty.metrics("flat", found, found, head)
    assert not any("bound" in row for row in rows)


def test_the_figure(outcome: records.Outcome, tmp_path: Path) -> None:
    """Of records that are missing, and of tiny ones; in this process, which has matplotlib."""
    script = Path(__file__).parents[1] / "paper_figs" / "fig_causal_normal_penalty.py"
    draw = runpy.run_path(str(script))["draw"]
    with pytest.raises(SystemExit) as missing:
        draw(tmp_path)
    assert missing.value.code == (
        f"there are no records in {tmp_path}/causal_normal_penalty; make them with: "
        f"manifoldlab run causal_normal_penalty --out {tmp_path}"
    )
    for config in (TINY,):
        plain = records.plain(config)
        folder = tmp_path / "causal_normal_penalty" / records.name("causal_normal_penalty", plain)
        folder.parent.mkdir(exist_ok=True)
        records.save(folder, "causal_normal_penalty", plain, outcome, seconds=1.0)
    draw(tmp_path).savefig(tmp_path / "page.png", dpi=20)
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")


def test_a_linear_model_is_seen_as_its_weights_say() -> None:
    """Beside a Bayes margin that is linear too, on a plane in R^4."""
    law = random_gaussians(2, 2, 0, shared=True)
    problem = GaussianSubspace(Placed(Flat(2), 2, 0), law, 0.5)
    here = points(problem, 30, (0, 1), "seen")
    w = torch.tensor([0.3, -0.8, 0.5, 0.2], dtype=torch.float64)
    model = lambda x: torch.stack([-x @ w, x @ w], 1) / 2
    seen = beside_bayes(model, BayesClassifier(problem), here, copies=1, size=1e-4)
    x, y = here.batch.x, here.batch.y
    tangent = problem.manifold.to_tangent(x[:1], w[None])[0]
    size, along = float(w.square().sum()), float(tangent.square().sum())
    bayes = input_gradient(BayesClassifier(problem), x, y, gradients.margin)
    score = input_gradient(BayesClassifier(problem), x, y, gradients.log_marginal)
    own = (2 * y - 1)[:, None] * w
    loss = torch.nn.functional.cross_entropy(model(x), y, reduction="none")
    rows = {
        "accuracy": ((x @ w > 0) == y.bool()).double(),
        "loss": loss,
        "cosine": torch.cosine_similarity(own, bayes),
        "tangent_cosine": torch.cosine_similarity((2 * y - 1)[:, None] * tangent, bayes),
        "score_cosine": torch.cosine_similarity(own, score).square(),
    }
    for name, row in rows.items():
        expected = row.reshape(2, 30).mean(1)
        expected = expected.sqrt() if name == "score_cosine" else expected
        assert getattr(seen, name)[0] == pytest.approx(expected.numpy(), rel=1e-9), name
    assert seen.square == pytest.approx(np.full((1, 2), size))
    assert seen.normal_square == pytest.approx(np.full((1, 2), size - along))
    assert seen.alignment == pytest.approx(np.full((1, 2), along / size))
    # root mean squares over 8 directions at 30 points, of steps of one length (law A3)
    assert seen.on / 1e-4 == pytest.approx(np.full((1, 2), (along / 2) ** 0.5), rel=0.3)
    assert seen.off / 1e-4 == pytest.approx(np.full((1, 2), ((size - along) / 2) ** 0.5), rel=0.3)
