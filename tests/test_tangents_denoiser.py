"""Ranges of denoisers' Jacobians: ideal ones by law C3, networks against their whole Jacobian."""

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import jacobian
from torch.func import grad
from torch.nn.functional import scaled_dot_product_attention

from manifoldlab import krylov, linalg
from manifoldlab.densities.gaussians import random_gaussians
from manifoldlab.densities.von_mises_fisher import random_von_mises_fisher
from manifoldlab.interfaces import Batch
from manifoldlab.manifolds.flat import Flat
from manifoldlab.manifolds.placed import Placed
from manifoldlab.manifolds.sphere import Sphere
from manifoldlab.models.denoiser import denoiser
from manifoldlab.problems.base import Isotropic
from manifoldlab.problems.gaussian_subspace import GaussianSubspace
from manifoldlab.problems.von_mises_sphere import VonMisesSphere
from manifoldlab.statistics import fit_power
from manifoldlab.tangents.base import unlabelled
from manifoldlab.tangents.denoiser import Denoise, Denoiser
from manifoldlab.tangents.diffusion import OfPixels, diffusion

WAYS = pytest.mark.parametrize("symmetric", [True, False])


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def ideal(problem: Isotropic) -> Denoise:
    """x + sigma^2 grad log p, of data that have hardly any noise of their own."""

    def denoise(x: Tensor, sigma: float) -> Tensor:
        log_density = lambda x: problem.noisier(sigma).log_joint(x).logsumexp(1).sum()
        return x + sigma**2 * grad(log_density)(x)

    return denoise


@WAYS
@pytest.mark.parametrize("codim", [3, 60])
def test_ideal_denoisers_tilt_by_the_law(symmetric: bool, codim: int) -> None:
    """C3: on the unit sphere by sigma^2 |grad log p| (II is the metric, and H turns with the normal).

    In R^6 the whole Jacobian is formed, in R^63 it is iterated.
    """
    sphere = Placed(Sphere(2), codim, 0)
    problem = VonMisesSphere(sphere, random_von_mises_fisher(2, (1, 1), 0), 1e-5)
    z, _ = problem.densities.sample(8, torch.Generator().manual_seed(1))
    x = sphere.embed(z)
    log_density = lambda z: (
        problem.densities.log_joint(z).logsumexp(1) - sphere.log_volume(z)
    ).sum()
    slope = grad(log_density)(z) * (
        (1 + z.square().sum(1, keepdim=True)) / 2
    )  # in orthonormal columns
    sizes, angles = [0.1, 0.05, 0.025], []
    for sigma in sizes:
        found = Denoiser(ideal(problem), sigma, 2, symmetric=symmetric, tolerance=1e-7)
        spaces = found.spaces(unlabelled(x))
        angles.append(linalg.principal_angles(spaces.columns, sphere.tangent_basis(x))[:, -1])
        assert spaces.unsettled.max() < 1e-7
        assert (spaces.condition < 1 + sigma).all()
        # a radial eigenvalue of sigma^2 and more, others of 0
        torch.testing.assert_close(
            spaces.gap, torch.full_like(spaces.gap, sigma**2), rtol=0.3, atol=0
        )
    assert fit_power(sizes, torch.stack(angles).median(1).values).slope == pytest.approx(2, abs=0.1)
    assert (angles[-1] / (sizes[-1] ** 2 * slope.norm(dim=1)) - 1).abs().max() < 0.02


@WAYS
def test_exact_on_flats_at_any_noise(symmetric: bool) -> None:
    plane = Placed(Flat(3), codim=40, seed=1, shift=0.5)
    problem = GaussianSubspace(plane, random_gaussians(3, 2, 0), 1e-5)
    x = plane.embed(gaussian(5, 3)) + 0.1 * gaussian(5, 43, seed=1)
    estimator = Denoiser(ideal(problem), 0.3, 3, symmetric=symmetric, tolerance=1e-9)
    found = estimator.spaces(unlabelled(x)).columns
    assert linalg.principal_angles(found, plane.tangent_basis(x)).max() < 1e-7


def network(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> nn.Module:
    model = denoiser(shape, width=4, depth=1)
    for i, parameter in enumerate(model.parameters()):
        parameter.data = 0.6 * gaussian(*parameter.shape, seed=i)
    return model.to(dtype).eval()


def whole_jacobian(model: Denoise, x: Tensor, sigma: float) -> Tensor:
    one = lambda row: model(row[None], sigma)[0].flatten()
    return torch.stack([jacobian(one, row).flatten(1) for row in x])


@WAYS
@pytest.mark.parametrize("shape", [(30,), (2, 5, 6)])
def test_networks_give_the_leading_directions(symmetric: bool, shape: tuple[int, ...]) -> None:
    model, x, v = network(shape), gaussian(3, *shape), gaussian(2, 3, *shape, seed=1)
    estimator = Denoiser(model, 0.4, 3, symmetric=symmetric, tolerance=1e-5, most=99)
    whole = whole_jacobian(model, x, 0.4)
    assert (whole - whole.mT).norm() > 0.1 * whole.norm()
    form = (whole + whole.mT) / 2 if symmetric else whole @ whole.mT
    values, vectors = torch.linalg.eigh(form)
    expected = linalg.project(vectors[:, :, -3:], v)
    batch = unlabelled(x)
    torch.testing.assert_close(estimator.to_tangent(x, v), expected, rtol=0, atol=1e-3)
    spaces, root = estimator.spaces(batch), (lambda t: t) if symmetric else torch.sqrt
    torch.testing.assert_close(
        spaces.condition, root(values[:, -1] / values[:, -3]), rtol=1e-5, atol=0
    )
    torch.testing.assert_close(spaces.gap, root(values[:, -4] / values[:, -3]), rtol=1e-2, atol=0)
    assert estimator.diagnostics(batch).residual.max() < 1e-13


def test_fused_attention_has_a_forward_derivative_here() -> None:
    weight = gaussian(6, 6)

    def attend(x: Tensor, sigma: float) -> Tensor:
        rows = x.reshape(-1, 1, 5, 6)
        return x / sigma + scaled_dot_product_attention(rows, rows @ weight, rows).reshape(x.shape)

    x, v = gaussian(2, 30), gaussian(2, 30, seed=1)
    whole = whole_jacobian(attend, x, 0.4)
    vectors = torch.linalg.eigh((whole + whole.mT) / 2).eigenvectors[:, :, -2:]
    found = Denoiser(attend, 0.4, 2, tolerance=1e-6).to_tangent(x, v)
    torch.testing.assert_close(found, linalg.project(vectors, v), rtol=0, atol=1e-3)


@WAYS
def test_the_chunk_changes_nothing(symmetric: bool) -> None:
    model, x, v = network((12,)), gaussian(3, 12), gaussian(3, 12, seed=1)
    found = [
        Denoiser(model, 0.4, 1, symmetric=symmetric, most=2, extra=1, chunk=chunk).to_tangent(x, v)
        for chunk in (1, 50, 2**18)
    ]
    torch.testing.assert_close(found[0], found[2], rtol=0, atol=1e-9)
    torch.testing.assert_close(found[1], found[2], rtol=0, atol=1e-9)


def test_too_few_rounds_are_reported() -> None:
    model, x = network((2, 9, 8)), gaussian(3, 2, 9, 8)
    unsettled = [
        Denoiser(model, 0.4, 3, depth=2, extra=0, most=most).spaces(unlabelled(x)).unsettled.max()
        for most in (1, 30)
    ]
    assert unsettled[0] > 0.05 and unsettled[1] < 0.01


@pytest.mark.parametrize("ambient", [20, 300])
def test_krylov_finds_what_eigh_does(ambient: int) -> None:
    """With equal and with negative eigenvalues, and of a matrix of low rank."""
    frame = linalg.random_frame(ambient, ambient, 0)
    cases = {
        "slow": 1 / (1 + torch.arange(ambient).double()),
        "equal": torch.where(torch.arange(ambient) < 5, 1.0, 0.5).double(),
        "negative": torch.where(torch.arange(ambient) < 5, 1.0, -0.9).double(),
        "low rank": torch.where(torch.arange(ambient) < 5, 1.0, 0.0).double(),
    }
    for name, values in cases.items():
        matrix = (frame * values) @ frame.T
        start = gaussian(ambient, 8, seed=3).expand(2, -1, -1)
        found = krylov.leading(
            lambda block, matrix=matrix: matrix @ block, start, 5, depth=3, most=100, tolerance=1e-9
        )
        angles = linalg.principal_angles(found.vectors, frame[None, :, :5].expand(2, -1, -1))
        assert angles.max() < 1e-7, (name, angles)
        torch.testing.assert_close(found.values, values[:5].expand(2, -1))
        gram = found.vectors.mT @ found.vectors
        torch.testing.assert_close(gram, torch.eye(5, dtype=gram.dtype).expand(2, -1, -1))


class Edm(nn.Module):
    """In the convention of EDM: pictures in [-1, 1], sigma (n,), one-hot labels."""

    def __init__(self, means: Tensor):
        super().__init__()
        self.register_buffer("means", means)  # (K, D) of classes N(mean, diag)

    def forward(self, x: Tensor, sigma: Tensor, hot: Tensor | None = None) -> Tensor:
        mean = self.means.mean(0) if hot is None else hot @ self.means
        spread = torch.linspace(2, 0.1, self.means.shape[1], dtype=x.dtype) ** 2
        share = spread / (spread + sigma[:, None] ** 2)
        bend = 0 if hot is None else 0.1 * hot @ self.means.square()
        return mean + (share + bend) * (x - mean)


def test_diffusion_networks_see_twice_the_picture_and_twice_the_noise() -> None:
    network, x = Edm(gaussian(3, 40)), gaussian(4, 40, seed=1)
    clean = OfPixels(network)(x, 0.25)
    torch.testing.assert_close(2 * clean - 1, network(2 * x - 1, torch.full((4,), 0.5).double()))
    found = diffusion(network, 0.25, 3, tolerance=1e-8, most=200).spaces(unlabelled(x)).columns
    eye = torch.eye(40, dtype=x.dtype)[:, :3].expand(4, -1, -1)
    assert linalg.principal_angles(found, eye).max() < 1e-6
    labelled = diffusion(network, 0.25, 3, num_classes=3, tolerance=1e-8, most=200)
    y = torch.tensor([0, 1, 2, 0])
    spread = torch.linspace(2, 0.1, 40, dtype=x.dtype) ** 2
    gain = spread / (spread + 0.5**2) + 0.1 * network.means[y].square()
    v = gaussian(4, 40, seed=2)
    expected = v * (gain >= gain.topk(3).values[:, -1:])
    found = labelled.at(Batch(x, y)).to_tangent(x, v)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match=r"needs the labels of a batch: use at\(batch\)"):
        labelled.to_tangent(x, v)


def test_bad_input_is_refused() -> None:
    model, x = network((30,)), gaussian(3, 30)
    with pytest.raises(
        ValueError, match=r"31 tangent directions of samples of shape \(30,\): 1 to 30"
    ):
        Denoiser(model, 0.4, 31).at(unlabelled(x))
    for sigma in (0.0, -1.0, torch.inf, torch.nan):
        with pytest.raises(ValueError, match="noise must have a positive and finite deviation"):
            Denoiser(model, sigma, 2)
    with pytest.raises(ValueError, match="depth >= 2, extra >= 0: Denoiser.sigma=0.4, ") as one:
        Denoiser(model, 0.4, 2, depth=1)
    assert "\n" not in str(one.value)
    with pytest.raises(
        ValueError, match=r"to samples of shape \(29,\), and samples of shape \(30,\)"
    ):
        Denoiser(lambda x, sigma: x[:, 1:], 0.4, 2).at(unlabelled(x))
    with pytest.raises(ValueError, match="denoised points not finite: 3 of 3, the first is 0"):
        Denoiser(lambda x, sigma: x / 0, 0.4, 2).at(unlabelled(x))
    with pytest.raises(ValueError, match="points not finite: 1 of 3, the first is 2"):
        Denoiser(model, 0.4, 2).at(unlabelled(torch.cat([x[:2], x[:1] * torch.nan])))
    line = lambda x, sigma: x[:, :1] * torch.ones(30, dtype=x.dtype)
    with pytest.raises(
        ValueError, match="Jacobian has 1 independent directions, not 2, in 3 of 3 samples"
    ):
        Denoiser(line, 0.4, 2, symmetric=False).at(unlabelled(x))
    with pytest.raises(ValueError, match="0 classes, of an unconditional network, or more, not -1"):
        diffusion(model, 0.4, 2, num_classes=-1)


def test_a_conditional_denoiser_is_told_the_labels_of_the_batch() -> None:
    """Of each class the best linear denoiser of data on a plane of its own."""
    frames = torch.stack([linalg.random_frame(6, 2, seed) for seed in range(3)])

    def denoise(x: Tensor, sigma: float, /, *label: Tensor) -> Tensor:
        frame = frames[label[0]]
        return linalg.project(frame, x) / (1 + sigma**2)

    x = torch.randn(7, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    batch = Batch(x, torch.tensor([0, 1, 2, 2, 1, 0, 0]))
    found = Denoiser(denoise, 0.3, 2, conditional=True).at(batch).to_tangent(x, x.flip(0))
    assert (found - linalg.project(frames[batch.y], x.flip(0))).abs().max() < 1e-9
