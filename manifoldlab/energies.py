"""A classifier's energies, E(x, y) = -logit_y and E(x) = -logsumexp logits, and the weight of WEAT.

They are known up to a function of x (law E2); those of a Bayes classifier are -log p(x, y), -log p(x).
"""

from torch import Tensor


def joint_energy(logits: Tensor, y: Tensor) -> Tensor:
    """E(x, y): logits (n, K), y (n,) -> (n,)."""
    return -logits.gather(1, y[:, None]).squeeze(1)


def marginal_energy(logits: Tensor) -> Tensor:
    """E(x): (n, K) -> (n,)."""
    return -logits.logsumexp(1)


def weat_weight(energy: Tensor) -> Tensor:
    """1 / log(1 + exp|E|) (Mirza et al. 2024), as 1 / (|E| + log(1 + exp -|E|)).

    exp|E| itself overflows, and the weight would be 0; torch's softplus drops the second term beyond
    20, where the weight would rise by 1e-10.
    """
    size = energy.abs()
    return 1 / (size + (-size).exp().log1p())
