"""Two processes are one: training, BatchNorm and evaluation under torchrun give what one process gives."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from manifoldlab import files, records
from manifoldlab.checkpoints import load
from manifoldlab.synchronized import BatchNorm

Run = Callable[..., tuple[int, str, str]]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]

# Run once alone and once by two processes; 33 and 32 rows: uneven shares, and in the end an empty one.
PROGRAM = """
import sys
from functools import partial
from pathlib import Path
import torch
from torch import nn
from manifoldlab import catalog, synchronized
from manifoldlab.checkpoints import save
from manifoldlab.data.in_memory import in_memory
from manifoldlab.descent import Recipe
from manifoldlab.ensembles import train_ensemble
from manifoldlab.evaluation import evaluate
from manifoldlab.interfaces import Batch
from manifoldlab.manifolds.sphere import Sphere
from manifoldlab.objectives.cross_entropy import cross_entropy
from manifoldlab.objectives.gradient_penalty import gradient_penalty
from manifoldlab.objectives.noise_augmentation import noise_augmentation
from manifoldlab.probes.on_off_robustness import on_off_robustness
from manifoldlab.training import train
from manifoldlab.studies.watching import Watch, Watched

torch.set_num_threads(1)
synchronized.join()
folder, here = Path(sys.argv[1]), synchronized.rank()
source = lambda seed: torch.Generator().manual_seed(seed)
draw = lambda seed, *shape: torch.randn(*shape, generator=source(seed), dtype=torch.float64)

def network(seed, norm):
    with torch.random.fork_rng():
        torch.manual_seed(seed + 10 * here * (norm is nn.Identity))  # the first process's count
        first = nn.Linear(3, 8, bias=norm is nn.Identity)  # a shift that BatchNorm takes away again
        return nn.Sequential(first, norm(), nn.SiLU(), nn.Linear(8, 2)).double()

x = nn.functional.normalize(draw(1, 66, 3))
data = in_memory(x, (x[:, 0] > 0).long(), 2)
found = {}
for name, objective, norm in (
    ("noise", partial(noise_augmentation, strength=0.2), nn.Identity),
    ("norm", partial(noise_augmentation, strength=0.2), partial(nn.BatchNorm1d, 8)),
    ("penalty", partial(gradient_penalty, strength=0.2), partial(nn.BatchNorm1d, 8)),
):
    size = 65 if norm is nn.Identity else 33  # 65: a last batch of one sample, the share of one is empty
    model = network(0, norm)
    history = train(model, objective, data, epochs=3, batch_size=size, recipe=Recipe(clip=0.5),
                    checkpoint=folder / f"{name}.ckpt")
    found |= {f"{name}.{k}": v for k, v in model.state_dict().items()} | {f"{name}.loss": history.loss}
    found |= {f"{name}.seconds": torch.tensor(history.seconds)}
for name in catalog.names("objectives"):  # each that draws or attacks does so for all of the batch
    objective = catalog.find("objectives", name)
    if name == "normal_penalty":
        objective = partial(objective, geometry=Sphere(2))
    model = network(0, partial(nn.BatchNorm1d, 8))
    train(model, objective, data, epochs=1, batch_size=33)
    found |= {f"{name}.{k}": v for k, v in model.state_dict().items()}
watch = Watch(lambda model, product: {}, lambda model, batch: 1 + batch.x.mean()[None], (), torch.ones(1))
train(network(0, nn.Identity), Watched(cross_entropy, watch), data, epochs=1, batch_size=65)
found["watched"] = watch.product
models = [network(seed, partial(nn.LayerNorm, 8)) for seed in range(2)]
history = train_ensemble(models, noise_augmentation, data, seeds=(0, 1), strengths=(0.1, 0.2),
                         epochs=2, batch_size=65)
found |= {f"ensemble.{i}.{k}": v for i, m in enumerate(models) for k, v in m.state_dict().items()}
points = nn.functional.normalize(draw(2, 25, 3))
for name, size in (("turns", 4), ("alone", 25)):
    batches = [Batch(p, torch.zeros(len(p), dtype=torch.int64)) for p in points.split(size)]
    record = evaluate(on_off_robustness, models[0], batches, Sphere(2))
    found |= {f"{name}.{k}": v for k, v in record._asdict().items()}
save(folder / f"found{here}.safetensors", found, {})
"""


def found(folder: Path, rank: int) -> dict[str, torch.Tensor]:
    return load(folder / f"found{rank}.safetensors")[0]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    program = one / "program.py"
    program.write_text(PROGRAM)
    for folder, start in ((one, []), (two, TORCHRUN)):
        command = [sys.executable, *start, str(program), str(folder)]
        made = subprocess.run(
            command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
        assert made.returncode == 0, made.stderr
    return one, two


def test_two_processes_give_what_one_gives(runs: tuple[Path, Path]) -> None:
    """To rounding: sums over samples are taken in another order, 1e-12 a step before it grows."""
    alone, together = found(runs[0], 0), found(runs[1], 0)
    assert alone.keys() == together.keys()
    for name, value in alone.items():
        if not name.endswith("seconds"):
            difference = (value.double() - together[name].double()).abs().max()
            assert difference < 1e-10, (name, difference)


def test_processes_have_the_same(runs: tuple[Path, Path]) -> None:
    first, second = found(runs[1], 0), found(runs[1], 1)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_probes_give_the_same_bits(runs: tuple[Path, Path]) -> None:
    one = {name: t for name, t in found(runs[0], 0).items() if name.startswith(("turns", "alone"))}
    two = found(runs[1], 0)
    assert one and all((t - two[name]).abs().max() < 1e-8 for name, t in one.items())


def test_one_sample_has_no_variance() -> None:
    """As torch says of its own BatchNorm; a share of one sample is enough where there are others."""
    layer = BatchNorm(torch.nn.BatchNorm1d(3))
    with pytest.raises(ValueError, match="two samples or more in each batch, not one"):
        layer(torch.ones(1, 3))
    assert layer.eval()(torch.ones(1, 3)).shape == (1, 3)


def started(toy: Path, words: list[str]) -> "subprocess.Popen[str]":
    """A command, as two processes."""
    path = os.pathsep.join([str(toy.parent / "package"), str(Path(files.__file__).parents[1])])
    return subprocess.Popen(
        [sys.executable, *TORCHRUN, "-m", "manifoldlab", *words],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_same_command_under_torchrun_goes_on_and_makes_the_same_record(
    toy: Path, tmp_path: Path, run: Run
) -> None:
    """Stopped by SIGTERM first; as many marks as processes; the first one alone speaks and records."""
    words = ["run", "toy_training", "--epochs", "10", "--pause", "0.02", "--out"]
    assert run(*words, str(tmp_path / "one"), "--quiet")[0] == 0
    (alone,) = records.load("toy_training", tmp_path / "one")
    with started(toy, [*words, str(tmp_path / "two")]) as stopped:
        wait_for(tmp_path / "two", "toy_training/.*/ensemble.safetensors")
        stopped.send_signal(signal.SIGTERM)
        said = stopped.communicate()[1]
    assert said.count("stopped by SIGTERM after step ") == 1 and "of 60; the same call" in said
    assert records.load("toy_training", tmp_path / "two") == []
    with started(toy, [*words, str(tmp_path / "two")]) as whole:
        shown, said = whole.communicate()
    assert whole.returncode == 0, said
    assert (
        shown.count("Recorded: ") == shown.count("omega") == 1 and said.count("toy_training") <= 1
    )
    (made,) = records.load("toy_training", tmp_path / "two")
    assert [p.name for p in made.folder.parent.iterdir()] == [made.folder.name]
    assert len(list(toy.glob("*.start"))) == 1 + 2 + 2
    assert made.environment["processes"] == 2 and alone.environment["processes"] == 1
    check_alike(made, alone)


def check_alike(made: records.Run, alone: records.Run) -> None:
    """Metrics to 1e-5, as is promised; weights of 120 steps of single precision, too."""
    flat = lambda run: [*run.metrics["loss"], *(run.metrics[k] for k in ("one", "omega", "steps"))]
    assert flat(made) == pytest.approx(flat(alone), abs=1e-5)
    (mine, facts), (theirs, others) = (load(r.folder / "model.safetensors") for r in (made, alone))
    assert json.dumps(facts) == json.dumps(others) and mine.keys() == theirs.keys()
    for name, value in mine.items():
        assert (value.double() - theirs[name].double()).abs().max() < 1e-5, name


def wait_for(folder: Path, pattern: str) -> None:
    end = time.monotonic() + 120
    while not list(folder.glob(pattern)):
        assert time.monotonic() < end, f"no {pattern} in {folder}"
        time.sleep(0.01)


def test_other_commands_are_refused_under_torchrun(
    run: Run, refused: Callable[[tuple[int, str, str]], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("TORCHELASTIC_RUN_ID", "1"), ("WORLD_SIZE", "2"), ("RANK", "1")):
        monkeypatch.setenv(name, value)
    for words in (["verify", "A1"], ["sweep", "toy", "--seed", "0:2"], ["list"], ["figures"]):
        line = refused(run(*words))
        assert f"torchrun is for run and probe; call {words[0]} without it" in line
