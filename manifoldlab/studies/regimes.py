"""What the three regimes of robust training would show (Srinivas et al. 2023), as metrics over seeds.

    weak        cross-entropy: changes more across the manifold than along it, off / on >= 1
    aligned     at the strength where gradients are most like those of Bayes, `truth`: more like them than
                before, off / on <= 1, accuracy no more than REACH lower; the best truth, and the best
                alignment, within REACH of Bayes
    excessive   at the largest strength: accuracy, truth, alignment and score LOSS below their best

Each seed is shown at the strength that is best for the other seeds: the choice flatters nobody. Names of
values are those of module measuring.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from manifoldlab.comparison import Metric, at_least, at_most, measured
from manifoldlab.studies.leave_one_out import best

Array = npt.NDArray[np.float64]
REACH = 0.05  # how near to Bayes a gradient must come, and what the aligned regime may cost
LOSS = 0.05  # what the excessive regime must lose


def claims(samples: Mapping[str, Any]) -> dict[str, Metric]:
    """From NAME (strengths, seeds), weak_NAME and initial_NAME (1, seeds), and bayes_NAME."""
    return _weak(samples) | _aligned(samples) | _excessive(samples)


def _weak(samples: Mapping[str, Any]) -> dict[str, Metric]:
    names = ("alignment", "truth", "score")
    found = {f"weak {name}": measured(samples[f"weak_{name}"][0]) for name in names}
    ratio = samples["weak_off"][0] / samples["weak_on"][0]
    initial = measured(samples["initial_alignment"][0])
    return {"initial alignment": initial} | found | {"weak off / on": at_least(ratio, 1.0)}


def _aligned(samples: Mapping[str, Any]) -> dict[str, Metric]:
    like = best(samples["truth"])
    lost = samples["weak_accuracy"][0] - _at(samples["accuracy"], like)
    ratio = _at(samples["off"], like) / _at(samples["on"], like)
    reached = float(samples["bayes_alignment"]) - REACH
    gains = {
        f"best {name}, gained": at_least(_best(samples, name) - samples[f"weak_{name}"][0], 0.0)
        for name in ("truth", "alignment", "score")
    }
    return gains | {
        "aligned off / on": at_most(ratio, 1.0),
        "aligned accuracy, lost": at_most(lost, REACH),
        "best truth": at_least(_best(samples, "truth"), 1 - REACH),
        "best alignment": at_least(_best(samples, "alignment"), reached),
    }


def _excessive(samples: Mapping[str, Any]) -> dict[str, Metric]:
    names = ("accuracy", "truth", "alignment", "score")
    return {
        f"excessive {name}, lost": at_least(_best(samples, name) - samples[name][-1], LOSS)
        for name in names
    }


def _best(samples: Mapping[str, Any], name: str) -> Array:
    return _at(samples[name], best(samples[name]))


def _at(values: Array, rows: npt.NDArray[np.int64]) -> Array:
    """Of each seed its own row."""
    found: Array = values[rows, np.arange(len(rows))]
    return found
