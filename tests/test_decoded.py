"""Decoders as manifolds and problems: a graph whose reach is bounded, and a network from a checkpoint."""

from dataclasses import replace
from math import log, pi
from pathlib import Path

import pytest
import torch
from torch import Tensor

from manifoldlab import checkpoints, linalg
from manifoldlab.architecture import KEY, Architecture
from manifoldlab.data.in_memory import in_memory
from manifoldlab.densities.gaussians import random_gaussians
from manifoldlab.densities.smooth import Smooth, Tilt
from manifoldlab.gradients import input_gradient
from manifoldlab.interfaces import Batch
from manifoldlab.manifolds.decoded import Decoded, RandomDecoder
from manifoldlab.manifolds.drawn import Drawn
from manifoldlab.manifolds.flat import Flat
from manifoldlab.models.autoencoder import Autoencoder
from manifoldlab.problems.decoded import Trained, decoded
from manifoldlab.problems.gaussian_subspace import GaussianSubspace
from manifoldlab.problems.quadrature import Quadrature
from manifoldlab.reach_bounds import SAFETY
from manifoldlab.studies.decoded_twins import Coding, decoded_twin


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("latent", [1, 2])
def test_a_graph_bends_no_more_than_its_reach(latent: int, seed: int) -> None:
    """|p - q|^2 / 2 dist(q - p, T_p) >= 1 / max |G''|, Federer's quotient; the least is estimated."""
    decoder = RandomDecoder((1, 3, 3), latent, seed)
    assert Decoded(decoder).reach >= SAFETY / decoder.largest_curvature
    assert Decoded(decoder).reach < Decoded(RandomDecoder((1, 3, 3), latent, seed, bend=0.1)).reach


def test_without_a_bend_it_is_a_gaussian_subspace() -> None:
    """Quadrature over the latent plane against the closed form, at points off the plane, too."""
    decoder, law = RandomDecoder((6,), 2, 3, bend=0.0, units=3), random_gaussians(2, 3, 1)
    problem = decoded(decoder, law, 0.3)
    x = problem.sample(20, generator()).x
    origin = decoder(torch.zeros(1, 2, dtype=torch.float64))
    frame = decoder(torch.eye(2, dtype=torch.float64)) - origin
    within = (x - origin) @ frame.mT
    closed = GaussianSubspace(Flat(2), law, 0.3).log_joint(within)
    found = problem.log_joint(x)
    margins, expected = (t[:, 1:] - t[:, :1] for t in (found, closed))
    assert ((margins - expected).abs() <= 1e-10 * expected.abs().clamp_min(1)).all()


def saved(folder: Path, shape: tuple[int, ...] = (1, 4, 4)) -> tuple[Path, Autoencoder]:
    """Drawn at random, and stretched: the picture of the latent plane is to be wider than noise."""
    architecture = Architecture("autoencoder", shape, None, {"latent": 2, "width": 16, "depth": 1})
    model = architecture.build(3)
    assert isinstance(model, Autoencoder)
    last = [p for p in model.decoder.parameters() if p.ndim > 1][-1]
    last.data *= 6
    path = folder / "model.safetensors"
    checkpoints.save(path, model.state_dict(), {KEY: architecture.facts()})
    return path, model


def test_a_trained_decoder_is_a_manifold(tmp_path: Path) -> None:
    path, model = saved(tmp_path)
    decoder = Trained(str(path)).named()
    manifold = Decoded(decoder, 2.0)
    assert manifold.shape == (1, 4, 4) and manifold.dim == 2
    assert eval(repr(manifold), {"Decoded": Decoded, "Trained": Trained}) == manifold
    z = torch.randn(5, 2, generator=generator(), dtype=torch.float64)
    m = manifold.embed(z)
    assert m.dtype == torch.float64 and not m.requires_grad
    assert (m.float() - model.decode(z.float())).abs().max() < 1e-5  # of about 3, in float32
    slope = torch.autograd.functional.jacobian(lambda z: manifold.embed(z).sum(0), z)
    columns = torch.linalg.qr(slope.flatten(0, 2).permute(1, 0, 2)).Q  # (n, D, d) by reverse mode
    found = manifold.coordinates(m)
    near = ~found.isnan().any(1)
    assert near.any() and (found[near] - z[near]).abs().max() < 1e-8
    angles = linalg.principal_angles(manifold.tangent_basis(m)[near], columns[near])
    assert angles.max() < 1e-7


def summed(problem: Quadrature, x: Tensor, low: float, high: float, count: int) -> Tensor:
    """log p(x, y) by a plain sum over a grid of two coordinates: exact for smooth laws that end softly."""
    ticks = torch.linspace(low, high, count, dtype=torch.float64)
    grid = torch.cartesian_prod(ticks, ticks)
    points, weights = problem.manifold.embed(grid).flatten(1), problem.densities.log_joint(grid)
    square = torch.stack([(one.flatten() - points).square().sum(1) for one in x])
    exponent = weights - square[:, :, None] / (2 * problem.noise**2)
    constant = problem.manifold.ambient / 2 * log(2 * pi * problem.noise**2)
    return exponent.logsumexp(1) + 2 * (ticks[1] - ticks[0]).log() - constant


def test_bayes_posterior_of_a_trained_decoder_is_that_of_a_sum(tmp_path: Path) -> None:
    path, _ = saved(tmp_path, (16,))
    decoder = Trained(str(path), picture=(1, 4, 4)).named()
    problem = decoded(decoder, random_gaussians(2, 3, 0), 0.2)
    x = problem.sample(4, generator()).x
    assert x.shape == (4, 1, 4, 4)
    assert (problem.log_joint(x) - summed(problem, x, -8, 8, 401)).abs().max() < 1e-8


def test_drawn_scenes_are_a_twin_that_needs_no_data() -> None:
    scenes = Drawn()
    problem = Quadrature(scenes, Smooth(scenes, Tilt(2), (0.5, 0.5)), 0.05)
    x = problem.sample(3, generator()).x
    assert x.shape == (3, 1, 8, 8)
    found = problem.log_joint(x)
    assert (found - summed(problem, x, -0.5 + 1e-12, 0.5 - 1e-12, 301)).abs().max() < 1e-8


def margin(logits: Tensor, y: Tensor) -> Tensor:
    return logits[:, 0] - logits[:, 1]


def omega(problem: Quadrature, batch: Batch) -> Tensor:
    gradient = input_gradient(problem.log_joint, batch.x, batch.y, margin)
    tangent = problem.geometry(batch).to_tangent(batch.x, gradient)
    return linalg.squared_norm(gradient - tangent) / linalg.squared_norm(gradient)


def test_twin_of_digits(tmp_path: Path) -> None:
    """B2 on pictures: at the same points, half of little noise is a sixteenth of the normal share."""
    from sklearn.datasets import load_digits

    table = load_digits()
    few = table.target < 3
    x, y = torch.from_numpy(table.images[few, None] / 16), torch.from_numpy(table.target[few])
    data = in_memory(x.float(), y.long(), 3)
    path, coding = tmp_path / "twin.safetensors", Coding(width=32, epochs=40)
    twin = decoded_twin(data, path, coding=coding)
    assert twin.shape == (1, 8, 8) and twin.num_classes == 3
    assert decoded_twin(data, path, coding=coding) == twin
    batch = twin.sample(8, generator())
    batch = batch._replace(x=twin.manifold.nearest(batch.x))
    assert not batch.x.isnan().any()  # all near enough
    shares = [omega(replace(twin, noise=twin.noise / part), batch) for part in (4, 8)]
    ratio = shares[0] / shares[1]
    assert (ratio.median().log2() - 4).abs() < 0.1
    with pytest.raises(ValueError, match=r"not of .*: give another name"):
        decoded_twin(data, path, coding=Coding(width=16, epochs=40))
    with pytest.raises(ValueError, match="2 or 3 latent coordinates: Coding"):
        Coding(latent=1)


def test_refusals(tmp_path: Path) -> None:
    path, _ = saved(tmp_path)
    other = tmp_path / "other.safetensors"
    network = Architecture("mlp", (4,), 2, {})
    checkpoints.save(other, network.build(0).state_dict(), {KEY: network.facts()})
    with pytest.raises(ValueError, match="is an autoencoder's, not of the mlp"):
        Decoded(Trained(str(other)))
    with pytest.raises(ValueError, match=r"makes \(1, 4, 4\), not pictures \(3, 4, 4\)"):
        Trained(str(path), picture=(3, 4, 4))
    with pytest.raises(ValueError, match="has the digest .*: Trained"):
        Decoded(Trained(str(path), "abc"))
    with pytest.raises(ValueError, match="no checkpoint nowhere"):
        Decoded(Trained("nowhere"))
    with pytest.raises(ValueError, match="1 to 3 latent coordinates, not 5"):
        Decoded(RandomDecoder((4, 4), 5))
    with pytest.raises(ValueError, match="in all at most D, not RandomDecoder"):
        RandomDecoder((4,), 2)
    with pytest.raises(ValueError, match="extent is positive and finite, not 0.0"):
        Decoded(RandomDecoder((3, 3), 2), 0.0)
