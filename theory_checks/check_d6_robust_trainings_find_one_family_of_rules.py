r"""D6. For two Gaussians N(+-mu, Sigma) all of these find a multiple of w_gamma = (Sigma + gamma I)^{-1} mu:

    logistic loss with noise sigma u            gamma = sigma^2: noisy points are N(+-mu, Sigma + sigma^2 I)
    (y - w.x)^2 + lambda |w|^2                  gamma = lambda
    logistic loss at the worst steps eps        gamma |w_gamma| = eps: the rule of D5
    logistic loss l, plus lambda |w|^2          gamma = 2 lambda / E l''(margin)

E yx = mu and E xx' = Sigma + mu mu' make the second (Sigma + mu mu' + lambda I)^{-1} mu, which is
w_lambda / (1 + mu.w_lambda). The last has E l'(m) yx + 2 lambda w = 0, where by Stein's lemma
E l'(m) yx = E l' mu + E l'' Sigma w; so it is -E l' / E l'' w_gamma.

Clean accuracy falls in gamma: with coordinates m_k of mu along the eigenvectors of Sigma, values s_k,
(mu.w)^2 / w.Sigma w has the slope -2 gamma (mu.w) (S_0 S_2 - S_1^2) / (w.Sigma w)^2 along the family,
S_j = sum m_k^2 s_k^j / (s_k + gamma)^3, and S_0 S_2 >= S_1^2 by Cauchy and Schwarz.
omega falls in gamma if Sigma is block-diagonal in T + N with lambda_max(Sigma_N) <= lambda_min(Sigma_T), for
log(omega / (1 - omega)) has the slope 2 (mean over T less mean over N of 1 / (s + gamma)), weighed by w_k^2.
Without that some mu makes it rise: one along two eigenvectors that are the wrong way round (first control),
and mu = Sigma t for t tangent with Sigma t not so (second), where Bayes has omega = 0.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import softplus

from manifoldlab import linalg
from manifoldlab.densities.gaussians import Gaussians, random_gaussians
from manifoldlab.gaussian_regimes import omega
from manifoldlab.problems.signal_distractor import SignalDistractor
from manifoldlab.strategies import SEEDS, Families
from manifoldlab.theorem import EXACT, Bound, Control, Identity, Several, Sides, Theorem
from manifoldlab.verification import hold, reject
from theory_checks.gaussian_pairs import Pair, pairs, turned

GAMMAS = (0.1, 2.0)  # in units of the mean eigenvalue
GRID = (0.0, *(10.0 ** (k / 2) for k in range(-6, 7)), torch.inf)
ENDS = (0.0, torch.inf)
VARIANCE, COUPLING = 0.5, 0.9  # of the second control
BENT = 1e-4  # of directions: what the third control is to see
Measured = tuple[Sides | None, Sides | None, Sides | None]


def logistic(margin: Tensor) -> Tensor:
    return softplus(-margin)


def curvature(margin: Tensor) -> Tensor:
    """l''"""
    return margin.sigmoid() * (-margin).sigmoid()


def gammas(case: Pair, shares: tuple[float, ...] = GAMMAS) -> Tensor:
    found: Tensor = case.covariance.trace() / len(case.mean) * case.mean.new_tensor(shares)
    return found


def law(case: Pair) -> Measured:
    leak = leaks(case) if is_ordered(case) else None
    return agreement(case), accuracies(case), leak


def agreement(case: Pair) -> Sides:
    """Weights, gammas and radii of the four trainings, found and in closed form, each of size 1."""
    gamma, model = gammas(case), case.regimes
    shifted = case.covariance + gamma[:, None, None] * torch.eye(len(case.mean)).to(gamma)
    radius = gamma * torch.linalg.solve(shifted, case.mean.expand(len(gamma), -1)).norm(dim=1)
    noise, strength = gamma.sqrt(), gamma / 8
    found = _trained(case, noise, gamma, radius, strength).reshape(4, len(gamma), -1)
    bend = case.risk(curvature, case.seen(found[3]))
    closed = (
        model.noise(noise),
        model.squared_ridge(gamma),
        model.adversarial(radius),
        model.logistic_ridge(strength),
    )
    size = found.norm(dim=2, keepdim=True)
    rules = torch.stack([found, torch.stack([c.rule for c in closed])], 1) / size[:, None]
    numbers = torch.stack([gamma, gamma, gamma, 2 * strength / bend, radius])
    others = torch.stack([*(c.gamma for c in closed), model.radius(gamma)]) / numbers
    left = torch.cat([*rules[:, 0], torch.ones_like(others.T)], 1)
    return Sides(left, torch.cat([*rules[:, 1], others.T], 1), torch.ones_like(gamma))


def _trained(case: Pair, noise: Tensor, gamma: Tensor, radius: Tensor, strength: Tensor) -> Tensor:
    """The minima of four population risks: with noises, of least squares with a ridge, at radii, with
    a ridge; (all numbers, D).
    """
    counts = [len(numbers) for numbers in (noise, gamma, radius, strength)]

    def risk(seen: Tensor) -> Tensor:
        noisy, square, worst, ridged = torch.split(seen, counts)
        mean, spread, size = square.unbind(1)
        least = (1 - mean).square() + spread + gamma * size
        ridge = case.risk(logistic, ridged) + strength * ridged[:, 2]
        blurred, attacked = (
            case.risk(logistic, noisy, 0.0, noise),
            case.risk(logistic, worst, radius),
        )
        return torch.cat([blurred, least, attacked, ridge])

    return case.minimize(risk, sum(counts))


def accuracies(case: Pair) -> Sides:
    """The clean risk at each gamma is at most that at the next one."""
    risk = case.regimes.clean_risk(case.regimes.direction(gammas(case, GRID)))
    return Sides(risk[:-1], risk[1:], risk[1:])


def leaks(case: Pair, shares: tuple[float, ...] = GRID) -> Sides:
    """omega at each gamma is at most that at the one before."""
    share = omega(case.regimes.direction(gammas(case, shares)), case.frame)
    return Sides(share[1:], share[:-1], torch.ones_like(share[1:]))


def is_ordered(case: Pair) -> bool:
    """Whether Sigma has no block T x N, and no larger eigenvalue in N than in T."""
    whole = torch.linalg.qr(case.frame, mode="complete").Q
    rotated, dim = whole.mT @ case.covariance @ whole, case.frame.shape[1]
    if dim == len(rotated) or rotated[:dim, dim:].norm() > 1e-12 * rotated.norm():
        return False
    along, across = (torch.linalg.eigvalsh(b) for b in (rotated[:dim, :dim], rotated[dim:, dim:]))
    return bool(across[-1] <= along[0])


def thin(number: int) -> Pair:
    """A distractor that tells of the label, too, and varies less than the signal."""
    law = random_gaussians(1 + number % 3, 2, number, shared=True)
    return Pair(SignalDistractor(law, 2, 0.3, 0.3, number, label_shift=1.0), number)


@cache
def families() -> Families:
    return {"thin distractor": SEEDS.map(thin), **pairs()}


def rising(case: Pair) -> Measured:
    return None, None, leaks(case, ENDS)


def broad(number: int) -> Pair:
    """Sigma = diag(1, 4) and mu = (1, 1) in T + N, whatever the share of noise in it."""
    noise = 0.1 + number % 9 / 10
    law = Gaussians(((-1.0,), (1.0,)), (((1 - noise**2,),),), (0.5, 0.5))
    spread = (4 - noise**2) ** 0.5
    return Pair(SignalDistractor(law, 1, noise, spread, number, label_shift=2.0), number)


def broad_gap(case: Pair) -> Tensor:
    """.500 - .059: w is (1, 1) in the end and (1, 1/4) for Bayes."""
    return torch.tensor([1 / 2 - 1 / 17], dtype=torch.float64)


def coupled(number: int) -> Pair:
    """Noises in T and N that are correlated, and mu = Sigma t: (1, slope) in T + N."""
    noise = 0.4 + number % 5 / 10
    law = Gaussians(((-1.0,), (1.0,)), (((VARIANCE,),),), (0.5, 0.5))
    problem = SignalDistractor(law, 1, noise, 0.2, number, coupling=COUPLING)
    return Pair(replace(problem, label_shift=2 * _slope(problem)), number)


def _slope(problem: SignalDistractor) -> float:
    """Sigma_NT / Sigma_TT"""
    noise = problem.noise**2
    return problem.coupling * noise / (VARIANCE + noise)


def coupled_gap(case: Pair) -> Tensor:
    """omega of (1, slope) in the end, and none for Bayes."""
    assert isinstance(case.problem, SignalDistractor)
    square = _slope(case.problem) ** 2
    return torch.tensor([square / (1 + square)], dtype=torch.float64)


def flat(case: Pair) -> Measured:
    """The direction of a logistic ridge, with gamma = 8 lambda as if every margin were 0."""
    nothing = case.mean.new_zeros(0)
    strength = gammas(case) / 8
    found = linalg.unit(_trained(case, nothing, nothing, nothing, strength))
    right = case.regimes.direction(8 * strength)
    return Sides(found, right, torch.ones_like(strength)), None, None


def flat_gap(case: Pair) -> Tensor:
    strength, model = gammas(case) / 8, case.regimes
    gamma = model.logistic_ridge(strength).gamma
    return model.direction(gamma) - model.direction(8 * strength)


@cache
def bent() -> Families:
    """Where margins are so far from 0 that the curvature there is another."""
    matters: Callable[[Pair], bool] = lambda case: bool(flat_gap(case).norm() > BENT)
    return {name: strategy.filter(matters) for name, strategy in turned().items()}


LAW = Theorem(
    id="D6",
    title="Noise, ridges and robust training find one family of rules",
    statement=r"$w_\gamma = (\Sigma + \gamma I)^{-1}\mu$: noise $\gamma = \sigma^2$, squared-loss ridge"
    r" $\gamma = \lambda$, robust rule $\epsilon = \gamma|w_\gamma|$, logistic ridge"
    r" $\gamma = 2\lambda/E[\ell''(m)]$; clean accuracy falls in $\gamma$, and so does $\omega$ if"
    r" $\Sigma$ is block-diagonal in $T \oplus N$ with"
    r" $\lambda_{\max}(\Sigma_N) \leq \lambda_{\min}(\Sigma_T)$.",
    claim=Several((Identity(), Bound(), Bound())),
    cases=families,
    measure=law,
    controls=(
        Control(
            "more variance across than along",
            rising,
            broad_gap,
            lambda: {"signal_distractor": SEEDS.map(broad)},
            within=EXACT,
        ),
        Control(
            "noise along and across correlated",
            rising,
            coupled_gap,
            lambda: {"signal_distractor": SEEDS.map(coupled)},
            within=EXACT,
        ),
        Control("the curvature of margins at 0", flat, flat_gap, bent, within=EXACT),
    ),
)


def test_holds(family: str) -> None:
    hold(LAW, family)


def test_fails_without_its_assumption(control: Control) -> None:
    reject(LAW, control)
