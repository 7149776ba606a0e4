"""Input gradients against torch.func, and what they must leave alone."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from manifoldlab import gradients
from manifoldlab.gradients import HEADS, input_gradient, logit_jacobian
from manifoldlab.interfaces import Head

CLASSES, SHAPE = 4, (3, 8, 8)
ORACLES: dict[str, Callable[[Tensor, int], Tensor]] = {  # one sample: logits (K,), label
    "logit": lambda logits, y: logits[y],
    "logit_sum": lambda logits, y: logits.sum(),
    "margin": lambda logits, y: logits[y] - torch.cat([logits[:y], logits[y + 1 :]]).max(),
    "log_marginal": lambda logits, y: logits.exp().sum().log(),
    "log_posterior": lambda logits, y: (logits.exp() / logits.exp().sum()).log()[y],
    "cross_entropy": lambda logits, y: -(logits.exp() / logits.exp().sum()).log()[y],
}
every_head = pytest.mark.parametrize("head", HEADS, ids=[head.__name__ for head in HEADS])


class Network(nn.Module):
    """Small, smooth, with BatchNorm; counts the backward passes through its logits."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 5, 3, padding=1),
            nn.BatchNorm2d(5),
            nn.SiLU(),
            nn.AvgPool2d(4),
            nn.Flatten(),
            nn.Linear(20, CLASSES),
        ).double()
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            nn.init.normal_(parameter, generator=generator)
        self.backwards = 0

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x)
        if logits.requires_grad:
            logits.register_hook(self._count)
        return logits

    def _count(self, gradient: Tensor) -> None:
        del gradient
        self.backwards += 1


@pytest.fixture
def network() -> Network:
    return Network().eval()


@pytest.fixture
def points() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(6, *SHAPE, generator=generator, dtype=torch.float64)


LABELS = torch.tensor([0, 1, 2, 3, 0, 1])


def test_every_head_has_an_oracle() -> None:
    assert [head.__name__ for head in HEADS] == list(ORACLES)


@every_head
def test_gradients_agree_with_torch_func(head: Head, network: Network, points: Tensor) -> None:
    found = input_gradient(network, points, LABELS, head)
    oracle = ORACLES[head.__name__]
    for x, y, gradient in zip(points, LABELS.tolist(), found, strict=True):
        exact = torch.func.grad(lambda x, y=y: oracle(network.layers(x[None])[0], y))(x)
        torch.testing.assert_close(gradient, exact, rtol=1e-11, atol=1e-13)


@every_head
def test_one_backward_pass_a_call(head: Head, network: Network, points: Tensor) -> None:
    input_gradient(network, points, LABELS, head)
    assert network.backwards == 1


def test_jacobians_agree_with_torch_func(network: Network, points: Tensor) -> None:
    found = logit_jacobian(network, points)
    assert found.shape == (CLASSES, *points.shape) and not found.requires_grad
    for sample, x in enumerate(points):
        exact = torch.func.jacrev(lambda x: network.layers(x[None])[0])(x)
        torch.testing.assert_close(found[:, sample], exact, rtol=1e-11, atol=1e-13)
    assert network.backwards == CLASSES


def _state(network: Network) -> dict[str, Any]:
    return {name: value.clone() for name, value in network.state_dict().items()}


@every_head
def test_nothing_of_the_model_changes(head: Head, network: Network, points: Tensor) -> None:
    for parameter in network.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)
    before, modes = _state(network), [m.training for m in network.modules()]
    input_gradient(network, points, LABELS, head)
    logit_jacobian(network, points)
    assert all(before[name].equal(value) for name, value in _state(network).items())
    assert modes == [m.training for m in network.modules()]
    assert all((p.grad == 7.0).all() and p.requires_grad for p in network.parameters())


@every_head
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_callers_need_no_gradients(
    head: Head, mode: Callable[[], AbstractContextManager[None]], network: Network, points: Tensor
) -> None:
    exact = input_gradient(network, points, LABELS, head)
    jacobian = logit_jacobian(network, points)
    with mode():
        inputs = points.clone(), LABELS.clone()  # made in here, as by a loop that evaluates
        assert input_gradient(network, *inputs, head).equal(exact)
        assert logit_jacobian(network, inputs[0]).equal(jacobian)


@every_head
def test_inputs_stay_as_they_are(head: Head, network: Network, points: Tensor) -> None:
    x = points.clone().requires_grad_()
    assert not input_gradient(network, x, LABELS, head).requires_grad
    assert x.grad is None and x.detach().equal(points)


def test_margins_are_positive_where_the_label_wins() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0], [1.0, 3.0, 2.0]])
    assert gradients.margin(logits, torch.tensor([1, 0])).tolist() == [1.0, -2.0]


@pytest.mark.parametrize("head", [gradients.log_posterior, gradients.cross_entropy])
@pytest.mark.parametrize("lead", [0.0, 8.0, 16.0, 30.0, 80.0, -200.0])
def test_gradients_of_confident_classifiers_keep_their_digits(head: Head, lead: float) -> None:
    """In float32 p itself rounds to 1 from a lead of 17 on, and the gradient is 1 - p."""
    rows = torch.tensor([[0.3, -0.7], [0.2, 0.5], [-0.4, 0.1]], dtype=torch.float64)

    def gradient(dtype: torch.dtype) -> Tensor:
        model = lambda x: x @ rows.mT.to(dtype) + torch.tensor([lead, 0.0, -0.5], dtype=dtype)
        point = torch.tensor([[0.1, 0.2]], dtype=dtype)
        return input_gradient(model, point, torch.tensor([0]), head).double()

    p = lambda x: (x @ rows.mT + torch.tensor([lead, 0.0, -0.5], dtype=torch.float64)).softmax(1)
    others = p(torch.tensor([[0.1, 0.2]], dtype=torch.float64))[0, 1:]
    exact = (others[:, None] * (rows[0] - rows[1:])).sum(0)  # d log p_0 / dx
    exact = exact if head is gradients.log_posterior else -exact
    for dtype, digits in ((torch.float64, 1e-13), (torch.float32, 1e-4)):  # of z, rounded at 80
        assert (gradient(dtype) - exact).norm() <= digits * exact.norm()
