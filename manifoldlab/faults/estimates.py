"""Of tangent spaces and scores that are estimated, their caches, and of data."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import torch
from torch import Tensor, nn

from manifoldlab import catalog, intrinsic_dimension, krylov, neighbours, tangent_cache
from manifoldlab.data.digits import digits
from manifoldlab.data.halves import halves, uniform
from manifoldlab.data.in_memory import in_memory
from manifoldlab.data.subset import balanced
from manifoldlab.faults.base import Fault, normal
from manifoldlab.interfaces import Batch
from manifoldlab.manifolds.sphere import Sphere
from manifoldlab.scores.denoised import denoised
from manifoldlab.scores.implied import implied
from manifoldlab.scores.stationary import spectrum, stationary
from manifoldlab.tangent_cache import cached
from manifoldlab.tangents.autoencoder import Autoencoder
from manifoldlab.tangents.base import Estimator, unlabelled
from manifoldlab.tangents.denoiser import Denoiser, small_network
from manifoldlab.tangents.diffusion import OfPixels
from manifoldlab.tangents.local_pca import LocalPca

POINTS = Sphere(2).embed(0.5 * normal(60, 2)) + 0.02 * normal(60, 3, seed=1)
CLOUD = normal(40, 6)
BATCH = Batch(CLOUD[:5], torch.tensor([0, 1, 0, 1, 1]), torch.arange(5))


def _projected(estimator: Estimator, x: Tensor) -> Tensor:
    return estimator.to_tangent(x, normal(*x.shape, seed=2))


def _local(**options: bool) -> Callable[[], Tensor]:
    return lambda: _projected(LocalPca(POINTS, 2, 8, **options), POINTS[:4])


def _uneven() -> Tensor:
    """Of a Jacobian that is not symmetric, in more dimensions than are iterated."""
    matrix = normal(200, 200, seed=3)

    def model(x: Tensor, sigma: float, *label: Tensor) -> Tensor:
        return (x @ matrix).tanh()

    return _projected(Denoiser(model, 0.5, 2, most=2, tolerance=0), 0.1 * normal(4, 200))


def _denoiser(symmetric: bool = True) -> Tensor:
    model: nn.Module = small_network(CLOUD, 0.3)
    return _projected(Denoiser(model, 0.5, 2, symmetric=symmetric), CLOUD[:4])


def _shrinks(x: Tensor, sigma: float, y: Tensor | None = None) -> Tensor:
    """A denoiser that knows classes."""
    return x / (1 + sigma**2) if y is None else x / (1 + sigma**2) + y[:, None]


def _leading() -> Tensor:
    root = normal(40, 40)
    matrix = (root @ root.mT)[None]
    found = krylov.leading(
        lambda v: matrix @ v, normal(1, 40, 4), 2, depth=3, most=20, tolerance=1e-6
    )
    return found.values


def _first(name: str) -> Tensor:
    """The labels of the data set of digits, a half of it."""
    return torch.cat([getattr(batch, name).flatten() for batch in digits().batches(500, None)])


def _pictures() -> Batch:
    x = normal(20, 1, 4, 4).abs()
    data = halves(in_memory(x, torch.arange(20) % 2, 2), torch.ones(1, 4, 4).double())
    return next(data.batches(20, None))


def _stationary() -> Tensor:
    x = normal(20, 2, 4, 4) + 1
    known = spectrum([Batch(x, torch.zeros(20, dtype=torch.int64))])
    return stationary(known, sigma=0.5)(Batch(x[:3], torch.zeros(3, dtype=torch.int64)))


def _places() -> Tensor:
    """How many folders two estimators have, and those of other data."""
    with TemporaryDirectory() as folder:
        for data in (POINTS, POINTS + 1):
            for count in (6, 8):
                labels = torch.zeros(60, dtype=torch.int64)
                cached(LocalPca(POINTS, 2, count), in_memory(data, labels, 1), Path(folder))
        return torch.tensor(float(len([p for p in Path(folder).iterdir() if p.is_dir()])))


LOCAL = "tests/test_tangents_local_pca.py"
DENOISER = "tests/test_tangents_denoiser.py"

FAULTS = (
    Fault(
        "Neighbours are not centred",
        "tangents.local_pca",
        "else near.mean(1, keepdim=True)\n            yield",
        "else torch.zeros_like(near[:, :1])\n            yield",
        _local(),
        (f"{LOCAL}::test_both_ways_are_the_singular_vectors",),
    ),
    Fault(
        "The option to take directions from the point is not heeded",
        "tangents.local_pca",
        "centre = points.flatten(1)[:, None] if self.at_point else near.mean(1, keepdim=True)",
        "centre = near.mean(1, keepdim=True)",
        _local(at_point=True),
        (f"{LOCAL}::test_both_ways_are_the_singular_vectors",),
    ),
    Fault(
        "The option to leave a point out is not heeded",
        "tangents.local_pca",
        "self.neighbours, leave_out=self.leave_out, chunk",
        "self.neighbours, leave_out=False, chunk",
        _local(leave_out=True),
        (f"{LOCAL}::test_both_ways_are_the_singular_vectors",),
    ),
    Fault(
        "The smallest eigenvalues come first",
        "tangents.base",
        "vectors = vectors[:, :, -dim:].flip(2)",
        "vectors = vectors[:, :, :dim]",
        _local(),
        (f"{LOCAL}::test_both_ways_are_the_singular_vectors", f"{LOCAL}::test_exact_on_flats"),
    ),
    Fault(
        "A basis is scaled to length one, column by column, and not orthonormal",
        "tangents.base",
        "columns: Tensor = (inverse.to(rows) @ rows).mT",
        "columns: Tensor = torch.nn.functional.normalize(rows, dim=2).mT",
        lambda: _oblique(),
        ("tests/test_tangents.py::test_rows_that_are_only_nearly_orthonormal_become_so",),
    ),
    Fault(
        "A gap is that of squared singular values",
        "tangents.base",
        "gap = (rest.clamp_min(0) / last).sqrt()",
        "gap = rest.clamp_min(0) / last",
        lambda: LocalPca(POINTS, 2, 8).spaces(unlabelled(POINTS[:4])).gap,
        (f"{LOCAL}::test_both_ways_are_the_singular_vectors",),
    ),
    Fault(
        "A denoiser's Jacobian is taken without its transpose",
        "tangents.denoiser",
        "(push(rows) + pull(rows)) / 2 if self.symmetric",
        "push(rows) if self.symmetric",
        _uneven,
        (f"{DENOISER}::test_networks_give_the_leading_directions",),
    ),
    Fault(
        "Left singular vectors are the right ones",
        "tangents.denoiser",
        "else push(pull(rows))",
        "else pull(push(rows))",
        lambda: _denoiser(False),
        (f"{DENOISER}::test_networks_give_the_leading_directions",),
    ),
    Fault(
        "A conditional denoiser is not told the labels",
        "tangents.denoiser",
        "x, labels = batch.x, (batch.y,) if self.conditional else ()",
        "x, labels = batch.x, (0 * batch.y,) if self.conditional else ()",
        lambda: _conditional(),
        (f"{DENOISER}::test_a_conditional_denoiser_is_told_the_labels_of_the_batch",),
    ),
    Fault(
        "A published network is told the noise of pictures in [0, 1]",
        "tangents.diffusion",
        "level = x.new_full((len(x),), 2 * sigma)",
        "level = x.new_full((len(x),), sigma)",
        lambda: _of_pixels(),
        (f"{DENOISER}::test_diffusion_networks_see_twice_the_picture_and_twice_the_noise",),
    ),
    Fault(
        "Eigenvectors of a Krylov space are the last ones",
        "krylov",
        "values, turns = values.flip(1).to(space), turns.flip(2)[:, :, :width].to(space)",
        "values, turns = values.to(space), turns[:, :, :width].to(space)",
        _leading,
        (f"{DENOISER}::test_krylov_finds_what_eigh_does",),
    ),
    Fault(
        "A Gauss-Newton step goes away from the point",
        "tangents.autoencoder",
        "new = z + (slope @ factor @ factor.mT).squeeze(1)",
        "new = z - (slope @ factor @ factor.mT).squeeze(1)",
        lambda: _stepped(),
        ("tests/test_tangents_autoencoder.py::test_exact_decoders_give_exact_spaces",),
    ),
    Fault(
        "An autoencoder takes no steps",
        "tangents.autoencoder",
        "for _ in range(self.steps):",
        "for _ in range(0):",
        lambda: _stepped(),
        ("tests/test_tangents_autoencoder.py::test_exact_decoders_give_exact_spaces",),
    ),
    Fault(
        "The farthest points are the neighbours",
        "neighbours",
        "products.topk(min(count, len(near)), largest=False)",
        "products.topk(min(count, len(near)), largest=True)",
        lambda: neighbours.nearest(CLOUD[:5], CLOUD, 3).double(),
        ("tests/test_neighbours.py::test_they_are_the_nearest",),
    ),
    Fault(
        "Rows of a second block count from zero",
        "neighbours",
        "torch.cat([index, first + place], 1)",
        "torch.cat([index, place], 1)",
        lambda: neighbours.nearest(CLOUD[:5], CLOUD, 3, chunk=60).double(),
        ("tests/test_neighbours.py::test_they_are_the_nearest",),
    ),
    Fault(
        "An intrinsic dimension is biased by a ratio",
        "intrinsic_dimension",
        "estimate = (count - 1) / sums.sum().item()",
        "estimate = count / sums.sum().item()",
        lambda: _dimension(),
        ("tests/test_intrinsic_dimension.py::test_unbiased_with_the_stated_error_on_flats",),
    ),
    Fault(
        "A score is divided by the noise once",
        "scores.denoised",
        "fields.append((clean - at) / sigma**2)",
        "fields.append((clean - at) / sigma)",
        lambda: denoised(_shrinks, sigma=0.5)(BATCH),
        ("tests/test_scores.py::test_the_score_of_the_ideal_denoiser_is_exact",),
    ),
    Fault(
        "A conditional score is not told the labels",
        "scores.denoised",
        "x, y = batch.x, batch.y if conditional else None",
        "x, y = batch.x, None",
        lambda: denoised(_shrinks, sigma=0.5, conditional=True)(BATCH),
        ("tests/test_scores.py::test_conditional_scores_are_those_of_the_class",),
    ),
    Fault(
        "Fresh noise has the labels of another sample",
        "scores.denoised",
        "rows = torch.arange(len(x), device=x.device).repeat(len(points))",
        "rows = torch.arange(len(x), device=x.device).repeat_interleave(len(points))",
        lambda: denoised(_shrinks, sigma=0.5, conditional=True, draws=2)(BATCH),
        ("tests/test_scores.py::test_fresh_noise_keeps_the_labels_of_its_samples",),
    ),
    Fault(
        "A score of fresh noise has its variance for its deviation",
        "scores.denoised",
        "return x + sigma * torch.randn(",
        "return x + sigma**2 * torch.randn(",
        lambda: denoised(_shrinks, sigma=0.5, draws=2)(BATCH),
        ("tests/test_scores.py::test_fresh_noise_averages_the_score_around_x",),
    ),
    Fault(
        "A score that is implied is that of the class, and the other way round",
        "scores.implied",
        "head = logit if conditional else log_marginal",
        "head = log_marginal if conditional else logit",
        lambda: implied(lambda x: x[:, :2].tanh())(BATCH),
        ("tests/test_scores.py::test_an_implied_score_is_of_all_classes_or_of_the_label_s",),
    ),
    Fault(
        "A spectrum is not centred",
        "scores.stationary",
        "power[0, 0] -= pixels * torch.outer(mean, mean)",
        "power[0, 0] -= 0 * torch.outer(mean, mean)",
        _stationary,
        (
            "tests/test_experiments_imagenet_alignment.py::test_the_score_of_a_stationary_gaussian_is_exact",
        ),
    ),
    Fault(
        "The noise of a stationary score is its deviation",
        "scores.stationary",
        "noise = sigma**2 * torch.eye",
        "noise = sigma * torch.eye",
        _stationary,
        (
            "tests/test_experiments_imagenet_alignment.py::test_the_score_of_a_stationary_gaussian_is_exact",
        ),
    ),
    Fault(
        "The key of a cache does not know the options of its estimator",
        "tangent_cache",
        'facts = {"format": FORMAT, "data": data.fingerprint, **estimator.facts()}',
        'facts = {"format": FORMAT, "data": data.fingerprint, **estimator.facts(), "neighbours": 0}',
        _places,
        ("tests/test_tangent_cache.py::test_other_options_weights_and_data_have_other_places",),
    ),
    Fault(
        "The key of a cache does not know the data",
        "tangent_cache",
        '"data": data.fingerprint, **',
        '"data": "", **',
        _places,
        ("tests/test_tangent_cache.py::test_other_options_weights_and_data_have_other_places",),
    ),
    Fault(
        "A cache gives the spaces in the order of the table",
        "tangent_files",
        "fields = [torch.cat(tensors)[order] for tensors in zip(*parts, strict=True)]",
        "fields = [torch.cat(tensors) for tensors in zip(*parts, strict=True)]",
        lambda: _looked_up(),
        ("tests/test_tangent_cache.py::test_looked_up_spaces_are_the_computed_ones",),
    ),
    Fault(
        "Pixels are divided by 256",
        "data.in_memory",
        "return x.float() / 255 if",
        "return x.float() / 256 if",
        lambda: _bytes(),
        ("tests/test_data.py::test_pictures_lie_as_bytes_and_come_as_numbers",),
    ),
    Fault(
        "Labels are shuffled in another way than pictures",
        "data.in_memory",
        "yield Batch(_numbers(x[rows]), y[rows], first + rows, where)",
        "yield Batch(_numbers(x[rows]), y[rows.flip(0)], first + rows, where)",
        lambda: next(in_memory(CLOUD, torch.arange(40), 40).batches(10, 0)).y.double(),
        ("tests/test_data.py::test_every_sample_once_in_the_order_of_the_seed",),
    ),
    Fault(
        "Digits are trained on what they are tested with",
        "data.digits",
        "rows = _is_test(y, split_seed).logical_xor(torch.tensor(train))",
        "rows = _is_test(y, split_seed) | torch.tensor(train)",
        lambda: _first("y").double().sum()[None],
        ("tests/test_data_sets.py::test_digits_are_split_alike_in_every_class",),
    ),
    Fault(
        "Digits are not in [0, 1]",
        "data.digits",
        "SHADES = 16",
        "SHADES = 15",
        lambda: _first("x"),
        ("tests/test_data_sets.py::test_digits_are_split_alike_in_every_class",),
    ),
    Fault(
        "A subset has the first samples, not as many of each class",
        "data.subset",
        "return order[torch.sort(turn, stable=True).indices[:n]].sort().values",
        "return order[:n].sort().values",
        lambda: balanced((torch.arange(40) > 35).long(), 10, 0).double(),
        (
            "tests/test_data_composites.py::test_a_subset_is_balanced_and_the_larger_contains_the_smaller",
        ),
    ),
    Fault(
        "The region of a picture is the other half",
        "data.halves",
        "region = torch.cat([whole & here, whole & ~here], 2)",
        "region = torch.cat([whole & ~here, whole & here], 2)",
        lambda: torch.as_tensor(_pictures().region).double(),
        (
            "tests/test_data_composites.py::"
            "test_the_region_is_the_picture_and_the_rest_is_always_the_same",
        ),
    ),
    Fault(
        "Numbers of an index are the same for every seed",
        "data.halves",
        "start = (seed + 1) * SEEDS % 2**64",
        "start = SEEDS % 2**64",
        lambda: uniform(torch.arange(5), 3),
        ("tests/test_data_composites.py::test_numbers_of_indices_are_uniform_and_of_no_pattern",),
    ),
    Fault(
        "Labels of SVHN count from one",
        "data.svhn",
        "return Table(pixels, (labels + 1) % 10, path.parent, verified)",
        "return Table(pixels, labels, path.parent, verified)",
        lambda: _svhn(),
        ("tests/test_data_pictures.py::test_label_10_of_svhn_is_the_digit_0",),
    ),
)


def _oblique() -> Tensor:
    from manifoldlab.tangents.base import orthonormal

    return orthonormal(normal(2, 2, 5))


def _conditional() -> Tensor:
    model = small_network(CLOUD, 0.3)

    def told(x: Tensor, sigma: float, /, *label: Tensor) -> Tensor:
        found: Tensor = model(x, sigma) + 0.3 * label[0][:, None] * x.tanh().cumsum(1)
        return found

    estimator = Denoiser(told, 0.5, 2, conditional=True)
    return estimator.at(BATCH).to_tangent(BATCH.x, normal(5, 6, seed=2))


def _of_pixels() -> Tensor:
    network = small_network(CLOUD, 0.3)
    found: Tensor = OfPixels(network)(CLOUD, 0.3)
    return found.detach()


def _stepped() -> Tensor:
    model = catalog.module("tangents", "autoencoder").examples(CLOUD)[0].model
    return _projected(Autoencoder(model, 3, steps=2), CLOUD[:4])


def _dimension() -> Tensor:
    found = intrinsic_dimension.maximum_likelihood(CLOUD, CLOUD, neighbours=5)
    return torch.tensor([found.dimension])


def _looked_up() -> Tensor:
    with TemporaryDirectory() as folder:
        data = in_memory(POINTS, torch.zeros(60, dtype=torch.int64), 1)
        with patch.object(tangent_cache, "FILE", 42):  # numbers in a file: 7 samples
            found = cached(LocalPca(POINTS, 2, 8), data, Path(folder))
        batch = next(data.batches(10, 3))
        try:
            return found.at(batch).to_tangent(batch.x, normal(10, 3))
        except ValueError:  # of the wrong sample
            return torch.zeros(10, 3)


def _bytes() -> Tensor:
    x = torch.arange(12, dtype=torch.uint8).reshape(4, 3)
    return next(in_memory(x, torch.zeros(4, dtype=torch.int64), 1).batches(4, None)).x


def _svhn() -> Tensor:
    import numpy as np
    from scipy.io import savemat

    from manifoldlab.data.svhn import read

    with TemporaryDirectory() as folder:
        x = np.zeros((32, 32, 3, 3), dtype=np.uint8)
        savemat(Path(folder) / "test_32x32.mat", {"X": x, "y": np.array([[1], [2], [10]])})
        return read(folder, False, False).y.double()
