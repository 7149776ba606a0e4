"""Training: a killed run ends with the same bits, optimizers are torch's, bad input is refused."""

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from manifoldlab import checkpoints, schedules
from manifoldlab.architecture import Architecture
from manifoldlab.data.in_memory import in_memory
from manifoldlab.descent import Recipe
from manifoldlab.gradients import cross_entropy as loss_of
from manifoldlab.interfaces import Batch, Data
from manifoldlab.objectives.cross_entropy import cross_entropy
from manifoldlab.objectives.noise_augmentation import noise_augmentation
from manifoldlab.training import train

CLIP = 0.074  # about the norm of the gradients at the start
SGD = partial(torch.optim.SGD, momentum=0.9, nesterov=True, weight_decay=1e-2)

# One run, as a program of its own.
PROGRAM = """
import sys
from functools import partial
from pathlib import Path
import torch
from manifoldlab import schedules
from manifoldlab.architecture import Architecture
from manifoldlab.data.in_memory import in_memory
from manifoldlab.descent import Recipe
from manifoldlab.objectives.noise_augmentation import noise_augmentation
from manifoldlab.training import train

torch.set_num_threads(1)
x = torch.randn(90, 4, generator=torch.Generator().manual_seed(1))
data = in_memory(x, (x[:, 0] > 0).long(), 2)
model = Architecture("mlp", (4,), 2, {"width": 16}).build(0)
recipe = Recipe(schedule=schedules.cosine, ema=0.99, clip=1.0)
folder = Path(sys.argv[1])
print("begun", flush=True)
train(model, partial(noise_augmentation, strength=0.1), data, epochs=int(sys.argv[2]),
      batch_size=32, recipe=recipe, checkpoint=folder / "run.safetensors", every=7)
"""


def points(n: int = 60) -> Data:
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return in_memory(x, (x[:, 0] > 0).long(), 2)


def network(seed: int = 0, width: int = 8) -> nn.Module:
    return Architecture("mlp", (4,), 2, {"width": width}).build(seed).double()


def weights(model: nn.Module) -> Tensor:
    return torch.cat([t.flatten() for t in model.state_dict().values()])


def started(folder: Path, epochs: int) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-c", PROGRAM, str(folder), str(epochs)]
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    run = subprocess.Popen(command, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, **piped)
    assert run.stdout is not None and run.stdout.readline() == "begun\n"
    return run


def begun(folder: Path) -> None:
    """Waits for the first checkpoint."""
    end = time.monotonic() + 60
    while not (folder / "run.safetensors").exists():
        assert time.monotonic() < end, "the training does not start"
        time.sleep(0.01)


def test_a_run_that_is_asked_to_stop_says_so_and_goes_on(tmp_path: Path) -> None:
    with started(tmp_path / "stopped", 4000) as run:
        begun(tmp_path / "stopped")
        run.terminate()
        _, errors = run.communicate()
    assert run.returncode == 1 and errors.count("\n") == 1
    assert errors.startswith("stopped by SIGTERM after step ")
    _, facts = checkpoints.load(tmp_path / "stopped" / "run.safetensors")
    assert f"after step {facts['step']} of 12000" in errors


def interrupted(data: Data, after: int) -> Data:
    """Data that fail in the midst of an epoch, as a lost disk would."""
    left = [after]

    def batches(size: int, seed: int | None):
        for batch in data.batches(size, seed):
            left[0] -= 1
            if left[0] < 0:
                raise OSError("lost")
            yield batch

    return data._replace(batches=batches)


RECIPES = (
    Recipe(schedule=schedules.one_cycle, ema=0.9, clip=0.5),
    Recipe(optimizer=SGD, schedule=schedules.cosine, ema=0.5),
    Recipe(optimizer=partial(torch.optim.AdamW, amsgrad=True), schedule=schedules.linear, clip=0.1),
    Recipe(optimizer=torch.optim.RMSprop, schedule=schedules.steps, ema=0.9, amp=True),
)


def dropping(seed: int) -> nn.Module:
    """Layers with buffers that training moves, and one that draws from the global generator."""
    torch.manual_seed(seed)
    layers = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.SiLU(), nn.Dropout(0.3), nn.Linear(8, 2)
    return nn.Sequential(*layers).double()


@pytest.mark.parametrize("make", [network, dropping])
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_run_goes_on_from_the_midst_of_an_epoch(make, recipe: Recipe, tmp_path: Path) -> None:
    """After each step of the second epoch, whatever the global generator has done meanwhile."""
    objective = partial(noise_augmentation, strength=0.2)
    run = partial(train, objective=objective, epochs=4, batch_size=16, lr=0.01, recipe=recipe)
    whole = make(0)
    straight = run(whole, data=points())
    path = tmp_path / "run.safetensors"
    for taken in range(4, 9):
        path.unlink(missing_ok=True)
        with pytest.raises(OSError, match="lost"):  # 4 batches are counted first
            run(make(0), data=interrupted(points(), 4 + taken), checkpoint=path, every=1)
        assert checkpoints.load(path)[1]["step"] == taken
        again = make(0)
        torch.manual_seed(taken)
        resumed = run(again, data=points(), checkpoint=path, every=1)
        assert checkpoints.load(path)[1]["step"] == 16
        assert torch.equal(weights(again), weights(whole))
        assert torch.equal(resumed.loss, straight.loss) and resumed.steps == straight.steps == 16
    finished = make(0)
    assert torch.equal(run(finished, data=points(), checkpoint=path).loss, straight.loss)
    assert torch.equal(weights(finished), weights(whole))


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, SGD])
def test_steps_are_those_of_a_plain_loop(optimizer) -> None:
    """The oracle: torch's optimizer, schedule and clipping on the whole set, three lines a step."""
    data, model, slow = points(), network(), network()
    recipe = Recipe(optimizer=optimizer, schedule=schedules.cosine, clip=CLIP)
    history = train(model, cross_entropy, data, epochs=7, batch_size=60, lr=0.02, recipe=recipe)
    batch = next(data.batches(60, None))
    descent = optimizer(slow.parameters(), lr=0.02)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(descent, 7)
    norms = list[float]()
    for step in range(7):
        descent.zero_grad()
        loss = loss_of(slow(batch.x), batch.y).mean()
        loss.backward()
        norms.append(nn.utils.clip_grad_norm_(slow.parameters(), CLIP).item())
        descent.step()
        falling.step()
        assert abs(history.loss[step] - loss.detach()) < 1e-12
    assert min(norms) < CLIP < max(norms)  # some are clipped, and some are not
    # the order of the samples is another, hence rounding
    assert (weights(model) - weights(slow)).abs().max() < 1e-10


def test_the_average_is_what_a_plain_recursion_gives() -> None:
    data = points()
    path = [weights(network())]
    for epochs in range(1, 4):
        model = network()
        train(model, cross_entropy, data, epochs=epochs, batch_size=60)
        path.append(weights(model))
    average = path[0]
    for point in path[1:]:
        average = 0.7 * average + 0.3 * point
    model = network()
    train(model, cross_entropy, data, epochs=3, batch_size=60, recipe=Recipe(ema=0.7))
    assert (weights(model) - average).abs().max() < 1e-14


def test_schedules() -> None:
    shares = [i / 8 for i in range(8)]
    assert [schedules.constant(s) for s in shares] == [1.0] * 8
    assert [schedules.linear(s) for s in shares] == [1 - s for s in shares]
    assert [round(schedules.steps(s), 12) for s in shares] == [1] * 4 + [0.1] * 2 + [0.01] * 2
    assert [schedules.one_cycle(s) for s in (0, 0.3, 1)] == pytest.approx([0.04, 1, 4e-6])


def test_passes_in_bfloat16_train_as_well() -> None:
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(1))
    data = in_memory(x, (x[:, 0] > 0).long(), 2)
    model = network().float()
    history = train(model, cross_entropy, data, epochs=30, lr=0.02, recipe=Recipe(amp=True))
    assert weights(model).dtype == torch.float32
    assert history.loss[-1] < history.loss[0] / 3


def test_a_compiled_model_is_called() -> None:
    recipe = Recipe(compile=partial(torch.compile, backend="eager"))
    compiled, plain = network(), network()
    train(compiled, cross_entropy, points(), epochs=2, recipe=recipe)
    train(plain, cross_entropy, points(), epochs=2)
    assert torch.equal(weights(compiled), weights(plain))


def spoiled(model: nn.Module, batch: Batch, generator, *, strength: float) -> Tensor:
    del generator
    return (loss_of(model(batch.x), batch.y) * torch.tensor(strength)).mean()


def test_what_is_not_finite_stops_with_step_objective_and_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    recipe = Recipe(optimizer=torch.optim.SGD, schedule=lambda done: 1e300 if done > 0.4 else 1.0)
    run = partial(train, epochs=10, batch_size=60, lr=1e10, recipe=recipe, checkpoint=path)
    with pytest.raises(FloatingPointError) as stopped:
        run(network(), partial(spoiled, strength=1e-12), points(), every=2)
    line = str(stopped.value)
    assert "\n" not in line and "spoiled(strength=1e-12)" in line and f"{path}, of step " in line
    tensors, _ = checkpoints.load(path)
    assert all(t.isfinite().all() for t in tensors.values())
    with pytest.raises(FloatingPointError, match=r"step 1 not finite: .*checkpoint is none"):
        train(network(), partial(spoiled, strength=float("nan")), points(), epochs=2)


def test_checkpoints_of_other_runs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    objective = partial(noise_augmentation, strength=0.1)
    run = partial(train, objective=objective, data=points(), epochs=2, checkpoint=path)
    run(network())
    refused = {
        "objective is": {"objective": partial(noise_augmentation, strength=0.2)},
        "epochs is 2 there, 3 here": {"epochs": 3},
        "lr is": {"lr": 0.1},
        "seed is 0 there, 1 here": {"seed": 1},
        "optimizer is": {"recipe": Recipe(optimizer=SGD)},
        "first batch is": {"data": points(40)},
    }
    for line, change in refused.items():
        with pytest.raises(ValueError, match=line) as error:
            run(network(), **change)
        assert str(path) in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(ValueError, match="model is"):
        run(network(width=9))
    with pytest.raises(ValueError, match="first parameters is"):
        run(network(seed=1))
    checkpoints.save(path, network().state_dict(), {})
    with pytest.raises(ValueError, match="is of no training"):
        run(network())


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"epochs": -1}, "epochs must be 0 or more, not -1"),
        ({"batch_size": 0}, "batch_size must be 1 or more, not 0"),
        ({"every": 0}, "every must be 1 or more, not 0"),
        ({"lr": float("nan")}, "lr must be finite and not negative, not nan"),
        ({"checkpoint": Path("/proc/none/run.safetensors")}, "cannot write"),
        ({"data": Data((4,), 2, lambda size, seed: iter(()))}, "no samples to train on"),
        ({"recipe": Recipe(channels_last=True)}, "channels_last is for images, not for"),
    ],
)
def test_bad_input_is_refused_in_one_line(options, line: str) -> None:
    given = {"objective": cross_entropy, "data": points(), "epochs": 1} | options
    with pytest.raises(ValueError, match=line) as error:
        train(network(), **given)
    assert "\n" not in str(error.value)


def test_bad_recipes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"clip .* not 0"):
        Recipe(clip=0)
    with pytest.raises(ValueError, match=r"ema .* not 1"):
        Recipe(ema=1)


def test_no_epochs_leave_the_model_as_it_was() -> None:
    model = network()
    assert train(model, cross_entropy, points(), epochs=0).loss.shape == (0,)
    assert torch.equal(weights(model), weights(network())) and not model.training


def test_epochs_of_several_batches_are_those_of_a_plain_loop() -> None:
    """The last batch of an epoch is a short one, which counts for as much less in the mean loss."""
    data, seen = points(22), list[list[int]]()

    def watched(model: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        assert model.training and batch.index is not None
        seen.append(batch.index.tolist())
        return cross_entropy(model, batch, generator)

    orders = list[list[int]]()
    for seed in (0, 1):
        seen.clear()
        model, slow = network(), network()
        recipe = Recipe(optimizer=torch.optim.SGD, schedule=schedules.linear)
        history = train(
            model, watched, data, epochs=3, batch_size=8, lr=0.3, seed=seed, recipe=recipe
        )
        assert [len(rows) for rows in seen] == 3 * [8, 8, 6] and not model.training
        whole, step = next(data.batches(22, None)), 0
        for epoch in range(3):
            losses, rows = list[Tensor](), seen[3 * epoch : 3 * epoch + 3]
            assert sorted(sum(rows, [])) == list(range(22))
            orders.append(sum(rows, []))
            for own in rows:
                loss = loss_of(slow(whole.x[own]), whole.y[own])
                losses.append(loss.detach())
                slopes = torch.autograd.grad(loss.mean(), tuple(slow.parameters()))
                with torch.no_grad():
                    for p, slope in zip(slow.parameters(), slopes, strict=True):
                        p -= 0.3 * (1 - step / 9) * slope
                step += 1
            assert abs(history.loss[epoch] - torch.cat(losses).mean()) < 1e-14
        assert (weights(model) - weights(slow)).abs().max() < 1e-13
    assert len(set(map(tuple, orders))) == 6  # no epoch and no seed has the order of another
