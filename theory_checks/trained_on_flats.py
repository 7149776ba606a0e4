"""The cases of D3, D4 and F2: labelled points on an affine subspace, and networks trained on them.

I - Pi projects across the span of the points, the offset of the subspace included: a network sees
nothing of its first weights there. The span is found from the points, and not from the manifold.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial, reduce
from operator import or_
from typing import Any, NamedTuple, Self, final

import scipy
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from manifoldlab import catalog
from manifoldlab.interfaces import Batch, Head, Objective, Source
from manifoldlab.manifolds.base import Manifold
from manifoldlab.manifolds.flat import Flat
from manifoldlab.manifolds.placed import Placed
from manifoldlab.objectives.cross_entropy import cross_entropy
from manifoldlab.statistics import kolmogorov_p
from manifoldlab.strategies import SEEDS, manifolds


@final
@dataclass(frozen=True)
class Task:
    """Points on a flat, with labels that no network fits: their slope never dies out."""

    manifold: Placed
    seed: int = 0
    n: int = 16
    noise: float = 0.0  # across the span: none, where a law holds
    device: str = "cpu"

    def on(self, device: str) -> Self:
        return replace(self, device=device)

    @cached_property
    def batch(self) -> Batch:
        x = self.points(self.n)
        y = self.normal(self.n, stream=2) + (x - x.mean(0))[:, 0].sign() / 2 > 0
        return Batch(x + self.noise * self.unseen(self.normal(*x.shape, stream=3)), y.long())

    def points(self, n: int, stream: int = 1) -> Tensor:
        """(n, D), the same for the same stream."""
        z = self.normal(n, self.manifold.dim, stream=stream)
        return self.manifold.embed(z)

    @cached_property
    def span(self) -> Tensor:
        """Orthonormal columns (D, d), or (D, d + 1) where the flat misses the origin."""
        columns, sizes, _ = torch.linalg.svd(self.points(self.n).mT, full_matrices=False)
        spanned: Tensor = columns[:, sizes > 1e-9 * sizes[0]]  # those of rounding are 1e-16
        return spanned

    def unseen(self, v: Tensor) -> Tensor:
        """(I - Pi) v, (..., D)"""
        return v - v @ self.span @ self.span.mT

    @property
    def unseen_dim(self) -> int:
        return len(self.span) - self.span.shape[1]

    def normal(self, *shape: int, stream: int) -> Tensor:
        """Standard normal numbers that belong to this task; another stream, other numbers."""
        generator = torch.Generator().manual_seed(self.seed + 2**20 * stream)
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(self.device)

    def batches(self, size: int, steps: int) -> Iterator[Batch]:
        """So many batches, cyclic over the points."""
        for start in range(0, size * steps, size):
            rows = torch.arange(start, start + size, device=self.device) % self.n
            yield Batch(self.batch.x[rows], self.batch.y[rows])


@final
@dataclass(frozen=True)
class Descent:
    """v <- momentum v + g + decay w, w <- w - rate v; Nesterov takes v one step further."""

    momentum: float = 0.0
    nesterov: bool = False
    size: int = 16  # of a batch
    decay: float = 0.0
    rate: float = 0.2
    steps: int = 30
    adam: bool = False  # in place of all this, at the same rate

    def optimizer(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        if self.adam:
            return torch.optim.Adam(parameters, lr=self.rate)
        return torch.optim.SGD(
            parameters,
            lr=self.rate,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.decay,
        )


def train(model: nn.Module, objective: Objective, task: Task, method: Descent) -> Iterator[Batch]:
    """After each step its batch; the gradient of the step is still there."""
    optimizer = method.optimizer(p for p in model.parameters() if p.requires_grad)
    generator = torch.Generator().manual_seed(task.seed)
    for batch in task.batches(method.size, method.steps):
        optimizer.zero_grad()
        objective(model, batch, generator).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        yield batch


def first_layer(model: nn.Module) -> nn.Linear:
    return next(m for m in model.modules() if isinstance(m, nn.Linear))


def signal(model: nn.Module, batch: Batch, head: Head) -> tuple[Tensor, ...]:
    """The gradients of a head with respect to the first layer's output (n, width) and to x (n, D)."""
    x, outputs = batch.x.clone().requires_grad_(), []
    handle = first_layer(model).register_forward_hook(lambda *call: outputs.append(call[-1]))
    value = head(model(x), batch.y).sum()
    handle.remove()
    return torch.autograd.grad(value, (outputs[0], x))


def on_flats(
    build: Callable[[Task], Any],
    dims: Iterable[int] = (1, 2, 4),
    codims: Iterable[int] = (2, 3, 9),
    shifts: Sequence[float] = (0.0, 0.5),
) -> Any:
    """Strategy of cases, each built of a task on a flat of the catalog, off the origin or through it."""

    def case(manifold: Placed, seed: int) -> Any:
        shift = shifts[seed % len(shifts)]
        return build(Task(replace(manifold, shift=shift), seed))

    flats = reduce(or_, manifolds(dims, codims, fits=is_flat).values())
    return flats.flatmap(lambda manifold: SEEDS.map(partial(case, manifold)))


def is_flat(manifold: Manifold) -> bool:
    return isinstance(manifold, Placed) and isinstance(manifold.base, Flat)


def built(name: str, task: Task, seed: int, options: Mapping[str, Any]) -> nn.Module:
    """A model of the catalog for two classes, in double precision."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: nn.Module = catalog.find("models", name)((len(task.span),), 2, **options)
    return model.double().to(task.device)


@final
class Logistic(nn.Module):
    """Two logits -f/2 and f/2, so that cross-entropy is log(1 + e^{-yf})."""

    def __init__(self, task: Task):
        super().__init__()
        size = len(task.span)
        self.linear = nn.Linear(size, 1).double().to(task.device)
        with torch.no_grad():
            self.linear.weight.copy_(task.normal(1, size, stream=7) / size**0.5)
            self.linear.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        f = self.linear(x)
        return torch.cat([-f, f], 1) / 2

    @torch.no_grad()
    def margins(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """y f(x), (n,), and |w|"""
        return self.linear(batch.x)[:, 0] * (2 * batch.y - 1), self.linear.weight.norm()


class Rectified(NamedTuple):
    """What M networks make of a point each."""

    value: Tensor  # f, (M,)
    gradient: Tensor  # (M, D)
    active: Tensor  # (M, m), of 0 and 1


@final
class Rectifiers(nn.Module):
    """M networks f = sum_j +-1/sqrt(m) max(w_j.x, 0) at once.

    Their inner weights, all drawn alike, are those of one network of M m neurons.
    """

    def __init__(self, task: Task, count: int, width: int, scale: float | None = None):
        super().__init__()
        seed, options = task.seed + 2**23, {"width": width, "scale": scale}
        crowd = built("two_layer_relu", task, seed, options | {"width": count * width})
        self.one = built("two_layer_relu", task, seed, options).requires_grad_(False)
        self.inner = nn.Parameter(first_layer(crowd).weight.detach().reshape(count, width, -1))

    def forward(self, x: Tensor) -> Tensor:
        """(M, n, D), or (n, D) for all of them -> logits (M n, 2)"""
        call = lambda w, x: functional_call(self.one, {"inner.weight": w}, (x,))
        logits: Tensor = vmap(call, in_dims=(0, 0 if x.ndim == 3 else None))(self.inner, x)
        return torch.flatten(logits, 0, 1)

    def values(self, x: Tensor) -> Tensor:
        """f, (M, n, D) -> (M, n)"""
        logits: Tensor = self(x)
        return (logits[:, 0] - logits[:, 1]).reshape(x.shape[:2])

    def at(self, x: Tensor) -> Rectified:
        """(M, D), a point for each."""
        x = x[:, None].detach().requires_grad_()
        f = self.values(x)
        (gradient,) = torch.autograd.grad(f.sum(), x)
        active = (x @ self.inner.mT).detach() > 0
        return Rectified(f[:, 0].detach(), gradient[:, 0], active[:, 0].to(x))

    def objective(self, model: nn.Module, batch: Batch, generator: Source) -> Tensor:
        """The sum over networks: each takes the steps of its own mean."""
        count = len(self.inner)
        return count * cross_entropy(model, Batch(batch.x, batch.y.repeat(count)), generator)


def chi_square_chances(values: Tensor, degrees: int) -> Tensor:
    """Exact p-values of independent chi-squares: two-sided of their sum, and of their distribution."""
    total = scipy.stats.chi2(degrees * len(values))
    amount = values.sum().item()
    of_sum = min(1.0, 2 * min(total.cdf(amount), total.sf(amount)))
    of_each = kolmogorov_p(values, scipy.stats.chi2(degrees).cdf)
    return torch.tensor([of_sum, of_each], dtype=torch.float64)
