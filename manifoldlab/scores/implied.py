"""The score that a classifier implies: the gradient of log sum_y exp logit_y, or of logit_y alone.

Of a Bayes classifier, whose logits are log p(x, y), they are the exact score of the data and that of
the label's class. Of any other one the first is the gradient of minus its energy, which is known up to
a function of x only (law E2).
"""

from torch import Tensor

from manifoldlab.gradients import input_gradient, log_marginal, logit
from manifoldlab.interfaces import Batch, Model, Reference


def implied(model: Model, *, conditional: bool = False) -> Reference:
    head = logit if conditional else log_marginal

    def score(batch: Batch) -> Tensor:
        return input_gradient(model, batch.x, batch.y, head)

    return score
