"""The twin of a data set by a decoder: that of an autoencoder of its images with 2 or 3 latent coordinates.

The classes are Gaussian mixtures, fitted to the codes of their images. Codes are trained with noise, so that
the decoder does not fold: where the noise of a picture, tau sqrt(D), is not small beside the reach, its
nearest point is not certain, and quadrature takes long.
"""

from dataclasses import asdict, dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, cast, final

import torch
from torch import Tensor, nn

from manifoldlab import checkpoints, draws, factor_mixtures
from manifoldlab.architecture import KEY, Architecture
from manifoldlab.data.in_memory import in_memory
from manifoldlab.densities.gaussian_mixtures import GaussianMixtures
from manifoldlab.factor_components import FactorComponents
from manifoldlab.interfaces import Batch, Data, Source
from manifoldlab.manifolds.decoded import Decoded
from manifoldlab.models.autoencoder import Autoencoder
from manifoldlab.problems.decoded import Trained, decoded
from manifoldlab.problems.quadrature import Quadrature
from manifoldlab.studies.factor_twins import Told, by_class, silent
from manifoldlab.training import train

ORIGIN, DENSITIES, EXTENT = "twin", "densities", "extent"  # among the facts of a file
SHARE = 0.5  # of the reach is the length of the noise of a picture, where none is given
ROOM = 1.1  # of the largest code, for the part of the latent space that counts


@final
@dataclass(frozen=True)
class Coding:
    latent: int = 2
    components: int = 2  # of a class
    width: int = 64
    depth: int = 2
    epochs: int = 60
    lr: float = 2e-3
    jitter: float = 0.1  # deviation of the noise of codes in training
    decay: float = 1e-3  # weight of the squares of codes, which keeps them about 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.latent not in (2, 3):
            raise ValueError(f"a decoded twin has 2 or 3 latent coordinates: {self!r}")


def decoded_twin(
    data: Data,
    path: Path,
    *,
    coding: Coding = Coding(),
    noise: float = 0.0,
    progress: Told = silent,
) -> Quadrature:
    """Trains, or reads what it once wrote. A noise of 0 stands for the one that suits the reach."""
    origin = {"data": data.fingerprint, **asdict(coding)}
    if not path.exists():
        network, model = _trained(data, coding, progress)
        codes = [model.encode(x).detach().double() for x in by_class(data)]
        extent = ROOM * max(z.abs().amax().item() for z in codes)
        found = {ORIGIN: origin, DENSITIES: _densities(codes, coding), EXTENT: extent}
        checkpoints.save(path, model.state_dict(), {KEY: network.facts(), **found})
    facts = checkpoints.load(path)[1]
    if facts.get(ORIGIN) != origin:
        raise ValueError(
            f"{path} holds a twin of {facts.get(ORIGIN)}, not of {origin}: give another name"
        )
    densities = GaussianMixtures(*(_tuples(part) for part in facts[DENSITIES]))
    decoder = Trained(str(path), picture=data.shape).named()
    reach = Decoded(decoder, facts[EXTENT]).reach
    noise = noise or SHARE * reach / prod(data.shape) ** 0.5
    return decoded(decoder, densities, noise, extent=facts[EXTENT])


def reconstruction(
    model: nn.Module, batch: Batch, generator: Source, *, jitter: float, decay: float
) -> Tensor:
    """|decode(z + jitter u) - x|^2 a number, plus decay |z|^2 a number."""
    coder = cast(Autoencoder, model)
    z = coder.encode(batch.x)
    noisy = z + jitter * draws.normal(z, generator)
    return (coder.decode(noisy) - batch.x).square().mean() + decay * z.square().mean()


def _trained(data: Data, coding: Coding, progress: Told) -> tuple[Architecture, Autoencoder]:
    """Of vectors: perceptrons, for quadrature asks for many thousand pictures."""
    classes = by_class(data)
    x, y = torch.cat(classes), torch.cat([torch.full((len(x),), k) for k, x in enumerate(classes)])
    sizes = {name: getattr(coding, name) for name in ("latent", "width", "depth")}
    network = Architecture("autoencoder", tuple(x.shape[1:]), None, sizes)
    model = network.build(coding.seed)
    assert isinstance(model, Autoencoder)
    objective = partial(reconstruction, jitter=coding.jitter, decay=coding.decay)
    train(
        model,
        objective,
        in_memory(x, y, data.num_classes),
        epochs=coding.epochs,
        batch_size=128,
        lr=coding.lr,
        seed=coding.seed,
        advance=lambda done: progress(done, "trains the autoencoder"),
    )
    return network, model


def _densities(codes: list[Tensor], coding: Coding) -> list[Any]:
    """Weights, means, covariances and priors, as GaussianMixtures takes them; d - 1 factors are all."""
    fit = partial(factor_mixtures.fit, components=coding.components, dim=coding.latent - 1)
    laws = [fit(z, seed=coding.seed).law for z in codes]
    counts = torch.tensor([len(z) for z in codes], dtype=torch.float64)
    weights = [law.log_weights[0].softmax(0).tolist() for law in laws]
    means = [law.means[0].tolist() for law in laws]
    covariances = [_covariances(law).tolist() for law in laws]
    return [weights, means, covariances, (counts / counts.sum()).tolist()]


def _covariances(law: FactorComponents) -> Tensor:
    loadings = law.frames[0].mT * law.deviations[0][:, None]
    eye = torch.eye(law.ambient, dtype=torch.float64)
    return loadings @ loadings.mT + law.noises[0].square()[:, None, None] * eye


def _tuples(values: Any) -> Any:
    """JSON has lists."""
    return tuple(map(_tuples, values)) if isinstance(values, list) else values
