"""Ensembles: each member ends as it would alone, and does not notice what happens to others."""

from functools import partial
from inspect import signature

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manifoldlab import catalog, schedules
from manifoldlab.architecture import Architecture
from manifoldlab.data.in_memory import in_memory
from manifoldlab.descent import Recipe
from manifoldlab.ensembles import Ensemble, train_ensemble
from manifoldlab.interfaces import Data
from manifoldlab.manifolds.sphere import Sphere
from manifoldlab.objectives.adversarial import adversarial
from manifoldlab.objectives.cross_entropy import cross_entropy
from manifoldlab.objectives.gradient_penalty import gradient_penalty
from manifoldlab.objectives.noise_augmentation import noise_augmentation
from manifoldlab.objectives.trades import trades
from manifoldlab.training import train

SEEDS, STRENGTHS = (0, 1, 5), (0.01, 0.1, 0.3)
SGD = partial(torch.optim.SGD, momentum=0.9, nesterov=True, weight_decay=1e-2)
RECIPES = (
    Recipe(),
    Recipe(optimizer=SGD, clip=0.1, ema=0.9, schedule=schedules.one_cycle),
)


def points(dtype: torch.dtype = torch.float64, n: int = 70) -> Data:
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(1), dtype=dtype)
    return in_memory(x, (x[:, 0] > 0).long(), 2)


def networks(dtype: torch.dtype = torch.float64, width: int = 6) -> list[nn.Module]:
    built = Architecture("mlp", (4,), 2, {"width": width})
    return [built.build(seed).to(dtype) for seed in SEEDS]


def weights(model: nn.Module) -> Tensor:
    return torch.cat([t.flatten() for t in model.state_dict().values()])


@pytest.mark.parametrize("recipe", RECIPES, ids=["adam", "sgd"])
@pytest.mark.parametrize("objective", [noise_augmentation, gradient_penalty, adversarial, trades])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)], ids=["64", "32"]
)
def test_members_end_as_they_would_alone(objective, recipe, dtype, tolerance: float) -> None:
    options = {"epochs": 3, "batch_size": 32, "lr": 1e-2, "recipe": recipe}
    together, alone = networks(dtype), networks(dtype)
    data = points(dtype)
    history = train_ensemble(together, objective, data, seeds=SEEDS, strengths=STRENGTHS, **options)
    assert history.loss.shape == (3, 3) and not history.failed
    for i, model in enumerate(alone):
        own = train(
            model, partial(objective, strength=STRENGTHS[i]), data, seed=SEEDS[i], **options
        )
        assert (weights(model) - weights(together[i])).abs().max() < tolerance
        assert (own.loss - history.loss[i]).abs().max() < tolerance
        assert not together[i].training


@pytest.mark.parametrize("name", catalog.names("objectives"))
def test_every_objective_trains_members_of_different_strengths(name: str) -> None:
    """On a sphere, so that there is a geometry."""
    x = F.normalize(next(points().batches(70, None)).x)
    data = in_memory(x, (x[:, 0] > 0).long(), 2)
    objective = catalog.find("objectives", name)
    if "geometry" in signature(objective).parameters:
        objective = partial(objective, geometry=Sphere(3))
    swept = "strength" in signature(objective).parameters
    options = {"epochs": 2, "batch_size": 32, "lr": 1e-2}
    together, alone = networks(), networks()
    strengths = STRENGTHS if swept else None
    train_ensemble(together, objective, data, seeds=SEEDS, strengths=strengths, **options)
    moved = []
    for model, other, seed, strength in zip(alone, together, SEEDS, STRENGTHS, strict=True):
        before = weights(model)
        own = partial(objective, strength=strength) if swept else objective
        train(model, own, data, seed=seed, **options)
        assert (weights(model) - weights(other)).abs().max() < 1e-12
        moved.append((weights(model) - before).norm())
    assert min(moved) > 0.1


def test_members_may_have_data_of_their_own() -> None:
    data = [points()._replace(batches=points(n=n).batches) for n in (70, 70, 70)]
    together, alone = networks(), networks()
    train_ensemble(together, cross_entropy, data, seeds=SEEDS, epochs=2, batch_size=32)
    for model, other, seed in zip(alone, together, SEEDS, strict=True):
        train(model, cross_entropy, points(), epochs=2, batch_size=32, seed=seed)
        assert (weights(model) - weights(other)).abs().max() < 1e-12


def test_one_that_diverges_is_named_and_spoils_no_other() -> None:
    spoiled, good = networks(), networks()
    strengths = (0.01, float("nan"), 0.3)
    run = partial(train_ensemble, data=points(), seeds=SEEDS, epochs=2, batch_size=32)
    history = run(spoiled, noise_augmentation, strengths=strengths)
    run(good, noise_augmentation, strengths=(0.01, 0.1, 0.3))
    assert history.failed == {1: 1} and weights(spoiled[1]).isnan().any()
    for i in (0, 2):
        assert torch.equal(weights(spoiled[i]), weights(good[i]))
        assert history.loss[i].isfinite().all()
    with pytest.raises(
        FloatingPointError, match="all members: 0 from step 1, 1 from step 1, 2"
    ) as e:
        run(networks(), noise_augmentation, strengths=(float("nan"),) * 3)
    assert "\n" not in str(e.value)


def test_a_killed_ensemble_goes_on(tmp_path) -> None:
    path = tmp_path / "run.safetensors"
    options = {"seeds": SEEDS, "strengths": STRENGTHS, "epochs": 3, "batch_size": 32}
    run = partial(train_ensemble, objective=noise_augmentation, data=points(), **options)
    whole, again = networks(), networks()
    straight = run(whole)

    def lost(done: float) -> None:
        if done > 0.5:
            raise OSError("lost")

    with pytest.raises(OSError, match="lost"):
        run(networks(), checkpoint=path, every=1, advance=lost)
    assert torch.equal(run(again, checkpoint=path).loss, straight.loss)
    for one, other in zip(again, whole, strict=True):
        assert torch.equal(weights(one), weights(other))


def test_the_stacked_model_is_its_members() -> None:
    models = networks()
    x = points().batches(70, None).__next__().x
    ensemble = Ensemble(models)
    logits = ensemble(x.repeat(3, 1)).unflatten(0, (3, 70))
    for own, model, member in zip(logits, models, ensemble.members(), strict=True):
        assert (own - model(x)).abs().max() < 1e-14
        assert torch.equal(weights(member), weights(model))
    assert sum(p.numel() for p in ensemble.parameters()) == 3 * weights(models[0]).numel()


def hidden_mean(model, batch, generator) -> Tensor:
    del generator
    return F.cross_entropy(model(batch.x), batch.y)


def test_bad_input_is_refused_in_one_line() -> None:
    run = partial(train_ensemble, epochs=1)
    layers = nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2)).double()
    sizes = [points(), points(), points(n=60)]
    odd = [*networks()[:2], networks(width=7)[2]]
    cases = {
        "2 seeds for an ensemble of 3": (networks(), cross_entropy, points(), SEEDS[:2], None),
        "1 strengths for an": (networks(), cross_entropy, points(), SEEDS, (1.0,)),
        "2 data for an": (networks(), cross_entropy, [points()] * 2, SEEDS, None),
        "data of one size": (networks(), cross_entropy, sizes, SEEDS, None),
        "member 2 of an ensemble is": (odd, cross_entropy, points(), SEEDS, None),
        "BatchNorm1d.* cannot be in": ([layers] * 3, cross_entropy, points(), SEEDS, None),
        "hidden_mean cannot train": (networks(), hidden_mean, points(), SEEDS, None),
    }
    for line, (models, objective, data, seeds, strengths) in cases.items():
        with pytest.raises(ValueError, match=line) as error:
            run(models, objective, data, seeds=seeds, strengths=strengths)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="one member or more"):
        run([], cross_entropy, points(), seeds=())
