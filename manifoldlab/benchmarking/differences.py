"""What changed between two files of a bench: ratios to the floor, beyond the noise of both.

    |after - before| > SURE sqrt(noise_1^2 + noise_2^2) + LAYOUT before

Noise is what rounds of one process show. LAYOUT is what it does not: where tensors come to lie in memory
is alike in all rounds, and another in the next process: 3.7 % was seen where noise is 0.4 %.
"""

from collections.abc import Iterable, Mapping
from math import hypot
from typing import Any, NamedTuple

Row = Mapping[str, Any]

SURE = 4.0  # standard errors
LAYOUT = 0.05
SINGLE = 0.1  # of a ratio from a single round, whose noise is not known
KIND, VERSION = "manifoldlab bench", 1


class Change(NamedTuple):
    name: str
    before: float
    after: float
    allowed: float

    @property
    def verdict(self) -> str:
        if abs(self.after - self.before) <= self.allowed:
            return "same"
        return "slower" if self.after > self.before else "faster"


def check_file(found: Any, path: object) -> None:
    """Refuses what is no file of a bench."""
    if not isinstance(found, dict) or found.get("kind") != KIND:
        raise ValueError(f"{path} is no file of manifoldlab bench")
    if found.get("version") != VERSION:
        raise ValueError(f"{path} is of version {found.get('version')}, this one is {VERSION}")


def check_alike(old: Row, new: Row, path: object) -> None:
    """Refuses files that were measured in another way."""
    for name in ("device", "threads", "fast"):
        if old[name] != new[name]:
            raise ValueError(f"{path} has {name} {old[name]}, and what is compared has {new[name]}")


def changes(old: Iterable[Row], new: Iterable[Row], path: object) -> list[Change]:
    """Of the cases in both that were right."""
    before = {row["name"]: row for row in old if "own" in row}
    found = []
    for row in new:
        earlier = before.get(row["name"])
        if earlier is None or "own" not in row:
            continue
        if earlier["dtype"] != row["dtype"]:
            raise ValueError(
                f"{path} has {row['name']} in {earlier['dtype']}, and what is compared in {row['dtype']}"
            )
        found.append(_change(earlier, row))
    return found


def _change(earlier: Row, row: Row) -> Change:
    a, b = earlier["own"], row["own"]
    noises = [SINGLE * r["ratio"] if r["noise"] is None else SURE * r["noise"] for r in (a, b)]
    return Change(row["name"], a["ratio"], b["ratio"], hypot(*noises) + LAYOUT * a["ratio"])
