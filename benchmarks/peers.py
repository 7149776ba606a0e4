"""What people use today, written anew in a few lines each: the jobs, not their code."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jacfwd, jacrev, vmap

from manifoldlab.interfaces import Head

Map = Callable[[Tensor], Tensor]

# Input gradients


def by_backward(model: nn.Module, x: Tensor, y: Tensor, head: Head) -> Tensor:
    """loss.backward(), which makes the gradients of all weights, too."""
    model.zero_grad()
    x = x.detach().clone().requires_grad_()
    head(model(x), y).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    return x.grad


def by_vmap(model: nn.Module, x: Tensor, y: Tensor, head: Head) -> Tensor:
    of_one = lambda x, y: head(model(x[None]), y[None])[0]
    found: Tensor = vmap(grad(of_one))(x, y)
    return found


def by_captum(attr: Any, model: nn.Module, x: Tensor, y: Tensor, head: Head) -> Tensor:
    saliency = attr.Saliency(lambda x: head(model(x), y))
    found: Tensor = saliency.attribute(x.detach().clone().requires_grad_(), abs=False)
    return found.detach()


# Jacobians of a decoder, z (n, k) -> (n, D, k)


def by_pixel_loop(decode: Map, z: Tensor) -> Tensor:
    """One backward pass for each output pixel of each picture, the published loop."""
    rows = list[Tensor]()
    for one in z:
        here = one[None].clone().requires_grad_()
        out = decode(here).flatten()
        for i in range(len(out)):  # not for pixel in out: the gradient of unbind is dearer still
            rows += [torch.autograd.grad(out[i], here, retain_graph=True)[0][0]]
    return torch.stack(rows).reshape(len(z), -1, z.shape[1])


def by_picture(differentiate: Callable[..., Any], decode: Map, z: Tensor) -> Tensor:
    """jacfwd or jacrev, picture by picture."""
    of_one = differentiate(lambda one: decode(one[None]).flatten())
    return torch.stack([of_one(one) for one in z]).detach()


def forward_mode(decode: Map, z: Tensor) -> Tensor:
    return by_picture(jacfwd, decode, z)


def reverse_mode(decode: Map, z: Tensor) -> Tensor:
    return by_picture(jacrev, decode, z)


def by_vmapped_jacfwd(decode: Map, z: Tensor) -> Tensor:
    found: Tensor = vmap(jacfwd(lambda one: decode(one[None]).flatten()))(z)
    return found.detach()


def by_vmapped_jacrev(model: Map, x: Tensor) -> Tensor:
    """Rows (n, K, *shape)."""
    found: Tensor = vmap(jacrev(lambda one: model(one[None])[0]))(x)
    return found.detach()


# Projections of v (n, D) on the span of given columns (n, D, k)


def by_numpy_orth(columns: Tensor, v: Tensor) -> Tensor:
    """Picture by picture, on an orthonormal basis from the singular value decomposition."""
    found = []
    for a, b in zip(columns.cpu().numpy(), v.cpu().numpy(), strict=True):
        u, s, _ = np.linalg.svd(a, full_matrices=False)
        u = u[:, s > s.max() * max(a.shape) * np.finfo(a.dtype).eps]
        found.append(u @ (u.T @ b))
    return torch.from_numpy(np.stack(found))


def by_batched_svd(columns: Tensor, v: Tensor) -> Tensor:
    basis = torch.linalg.svd(columns, full_matrices=False).U
    return (basis @ (basis.mT @ v[:, :, None])).squeeze(2)


def by_batched_qr(columns: Tensor, v: Tensor) -> Tensor:
    basis = torch.linalg.qr(columns).Q
    found: Tensor = (basis @ (basis.mT @ v[:, :, None])).squeeze(2)
    return found


def by_least_squares(columns: Tensor, v: Tensor) -> Tensor:
    """The slow and sure one: in float64, by a complete orthogonal decomposition on the CPU."""
    a, b = columns.cpu().double(), v.cpu().double()[:, :, None]
    return (a @ torch.linalg.lstsq(a, b, driver="gelsd").solution).squeeze(2)


# Robustness along and across, picture by picture


def step_by_step(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    basis: Tensor,
    noise: Tensor,
    sizes: tuple[float, ...],
    head: Head,
) -> Tensor:
    """A forward pass for each picture, size, direction and space; root mean squares (n, sizes, 2)."""
    found = x.new_zeros(len(x), len(sizes), 2)
    with torch.no_grad():
        for i in range(len(x)):
            here, columns = head(model(x[i : i + 1]), y[i : i + 1]), basis[i]
            for u in noise[:, i]:
                on = (columns @ (columns.T @ u.flatten())).reshape(u.shape)
                for k, step in enumerate((on, u - on)):
                    for s, size in enumerate(sizes):
                        moved = x[i] + size * step / step.norm()
                        change = head(model(moved[None]), y[i : i + 1]) - here
                        found[i, s, k] += change[0].square() / len(noise)
    return found.sqrt()


# Attacks


def plain_pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    radius: float,
    steps: int,
    size: float,
    *,
    linf: bool = False,
) -> Tensor:
    """As in most scripts: loss.backward(), which makes the gradients of all weights, too."""
    column = (len(x), *[1] * (x.ndim - 1))
    moved = x.clone()
    for _ in range(steps):
        here = moved.detach().requires_grad_()
        torch.nn.functional.cross_entropy(model(here), y, reduction="sum").backward()  # type: ignore[no-untyped-call]
        g = here.grad
        assert g is not None
        if linf:
            v = (moved + size * g.sign() - x).clamp(-radius, radius)
        else:
            v = moved + size * g / (g.flatten(1).norm(dim=1).reshape(column) + 1e-12) - x
            v = v * (radius / (v.flatten(1).norm(dim=1).reshape(column) + 1e-12)).clamp(max=1)
        moved = (x + v).clamp(0, 1).detach()
    return moved


def by_torchattacks(
    torchattacks: Any,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    radius: float,
    steps: int,
    size: float,
    *,
    linf: bool = False,
) -> Tensor:
    kind = torchattacks.PGD if linf else torchattacks.PGDL2
    found: Tensor = kind(model, eps=radius, alpha=size, steps=steps, random_start=False)(x, y)
    return found


def by_foolbox(
    foolbox: Any,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    radius: float,
    steps: int,
    size: float,
    *,
    linf: bool = False,
) -> Tensor:
    kind = foolbox.attacks.LinfPGD if linf else foolbox.attacks.L2PGD
    attack = kind(abs_stepsize=size, steps=steps, random_start=False)
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=x.device)
    found: Tensor = attack(wrapped, x, y, epsilons=radius)[1]
    return found


# Training steps: the gradient of the loss for all weights


def plain_step(loss: Callable[[], Tensor], model: nn.Module) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss(), list(model.parameters()))


def published_penalty(model: nn.Module, x: Tensor, y: Tensor, strength: float) -> Tensor:
    """The gradient of the mean loss, and a backward pass through it."""
    x = x.detach().clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(model(x), y)
    (g,) = torch.autograd.grad(loss, x, create_graph=True)
    return loss + strength * len(x) * g.square().sum()


def functional_penalty(
    model: nn.Module, x: Tensor, y: Tensor, strength: float
) -> tuple[Tensor, ...]:
    """grad of grad, as torch.func has it."""
    weights = {name: p.detach() for name, p in model.named_parameters()}
    buffers = dict(model.named_buffers())

    def loss(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        logits = functional_call(model, (weights, buffers), (x,))
        return torch.nn.functional.cross_entropy(logits, y, reduction="sum")

    def penalized(weights: dict[str, Tensor]) -> Tensor:
        square = grad(loss, argnums=1)(weights, x).square().sum()
        return (loss(weights, x) + strength * square) / len(x)

    return tuple(grad(penalized)(weights).values())
