"""Two processes are one: training, BatchNorm and evaluation under torchrun give what one process gives."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from manifoldlab.checkpoints import load

# Run once alone and once by two processes; 33 and 32 rows: uneven shares, and in the end an empty one.
PROGRAM = """
import sys
from functools import partial
from pathlib import Path
import torch
from torch import nn
from manifoldlab import synchronized
from manifoldlab.checkpoints import save
from manifoldlab.data.in_memory import in_memory
from manifoldlab.descent import Recipe
from manifoldlab.ensembles import train_ensemble
from manifoldlab.evaluation import evaluate
from manifoldlab.interfaces import Batch
from manifoldlab.manifolds.sphere import Sphere
from manifoldlab.objectives.gradient_penalty import gradient_penalty
from manifoldlab.objectives.noise_augmentation import noise_augmentation
from manifoldlab.probes.on_off_robustness import on_off_robustness
from manifoldlab.training import train

torch.set_num_threads(1)
synchronized.join()
folder, here = Path(sys.argv[1]), synchronized.rank()
source = lambda seed: torch.Generator().manual_seed(seed)
draw = lambda seed, *shape: torch.randn(*shape, generator=source(seed), dtype=torch.float64)

def network(seed, norm):
    with torch.random.fork_rng():
        torch.manual_seed(seed + 10 * here * (norm is nn.Identity))  # the first process's count
        return nn.Sequential(nn.Linear(3, 8), norm(), nn.SiLU(), nn.Linear(8, 2)).double()

x = draw(1, 66, 3)
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
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for folder, start in ((one, []), (two, torchrun)):
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
