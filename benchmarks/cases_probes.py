"""Probes of a ResNet-18 at pictures, with their geometry prepared, as `evaluate` does it.

Their floors are the passes that their numbers need: a gradient is a forward and a backward pass to the input.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import inputs, peers
from manifoldlab.benchmarking.case import (
    Absent,
    Case,
    Contest,
    Contestant,
    Floor,
    Setting,
    typical,
)
from manifoldlab.geometries import Looked
from manifoldlab.gradients import margin
from manifoldlab.interfaces import Batch, Geometry
from manifoldlab.models.alexnet import RECTIFIED
from manifoldlab.perception import Perception, hidden
from manifoldlab.probes.base import noise
from manifoldlab.probes.gradient_rank import gradient_rank
from manifoldlab.probes.lpips_alignment import lpips_alignment
from manifoldlab.probes.on_off_robustness import on_off_robustness
from manifoldlab.probes.perceptual_alignment import perceptual_alignment
from manifoldlab.probes.score_alignment import score_alignment
from manifoldlab.probes.signal_robustness import signal_robustness
from manifoldlab.probes.spectral_alignment import OCTAVES, spectral_alignment
from manifoldlab.probes.tangent_alignment import tangent_alignment
from manifoldlab.spans import spanned

REASON = "float32, of the median sample: in some a ReLU is within rounding of its kink"
SIZES = (0.01, 0.03, 0.1, 0.3)


def _given(setting: Setting, n: int, k: int) -> tuple[nn.Module, Batch, Tensor]:
    """A network, pictures, and bases (n, D, k)."""
    shape = (3, 8, 8) if setting.small else inputs.IMAGE
    model = inputs.network("resnet18", setting.device, shape, width=setting.pick(64, 4))
    batch = inputs.pictures(setting.pick(n, 2), setting.device, shape)
    basis = inputs.frames(len(batch.x), batch.x[0].numel(), setting.pick(k, 4)).to(batch.x)
    return model, batch, basis


def _numbers(model: nn.Module, batch: Batch, basis: Tensor) -> dict[str, int]:
    return {"n": len(batch.x), "D": batch.x[0].numel(), "k": basis.shape[2], "K": 10}


def _gradient(model: nn.Module, batch: Batch, head: Any = margin) -> Tensor:
    return peers.by_backward(inputs.doubled(model), batch.x.double(), batch.y, head).flatten(1)


def _along(basis: Tensor, v: Tensor) -> Tensor:
    wide = basis.double()
    return (wide @ (wide.mT @ v[:, :, None])).squeeze(2)


def _contest(
    given: tuple[nn.Module, Batch, Tensor],
    probe: Callable[..., Any],
    read: Callable[[Any], Tensor],
    floor: Floor,
    exact: Callable[[], Tensor],
    peers: dict[str, Contestant | Absent] | None = None,
    spaces: Callable[[Tensor], Geometry] = Looked,
) -> Contest:
    """`spaces` makes a geometry of the given columns, within what is timed."""
    model, batch, columns = given
    network = inputs.prepared(model)
    return Contest(
        own=Contestant(lambda: probe(network, batch, spaces(columns)), read),
        floor=floor,
        peers=peers or {},
        exact=exact,
        within=2e-3,
        reason=REASON,
        error=typical,
        sizes=_numbers(*given),
    )


def _gradients(count: int, given: tuple[nn.Module, Batch, Tensor]) -> Floor:
    model, batch, _ = given
    name = "a gradient" if count == 1 else f"{count} gradients"
    return Floor(name, inputs.times(count, inputs.gradient_passes(model, batch.x, batch.y)))


def _tangent_alignment(setting: Setting) -> Contest:
    given = model, batch, basis = _given(setting, 8, 16)

    def exact() -> Tensor:
        g = _gradient(model, batch)
        return (_along(basis, g).norm(dim=1) / g.norm(dim=1)).square()

    def plain() -> Tensor:
        g = peers.by_backward(model, batch.x, batch.y, margin).flatten(1)
        return ((basis.mT @ g[:, :, None]).norm(dim=(1, 2)) / g.norm(dim=1)).square()

    read = lambda found: found.alignment
    by_hand = {"loss.backward, basis.mT @ g": Contestant(plain)}
    return _contest(given, tangent_alignment, read, _gradients(1, given), exact, by_hand)  # type: ignore[arg-type]


def _score_alignment(setting: Setting) -> Contest:
    given = model, batch, basis = _given(setting, 8, 16)
    reference = inputs.normal(*batch.x.shape, seed=5).to(batch.x)

    def exact() -> Tensor:
        g, s = _along(basis, _gradient(model, batch)), _along(basis, reference.double().flatten(1))
        return (g * s).sum(1) / (g.norm(dim=1) * s.norm(dim=1))

    probe = partial(score_alignment, reference=lambda batch: reference)
    return _contest(given, probe, lambda found: found.tangent_cosine, _gradients(1, given), exact)


def _spectral_alignment(setting: Setting) -> Contest:
    given = model, batch, _ = _given(setting, 8, 16)
    reference = inputs.normal(*batch.x.shape, seed=5).to(batch.x)

    def exact() -> Tensor:
        """By the matrix of the discrete Fourier transform, not by the fast one."""
        side = batch.x.shape[2]
        turns = torch.outer(torch.arange(side), torch.arange(side)) * (-2j * torch.pi / side)
        matrix = torch.exp(turns.to(torch.complex128)) / side**0.5
        g = _gradient(model, batch).reshape(batch.x.shape).cpu().to(torch.complex128)
        energy = (matrix @ g @ matrix.T).abs().square().sum(1)
        f = torch.arange(side).double()
        f = torch.minimum(f, side - f) / side
        radius = (f[:, None] ** 2 + f**2).sqrt()
        edges = (0.0, *OCTAVES, 1.0)
        bands = [(radius >= a) & (radius < b) for a, b in zip(edges, edges[1:], strict=False)]
        parts = torch.stack([energy[:, band].sum(1) for band in bands], 1)
        return parts / parts.sum(1, keepdim=True)

    probe = partial(spectral_alignment, reference=lambda batch: reference)
    return _contest(given, probe, lambda found: found.share, _gradients(1, given), exact)


def _gradient_rank(setting: Setting) -> Contest:
    given = model, batch, _ = _given(setting, 4, 16)

    def exact() -> Tensor:
        heads = [lambda logits, y, k=k: logits[:, k] for k in range(10)]
        rows = torch.stack([_gradient(model, batch, head) for head in heads], 1)
        square = torch.linalg.svdvals(rows).square()
        return square.sum(1).square() / square.square().sum(1)

    floor = Floor(
        "11 passes: a forward pass, and a backward pass a class",
        inputs.times(11, inputs.passes(model, batch.x)),
    )
    return _contest(given, gradient_rank, lambda found: found.rank, floor, exact)


def _on_off_robustness(setting: Setting) -> Contest:
    given = model, batch, basis = _given(setting, 8, 16)
    return _robust(given, directions=1)


def _robust(
    given: tuple[nn.Module, Batch, Tensor],
    directions: int,
    spaces: Callable[[Tensor], Geometry] = Looked,
) -> Contest:
    """Clean, and for each size a step along and one across; and a gradient, which has the clean pass."""
    model, batch, columns = given
    count = 2 * len(SIZES) * directions
    many = batch.x.repeat(count, *[1] * (batch.x.ndim - 1))
    floor = Floor(
        f"{count} forward passes and a gradient",
        inputs.in_turn(inputs.passes(model, many), inputs.gradient_passes(model, batch.x, batch.y)),
    )
    u = noise(batch.x, directions, 0)
    job = partial(peers.step_by_step, sizes=SIZES, head=margin)

    def exact() -> Tensor:
        double, frame = inputs.doubled(model), torch.linalg.qr(columns.double()).Q
        return job(double, batch.x.double(), batch.y, frame, u.double())

    def by_picture() -> Tensor:
        frames = columns
        if spaces is not Looked:
            frames = torch.stack([torch.linalg.svd(c, full_matrices=False).U for c in columns])
        return job(model, batch.x, batch.y, frames, u)

    return _contest(
        given,
        partial(on_off_robustness, sizes=SIZES, directions=directions),
        lambda found: torch.stack([found.on, found.off], 2),
        floor,
        exact,
        {"picture by picture": Contestant(by_picture)},
        spaces,
    )


def _on_off_of_mlp(setting: Setting) -> Contest:
    model = inputs.network("mlp", setting.device, (784,), width=setting.pick(256, 8), depth=2)
    batch = inputs.pictures(setting.pick(64, 2), setting.device, (784,))
    k = setting.pick(128, 4)
    columns = inputs.normal(k, len(batch.x), 784, seed=4).to(batch.x).movedim(0, 2)
    return _robust((model, batch, columns), directions=1, spaces=spanned)


def _signal_robustness(setting: Setting) -> Contest:
    model, batch, basis = _given(setting, 8, 16)
    region = torch.zeros_like(batch.x, dtype=torch.bool)
    region[..., : batch.x.shape[-1] // 2] = True
    batch = batch._replace(region=region)
    u = noise(batch.x, 1, 0)

    def exact() -> Tensor:
        double, x, steps = inputs.doubled(model), batch.x.double(), u[0].double()
        parts = (steps * region, steps * ~region)
        with torch.no_grad():
            here = double(x).softmax(1)
            change = lambda size, v: (double(x + size * v).softmax(1) - here).abs().sum(1)
            return torch.stack([torch.stack([change(s, v) for v in parts], 1) for s in SIZES], 1)

    many = batch.x.repeat(2 * len(SIZES) + 1, 1, 1, 1)
    return _contest(
        (model, batch, basis),
        partial(signal_robustness, sizes=SIZES, directions=1),
        lambda found: torch.stack([found.signal, found.distractor], 2),
        Floor(f"{2 * len(SIZES) + 1} forward passes", inputs.passes(model, many)),
        exact,
    )


def _perceptual_alignment(setting: Setting) -> Contest:
    given = model, batch, _ = _given(setting, 8, 16)
    features = inputs.network("small_cnn", setting.device, tuple(batch.x.shape[1:]))
    field = inputs.normal(*batch.x.shape, seed=5).to(batch.x)

    def exact() -> Tensor:
        double = inputs.doubled(features)
        g, s = _gradient(model, batch).reshape(batch.x.shape), field.double()
        show = lambda v: (1 + v / v.flatten(1).abs().amax(1).reshape(-1, 1, 1, 1)) / 2
        with torch.no_grad():
            return torch.nn.functional.cosine_similarity(double(show(g)), double(show(s)))

    probe = partial(
        perceptual_alignment,
        reference=lambda batch: field,
        features=lambda v: [features(v)],
    )
    floor = Floor(
        "a gradient, and the features of 3 fields in two pairs",
        inputs.in_turn(
            inputs.gradient_passes(model, batch.x, batch.y),
            inputs.passes(features, batch.x.repeat(3, 1, 1, 1)),
        ),
    )
    return _contest(given, probe, lambda found: found.similarity, floor, exact)


def _lpips_alignment(setting: Setting) -> Contest:
    """With the published layers and weights that are not the published ones: as much work."""
    given = model, batch, _ = _given(setting, 8, 16)
    size = 64
    width = setting.pick(64, 4)
    alexnet = inputs.network("alexnet", setting.device, (3, size, size), width=width)
    names = tuple(
        n for n in dict(alexnet.named_modules()) if n.endswith(tuple(f".{r}" for r in RECTIFIED))
    )
    metric = Perception(hidden(alexnet, names))
    field = inputs.normal(*batch.x.shape, seed=5).to(batch.x)
    g = _gradient(model, batch)

    def exact() -> Tensor:
        double = Perception(hidden(inputs.doubled(alexnet), names))
        show = lambda v: torch.nn.functional.interpolate(
            v.reshape(batch.x.shape) / v.flatten(1).abs().amax(1).reshape(-1, 1, 1, 1),
            (size, size),
            mode="bilinear",
            antialias=True,
        )
        return 1 - double.distance(show(g), show(field.double()))

    probe = partial(lpips_alignment, reference=lambda batch: field, metric=metric, size=size)
    large = inputs.uniform(3 * len(batch.x), 3, size, size).to(batch.x)
    floor = Floor(
        "a gradient, and AlexNet's pass of 3 fields",
        inputs.in_turn(
            inputs.gradient_passes(model, batch.x, batch.y), inputs.passes(alexnet, large)
        ),
    )
    return _contest(given, probe, lambda found: found.one_minus_lpips, floor, exact)


CASES = tuple(
    Case(f"probes/{name}/{size}", about, ready)
    for name, size, about, ready in (
        (
            "tangent_alignment",
            "resnet18",
            "the share of the gradient in the tangent space",
            _tangent_alignment,
        ),
        ("score_alignment", "resnet18", "cosine of gradient and a given field", _score_alignment),
        ("spectral_alignment", "resnet18", "energy by spatial frequency", _spectral_alignment),
        (
            "gradient_rank",
            "resnet18",
            "participation ratio of the gradients of 10 logits",
            _gradient_rank,
        ),
        ("on_off_robustness", "resnet18", "4 sizes of steps along and across", _on_off_robustness),
        (
            "on_off_robustness",
            "mlp",
            "the same of a perceptron, from 128 columns that span the tangent space",
            _on_off_of_mlp,
        ),
        (
            "signal_robustness",
            "resnet18",
            "4 sizes of noise on a region and beside it",
            _signal_robustness,
        ),
        (
            "perceptual_alignment",
            "resnet18",
            "likeness of gradient and field to a small network",
            _perceptual_alignment,
        ),
        ("lpips_alignment", "resnet18", "likeness to an AlexNet at 64 x 64", _lpips_alignment),
    )
)
