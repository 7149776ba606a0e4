"""The commands that made records, as one would type them again."""

import shlex
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from manifoldlab import records

LOCAL = ("--out", "--jobs", "--root")  # options that say where, not what
FEW = 3  # commands that are shown in full


def command(environment: Mapping[str, Any]) -> str:
    """Without the folder in which the record was put."""
    words, kept, skip = environment.get("command", []), list[str](), False
    for word in words:
        if not skip and word.partition("=")[0] not in LOCAL:
            kept.append(word)
        skip = word in LOCAL
    return shlex.join(kept).replace("python -m manifoldlab", "manifoldlab", 1)


def lines(found: Sequence[records.Run], width: int) -> list[str]:
    """Those of all records; of many the first, and where the others are kept."""
    each = list(dict.fromkeys(text for run in found if (text := command(run.environment))))
    shown = each if len(each) <= FEW else each[:1]
    if shown != each:
        places = sorted({f"docs/results/{run.experiment}.json" for run in found})
        shown = [*shown, f"and {len(each) - 1} more, each in {' or '.join(places)}"]
    return [part for line in shown for part in textwrap.wrap(line, width)]
