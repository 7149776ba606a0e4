"""`manifoldlab probe`: any callable of a file on any problem, or one line that says why not."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import manifoldlab
from manifoldlab import arguments, catalog, checkpoints
from manifoldlab.architecture import Architecture
from manifoldlab.probes.tangent_alignment import tangent_alignment

Run = Callable[..., tuple[int, str, str]]
Refused = Callable[[tuple[int, str, str]], str]


MODELS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x):
        return self.layer(x).tanh()

net = Net()
make = lambda width=3: Net()
sine = lambda x: torch.stack([x[:, 0].sin(), x[:, 1] ** 2], 1)
three = lambda x: x[:, :1].repeat(1, 3)
constant = lambda x: torch.zeros(len(x), 2)
infinite = lambda x: sine(x) / 0
words = lambda x: "logits"
number = 3

def failing(x):
    raise KeyError("nothing here")
"""
CIRCLE = "VonMisesSphere(Sphere(1), random_von_mises_fisher(1, (1, 1), 0), 0.2)"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    path = tmp_path / "models.py"
    path.write_text(MODELS)
    return path


@pytest.mark.parametrize("name", ["net", "Net", "make", "sine"])
def test_any_callable_of_a_file_is_a_model(run: Run, models: Path, name: str) -> None:
    result = run("probe", "--model", f"{models}:{name}", "--problem", CIRCLE, "--samples", "8")
    status, out, err = result
    assert (status, err) == (0, "")
    assert "omega" in out and "0.5" in out and "8 samples, seed 0" in out


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("three", ["(5, 3)", "(5, 2)", "2 classes"]),
        ("constant", ["tangent_alignment", "grad"]),
        ("infinite", ["not finite", "5 of 5 samples"]),
        ("words", ["str", "tensor"]),
        ("failing", ["KeyError: 'nothing here'", "(5, 2)"]),
        ("number", ["int", "expected a function of x"]),
        ("nett", ["no function called 'nett'", "did you mean net?"]),
    ],
)
def test_what_is_no_model_is_refused(
    run: Run, refused: Refused, models: Path, name: str, words: list[str]
) -> None:
    arguments = ["--model", f"{models}:{name}", "--problem", CIRCLE, "--samples", "5"]
    line = refused(run("probe", *arguments))
    assert not [word for word in words if word not in line]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "none.py:net"], "no file none.py"),
        (["--model", "run/last.safetensors"], "no checkpoint run/last.safetensors: there is no"),
        (["--model", "mine.py"], "a model is bayes, FILE.py:NAME, FILE.safetensors, or the folder"),
        (["--model", str(Path(__file__).parent)], "tests/model.safetensors: there is no such file"),
        (["--model", "run/last.pt"], "a model is bayes, FILE.py:NAME, FILE.safetensors, or"),
        (["--problem", "tub"], "did you mean tube?"),
        (["--problem", "Tube("], "'Tube(': SyntaxError"),
        (["--problem", "Sphere(2)"], "of type Sphere, not a problem"),
        (["--problem", CIRCLE.replace("0.2", "-1")], "noise must be positive and finite, not -1"),
        (["--probe", "tangent_aligment"], "did you mean tangent_alignment?"),
        (["--samples", "0"], "--samples 0"),
        (["--batch", "-2"], "--batch -2"),
        (["--seed", "-2"], "not at -2"),
        (["--out", "."], "it is a folder"),
    ],
)
def test_wrong_use_of_probe_is_refused(
    run: Run, refused: Refused, arguments: list[str], words: str
) -> None:
    assert words in refused(run("probe", *arguments))


ON_CIRCLE = Architecture("mlp", (2,), 2, {"width": 5})


def saved(path: Path, case: Architecture, dtype: torch.dtype = torch.float32) -> Path:
    model = case.build(0).to(dtype)
    checkpoints.save(path, model.state_dict(), {"architecture": case.facts()})
    return path


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_checkpoint_is_a_model(run: Run, tmp_path: Path, dtype: torch.dtype) -> None:
    """By its file or by its folder: the network that it was saved from, probed at the same points."""
    path, out = saved(tmp_path / "model.safetensors", ON_CIRCLE, dtype), tmp_path / "probe.json"
    problem, network = arguments.problem(CIRCLE, 0), ON_CIRCLE.build(0).to(dtype)
    batch = problem.sample(6, torch.Generator().manual_seed(0))
    model = lambda x: network(x.to(dtype)).double()
    exact = tangent_alignment(model, batch, problem.geometry(batch)).omega
    for given in (path, tmp_path):
        words = ["--model", str(given), "--problem", CIRCLE, "--samples", "6", "--out", str(out)]
        assert run("probe", *words, "--quiet") == (0, "", "")
        found = torch.tensor(json.loads(out.read_text())["fields"]["omega"], dtype=torch.float64)
        assert (found - exact).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (
            Architecture("mlp", (3,), 2),
            "samples of shape (3,) and 2 classes, the problem has shape (2,)",
        ),
        (
            Architecture("mlp", (2,), 4),
            "shape (2,) and 4 classes, the problem has shape (2,) and 2",
        ),
        (Architecture("autoencoder", (2,)), "of shape (2,) and no classes"),
    ],
)
def test_a_checkpoint_for_other_samples_is_refused(
    run: Run, refused: Refused, tmp_path: Path, case: Architecture, words: str
) -> None:
    path = saved(tmp_path / "model.safetensors", case)
    line = refused(run("probe", "--model", str(path), "--problem", CIRCLE))
    assert words in line and str(case) in line and "VonMisesSphere" in line


def of_another_architecture(path: Path) -> None:
    facts = {"architecture": Architecture("mlp", (2,), 2, {"width": 6}).facts()}
    checkpoints.save(path, ON_CIRCLE.build(0).state_dict(), facts)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: path.write_text("<!DOCTYPE html>\n<html>no such file</html>"), "a web page"),
        (
            lambda path: path.write_bytes(saved(path, ON_CIRCLE).read_bytes()[:-9]),
            "it is cut short",
        ),
        (lambda path: torch.save(ON_CIRCLE.build(0).state_dict(), path), "weights_only=True"),
        (lambda path: checkpoints.save(path, {}, {}), "names no architecture"),
        (of_another_architecture, "its 2.weight is (5, 2) of torch.float32, the model's (6, 2)"),
    ],
)
def test_what_is_no_checkpoint_is_refused(
    run: Run, refused: Refused, tmp_path: Path, write: Callable[[Path], object], words: str
) -> None:
    path = tmp_path / "model.safetensors"
    write(path)
    line = refused(run("probe", "--model", str(path), "--problem", CIRCLE))
    assert "--model: " in line and str(path) in line and words in line


# What they need that points of a circle do not have.
REFUSED = {
    "lpips_alignment": "LPIPS is for pictures of 1 or 3 channels, not for (2,)",
    "signal_robustness": "signal_robustness needs batch.region, where the label's evidence is",
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_probe_says_what_it_needs(run: Run, refused: Refused, name: str) -> None:
    line = refused(run("probe", "--probe", name, "--problem", CIRCLE, "--samples", "3"))
    assert REFUSED[name] in line


@pytest.mark.parametrize("name", sorted(set(catalog.names("probes")) - set(REFUSED)))
def test_every_probe_runs_and_is_recorded(run: Run, tmp_path: Path, name: str) -> None:
    out = tmp_path / "deep" / "probe.json"
    arguments = [
        "--problem",
        CIRCLE,
        "--samples",
        "7",
        "--batch",
        "3",
        "--out",
        str(out),
        "--quiet",
    ]
    assert run("probe", "--probe", name, *arguments) == (0, "", "")
    found = json.loads(out.read_text())
    assert found["probe"] == name and found["model"] == "bayes" and found["samples"] == 7
    assert all(len(values) == 7 for values in found["fields"].values())
    assert all(
        {"mean", "sd", "median", "min", "max", "null"} == set(s) for s in found["summary"].values()
    )
    assert any(s["null"] is not None for s in found["summary"].values())
    assert found["environment"]["manifoldlab"] == manifoldlab.__version__


def test_classes_with_manifolds_of_their_own_are_probed_on_them(run: Run) -> None:
    status, out, _ = run(
        "probe", "--problem", "separate_manifolds", "--samples", "9", "--batch", "4"
    )
    assert status == 0 and "omega" in out


def test_a_score_probe_of_another_model_gets_the_exact_score(
    run: Run, tmp_path: Path, models: Path
) -> None:
    """The reference belongs to the problem, so that its share is the same for every model."""
    found = []
    for model in ("bayes", f"{models}:sine"):
        arguments = ["--model", model, "--problem", CIRCLE, "--samples", "6"]
        out = tmp_path / "probe.json"
        run("probe", "--probe", "score_alignment", *arguments, "--out", str(out))
        found.append(json.loads(out.read_text())["fields"])
    assert found[0]["reference_omega"] == found[1]["reference_omega"]
    assert found[0]["cosine"] != found[1]["cosine"]
