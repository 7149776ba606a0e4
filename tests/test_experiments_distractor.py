"""distractor: a tiny run, what a Bayes-like model would give, the figure, and wrong fields."""

import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from manifoldlab import records
from manifoldlab.data.distractor import distractor
from manifoldlab.evaluation import evaluate
from manifoldlab.experiments.distractor import FAST, Config, Study, claims, main
from manifoldlab.geometries import Region
from manifoldlab.interfaces import Batch
from manifoldlab.probes.tangent_alignment import tangent_alignment

ROOT = Path(__file__).parents[1]
TINY = replace(
    FAST,
    strengths=(0.1, 0.5),
    seeds=2,
    samples=120,
    held_out=60,
    epochs=1,
    width=2,
    steps=1,
    count=3,
    directions=1,
)


class Work:
    def __init__(self, folder: Path):
        self.folder, self.told = folder, list[float]()

    def __call__(self, done: float, what: str = "") -> None:
        self.told.append(done)


def test_a_tiny_run_is_drawn(tmp_path: Path) -> None:
    work = Work(tmp_path)
    made = main(TINY, work)
    assert work.told == sorted(work.told) and work.told[-1] == 1
    assert made.samples["signal"].shape == made.samples["distractor"].shape == (3, 2, 4)
    assert made.samples["share"].shape == made.samples["right"].shape == (3, 2, 60)
    assert made.samples["gradient"].shape == (3, 1, 16, 8)
    config = records.plain(TINY)
    folder = tmp_path / "results/distractor" / records.name("distractor", config)
    folder.parent.mkdir(parents=True)
    records.save(folder, "distractor", config, made, seconds=1.0)
    draw = runpy.run_path(str(ROOT / "paper_figs/fig_distractor.py"))["draw"]
    draw(tmp_path / "results").savefig(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 10_000


def test_the_share_of_a_leaking_model_is_known() -> None:
    """The margin's gradient is w in the upper half, w / 4 in the lower one; images are in either."""
    w = torch.randn(1, 16, 8, generator=torch.Generator().manual_seed(0))
    w[:, 8:] /= 4
    logit = lambda x: (x * w).sum((1, 2, 3))
    model = lambda x: torch.stack([logit(x), 0 * logit(x)], 1)
    batch = next(distractor(of="digits", train=False).batches(40, None))
    assert batch.region is not None
    found = evaluate(tangent_alignment, model, [batch._replace(y=0 * batch.y)], Region(64))
    top, below = (half.square().sum() for half in w.tensor_split(2, 1))
    on_top = batch.region[:, 0, 0, 0]
    assert torch.allclose(
        found.alignment, torch.where(on_top, top, below) / (top + below), atol=1e-6
    )
    assert 0 < on_top.float().mean() < 1


def test_a_region_is_that_of_a_batch() -> None:
    x = torch.zeros(2, 3)
    where = torch.tensor([[True, False, True], [True, False, False]])
    batch = Batch(x, torch.zeros(2, dtype=torch.int64), region=where)
    with pytest.raises(ValueError, match="regions of 2 coordinates, sample 1 has 1"):
        Region(2).at(batch)
    with pytest.raises(ValueError, match="without batch.region"):
        Region(2).at(batch._replace(region=None))
    with pytest.raises(ValueError, match="that of a batch"):
        Region(2).to_tangent(x, x)


def test_claims_can_fail_and_are_not_made_of_networks_that_lost_their_classes() -> None:
    noise = 1 + 0.01 * np.random.default_rng(0).normal(size=(3, 5, 2))
    arrays = {
        "signal": np.array([2.0, 3.0, 1.0])[:, None, None] * noise,
        "distractor": np.ones((3, 5, 2)),
        "share": np.array([0.6, 0.8, 0.4])[:, None, None] * noise,
        "right": np.array([0.95, 0.93, 0.3])[:, None, None] * noise,
    }
    strengths = np.array([0.0, 0.3, 3.0])
    found = claims(strengths, arrays, 1)
    assert all(metric.get("agrees", True) for metric in found.values())
    assert found["strength 0.3, ratio to the standard ratio"]["agrees"]
    assert "agrees" not in found["strength 3, ratio to the standard ratio"]
    kept = claims(strengths, arrays | {"right": np.ones((3, 5, 2))}, 1)
    for name in ("ratio to the standard ratio", "share", "share gained"):
        assert kept[f"strength 3, {name}"]["agrees"] is False


def test_data_are_composites(tmp_path: Path) -> None:
    study = Study(TINY, Work(tmp_path))
    assert study.train.shape == (1, 16, 8) and len(study.batches[0].x) == 60
    assert study.config.sizes == (0.01, 0.25, pytest.approx(0.1**0.5), 10.0)


@pytest.mark.parametrize(
    ("field", "value", "line"),
    [
        ("objective", "normal_penalty", "no objective called 'normal_penalty'"),
        ("strengths", (), "strengths are one or more"),
        ("strengths", (1.0, 0.5), "strengths ascend"),
        ("low", 20.0, "low < high, not 20.0 to 10.0"),
        ("data", "block", "beside plain images, not beside block"),
        ("noise", 0.0, "noise must be positive and finite, not 0.0"),
    ],
)
def test_wrong_fields(field: str, value: object, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        replace(FAST, **{field: value})
    assert Config().count == 30
