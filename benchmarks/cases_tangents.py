"""Tangent spaces: Jacobians of decoders, estimators, and projections on what they give."""

from collections.abc import Callable
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn

from benchmarks import inputs, peers
from manifoldlab import jacobian_range, neighbours
from manifoldlab.benchmarking.case import Case, Contest, Contestant, Floor, Setting
from manifoldlab.spans import spanned
from manifoldlab.tangents.autoencoder import Autoencoder
from manifoldlab.tangents.base import Estimator, Spaces, unlabelled
from manifoldlab.tangents.denoiser import Denoiser
from manifoldlab.tangents.diffusion import diffusion
from manifoldlab.tangents.local_pca import LocalPca

CHUNK = 2**19
SUMS = "float32 sums of thousands of terms"


def _coder(kind: str, k: int, setting: Setting) -> Any:
    if kind == "conv":
        shape = (3, 8, 8) if setting.small else inputs.IMAGE
        width = setting.pick(64, 4)
        return inputs.network(
            "autoencoder", setting.device, shape, None, latent=k, width=width
        ), shape
    shape = (setting.pick(3072, 24),)
    width = setting.pick(512, 8)
    return inputs.network("autoencoder", setting.device, shape, None, latent=k, width=width), shape


def _jacobian(kind: str, k: int, setting: Setting) -> Contest:
    k, n = setting.pick(k, 4), 2
    model, shape = _coder(kind, k, setting)
    z = inputs.normal(n, k).to(setting.device)
    many = z.repeat_interleave(k + 1, 0)
    decode = torch.no_grad()(model.decode)
    ambient = torch.Size(shape).numel()
    slow = {
        "loop over output pixels": peers.by_pixel_loop,
        "jacrev a picture": peers.reverse_mode,
        "jacfwd a picture": peers.forward_mode,
        "vmap(jacfwd)": peers.by_vmapped_jacfwd,
    }
    return Contest(
        own=Contestant(partial(jacobian_range.columns, model.decode, z, ambient, CHUNK)),
        floor=Floor("a forward pass of k + 1 latents a picture", lambda: decode(many)),
        peers={name: Contestant(partial(f, model.decode, z)) for name, f in slow.items()},
        exact=lambda: peers.by_vmapped_jacfwd(inputs.doubled(model).decode, z.double()),
        within=1e-4,
        reason=SUMS,
        sizes={"n": n, "D": ambient, "k": k},
    )


def _spaces(estimator: Estimator, x: Tensor) -> Callable[[], Spaces]:
    batch = unlabelled(x)
    return lambda: estimator.spaces(batch)


def _projected(estimator: Estimator, x: Tensor, v: Tensor) -> Callable[[Spaces], Tensor]:
    """What tells spaces apart, whatever their bases."""
    return lambda spaces: estimator.prepared(spaces).to_tangent(x, v)


def _autoencoder(explicit: int, setting: Setting) -> Contest:
    k, n = setting.pick(32, 4), 4
    model, _ = _coder("conv", k, setting)
    x = inputs.pictures(n, setting.device, (3, 8, 8) if setting.small else inputs.IMAGE).x
    v = inputs.normal(*x.shape, seed=3).to(x)
    estimator = Autoencoder(model, k, explicit=explicit)
    latent = inputs.normal(n * (k + 1), k).to(x)
    encode, decode = (torch.no_grad()(f) for f in (model.encode, model.decode))

    def exact() -> Tensor:
        double = inputs.doubled(model)
        with torch.no_grad():
            z = double.encode(x.double())
        columns = peers.by_vmapped_jacfwd(double.decode, z)
        return peers.by_least_squares(columns, v.flatten(1)).reshape(v.shape)

    def columns_and_qr() -> Tensor:
        columns = peers.by_vmapped_jacfwd(model.decode, encode(x))
        return peers.by_batched_qr(columns, v.flatten(1)).reshape(v.shape)

    return Contest(
        own=Contestant(_spaces(estimator, x), _projected(estimator, x, v)),
        floor=Floor(
            "an encoding, and a forward pass of k + 1 latents a picture",
            inputs.in_turn(lambda: encode(x), lambda: decode(latent)),
        ),
        peers={"vmap(jacfwd), QR": Contestant(columns_and_qr)},
        exact=exact,
        within=1e-3,
        reason="float32 sums, times the condition of the Jacobian",
        sizes={"n": n, "D": x[0].numel(), "k": k},
    )


def _local_pca(setting: Setting) -> Contest:
    n, ambient, d, near = setting.pick(1000, 60), setting.pick(784, 20), 8, 32
    x = inputs.uniform(n, ambient).to(setting.device)
    v = inputs.normal(n, ambient, seed=3).to(x)
    estimator = LocalPca(x, d, near)

    def one_by_one() -> Tensor:
        found = list[Tensor]()
        for point, vector in zip(x, v, strict=True):
            closest = x[(x - point).square().sum(1).topk(near, largest=False).indices]
            basis = torch.linalg.svd(closest - closest.mean(0), full_matrices=False).Vh[:d]
            found.append(basis.T @ (basis @ vector))
        return torch.stack(found)

    def batched() -> Tensor:
        index = torch.cdist(x, x).topk(near, largest=False).indices
        offsets = x[index] - x[index].mean(1, keepdim=True)
        basis = torch.linalg.svd(offsets, full_matrices=False).Vh[:, :d]
        return (basis.mT @ (basis @ v[:, :, None])).squeeze(2)

    def exact() -> Tensor:
        wide, u = x.double(), v.double()
        index = neighbours.nearest(wide, wide, near)
        offsets = wide[index] - wide[index].mean(1, keepdim=True)
        basis = torch.linalg.svd(offsets, full_matrices=False).Vh[:, :d]
        return (basis.mT @ (basis @ u[:, :, None])).squeeze(2)

    return Contest(
        own=Contestant(_spaces(estimator, x), _projected(estimator, x, v)),
        floor=Floor("one product of all points", lambda: x @ x.T),
        peers={"batched SVD": Contestant(batched), "SVD a point": Contestant(one_by_one)},
        exact=exact,
        within=0.05,
        reason="float32, divided by the smallest gap of 1,000 spectra",
        sizes={"n": n, "D": ambient, "k": d, "neighbours": near},
    )


@final
class Gapped(nn.Module):
    """A denoiser whose Jacobian is a projector and little else: its d leading eigenvalues stand out."""

    def __init__(self, network: nn.Module, frame: Tensor):
        super().__init__()
        self.network, self.frame = network, nn.Parameter(frame, requires_grad=False)

    def forward(self, x: Tensor, sigma: Any, *label: Tensor) -> Tensor:
        flat = x.flatten(1)
        inside: Tensor = (flat @ self.frame @ self.frame.T).reshape(x.shape)
        return inside + 0.01 * self.network(x, sigma, *label)


def _leading_by_iteration(
    model: nn.Module, x: Tensor, sigma: Any, v: Tensor, frame: Tensor
) -> Tensor:
    """P v by orthogonal iteration from near the answer, a hundredfold nearer each time."""
    denoise = lambda x: model(x, sigma)
    basis = frame.expand(len(x), -1, -1)  # (n, D, d)
    for _ in range(4):
        images = []
        for column in basis.unbind(2):
            u = column.reshape(x.shape)
            forth = torch.func.jvp(denoise, (x,), (u,))[1]
            (back,) = torch.func.vjp(denoise, x)[1](u)
            images.append((forth + back).detach().flatten(1) / 2)
        basis = torch.linalg.qr(torch.stack(images, 2)).Q
    return (basis @ (basis.mT @ v.flatten(1)[:, :, None])).reshape(v.shape)


def _denoiser(make: Callable[..., Denoiser], name: str, setting: Setting) -> Contest:
    shape, n, d = ((3, 8, 8) if setting.small else inputs.IMAGE), 2, 4
    network = inputs.network(name, setting.device, shape, None, width=setting.pick(16, 4))
    frame = inputs.frames(1, torch.Size(shape).numel(), d)[0].to(setting.device)
    model = Gapped(network, frame).eval()
    x = inputs.pictures(n, setting.device, shape).x
    v = inputs.normal(*x.shape, seed=3).to(x)
    rows = x.repeat_interleave(4 * d, 0)
    estimator = make(model)
    clean = torch.no_grad()(estimator.model)
    double = make(inputs.doubled(model)).model
    sigma = estimator.sigma
    return Contest(
        own=Contestant(_spaces(estimator, x), _projected(estimator, x, v)),
        floor=Floor(
            "4 d forward passes: J and J' times d vectors, to find the space and to confirm it",
            lambda: clean(rows, sigma),
        ),
        exact=lambda: _leading_by_iteration(double, x.double(), sigma, v.double(), frame.double()),
        within=1e-2,
        reason="iteration stops at a residual of 1e-3, and the gap of the spectrum is wide",
        sizes={"n": n, "D": x[0].numel(), "k": d},
    )


def _project(k: int, setting: Setting) -> Contest:
    """On the range of given columns that are not orthonormal."""
    n, ambient, k = setting.pick(16, 2), setting.pick(3072, 40), setting.pick(k, 4)
    columns = inputs.normal(k, n, ambient).to(setting.device).movedim(0, 2)  # as a Jacobian comes
    columns = columns * torch.logspace(0, 1, k).to(columns)  # of condition 10 or so
    v = inputs.normal(n, ambient, seed=3).to(columns)
    jobs = {
        "batched QR": peers.by_batched_qr,
        "batched SVD": peers.by_batched_svd,
        "numpy SVD a picture": peers.by_numpy_orth,
    }
    return Contest(
        own=Contestant(lambda: spanned(columns).to_tangent(v, v)),
        floor=Floor("the Gram product", lambda: columns.mT @ columns),
        peers={name: Contestant(partial(f, columns, v)) for name, f in jobs.items()},
        exact=lambda: peers.by_least_squares(columns, v),
        within=1e-5,
        reason="float32 sums, times the condition 10 of the columns",
        sizes={"n": n, "D": ambient, "k": k},
    )


CASES = (
    *(
        Case(
            f"tangents/columns/{kind}_{k}",
            f"the Jacobian of a decoder of {k} latents, {what}",
            partial(_jacobian, kind, k),
        )
        for kind, what in (
            ("conv", "convolutions to 3 x 32 x 32"),
            ("mlp", "a perceptron to 3,072"),
        )
        for k in (128, 16)
    ),
    Case("tangents/autoencoder/basis", "spaces with their bases", partial(_autoencoder, 2**30)),
    Case("tangents/autoencoder/factor", "spaces with their factors", partial(_autoencoder, 0)),
    Case(
        "tangents/denoiser/denoiser",
        "leading eigenvectors of the Jacobian of a network with residual blocks",
        partial(_denoiser, lambda model: Denoiser(model, 0.3, 4), "denoiser"),
    ),
    Case(
        "tangents/diffusion/denoiser",
        "the same in the convention of diffusion models",
        partial(_denoiser, lambda model: diffusion(model, 0.15, 4), "denoiser"),
    ),
    Case("tangents/local_pca/784", "bases at 1,000 points among themselves", _local_pca),
    Case("tangents/projection/128", "P v from columns that span the space", partial(_project, 128)),
    Case("tangents/projection/16", "the same for 16 of them", partial(_project, 16)),
)
