"""imagenet_alignment: full resolution, one pass of bounded memory, models from elsewhere, wrong fields."""

import runpy
import sys
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from manifoldlab import checkpoints, records
from manifoldlab.architecture import KEY, Architecture
from manifoldlab.evaluation import evaluate
from manifoldlab.experiments.imagenet_alignment import FAST, OF_TANGENTS, Config, Study, main
from manifoldlab.geometries import Everything
from manifoldlab.interfaces import Batch, Data
from manifoldlab.scores.stationary import spectrum, stationary
from manifoldlab.studies import calibration
from manifoldlab.studies.calibration import Entry, Facts
from manifoldlab.studies.image_models import classifier

ROOT = Path(__file__).parents[1]
SMALL = replace(
    FAST,
    data="digits",
    model="manifoldlab:small_cnn",
    images=40,
    fitted=40,
    mean=(0.3,),
    deviation=(0.4,),
)
DATA = Data((3, 8, 8), 10, lambda size, seed: iter(()))


class Work:
    def __init__(self, folder: Path):
        self.folder = folder

    def __call__(self, done: float, what: str = "") -> None:
        assert 0 <= done <= 1


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def imagenet(root: Path, count: int) -> Path:
    """Large pictures of a few classes, laid out as published."""
    (root / "imagenet/val").mkdir(parents=True)
    rows = [f"{k}\tn{k:08d}\tclass {k}" for k in range(1000)]
    (root / "imagenet/classes.tsv").write_text("\n".join(["index\twnid\tname", *rows]))
    random = np.random.default_rng(0)
    for k in range(count):
        pixels = random.integers(0, 255, (12, 16, 3), dtype=np.uint8)
        picture = Image.fromarray(pixels).resize((400, 300))
        picture.save(root / f"imagenet/val/n{100 * k:08d}_{k}.JPEG")
    return root


def test_a_random_network_runs_at_full_resolution_and_is_drawn(tmp_path: Path) -> None:
    config = replace(FAST, root=str(imagenet(tmp_path, 3)), images=0, batch_size=2)
    made = main(config, Work(tmp_path))
    assert made.samples["score_cosine"].shape == made.samples["gradient_norm"].shape == (3,)
    assert np.allclose(made.samples["spectrum_share"].sum(1), 1, atol=1e-5)
    assert made.metrics["images"] == 3 and made.metrics["images per second"] > 0
    assert not set(OF_TANGENTS) & set(made.samples)
    plain = records.plain(config)
    folder = tmp_path / "results/imagenet_alignment" / records.name("imagenet_alignment", plain)
    folder.parent.mkdir(parents=True)
    records.save(folder, "imagenet_alignment", plain, made, seconds=1.0)
    draw = runpy.run_path(str(ROOT / "paper_figs/fig_imagenet_alignment.py"))["draw"]
    draw(tmp_path / "results").savefig(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 10_000


def test_tangent_probes_need_a_reference_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table is of an estimator that tells the truth."""
    same = Facts("local_pca_16", 5, 64, 200, 0.5, pictures=True)
    shares = (0.0, 0.2, 1.0)
    table = [Entry(same, f"{k}", f"{k}", 1.0, 0.0, shares, shares) for k in range(20)]
    monkeypatch.setattr(calibration, "read", lambda: table)
    config = replace(SMALL, estimator="local_pca_16", reference=200, dim=5)
    made = main(config, Work(tmp_path))
    assert set(OF_TANGENTS) < set(made.samples) and made.samples["steps_off"].shape == (40, 1)
    assert np.allclose(made.samples["gradient_omega_null"], 1 - 5 / 64)
    (share,) = (value for name, value in made.metrics.items() if name.startswith("tangent share"))
    assert np.isclose(share["measured"], made.samples["gradient_alignment"].mean(), atol=1e-6)
    assert 0 <= share["low"] <= share["measured"] <= share["high"] <= 1
    again = main(replace(config, batch_size=7), Work(tmp_path))  # the same images in other batches
    for name in ("gradient_omega", "score_cosine", "spectrum_overlap"):
        assert np.allclose(made.samples[name], again.samples[name], atol=1e-4), name


def test_no_more_than_two_batches_are_alive(tmp_path: Path) -> None:
    """However many there are: what a probe has read is let go, but for the first batch."""
    study = Study(SMALL, Work(tmp_path))
    alive, most = weakref.WeakSet[Tensor](), 0

    def stream() -> Iterator[Batch]:
        nonlocal most
        for batch in study.data.batches(20, None):
            x = batch.x.clone()
            alive.add(x)
            most = max(most, len(alive))
            yield batch._replace(x=x)
            del x

    found = evaluate(study.probe(), study.model, stream(), Everything(64))
    assert len(found.answers_right) == 1000 and most <= 3


def test_the_score_of_a_stationary_gaussian_is_exact() -> None:
    """Against the dense inverse, whose covariance is that of all shifts of the images."""
    x = normal(6, 2, 3, 4) + torch.tensor([1.0, -2.0]).double()[:, None, None]
    known = spectrum([Batch(x[:4], torch.zeros(4)), Batch(x[4:], torch.zeros(2))])
    shifts = [x.roll((a, b), (2, 3)) for a in range(3) for b in range(4)]
    every = torch.cat(shifts).flatten(1)
    covariance = torch.cov(every.T, correction=0) + 0.3**2 * torch.eye(24).double()
    fresh = normal(5, 2, 3, 4, seed=1)
    wanted = -torch.linalg.solve(covariance, (fresh.flatten(1) - every.mean(0)).T).T
    found = stationary(known, sigma=0.3)(Batch(fresh, torch.zeros(5)))
    assert torch.allclose(found.flatten(1), wanted, rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match=r"images \(2, 3, 4\) for images \(2, 4, 4\)"):
        stationary(known, sigma=0.3)(Batch(normal(1, 2, 4, 4), torch.zeros(1)))
    with pytest.raises(ValueError, match="no images"):
        spectrum([])


def elsewhere(monkeypatch: pytest.MonkeyPatch, classes: int = 10) -> nn.Module:
    """A torchvision of one model."""
    inner = nn.Sequential(nn.Flatten(), nn.Linear(192, classes))
    models = ModuleType("torchvision.models")

    def get_model(name: str, weights: None) -> nn.Module:
        if name != "toy":
            raise ValueError(f"Unknown model {name}")
        return nn.Sequential(nn.Flatten(), nn.Linear(192, classes))

    models.get_model = get_model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    return inner


def test_weights_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = elsewhere(monkeypatch)
    own, path = inner.state_dict(), tmp_path / "w.pth"
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    mean, deviation = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    scaled = (x - torch.tensor(mean)[:, None, None]) / torch.tensor(deviation)[:, None, None]
    wrapped = {f"module.model.{k}": v for k, v in own.items()} | {"module.normalizer.mean": x[0, 0]}
    for content in (own, {"state_dict": own, "epoch": 3}, {"model": wrapped}):
        torch.save(content, path)
        model = classifier("torchvision:toy", str(path), DATA, mean, deviation)
        assert torch.allclose(model(x), inner(scaled), atol=1e-5)
        assert not any(p.requires_grad for p in model.parameters())
    checkpoints.save(tmp_path / "w.safetensors", own, {})
    model = classifier("torchvision:toy", str(tmp_path / "w.safetensors"), DATA, mean, deviation)
    assert torch.allclose(model(x), inner(scaled), atol=1e-5)


def refused(model: str, weights: Path | str, data: Data = DATA) -> str:
    with pytest.raises(ValueError) as found:
        classifier(model, str(weights), data, (), ())
    assert "\n" not in str(found.value)
    return str(found.value)


def test_wrong_models_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("torchvision", "timm"):  # None: as if it were not installed
        monkeypatch.setitem(sys.modules, package, None)
        line = refused(f"{package}:resnet18", "")
        assert line == f"models of {package} need it: python -m pip install {package}"
    elsewhere(monkeypatch, classes=7)
    assert refused("torchvision:toy", "") == "torchvision:toy is of 7 classes, the data are of 10"
    assert "no model called 'resnet19': Unknown model" in refused("torchvision:resnet19", "")
    assert "no classifier called 'resnet19' (did you mean resnet18?)" in refused(
        "manifoldlab:resnet19", ""
    )
    assert "there is no such file" in refused("torchvision:toy", tmp_path / "none.pth")
    torch.save({"w": SimpleNamespace()}, tmp_path / "code.pth")
    assert "could run any code" in refused("torchvision:toy", tmp_path / "code.pth")
    torch.save({"1.weight": torch.zeros(3, 192), "1.bias": torch.zeros(3)}, tmp_path / "3.pth")
    line = refused("torchvision:toy", tmp_path / "3.pth")
    assert "(3, 192)" in line and "(7, 192)" in line
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    assert "no tensors by name but Tensor" in refused("torchvision:toy", tmp_path / "tensor.pth")


def test_a_checkpoint_is_of_the_classes_and_the_shape_of_the_data(tmp_path: Path) -> None:
    case, path = Architecture("small_cnn", (3, 8, 8), 4, {"width": 2}), tmp_path / "m.safetensors"
    checkpoints.save(path, case.build(0).state_dict(), {KEY: case.facts()})
    assert refused(str(path), "").endswith("is of 4 classes, the data are of 10")
    other = DATA._replace(shape=(3, 9, 9))
    assert "images of shape (3, 8, 8), the data have (3, 9, 9)" in refused(str(path), "", other)
    assert classifier(str(path), "", DATA._replace(num_classes=4), (), ())


@pytest.mark.parametrize(
    ("field", "value", "line"),
    [
        (
            "model",
            "resnet18",
            "no model called 'resnet18': it is FILE.safetensors, manifoldlab:NAME",
        ),
        ("head", "logits", "did you mean logit"),
        ("estimator", "pca", "no estimator called 'pca'"),
        ("sigma", -1.0, "sigma must be positive"),
        ("mean", (float("nan"),), "are not finite"),
        ("dim", 0, "dim must be 1 or more"),
    ],
)
def test_wrong_fields(field: str, value: Any, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        replace(FAST, **{field: value})
    with pytest.raises(ValueError, match="has its weights: give no others"):
        Config(model="a.safetensors", weights="b.pth")
