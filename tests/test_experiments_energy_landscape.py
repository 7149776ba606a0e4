"""The experiment energy_landscape: its predictions by other formulas, its claims, its figure."""

import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from manifoldlab import records
from manifoldlab.energies import marginal_energy
from manifoldlab.experiments import energy_landscape
from manifoldlab.experiments.energy_landscape import Config
from manifoldlab.problems.base import BayesClassifier
from manifoldlab.studies import energy_changes

TINY = Config(
    samples=40,
    points=30,
    seeds=2,
    lengths=(1e-6, 0.3),
    steps=2,
    width=6,
    epochs=1,
    batch_size=20,
    grid=5,
)


class Told:
    """A progress that remembers."""

    def __init__(self, folder: Path):
        self.folder, self.done = folder, [0.0]

    def __call__(self, done: float, what: str = "") -> None:
        self.done.append(done)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> records.Outcome:
    told = Told(tmp_path_factory.mktemp("energy"))
    found = energy_landscape.main(TINY, told)
    assert told.done == sorted(told.done) and told.done[-1] <= 1
    return found


def test_the_record(outcome: records.Outcome) -> None:
    samples, metrics = outcome.samples, outcome.metrics
    assert list(samples["models"]) == ["bayes", "cross_entropy", "adversarial", "trades", "weat"]
    assert samples["change"].shape == samples["lowered"].shape == (5, 4, 2, 2, 2)
    assert samples["energy"].shape == (5, 2, 5, 5) and samples["path"].shape == (5, 2, 13, 12, 2)
    assert all(np.isfinite(a).all() for a in samples.values() if a.dtype.kind == "f")
    for name in samples["models"]:
        assert metrics[f"{name}: signs of E4"]["measured"] > 0.99
        short = metrics[f"{name}: share that short untargeted steps lower"]
        assert short["agrees"] and short["predicted"] == pytest.approx(short["measured"], abs=0.02)
        far = metrics[f"{name}: untargeted attacks lower E"]
        assert far["agrees"] == (far["low"] <= 0 == far["predicted"])


def test_the_same_again(outcome: records.Outcome, tmp_path: Path) -> None:
    again = energy_landscape.main(TINY, Told(tmp_path))
    assert again.metrics == outcome.metrics
    for name, values in outcome.samples.items():
        assert (again.samples[name] == values).all(), name


def test_slopes_are_those_of_cross_entropy_and_of_finite_steps() -> None:
    problem = energy_landscape.landscape(replace(TINY, dim=2, codim=3))
    model = BayesClassifier(problem)
    batch, target = energy_landscape.to_attack(TINY, problem)
    assert (target != batch.y).all() and target.max() == 2
    for kind in energy_changes.KINDS:
        label = target if kind.targeted else batch.y
        x = batch.x.clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(model(x), label, reduction="sum")
        (ascent,) = torch.autograd.grad(loss, x)
        step = (
            ascent.sign() / 6**0.5 if "linf" in kind.name else ascent / ascent.norm(dim=1)[:, None]
        )
        step = -step if kind.targeted else step
        found = energy_changes.slopes(model, batch.x, label, kind)
        for gauge, slope in zip(energy_changes.GAUGES.values(), found, strict=True):
            ends = [marginal_energy(gauge(model(batch.x + h * step))) for h in (-1e-5, 1e-5)]
            assert torch.allclose((ends[1] - ends[0]) / 2e-5, slope, rtol=1e-6, atol=1e-6)


def test_bayes_changes_balance_over_the_posterior() -> None:
    problem = energy_landscape.landscape(TINY)
    model, x = BayesClassifier(problem), problem.sample(50, torch.Generator().manual_seed(1)).x
    weights, labels = model(x).softmax(1), torch.arange(3).repeat(50)
    batch = energy_changes.Batch(x.repeat_interleave(3, 0), labels)
    found = energy_changes.energy_changes(model, batch, (labels + 1) % 3, (0.1,), steps=1)
    balance = found.balance.reshape(2, 50, 3)
    assert balance.abs().max() > 1
    assert (balance * weights).sum(2).abs().max() < 1e-12 * balance.abs().max()


def test_balance_and_success_are_what_they_say() -> None:
    """Of a network, by torch's own loss and where its attacks end."""
    matrix = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = lambda x: 2 * (x @ matrix).tanh() + (x @ matrix).roll(1, 1)
    x = torch.randn(30, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    batch = energy_changes.Batch(x, torch.arange(30) % 3)
    target = (batch.y + 1) % 3
    found = energy_changes.energy_changes(model, batch, target, (0.3,), steps=2)
    at = x.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(model(at), batch.y, reduction="sum")
    energies = -model(at).logsumexp(1), -(model(at) - model(at).mean(1, keepdim=True)).logsumexp(1)
    (ascent,) = torch.autograd.grad(loss, at)
    for balance, energy in zip(found.balance, energies, strict=True):
        (slope,) = torch.autograd.grad(energy.sum(), at)
        assert torch.allclose(balance, (slope * ascent).sum(1), rtol=1e-9)
    for kind, success in zip(energy_changes.KINDS, found.success[:, 0], strict=True):
        label = target if kind.targeted else batch.y
        ends = energy_changes.attacked(model, batch, label, kind, 0.3, steps=2)
        hit = model(ends).argmax(1) == label
        assert torch.equal(success.bool(), hit if kind.targeted else ~hit)
        assert 0 < success.mean() < 1


def test_of_two_classes_targeted_and_untargeted_attacks_are_one() -> None:
    two = replace(TINY, classes=2)
    problem = energy_landscape.landscape(two)
    batch, target = energy_landscape.to_attack(two, problem)
    found = energy_changes.energy_changes(BayesClassifier(problem), batch, target, (0.1,), steps=3)
    assert torch.allclose(found.change[0], found.change[1], rtol=1e-9, atol=1e-12)
    assert torch.allclose(found.slope[0], found.slope[1], rtol=1e-9, atol=1e-12)


def test_how_far_e4_reaches() -> None:
    agree = np.array([[1.0, 0.8, 0.95], [0.9, 1.0, 0.92], [0.5, 1.0, 0.95]])  # (lengths, seeds)
    assert energy_landscape.reaches(agree, (0.1, 0.2, 0.4)).tolist() == [0.2, 0.0, 0.4]


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"classes": 1}, "classes must be 2 or more, not 1"),
        ({"seeds": 1}, "seeds must be 2 or more, not 1"),
        ({"lengths": (0.3, 0.1)}, r"lengths are positive and grow, not \(0.3, 0.1\)"),
        ({"lengths": ()}, r"lengths are positive and grow, not \(\)"),
        ({"radius": 0.25}, r"the radius 0.25 must be one of the lengths \("),
    ],
)
def test_wrong_fields(wrong: dict[str, object], line: str) -> None:
    with pytest.raises(ValueError, match=line) as refused:
        replace(Config(), **wrong)
    assert "\n" not in str(refused.value)


def test_the_figure(outcome: records.Outcome, tmp_path: Path) -> None:
    """Of records that are missing, and of tiny ones; in this process, which has matplotlib."""
    script = Path(__file__).parents[1] / "paper_figs" / "fig_energy_landscape.py"
    draw = runpy.run_path(str(script))["draw"]
    with pytest.raises(SystemExit) as missing:
        draw(tmp_path)
    assert missing.value.code == (
        f"there are no records in {tmp_path}/energy_landscape; make them with: "
        f"manifoldlab run energy_landscape --out {tmp_path}"
    )
    for config in (TINY, replace(TINY, codim=2)):
        plain = records.plain(config)
        folder = tmp_path / "energy_landscape" / records.name("energy_landscape", plain)
        folder.parent.mkdir(exist_ok=True)
        records.save(folder, "energy_landscape", plain, outcome, seconds=1.0)
    draw(tmp_path).savefig(tmp_path / "page.png", dpi=20)
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")
