"""The loss of denoisers: what it is at the start and at the optimum, and what it does with labels."""

from math import exp

import pytest
import torch
from torch import Tensor, nn

from manifoldlab import draws
from manifoldlab.denoising import denoising
from manifoldlab.interfaces import Batch
from manifoldlab.models.denoiser import NONE, denoiser, preconditioning

ERRORS = 6  # standard errors: a false alarm in 5e8
COVARIANCE = torch.tensor([[2.0, 0.5, 0.0], [0.5, 0.5, 0.1], [0.0, 0.1, 0.05]], dtype=torch.float64)


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=source(seed), dtype=torch.float64)


def labelled(x: Tensor, classes: int = 3) -> Batch:
    return Batch(x, torch.arange(len(x)) % classes)


@pytest.mark.parametrize("shape", [(5,), (2, 8, 8)])
@pytest.mark.parametrize("classes", [0, 3])
def test_a_new_network_has_a_loss_of_one_a_coordinate(shape: tuple[int, ...], classes: int) -> None:
    """Of data N(m, d^2 I): the error over its deviation is standard normal at every noise level."""
    n, d = 20_000 // torch.Size(shape).numel(), 0.3
    model = denoiser(shape, sigma_data=d, mean=(0.5,) * shape[0], width=4, classes=classes).double()
    x = 0.5 + d * normal(n, *shape)
    with torch.no_grad():
        found = denoising(model, labelled(x), source(), median=0.2, spread=2.0)
    assert found.shape == () and abs(found - 1) < ERRORS * (2 / x.numel()) ** 0.5


class Linear(nn.Module):
    """D(x, s) = A x, whatever the noise, by undoing the preconditioning."""

    classes, sigma_data = 0, 0.7

    def __init__(self, matrix: Tensor):
        super().__init__()
        self.matrix = nn.Parameter(matrix)

    def forward(self, x: Tensor, sigma: Tensor, y: Tensor | None = None) -> Tensor:
        del sigma, y
        return x @ self.matrix.mT


def optimum(sigma: float) -> Tensor:
    """E[clean | x] = Sigma (Sigma + s^2 I)^-1 x for data N(0, Sigma)."""
    noisy = COVARIANCE + sigma**2 * torch.eye(3, dtype=torch.float64)
    return torch.linalg.solve(noisy, COVARIANCE).mT


def losses_and_slopes(matrix: Tensor, sigma: float, count: int = 400) -> tuple[Tensor, Tensor]:
    """Of independent batches, with one noise level."""
    model, root = Linear(matrix), torch.linalg.cholesky(COVARIANCE)
    found = []
    for seed in range(count):
        x = normal(50, 3, seed=1000 + seed) @ root.mT
        loss = denoising(model, labelled(x), source(seed), median=sigma, spread=0.0)
        found.append((loss.detach(), torch.autograd.grad(loss, model.matrix)[0].flatten()))
    losses, slopes = zip(*found, strict=True)
    return torch.stack(losses), torch.stack(slopes)


def standardized(values: Tensor, mean: Tensor | float) -> Tensor:
    return (values.mean(0) - mean) / (values.std(0) / len(values) ** 0.5)


@pytest.mark.parametrize("sigma", [0.2, 1.0])
def test_the_mean_of_the_clean_samples_is_stationary(sigma: float) -> None:
    """And its loss is the weight times the variance that is left, in closed form; that of another
    noise level is neither."""
    best = optimum(sigma)
    losses, slopes = losses_and_slopes(best, sigma)
    assert standardized(slopes, 0.0).abs().max() < ERRORS
    left = (COVARIANCE - best @ COVARIANCE).trace() / 3
    wanted = (sigma**-2 + Linear.sigma_data**-2) * left
    assert standardized(losses, wanted).abs() < ERRORS
    losses, slopes = losses_and_slopes(optimum(1.5 * sigma), sigma)
    assert standardized(slopes, 0.0).abs().max() > ERRORS
    assert standardized(losses, wanted) > ERRORS


def test_the_weight_is_that_of_the_preconditioning() -> None:
    sigma = torch.logspace(-2, 2, 9, dtype=torch.float64)
    out = preconditioning(sigma, 0.7).out
    assert ((sigma**-2 + 0.7**-2) * out.square() - 1).abs().max() < 1e-14


class Recorder(nn.Module):
    sigma_data = 1.0

    def __init__(self, classes: int):
        super().__init__()
        self.classes = classes
        self.seen: list[tuple[Tensor, Tensor | None]] = []

    def forward(self, x: Tensor, sigma: Tensor, y: Tensor | None = None) -> Tensor:
        self.seen.append((sigma, y))
        return x


def test_noise_levels_are_log_normal() -> None:
    recorder = Recorder(0)
    denoising(recorder, labelled(torch.zeros(4000, 2).double()), source(), median=0.4, spread=1.5)
    [(sigma, labels)] = recorder.seen
    logs = (sigma.log() - torch.tensor(0.4).double().log()) / 1.5
    assert labels is None
    assert abs(logs.mean()) < ERRORS / 4000**0.5
    assert abs(logs.square().mean() - 1) < ERRORS * (2 / 4000) ** 0.5
    denoising(recorder, labelled(torch.zeros(9, 2).double()), source(), median=0.4, spread=0.0)
    assert (recorder.seen[1][0] == 0.4).all()


@pytest.mark.parametrize("dropped", [0.0, 0.3, 1.0])
def test_the_stated_share_of_labels_is_dropped(dropped: float) -> None:
    recorder, data = Recorder(3), labelled(torch.zeros(4000, 2))
    denoising(recorder, data, source(), dropped=dropped)
    labels = recorder.seen[0][1]
    assert labels is not None
    gone = labels == NONE
    assert torch.equal(labels[~gone], data.y[~gone])
    deviation = (dropped * (1 - dropped) / 4000) ** 0.5
    assert abs(gone.double().mean() - dropped) <= ERRORS * deviation


def test_two_processes_see_what_one_sees() -> None:
    model = denoiser((2,), width=8, classes=3).double()
    for i, p in enumerate(model.parameters()):
        p.data += normal(*p.shape, seed=i)
    data = labelled(normal(6, 2))
    whole, parts = denoising(model, data, source()), []
    for start, stop in ((0, 2), (2, 6)):
        with draws.share(start, stop, 6):
            here = Batch(data.x[start:stop], data.y[start:stop])
            parts.append((stop - start) / 6 * denoising(model, here, source()))
    assert abs(sum(parts) - whole) < 1e-12 * whole


def test_a_label_tells_and_no_label_is_a_row_of_zeros() -> None:
    model = denoiser((2,), width=8, classes=3).double()
    for i, p in enumerate(model.parameters()):
        p.data += normal(*p.shape, seed=i)
    x = normal(4, 2)
    by_class = [model(x, 0.3, torch.full((4,), k)) for k in (NONE, 0, 1, 2)]
    assert torch.equal(by_class[0], model(x, 0.3))
    assert all((a - b).abs().min() > 1e-6 for i, a in enumerate(by_class) for b in by_class[:i])


WRONG: list[tuple[dict[str, float], str]] = [
    ({"median": 0.0}, "median of noise levels is positive and finite, not 0.0"),
    ({"spread": -1.0}, "spread of noise levels is finite and not negative, not -1.0"),
    ({"dropped": 1.1}, r"share of dropped labels is in \[0, 1\], not 1.1"),
]


@pytest.mark.parametrize(("options", "line"), WRONG)
def test_wrong_options_are_refused(options: dict[str, float], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        denoising(denoiser((2,)), labelled(torch.zeros(4, 2)), source(), **options)


def test_other_models_and_labels_are_refused() -> None:
    data = labelled(torch.zeros(4, 2))
    with pytest.raises(ValueError, match="the loss of denoisers, not of Linear"):
        denoising(nn.Linear(2, 2), data, source())
    with pytest.raises(ValueError, match="labels from 0 to 2 for 2 classes of a denoiser"):
        denoising(denoiser((2,), classes=2), data, source(), dropped=0.0)
    with pytest.raises(ValueError, match="a denoiser without classes is given labels"):
        denoiser((2,))(data.x, 0.3, data.y)
    low, high = exp(-2), exp(2)
    with pytest.raises(ValueError, match=r"for noise from 0.135335 to 7.38906 is asked for 8"):
        denoiser((2,), levels=(low, high))(data.x, 8.0)
    for options, line in (({"classes": -1}, "or more, not -1"), ({"levels": (2.0, 1.0)}, "levels")):
        with pytest.raises(ValueError, match=line):
            denoiser((2,), **options)
