"""gradient_gallery: a tiny run, what is compared, which images are shown, the figure and wrong fields."""

import math
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from manifoldlab import records
from manifoldlab.experiments import gradient_gallery
from manifoldlab.experiments.gradient_gallery import FAST, KINDS, claims, main, shown
from manifoldlab.geometries import Everything
from manifoldlab.interfaces import Batch
from manifoldlab.studies import robust_networks
from manifoldlab.studies.together import answers, together

ROOT = Path(__file__).parents[1]
TINY = replace(
    FAST,
    seeds=2,
    shown=2,
    samples=120,
    held_out=60,
    epochs=1,
    width=2,
    steps=1,
    denoiser_epochs=1,
    denoiser_width=4,
)


class Work:
    def __init__(self, folder: Path):
        self.folder, self.told = folder, list[float]()

    def __call__(self, done: float, what: str = "") -> None:
        self.told.append(done)


def test_a_tiny_run_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANIFOLDLAB_CACHE", str(tmp_path / "cache"))
    work = Work(tmp_path)
    made = main(TINY, work)
    assert work.told == sorted(work.told) and work.told[-1] == 1
    assert made.samples["image"].shape == made.samples["score"].shape == (2, 1, 8, 8)
    for kind in KINDS:
        assert made.samples[f"{kind}_gradient"].shape == (2, 1, 8, 8)
        assert made.samples[f"{kind}_cosine"].shape == (2, 60)
    assert list(made.samples["label"]) == [0, 1]
    config = records.plain(TINY)
    folder = tmp_path / "results/gradient_gallery" / records.name("gradient_gallery", config)
    folder.parent.mkdir(parents=True)
    records.save(folder, "gradient_gallery", config, made, seconds=1.0)
    draw = runpy.run_path(str(ROOT / "paper_figs/fig_gradient_gallery.py"))["draw"]
    draw(tmp_path / "results").savefig(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 10_000
    with pytest.raises(SystemExit, match="make them with: manifoldlab run gradient_gallery"):
        draw(tmp_path)


def test_claims_can_fail() -> None:
    cosine = {"standard": 0.1, "robust": 0.3, "excessive": 0.0}
    noise = 0.01 * np.random.default_rng(0).normal(size=(3, 4, 50))
    arrays = {f"{k}_cosine": v + noise[i] for i, (k, v) in enumerate(cosine.items())}
    arrays |= {f"{kind}_right": np.ones((4, 50)) for kind in KINDS}
    found = claims(arrays)
    assert found["robust score, gained"]["agrees"] and found["excessive score, lost"]["agrees"]
    swapped = arrays | {
        "robust_cosine": arrays["standard_cosine"],
        "standard_cosine": arrays["robust_cosine"],
    }
    assert claims(swapped)["robust score, gained"]["agrees"] is False


def test_the_first_image_of_each_class_is_shown() -> None:
    y = torch.tensor([2, 0, 2, 1, 0])
    assert shown(y, 3).tolist() == [1, 3, 0]
    with pytest.raises(ValueError, match="4 images are shown, one a class, of 3 classes"):
        shown(y, 4)


def test_probes_together_are_each_alone() -> None:
    x = torch.randn(7, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    model = lambda x: torch.stack([x.sum((1, 2, 3)), x[:, 0, 0, 0]], 1)
    batch = Batch(x, torch.tensor([0, 1] * 3 + [0]), torch.arange(7))
    both = together({"a": answers, "b": answers})(model, batch, Everything(4))
    alone = answers(model, batch, Everything(4))
    for logits, y, right, p in zip(model(x).tolist(), batch.y.tolist(), *alone, strict=True):
        assert right == (logits[y] > logits[1 - y])
        assert p == pytest.approx(1 / (1 + math.exp(logits[1 - y] - logits[y])), rel=1e-5)
    assert both._fields == ("a_right", "a_probability", "b_right", "b_probability")
    assert torch.equal(both.b_probability, alone.probability)
    parts = robust_networks.parts(batch, 3)
    assert [len(part.x) for part in parts] == [3, 3, 1] and parts[2].region is None
    assert torch.cat([part.index for part in parts]).tolist() == list(range(7))
    with pytest.raises(ValueError, match="one or more, not none"):
        together({})


@pytest.mark.parametrize(
    ("field", "value", "line"),
    [
        ("objective", "normal_penalty", "no objective called 'normal_penalty'"),
        ("strength", 0.0, "strengths are one or more, positive"),
        ("excess", 0.1, "strengths ascend"),
        ("sigma", float("inf"), "sigma must be positive and finite, not inf"),
        ("seeds", 1, "seeds must be 2 or more, not 1"),
    ],
)
def test_wrong_fields(field: str, value: object, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        replace(FAST, **{field: value})
    assert gradient_gallery.Config().seeds == 5
