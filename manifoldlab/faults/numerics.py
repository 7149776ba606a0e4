"""Of linear algebra, gradients, special functions, statistics, quadrature and calculus."""

import torch
from torch import Tensor

from manifoldlab import (
    calculus,
    comparison,
    energies,
    expectations,
    gradients,
    linalg,
    special,
    statistics,
)
from manifoldlab.faults.base import Fault, normal
from manifoldlab.interfaces import Head
from manifoldlab.manifolds.sphere import Sphere

LOGITS, LABELS = normal(4, 3), torch.tensor([0, 2, 1, 0])
FRAMES = torch.stack([linalg.random_frame(5, 2, seed) for seed in range(3)])
SCALES = [0.1, 0.2, 0.4, 0.8]
KAPPA = torch.tensor([0.3, 4.0, 80.0], dtype=torch.float64)


def _gradient(head: Head) -> Tensor:
    matrix = normal(5, 3, seed=1)
    return gradients.input_gradient(lambda x: (x @ matrix).tanh(), normal(4, 5), LABELS, head)


def _hessian() -> Tensor:
    f = lambda z: z[:, 0].sin() * z[:, 1]
    return calculus.hessian(Sphere(2).embed, f, 0.3 * normal(2, 2))


FAULTS = (
    Fault(
        "A projector is the identity",
        "linalg",
        "return ((flat @ basis) @ basis.mT).transpose(0, 1).reshape(v.shape)",
        "return v.clone()",
        lambda: linalg.project(FRAMES, normal(3, 5)),
        ("tests/test_linalg.py", "A1/helix", "A4/ellipsoid", "B1t/clifford_torus/0"),
    ),
    Fault(
        "A projector is its complement",
        "linalg",
        "return ((flat @ basis) @ basis.mT).transpose(0, 1).reshape(v.shape)",
        "return v - ((flat @ basis) @ basis.mT).transpose(0, 1).reshape(v.shape)",
        lambda: linalg.project(FRAMES, normal(3, 5)),
        ("tests/test_linalg.py", "B1/gaussian_subspace"),
    ),
    Fault(
        "A projector takes the leading directions for the samples",
        "linalg",
        "flat = v.reshape(lead, n, ambient).transpose(0, 1)",
        "flat = v.reshape(n, lead, ambient)",
        lambda: linalg.project(FRAMES, normal(2, 3, 5)),
        ("tests/test_linalg.py",),
    ),
    Fault(
        "Principal angles come in descending order",
        "linalg",
        "return torch.where(sine < 0.5**0.5, sine.clamp(max=1).asin(), cosine.clamp(max=1).acos())",
        "return torch.where(\n"
        "        sine < 0.5**0.5, sine.clamp(max=1).asin(), cosine.clamp(max=1).acos()\n"
        "    ).flip(-1)",
        lambda: linalg.principal_angles(FRAMES[:2], FRAMES[1:]),
        ("tests/test_linalg.py", "A4/ellipsoid"),
    ),
    Fault(
        "Small principal angles come from cosines",
        "linalg",
        "sine < 0.5**0.5, sine",
        "sine < 0.0, sine",
        lambda: linalg.principal_angles(FRAMES[:1], FRAMES[:1] + 0 * FRAMES[:1]) + 1e-7,
        ("tests/test_linalg.py",),
    ),
    Fault(
        "A unit vector is twice as long",
        "linalg",
        "return v / norm.reshape(",
        "return 2 * v / norm.reshape(",
        lambda: linalg.unit(normal(3, 5)),
        ("tests/test_linalg.py", "C5/wavy_sets"),
    ),
    Fault(
        "The margin leaves the other classes out",
        "gradients",
        "return logit(logits, y) - _others(logits, y).amax(1)",
        "return logit(logits, y)",
        lambda: _gradient(gradients.margin),
        (
            "tests/test_gradients.py",
            "B1/gaussian_subspace",
            "B1t/clifford_torus",
            "E4/smooth_network/0",
        ),
    ),
    Fault(
        "The margin counts from the second best other class",
        "gradients",
        "_others(logits, y).amax(1)",
        "_others(logits, y).topk(2).values[:, 1]",
        lambda: _gradient(gradients.margin),
        ("tests/test_gradients.py",),
    ),
    Fault(
        "A logit is that of the next class",
        "gradients",
        "return logits.gather(1, y[:, None]).squeeze(1)",
        "return logits.gather(1, (y[:, None] + 1) % logits.shape[1]).squeeze(1)",
        lambda: gradients.logit(LOGITS, LABELS),
        ("tests/test_gradients.py", "E1/gaussian_subspace"),
    ),
    Fault(
        "The marginal adds logits up, not probabilities",
        "gradients",
        "return logits.logsumexp(1)",
        "return logits.sum(1)",
        lambda: _gradient(gradients.log_marginal),
        ("tests/test_gradients.py", "C1/gaussian_subspace", "C2/helix", "E3/gaussian_subspace"),
    ),
    Fault(
        "The sum over logits is their mean",
        "gradients",
        "return logits.sum(1)",
        "return logits.mean(1)",
        lambda: _gradient(gradients.logit_sum),
        ("tests/test_gradients.py", "C1/gaussian_subspace/0"),
    ),
    Fault(
        "Cross-entropy has the wrong sign",
        "gradients",
        "return -log_posterior(logits, y)",
        "return log_posterior(logits, y)",
        lambda: gradients.cross_entropy(LOGITS, LABELS),
        ("tests/test_gradients.py", "E1/gaussian_subspace", "E4/smooth_network"),
    ),
    Fault(
        "The gradient is that of the mean over the batch",
        "gradients",
        "torch.autograd.grad(head(logits, y).sum(), x, create_graph=trained)",
        "torch.autograd.grad(head(logits, y).mean(), x, create_graph=trained)",
        lambda: _gradient(gradients.margin),
        ("tests/test_gradients.py",),
    ),
    Fault(
        "The gradient of a classifier is left in its parameters",
        "gradients",
        "(gradient,) = torch.autograd.grad(head(logits, y).sum(), x, create_graph=trained)",
        "head(logits, y).sum().backward()\n        gradient = x.grad",
        lambda: _left_in_parameters(),
        ("tests/test_gradients.py::test_nothing_of_the_model_changes",),
    ),
    Fault(
        "Logarithms of Bessel functions switch too early to the expansion",
        "special",
        "SWITCH = 30.0",
        "SWITCH = 4.0",
        lambda: special.log_bessel(1.0, torch.tensor([6.0, 8.0], dtype=torch.float64)),
        ("tests/test_special.py::test_log_bessel_and_its_derivatives",),
    ),
    Fault(
        "The expansion of Bessel functions has a term less",
        "special",
        "EXPANSION_TERMS = 14",
        "EXPANSION_TERMS = 8",
        lambda: special.bessel_ratio_derivative(2.0, torch.tensor([31.0], dtype=torch.float64)),
        ("tests/test_special.py::test_log_bessel_and_its_derivatives",),
    ),
    Fault(
        "The order of a von Mises-Fisher law is that of the next dimension",
        "special",
        "return n / 2 - 1",
        "return n / 2 - 0.5",
        lambda: special.log_vmf_normalizer(3, KAPPA),
        ("tests/test_special.py::test_normalizers", "C2/von_mises_sphere"),
    ),
    Fault(
        "The area of a sphere lacks a factor 2",
        "special",
        "return math.log(2) + n / 2 * math.log(math.pi)",
        "return n / 2 * math.log(math.pi)",
        lambda: special.log_vmf_normalizer(3, KAPPA),
        ("tests/test_special.py::test_sphere_area", "tests/test_special.py::test_normalizers"),
    ),
    Fault(
        "Bessel functions are computed in float32",
        "special",
        "return apply(k.double(), float(order), value, slope).to(k.dtype)",
        "return apply(k.float(), float(order), value, slope).to(k.dtype)",
        lambda: special.log_vmf_normalizer(3, KAPPA),
        ("tests/test_special.py::test_log_bessel_and_its_derivatives", "C2/von_mises_sphere"),
    ),
    Fault(
        "Power laws are fitted to values, not to their logarithms",
        "statistics",
        "x, y = np.log(s), np.log(v)",
        "x, y = np.log(s), v",
        lambda: _tensor(*statistics.fit_power(SCALES, [1.0, 2.1, 3.9, 8.2])),
        ("tests/test_statistics.py", "A2/helix"),
    ),
    Fault(
        "The error of a slope has n - 1 degrees of freedom",
        "statistics",
        "(len(x) - 2)",
        "(len(x) - 1)",
        lambda: _tensor(*statistics.fit_power(SCALES, [1.0, 2.1, 3.9, 8.2])),
        ("tests/test_statistics.py",),
    ),
    Fault(
        "An interval has the quantile of z for that of t",
        "statistics",
        "-scipy.special.stdtrit(len(x) - 1, _tail(level))",
        "-scipy.special.ndtri(_tail(level))",
        lambda: _tensor(*statistics.mean_interval([1.0, 2.0, 4.0])),
        ("tests/test_statistics.py", "tests/test_comparison.py"),
    ),
    Fault(
        "An interval divides by n, not by its root",
        "statistics",
        "x.std(ddof=1) / math.sqrt(len(x))",
        "x.std(ddof=1) / len(x)",
        lambda: _tensor(*statistics.mean_interval([1.0, 2.0, 4.0])),
        ("tests/test_statistics.py", "tests/test_comparison.py"),
    ),
    Fault(
        "A standard deviation has n in its denominator",
        "statistics",
        "x.std(ddof=1)",
        "x.std(ddof=0)",
        lambda: _tensor(*statistics.mean_interval(list(range(60)))),
        ("tests/test_statistics.py",),
    ),
    Fault(
        "Both tails of an interval have the whole level",
        "statistics",
        'return (1 - _probability("level", level)) / 2',
        'return 1 - _probability("level", level)',
        lambda: _tensor(*statistics.mean_interval([1.0, 2.0, 4.0])),
        ("tests/test_statistics.py",),
    ),
    Fault(
        "The null law of omega has the dimensions exchanged",
        "statistics",
        "return scipy.stats.beta(_codimension(D, d) / 2, d / 2)",
        "return scipy.stats.beta(d / 2, _codimension(D, d) / 2)",
        lambda: _tensor(statistics.isotropic_omega_law(7, 2).mean()),
        ("tests/test_statistics.py", "A3/sphere"),
    ),
    Fault(
        "The null law of r has a dimension too many",
        "statistics",
        "return scipy.stats.f(_codimension(D, d), d)",
        "return scipy.stats.f(_codimension(D, d), d + 1)",
        lambda: _tensor(statistics.isotropic_r2_law(7, 2).cdf(1.5)),
        ("tests/test_statistics.py", "A3/helix"),
    ),
    Fault(
        "Many p-values are not corrected for",
        "statistics",
        "return min(1.0, len(p) * float(p.min()))",
        "return min(1.0, float(p.min()))",
        lambda: _tensor(statistics.bonferroni([0.1, 0.2])),
        ("tests/test_statistics.py",),
    ),
    Fault(
        "A Kolmogorov distance is one-sided",
        "statistics",
        "max((rank[1:] - u).max(), (u - rank[:-1]).max())",
        "(rank[1:] - u).max()",
        lambda: _tensor(statistics.kolmogorov_p([0.5, 0.6, 0.9], lambda x: x)),
        ("tests/test_statistics.py",),
    ),
    Fault(
        "What agrees need only reach one end of the interval",
        "comparison",
        "bool(low <= most and high >= least)",
        "bool(low <= most or high >= least)",
        lambda: _tensor(1.0 + bool(comparison.compared([1.0, 1.1, 1.2], 2.0)["agrees"])),
        ("tests/test_comparison.py",),
    ),
    Fault(
        "A quadrature has the weights of another order",
        "expectations",
        "torch.from_numpy(weights / weights.sum())",
        "torch.full_like(torch.from_numpy(weights), 1 / order)",
        lambda: expectations.gauss_hermite(1).weights,
        ("tests/test_expectations.py",),
    ),
    Fault(
        "A limit is the value at the smallest scale",
        "expectations",
        "values = (4**step * values[:-1] - values[1:]) / (4**step - 1)",
        "values = values[:-1]",
        lambda: expectations.limit(torch.tensor([1.0001, 1.0004, 1.0016])),
        ("tests/test_expectations.py", "A1/sphere", "E4/smooth_network"),
    ),
    Fault(
        "An energy has the wrong sign",
        "energies",
        "return -logits.logsumexp(1)",
        "return logits.logsumexp(1)",
        lambda: energies.marginal_energy(LOGITS),
        ("E4/smooth_network",),
    ),
    Fault(
        "The weight of WEAT leaves a small term out, as torch's softplus does",
        "energies",
        "return 1 / (size + (-size).exp().log1p())",
        "return 1 / size.where(size > 20, size + (-size).exp().log1p())",
        lambda: energies.weat_weight(torch.tensor([20.5, 21.0], dtype=torch.float64)),
        ("E5/float64",),
    ),
    Fault(
        "A Hessian lacks the curvature of the chart",
        "calculus",
        "return congruence(second - turning, frame(embed, z).triangle)",
        "return congruence(second, frame(embed, z).triangle)",
        _hessian,
        ("tests/test_calculus.py", "B2/sphere", "C3/sphere"),
    ),
    Fault(
        "The normal part of a vector is all of it",
        "calculus",
        "return (flat - self.basis @ (self.basis.mT @ flat)).reshape(v.shape)",
        "return flat.reshape(v.shape)",
        lambda: calculus.second_fundamental_form(Sphere(2).embed, 0.3 * normal(2, 2)),
        ("tests/test_calculus.py", "B2/helix", "C3/helix"),
    ),
    Fault(
        "The derivative of the mean curvature goes the other way",
        "calculus",
        "inner = here.basis.mT @ v[:, :, None]",
        "inner = -here.basis.mT @ v[:, :, None]",
        lambda: _turned(),
        ("tests/test_calculus.py", "B2/helix"),
    ),
)


def _tensor(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def _turned() -> Tensor:
    from manifoldlab.manifolds.ellipsoid import Ellipsoid

    embed = Ellipsoid((1.0, 1.5, 2.0)).embed
    return calculus.mean_curvature_derivative(embed, 0.3 * normal(2, 2), normal(2, 3))


def _left_in_parameters() -> Tensor:
    layer = torch.nn.Linear(5, 3, dtype=torch.float64)
    gradients.input_gradient(layer, normal(4, 5), LABELS, gradients.margin)
    return _tensor(1.0 + (layer.weight.grad is not None))
