"""Cross-entropy plus strength |deviation s(x + deviation u) + u|^2, u ~ N(0, I): denoising score matching.

s = grad logsumexp of the logits is the score of the density that the logits imply; the minimizer is
the score of the data blurred by that deviation (Vincent 2011). With v = deviation u the noise, this is
deviation^2 |s(x + v) + v / deviation^2|^2.
"""

from torch import Tensor, nn

from manifoldlab import draws, gradients, linalg
from manifoldlab.attacks.base import Strength
from manifoldlab.interfaces import Batch, Source
from manifoldlab.objectives.base import logits_and_gradient, weighed


def score_matching(
    model: nn.Module,
    batch: Batch,
    generator: Source,
    *,
    strength: Strength = 0.1,
    deviation: float = 0.1,
) -> Tensor:
    if not deviation > 0:
        raise ValueError(f"the deviation of the noise must be positive, not {deviation}")
    u = draws.normal(batch.x, generator)
    noisy = batch.x + deviation * u
    _, score = logits_and_gradient(model, noisy, batch.y, gradients.log_marginal)
    loss = gradients.cross_entropy(model(batch.x), batch.y)
    return weighed(loss, strength, linalg.squared_norm(deviation * score + u))
