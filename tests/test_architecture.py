"""Architectures: as JSON and back, built by their seed alone, and restored from checkpoints."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from manifoldlab import architecture, catalog, checkpoints
from manifoldlab.architecture import Architecture, restored
from manifoldlab.models.resnet18 import imagenet_stem

CASES = [
    case
    for name in catalog.names("models")
    for shape in ((5,), (2, 9, 8), (1, 63, 64))
    for case in architecture.examples(name, shape, 2)
]
each = pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.name}-{len(c.shape)}")
MLP = Architecture("mlp", (3,), 2, {"width": 4, "activation": nn.Softplus})


def same(one: nn.Module, other: nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return states[0].keys() == states[1].keys() and all(
        torch.equal(tensor, states[1][name]) for name, tensor in states[0].items()
    )


@each
def test_there_and_back_through_json(case: Architecture) -> None:
    again = Architecture.of(json.loads(json.dumps(case.facts())))
    assert again == case and hash(again) == hash(case)
    assert same(again.build(3), case.build(3))


def test_functions_go_by_their_names() -> None:
    options = {"stem": imagenet_stem, "mean": [0.5], "deviation": [0.2], "width": 2}
    case = Architecture("resnet18", (1, 8, 8), 2, options)
    assert case.options["mean"] == (0.5,)
    assert case.facts()["options"]["stem"] == {"function": "imagenet_stem"}
    assert MLP.facts() == {
        "name": "mlp",
        "shape": [3],
        "num_classes": 2,
        "options": {"width": 4, "activation": {"function": "Softplus"}},
    }
    assert Architecture.of(MLP.facts()).options["activation"] is nn.Softplus


@each
def test_the_seed_alone_determines_parameters(case: Architecture) -> None:
    first = case.build(3)
    torch.rand(5)  # of the global generator
    assert same(case.build(3), first)
    drawn = any(p.detach().std() > 0 for p in first.parameters() if p.numel() > 1)
    assert drawn and not same(case.build(4), first)
    assert all(t.device.type == "cpu" for t in first.state_dict().values())


@pytest.fixture
def elsewhere() -> Iterator[None]:
    """Another default device, on which nothing can be computed."""
    with torch.device("meta"):
        yield


def test_parameters_are_drawn_on_the_cpu(elsewhere: None) -> None:
    del elsewhere
    assert all(p.device.type == "cpu" for p in MLP.build(0).parameters())


def test_global_generators_stay_as_they_are() -> None:
    before = torch.random.get_rng_state()
    MLP.build(3)
    assert torch.equal(torch.random.get_rng_state(), before)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"name": "mpl"}, r"no models called 'mpl' \(did you mean mlp\?\)"),
    ({"options": {"widht": 3}}, r"no option of the model mlp called 'widht' \(did you mean width"),
    ({"shape": (3, -1)}, r"of numbers above 0, not \(3, -1\)"),
    ({"num_classes": None}, "mlp is a classifier: num_classes cannot be None"),
    ({"name": "autoencoder"}, "autoencoder is no classifier: num_classes cannot be 2"),
    ({"options": {"activation": lambda: nn.ReLU()}}, "activation=.* cannot stand in a checkpoint"),
    (
        {"options": {"activation": {"function": "system"}}},
        "activation=.*'system'.* cannot stand in",
    ),
    ({"options": {"mean": torch.zeros(3)}}, "mean=tensor.* cannot stand in a checkpoint"),
]


@pytest.mark.parametrize(("given", "line"), WRONG)
def test_what_is_no_architecture_is_refused(given: dict[str, Any], line: str) -> None:
    whole = {"name": "mlp", "shape": (3,), "num_classes": 2, "options": {}} | given
    with pytest.raises(ValueError, match=line) as refusal:
        Architecture(**whole)
    assert "\n" not in str(refusal.value)


def saved(path: Path, model: nn.Module, facts: dict[str, Any]) -> Path:
    checkpoints.save(path, model.state_dict(), facts)
    return path


@each
def test_networks_come_back_from_checkpoints(tmp_path: Path, case: Architecture) -> None:
    for model in (case.build(1), case.build(2).double()):
        facts = {"architecture": case.facts(), "step": 7}
        found = restored(saved(tmp_path / "model.safetensors", model, facts))
        assert found.architecture == case and found.facts == facts
        assert same(found.model, model) and not found.model.training
        dtypes = [p.dtype for p in model.parameters()]
        assert [p.dtype for p in found.model.parameters()] == dtypes


DAMAGED: list[tuple[dict[str, Any], str]] = [
    ({}, "names no architecture, and no facts at all: it cannot be built"),
    ({"step": 3}, "names no architecture, only step: it cannot be built"),
    ({"architecture": "mlp"}, "no architecture, which has name, shape, options: mlp"),
    ({"architecture": MLP.facts() | {"name": "mpl"}}, "did you mean mlp?"),
    ({"architecture": MLP.facts() | {"shape": ["three"]}}, r"above 0, not \['three'\]"),
    (
        {"architecture": MLP.facts() | {"shape": 3}},
        "the shape of a sample is of numbers above 0, not 3",
    ),
    ({"architecture": MLP.facts() | {"options": []}}, "checkpoint .*model.safetensors: "),
    ({"architecture": MLP.facts() | {"shape": [4]}}, r"its 2.weight is \(4, 3\) of .* \(4, 4\) of"),
    ({"architecture": MLP.facts() | {"num_classes": 3}}, r"does not fit Architecture\(name='mlp'"),
]


@pytest.mark.parametrize(("facts", "line"), DAMAGED)
def test_checkpoints_that_cannot_be_built_are_refused(
    tmp_path: Path, facts: dict[str, Any], line: str
) -> None:
    path = saved(tmp_path / "model.safetensors", MLP.build(0), facts)
    with pytest.raises(ValueError, match=line) as refusal:
        restored(path)
    assert str(path) in str(refusal.value) and "\n" not in str(refusal.value)
