"""Of training: steps, recipes, ensembles, checkpoints, denoisers' losses."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import torch
from torch import Tensor, nn

from manifoldlab import checkpoints, draws, schedules
from manifoldlab.architecture import Architecture
from manifoldlab.data.in_memory import in_memory
from manifoldlab.denoising import denoising
from manifoldlab.descent import PLAIN, Recipe
from manifoldlab.ensembles import train_ensemble
from manifoldlab.faults.base import Fault, normal
from manifoldlab.models.denoiser import preconditioning
from manifoldlab.objectives.cross_entropy import cross_entropy
from manifoldlab.objectives.noise_augmentation import noise_augmentation
from manifoldlab.training import train

X = normal(22, 4)
DATA = in_memory(X, (X[:, 0] > 0).long(), 2)
OBJECTIVE = partial(noise_augmentation, strength=0.3)
PLAIN_LOOP = "tests/test_training.py::test_steps_are_those_of_a_plain_loop"
BATCHES = "tests/test_training.py::test_epochs_of_several_batches_are_those_of_a_plain_loop"
AVERAGE = "tests/test_training.py::test_the_average_is_what_a_plain_recursion_gives"
RESUMED = "tests/test_training.py::test_a_run_goes_on_from_the_midst_of_an_epoch"
ALONE = "tests/test_ensembles.py::test_members_end_as_they_would_alone"


def _network(seed: int = 0) -> nn.Module:
    return Architecture("mlp", (4,), 2, {"width": 4}).build(seed).double()


def _weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def _trained(recipe: Recipe = PLAIN, *, seed: int = 0) -> Callable[[], Tensor]:
    def weights() -> Tensor:
        model = _network()
        train(model, OBJECTIVE, DATA, epochs=3, batch_size=8, lr=0.05, seed=seed, recipe=recipe)
        return _weights(model)

    return weights


def _losses() -> Tensor:
    return train(_network(), OBJECTIVE, DATA, epochs=3, batch_size=8).loss


def _members() -> Tensor:
    """Of an ensemble with two strengths."""
    models = [_network(seed) for seed in range(2)]
    train_ensemble(
        models,
        noise_augmentation,
        DATA,
        seeds=[3, 4],
        strengths=[0.1, 0.6],
        epochs=2,
        batch_size=8,
        lr=0.05,
    )
    return torch.cat([_weights(model) for model in models])


class _Stopped(Exception):
    pass


def _resumed() -> Tensor:
    """Weights of a training that was stopped in the second epoch, and went on."""

    def stop(done: float) -> None:
        if done > 0.5:
            raise _Stopped

    with TemporaryDirectory() as folder:
        options = {"epochs": 3, "batch_size": 8, "lr": 0.05, "every": 2}
        file = Path(folder) / "a.safetensors"
        model, recipe = _network(), Recipe(ema=0.8, schedule=schedules.linear)
        go = partial(train, objective=OBJECTIVE, data=DATA, recipe=recipe, checkpoint=file)
        try:
            go(model, advance=stop, **options)  # type: ignore[arg-type]
        except _Stopped:
            model = _network()
        go(model, **options)  # type: ignore[arg-type]
        return _weights(model)


def _denoised(dropped: float = 0.1) -> Tensor:
    model = Architecture("denoiser", (4,), None, {"width": 4, "classes": 2}).build(0).double()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * normal(*p.shape))
    batch = next(DATA.batches(22, None))
    return denoising(model, batch, draws.source(0), dropped=dropped)


def _kept() -> Tensor:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "a.safetensors"
        checkpoints.save(file, {"x": X}, {})
        return checkpoints.load(file)[0]["x"].double()


FAULTS = (
    Fault(
        "The average of parameters has the decay for its complement",
        "descent",
        "average.lerp_(p, 1 - recipe.ema)",
        "average.lerp_(p, recipe.ema)",
        _trained(Recipe(ema=0.8)),
        (AVERAGE,),
    ),
    Fault(
        "The model does not end with the average of its parameters",
        "training",
        "p.copy_(average)",
        "average.copy_(p)",
        _trained(Recipe(ema=0.8)),
        (AVERAGE,),
    ),
    Fault(
        "Gradients of several steps accumulate",
        "descent",
        "p.grad = piece.reshape(p.shape).to(p.dtype) if changed else g\n"
        "    state.optimizer.step()\n    state.optimizer.zero_grad()",
        "p.grad = g if p.grad is None else p.grad + g\n    state.optimizer.step()",
        _trained(),
        (PLAIN_LOOP,),
    ),
    Fault(
        "Gradients are clipped number by number",
        "descent",
        "flat = flat * (recipe.clip / (flat.norm(dim=1, keepdim=True) + 1e-6)).clamp(max=1)",
        "flat = flat.clamp(-recipe.clip, recipe.clip)",
        _trained(Recipe(clip=0.1)),
        (PLAIN_LOOP,),
    ),
    Fault(
        "Gradients that are small are made as long as the clip",
        "descent",
        "+ 1e-6)).clamp(max=1)",
        "+ 1e-6))",
        _trained(Recipe(clip=10.0)),
        (PLAIN_LOOP,),
    ),
    Fault(
        "The loss of an epoch counts batches, not samples",
        "descent",
        "state.running += n * flat[:, -1]",
        "state.running += state.samples / state.batch * flat[:, -1]",
        _losses,
        (BATCHES,),
    ),
    Fault(
        "The learning rate falls one step late",
        "training",
        "factor = plan.recipe.schedule(state.step / total)",
        "factor = plan.recipe.schedule(max(0, state.step - 1) / total)",
        _trained(Recipe(schedule=schedules.cosine)),
        (PLAIN_LOOP,),
    ),
    Fault(
        "The schedule multiplies the rate of the last step",
        "training",
        'group["lr"] = rate * factor',
        'group["lr"] *= factor',
        _trained(Recipe(schedule=schedules.linear)),
        (PLAIN_LOOP,),
    ),
    Fault(
        "Every epoch has the same order",
        "training",
        'data.batches(batch_size, draws.number(seed, "epoch", epoch))',
        'data.batches(batch_size, draws.number(seed, "epoch", 0))',
        _trained(),
        (BATCHES,),
    ),
    Fault(
        "All seeds draw the same noise",
        "training",
        'source = draws.source(seed, "noise")',
        'source = draws.source(0, "noise")',
        _trained(seed=5),
        (ALONE,),
    ),
    Fault(
        "A model is left in training mode",
        "training",
        "    state.model.eval()\n",
        "",
        lambda: _mode(),
        (BATCHES,),
    ),
    Fault(
        "Cosine annealing ends half way",
        "schedules",
        "return (1 + cos(pi * done)) / 2",
        "return (1 + cos(pi * done / 2)) / 2",
        _trained(Recipe(schedule=schedules.cosine)),
        ("tests/test_training.py::test_schedules",),
    ),
    Fault(
        "A checkpoint does not restore the optimizer",
        "resuming",
        'self.optimizer.load_state_dict({"state": moments, "param_groups": groups})',
        "del groups",
        _resumed,
        (RESUMED,),
    ),
    Fault(
        "A resumed run draws other noise",
        "resuming",
        'generator.set_state(tensors[f"generator.{i}"])',
        "del generator",
        _resumed,
        (RESUMED,),
    ),
    Fault(
        "A resumed run forgets the average of its parameters",
        "resuming",
        'average.copy_(tensors[f"average.{i}"])',
        "del average",
        _resumed,
        (RESUMED,),
    ),
    Fault(
        "A resumed run begins its epoch again",
        "training",
        "for batch in islice(task.epoch(state.epoch), state.batch, None):",
        "for batch in islice(task.epoch(state.epoch), 0, None):",
        _resumed,
        (RESUMED,),
    ),
    Fault(
        "Members of an ensemble share the order of the first",
        "ensembles",
        'orders = [draws.number(seed, "epoch", epoch) for seed in seeds]',
        'orders = [draws.number(seeds[0], "epoch", epoch) for _ in seeds]',
        _members,
        (ALONE,),
    ),
    Fault(
        "Members of an ensemble share one stream of noise",
        "ensembles",
        'sources = tuple(draws.source(seed, "noise") for seed in seeds)',
        'sources = tuple(draws.source(seeds[0], "noise") for _ in seeds)',
        _members,
        (ALONE,),
    ),
    Fault(
        "Strengths go to samples in turn, not to blocks",
        "ensembles",
        "own = batch.x.new_tensor(strengths).repeat_interleave(n)",
        "own = batch.x.new_tensor(strengths).repeat(n)",
        _members,
        (ALONE,),
    ),
    Fault(
        "Each process draws for its own rows",
        "draws",
        "drawn = draw(held.total, *like.shape[1:], generator=generator, **where)\n"
        "    return drawn[held.start : held.stop].to(like.device)",
        "drawn = draw(len(like), *like.shape[1:], generator=generator, **where)\n"
        "    return drawn.to(like.device)",
        lambda: _shared(),
        ("tests/test_draws.py",),
    ),
    Fault(
        "Uses of a seed have one stream",
        "draws",
        'return zlib.crc32("/".join(map(str, (seed, *names))).encode())',
        "return zlib.crc32(str(seed).encode())",
        _trained(),
        ("tests/test_draws.py::test_uses_of_a_seed_have_streams_of_their_own",),
    ),
    Fault(
        "The weight of EDM is that of its square root",
        "denoising",
        "weight = sigma.square().reciprocal() + sigma_data**-2",
        "weight = sigma.reciprocal() + 1 / sigma_data",
        _denoised,
        ("tests/test_denoising.py::test_the_mean_of_the_clean_samples_is_stationary",),
    ),
    Fault(
        "Noise levels are normal, not log-normal",
        "denoising",
        "sigma = median * (spread * draws.normal(one, generator)).exp()",
        "sigma = median * (1 + spread * draws.normal(one, generator)).abs()",
        _denoised,
        ("tests/test_denoising.py::test_noise_levels_are_log_normal",),
    ),
    Fault(
        "Labels are told where they should be dropped",
        "denoising",
        "told = draws.uniform(one, generator) >= dropped",
        "told = draws.uniform(one, generator) < dropped",
        _denoised,
        ("tests/test_denoising.py::test_the_stated_share_of_labels_is_dropped",),
    ),
    Fault(
        "A denoiser's output is scaled by its input's factor",
        "models.denoiser",
        "skip, out = (sigma_data / total) ** 2, sigma * sigma_data / total",
        "skip, out = (sigma_data / total) ** 2, sigma / total",
        lambda: preconditioning(torch.tensor([0.3, 2.0]), 0.5).out,
        ("tests/test_models.py::test_preconditioning_does_what_it_is_derived_from",),
    ),
    Fault(
        "A denoiser is told log(s) / 2 for its noise",
        "models.denoiser",
        "1 / total, sigma.log() / 4)",
        "1 / total, sigma.log() / 2)",
        lambda: preconditioning(torch.tensor([0.3, 2.0]), 0.5).noise,
        ("tests/test_models.py::test_a_denoiser_is_made_of_its_network_as_published",),
    ),
    Fault(
        "A denoiser does not centre its data",
        "models.denoiser",
        "centered = self.center(x)",
        "centered = x",
        lambda: _centred(),
        ("tests/test_models.py::test_a_denoiser_starts_exact_for_a_gaussian",),
    ),
    Fault(
        "Weights come back in float32",
        "checkpoints",
        "return tensor.detach().cpu().contiguous().clone()",
        "return tensor.detach().cpu().float().clone()",
        _kept,
        ("tests/test_checkpoints.py::test_round_trip",),
    ),
    Fault(
        "A checkpoint has its name before it is on the disk",
        "checkpoints",
        "os.fsync(file.fileno())",
        "os.fstat(file.fileno())",
        lambda: _flushed(),
        ("tests/test_checkpoints.py::test_what_is_written_is_on_the_disk_before_it_has_its_name",),
    ),
)


def _mode() -> Tensor:
    model = _network()
    train(model, cross_entropy, DATA, epochs=1)
    return torch.tensor(1.0 + model.training)


def _shared() -> Tensor:
    with draws.share(4, 6, 10):
        return draws.normal(X[4:6], draws.source(0))


def _centred() -> Tensor:
    options = {"width": 4, "mean": (0.5,) * 4}
    found: Tensor = Architecture("denoiser", (4,), None, options).build(0).double()(X, 0.3)
    return found.detach()


def _flushed() -> Tensor:
    """How often a file is flushed."""
    with patch("os.fsync") as flush:
        _kept()
    return torch.tensor(1.0 + flush.call_count)
