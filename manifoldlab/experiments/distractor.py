r"""Robust networks ignore what says nothing of the label (Srinivas et al. 2023, Figure 5): do they?

Claim: with images in one half of a picture and always the same letter in the other one, noise on the
image (the signal) changes the output of a network more than noise on the letter (the distractor) does,

    ratio = E change(x + s Ru) / E change(x + s (1 - R)u) > 1,    u ~ N(0, I),

R the half of the image, and the ratio is larger for a robust network than for a standard one. Theory has
it that the label depends on the signal only, so that the Bayes classifier does not change at all with the
distractor (law of blocks: its gradient there is 0, and the share |Rg|^2 / |g|^2 is 1). The change is the
published one, the l1 norm of that of the softmax, by its mean over test images and draws of the noise.
The ratio is compared at the one size `noise`, stated beforehand; all sizes are kept. Robust networks that
pay more accuracy than module image_regimes allows are measured, and nothing is claimed of them.
"""

from dataclasses import asdict, dataclass
from functools import partial
from math import prod
from typing import Any, final

import numpy as np
from torch import nn

from manifoldlab.architecture import Architecture
from manifoldlab.comparison import Metric, at_least, measured
from manifoldlab.data.distractor import distractor
from manifoldlab.data.subset import subset
from manifoldlab.evaluation import evaluate
from manifoldlab.geometries import Region
from manifoldlab.gradients import input_gradient, margin
from manifoldlab.interfaces import Data
from manifoldlab.probes.signal_robustness import signal_robustness
from manifoldlab.probes.tangent_alignment import tangent_alignment
from manifoldlab.records import Outcome, Progress
from manifoldlab.studies import robust_networks
from manifoldlab.studies.image_networks import Course
from manifoldlab.studies.image_regimes import COST
from manifoldlab.studies.together import answers, together

ISOTROPIC = 0.5  # the share of a gradient that tells no half from the other


@dataclass(frozen=True)
class Config:
    data: str = "digits"
    """What the signal is: a data set of the catalog, digits, mnist, cifar10, ..."""
    root: str = ""
    """Its folder; by default that of MANIFOLDLAB_DATA."""
    letter: str = "A"
    objective: str = "adversarial"
    """Of module image_trainings, but for those that need tangent spaces."""
    strengths: tuple[float, ...] = (0.1, 0.3, 1.0)
    """Of robust networks; the standard ones are beside them."""
    seeds: int = 5
    seed: int = 0
    """The first of them."""
    samples: int = 0
    """Images to train on; 0 for all there are."""
    held_out: int = 1000
    """Test images that are measured."""
    network: str = "small_cnn"
    width: int = 16
    epochs: int = 60
    batch_size: int = 32
    lr: float = 3e-3
    steps: int = 10
    """Of attacks in training."""
    radius: float = 0.5
    """Of the l2 attacks whose weight is the strength."""
    low: float = 1e-2
    """The least deviation of the noise, as published."""
    high: float = 10.0
    """The greatest, likewise."""
    count: int = 30
    """Of deviations, at equal ratios."""
    noise: float = 0.25
    """The one at which ratios are compared."""
    directions: int = 4
    """Draws of the noise for each image and size."""
    device: str = "cpu"

    def __post_init__(self) -> None:
        robust_networks.check_numbers(asdict(self), LEAST, ("lr", "radius", "low", "high", "noise"))
        robust_networks.check(self.objective, self.strengths)
        if self.low >= self.high:
            raise ValueError(
                f"noise goes from low to high, low < high, not {self.low} to {self.high}"
            )
        if self.data in ("distractor", "block"):
            raise ValueError(f"a distractor is put beside plain images, not beside {self.data}")

    @property
    def sizes(self) -> tuple[float, ...]:
        grid = np.geomspace(self.low, self.high, self.count).tolist()
        return tuple(sorted({*grid, self.noise}))


LEAST = {
    "seeds": 2,
    "seed": 0,
    "samples": 0,
    "held_out": 1,
    "width": 1,
    "epochs": 1,
    "batch_size": 1,
    "steps": 1,
    "count": 2,
    "directions": 1,
}
FAST = Config(strengths=(0.3, 1.0), width=8, epochs=30, steps=3, count=10, directions=2)


def main(config: Config, progress: Progress) -> Outcome:
    study = Study(config, progress)
    rows = [study.read(models) for models in study.networks().values()]
    arrays = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    axes = {
        "strengths": np.array([robust_networks.STANDARD, *config.strengths]),
        "sizes": np.array(config.sizes),
        "image": study.batches[0].x[0].cpu().numpy(),
    }
    progress(1.0, "done")
    at = config.sizes.index(config.noise)
    return Outcome(claims(axes["strengths"], arrays, at), axes | arrays)


def claims(strengths: Any, arrays: dict[str, Any], at: int) -> dict[str, Metric]:
    """Of signal and distractor (strengths, seeds, sizes), the size `at`, and of share and right
    (strengths, seeds, images); ratios of networks of one seed are compared."""
    ratio = (arrays["signal"] / arrays["distractor"])[..., at]
    share, right = arrays["share"].mean(-1), arrays["right"].mean(-1)
    found = dict[str, Metric]()
    for k, strength in enumerate(strengths):
        name = f"strength {strength:g}" if strength else "standard"
        lost = right[0].mean() - right[k].mean()
        claim = at_least if lost <= COST else lambda values, predicted: measured(values)
        found |= {
            f"{name}, accuracy": measured(right[k]),
            f"{name}, ratio": claim(ratio[k], 1.0),
            f"{name}, share": claim(share[k], ISOTROPIC),
        }
        if k:
            found |= {
                f"{name}, ratio to the standard ratio": claim(ratio[k] / ratio[0], 1.0),
                f"{name}, share gained": claim(share[k] - share[0], 0.0),
            }
    return found


@final
class Study:
    """Data and networks of one configuration."""

    def __init__(self, config: Config, progress: Progress):
        self.config, self.progress = config, progress
        get = partial(
            distractor, of=config.data, letter=config.letter, root=config.root, device=config.device
        )
        self.train: Data = get(train=True)
        if config.samples:
            self.train = subset(self.train, config.samples)
        tests = subset(get(train=False), config.held_out)
        self.batches = robust_networks.parts(robust_networks.indexed(tests, config.held_out))
        self.geometry = Region(prod(self.train.shape) // 2)

    def networks(self) -> dict[float, list[nn.Module]]:
        config = self.config
        return robust_networks.by_strength(
            Architecture(
                config.network, self.train.shape, self.train.num_classes, {"width": config.width}
            ),
            config.objective,
            self.train,
            Course(config.epochs, config.batch_size, config.lr, config.device),
            strengths=config.strengths,
            seeds=[config.seed + k for k in range(config.seeds)],
            steps=config.steps,
            radius=config.radius,
            folder=self.progress.folder,
            advance=lambda done: self.progress(0.8 * done, "networks"),
        )

    def read(self, models: list[nn.Module]) -> dict[str, Any]:
        """Mean changes by size, (seeds, sizes), and of each image (seeds, images) the share of the
        margin's gradient in the region and whether it is classified."""
        config = self.config
        moved = partial(signal_robustness, sizes=config.sizes, directions=config.directions)
        probe = together({"noise": moved, "gradient": tangent_alignment, "answers": answers})
        found = [evaluate(probe, model, self.batches, self.geometry) for model in models]
        return {
            "signal": np.stack([one.noise_signal.double().mean(0).cpu() for one in found]),
            "distractor": np.stack([one.noise_distractor.double().mean(0).cpu() for one in found]),
            "share": np.stack([one.gradient_alignment.float().cpu() for one in found]),
            "right": np.stack([one.answers_right.float().cpu() for one in found]),
            "gradient": self._gradient(models[0]),
        }

    def _gradient(self, model: nn.Module) -> Any:
        """Of the margin, at the first test image."""
        first = self.batches[0]
        return input_gradient(model, first.x[:1], first.y[:1], margin)[0].float().cpu().numpy()
