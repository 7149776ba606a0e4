"""The three regimes of all records of regimes_on_images, a line of Markdown each.

    python -m manifoldlab.studies.regimes_table results

Of each data set and training: the tangent share by the first geometry, of cross-entropy and where it is
largest, each seed at the strength that is best for the others; what accuracy changes there; what both lose at
the largest strength; and the gain of the cosine with the score where that is largest. Means over seeds with
intervals of 95 %.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from manifoldlab import records
from manifoldlab.comparison import Metric
from manifoldlab.studies.image_regimes import claims, most_tangent
from manifoldlab.studies.leave_one_out import best

HEADER = (
    "data",
    "training",
    "tangent share by",
    "cross-entropy",
    "best",
    "gained",
    "accuracy there",
    "share, lost beyond",
    "accuracy, lost beyond",
    "cosine with the score, gained",
)


def row(run: records.Run) -> list[str]:
    means = {name: values.mean(-1) for name, values in run.samples().items() if values.ndim == 3}
    omega = next(name for name in means if name.startswith("omega_"))
    share = 1 - means[omega]
    rows = best(share)
    top = share[rows, np.arange(len(rows))].mean()
    found = {what.split(": ")[1]: m for what, m in most_tangent(means, omega).items()}
    return [
        run.config["data"].replace("_", " "),
        run.config["objective"].replace("_", " "),
        omega.removeprefix("omega_").replace("_", " "),
        f"{1 - means[f'weak_{omega}'].mean():.3f}",
        f"{top:.3f}",
        _shown(found["share, gained"]),
        _shown(_negative(found["accuracy, lost"])),
        _shown(found["share, lost beyond"]),
        _shown(found["accuracy, lost beyond"]),
        _shown(claims(means)["best score, gained"]),
    ]


def _negative(metric: Mapping[str, Any]) -> Metric:
    return {"measured": -metric["measured"], "low": -metric["high"], "high": -metric["low"]}


def _shown(metric: Mapping[str, Any]) -> str:
    return f"{metric['measured']:+.3f} ({metric['low']:+.3f}, {metric['high']:+.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description="The three regimes of all records, as Markdown.")
    parser.add_argument("results", type=Path)
    runs = records.load("regimes_on_images", parser.parse_args().results)
    if not runs:
        raise SystemExit("there are no records; manifoldlab run regimes_on_images makes them")
    order = sorted(runs, key=lambda run: (run.config["data"], run.config["objective"]))
    for cells in (list(HEADER), ["---"] * len(HEADER), *map(row, order)):
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
