"""What probes say of image classifiers at the same test images, one number an image.

Of the gradient g of a head and projections P, Q of an estimated geometry, the first of several:

    right                       whether the largest logit is the label's
    on, off                     change of the class probabilities (l2) for steps of one length along and
                                across, root mean square over directions: the published measurement
    noise_on, noise_off         the same for Pu and Qu of noise u ~ N(0, s^2 I) as long on average:
                                the definition of relative off-manifold robustness
    norm                        |g| of the margin
    omega_NAME                  |Qg|^2 / |g|^2 of the margin, by each geometry
    score, tangent_score        cosine of the gradient of the label's logit and the score of its class,
                                whole and along the manifold
    perceptual                  how alike these two look to a network that was trained on the same data
                                (no LPIPS: probe perceptual_alignment)
"""

from collections.abc import Mapping
from copy import deepcopy
from functools import partial
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn

from manifoldlab.evaluation import evaluate
from manifoldlab.gradients import logit
from manifoldlab.interfaces import Batch, Geometry, Model, Probe, Reference
from manifoldlab.perception import Features
from manifoldlab.probes.on_off_robustness import (
    gaussian_steps,
    on_off_robustness,
    softmax_change,
    unit_steps,
)
from manifoldlab.probes.perceptual_alignment import perceptual_alignment
from manifoldlab.probes.score_alignment import score_alignment
from manifoldlab.probes.tangent_alignment import tangent_alignment


class _Changes(NamedTuple):
    on: Tensor
    off: Tensor


def _changes(model: Model, batch: Batch, geometry: Geometry, **options: Any) -> _Changes:
    """Without their ratio, which a network that has lost its classes does not have."""
    found = on_off_robustness(model, batch, geometry, **options)
    return _Changes(found.on, found.off)


@final
class ImageGauge:
    """Reads models at a batch of images that lies on one device; spaces and score are computed once.

    On a CPU in float64: what is left of the gradient of a network that is trained too robust is little.
    """

    def __init__(
        self,
        batch: Batch,
        geometries: Mapping[str, Geometry],
        score: Tensor,
        *,
        features: Features,
        step: float,
        directions: int = 4,
        size: int = 500,
    ):
        if not geometries:
            raise ValueError("images are measured with one tangent space or more, not none")
        self.geometries = {name: geometry.at(batch) for name, geometry in geometries.items()}
        self.dtype = torch.float64 if batch.x.device.type == "cpu" else batch.x.dtype
        self.batch, self.score = batch._replace(x=batch.x.to(self.dtype)), score.to(self.dtype)
        self.features: Features = lambda v: features(v.to(batch.x.dtype))
        self.step, self.directions = step, directions
        self.size = size

    def read(self, model: nn.Module) -> dict[str, Tensor]:
        precise = deepcopy(model).to(self.dtype)
        return self.changes(precise) | self.gradients(precise)

    def changes(self, model: Model) -> dict[str, Tensor]:
        """By steps; of a classifier that is certain there are none, nor a ratio of them."""
        first = next(iter(self.geometries.values()))
        moved = partial(_changes, directions=self.directions, change=softmax_change(2))
        length, deviation = self.step, self.step / self.batch.x[0].numel() ** 0.5
        steps = self._probed(partial(moved, sizes=(length,), steps=unit_steps), model, first)
        noise = self._probed(partial(moved, sizes=(deviation,), steps=gaussian_steps), model, first)
        return {
            "on": steps.on[:, 0],
            "off": steps.off[:, 0],
            "noise_on": noise.on[:, 0],
            "noise_off": noise.off[:, 0],
        }

    def gradients(self, model: Model) -> dict[str, Tensor]:
        first = next(iter(self.geometries.values()))
        reference: Reference = lambda batch: self.score
        likeness = partial(score_alignment, reference=reference, head=logit)
        score = self._probed(likeness, model, first)
        look = partial(
            perceptual_alignment, reference=reference, features=self.features, head=logit
        )
        alike = self._probed(look, model, first)
        found = {
            "right": self._right(model),
            "score": score.cosine,
            "tangent_score": score.tangent_cosine,
            "perceptual": alike.similarity,
            "perceptual_null": alike.similarity_null,
        }
        for name, geometry in self.geometries.items():
            tangent = self._probed(tangent_alignment, model, geometry)
            found |= {f"omega_{name}": tangent.omega, "norm": tangent.norm}
        return found

    @property
    def nulls(self) -> dict[str, float]:
        """Of gradients of isotropic direction."""
        ambient = self.batch.x[0].numel()
        dims = {name: geometry.dim for name, geometry in self.geometries.items()}
        return {"score": 0.0} | {f"omega_{name}": 1 - d / ambient for name, d in dims.items()}

    def _probed(self, probe: Probe, model: Model, geometry: Geometry) -> Any:
        return evaluate(probe, model, [self.batch], geometry)

    @torch.no_grad()
    def _right(self, model: Model) -> Tensor:
        logits = torch.cat([model(x) for x in torch.split(self.batch.x, self.size)])
        return (logits.argmax(1) == self.batch.y).double()
