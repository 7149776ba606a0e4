"""log p(x, y) of every problem, beside reading x once; and of Gaussians, beside scipy and scikit-learn."""

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from manifoldlab import catalog
from manifoldlab.benchmarking.case import (
    Case,
    Contest,
    Contestant,
    Floor,
    Setting,
    library,
    whole,
)
from manifoldlab.densities.gaussians import random_gaussians
from manifoldlab.manifolds.flat import Flat
from manifoldlab.manifolds.placed import Placed
from manifoldlab.problems.base import BayesClassifier, Problem
from manifoldlab.problems.gaussian_subspace import GaussianSubspace

FEW = 8  # that are checked alone


def _of_example(name: str, setting: Setting) -> Contest:
    """The logits of a sample must not depend on the others of its batch."""
    problem: Problem = catalog.module("problems", name).examples(0)[0]
    x = problem.sample(setting.pick(256, 16), torch.Generator().manual_seed(0)).x.to(setting.device)
    model = BayesClassifier(problem)
    few = lambda logits: logits[:FEW]
    return Contest(
        own=Contestant(lambda: model(x), few),
        floor=Floor("reading x once", lambda: x + 1),
        exact=lambda: torch.cat([model(one[None]) for one in x[:FEW]]),
        within=1e-8,
        reason="float64; quadratures sum many terms",
        sizes={"n": len(x), "D": x[0].numel(), "K": problem.num_classes},
        error=whole,
        dtype=torch.float64,
    )


def _gaussians(setting: Setting) -> Contest:
    """Three classes on a subspace of 8 dimensions, with noise: Gaussians of known covariance in R^D."""
    ambient, classes = setting.pick(128, 12), 3
    problem = GaussianSubspace(
        Placed(Flat(8), codim=ambient - 8, seed=0), random_gaussians(8, classes, seed=0), 0.5
    )
    x = problem.sample(setting.pick(512, 16), torch.Generator().manual_seed(0)).x
    means, covariances, priors = _moments(problem)
    whitening = torch.linalg.inv(torch.linalg.cholesky(covariances))
    given, model = x.to(setting.device), BayesClassifier(problem)
    rows = given.new_ones(classes, ambient, 8)

    def exact() -> Tensor:
        """One solution of a linear system a sample and class."""
        found = x.new_zeros(len(x), classes)
        for k in range(classes):
            offset = x - means[k]
            square = (offset * torch.linalg.solve(covariances[k], offset.T).T).sum(1)
            size = torch.linalg.slogdet(2 * torch.pi * covariances[k]).logabsdet
            found[:, k] = priors[k].log() - (square + size) / 2
        return found

    def with_scipy(stats: Any) -> Contestant:
        laws = [
            stats.multivariate_normal(m, c)
            for m, c in zip(means.numpy(), covariances.numpy(), strict=True)
        ]
        logs, points = priors.log().numpy(), x.numpy()
        call = lambda: np.stack([law.logpdf(points) for law in laws], 1) + logs
        return Contestant(call, torch.from_numpy)

    def with_sklearn(mixture: Any) -> Contestant:
        found = mixture.GaussianMixture(classes)
        found.weights_, found.means_ = priors.numpy(), means.numpy()
        found.precisions_cholesky_ = whitening.mT.contiguous().numpy()
        points = x.numpy()
        return Contestant(lambda: found._estimate_weighted_log_prob(points), torch.from_numpy)

    return Contest(
        own=Contestant(lambda: model(given)),
        floor=Floor("the product of x with 8 directions a class", lambda: given @ rows),
        peers={
            "scipy.stats": library("scipy.stats", with_scipy),
            "scikit-learn": library("sklearn.mixture", with_sklearn),
        },
        exact=exact,
        within=1e-10,
        reason="float64 sums",
        sizes={"n": len(x), "D": ambient, "K": classes},
        error=whole,
        dtype=torch.float64,
    )


def _moments(problem: GaussianSubspace) -> tuple[Tensor, Tensor, Tensor]:
    """Of the classes in R^D, by the affine map of the manifold."""
    law: Any = problem.densities
    embed = problem.manifold.embed
    origin = embed(torch.zeros(1, 8, dtype=torch.float64))[0]
    frame = (embed(torch.eye(8, dtype=torch.float64)) - origin).T  # (D, 8)
    means = torch.stack([origin + frame @ torch.tensor(m, dtype=torch.float64) for m in law.means])
    inside = [torch.tensor(c, dtype=torch.float64) for c in law.covariances]
    eye = problem.noise**2 * torch.eye(len(origin), dtype=torch.float64)
    covariances = torch.stack([frame @ c @ frame.T + eye for c in inside])
    return means, covariances, torch.tensor(law.priors, dtype=torch.float64)


CASES = (
    Case("problems/log_joint/gaussians", "three classes in R^128", _gaussians),
    *(
        Case(
            f"problems/log_joint/{name}",
            "the first example of its family",
            partial(_of_example, name),
        )
        for name in catalog.names("problems")
    ),
)
