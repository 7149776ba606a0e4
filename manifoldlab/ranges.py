"""The values of a sweep, written in one word: `a,b,c`, `lin:a:b:n`, `log:a:b:n`, or whole `a:b`.

lin and log are n numbers from a to b, ends included, evenly spaced or in equal ratios; a:b are the
whole numbers from a up to b - 1, as in Python. All of these can stand between commas.
"""

import math
import re

MOST = 100_000  # runs of a sweep
DIGITS = 12  # so that log:0.01:1:3 has the 0.1 that one would write, and is the same run


def values(word: str) -> list[str]:
    """Each once, as it would be written by itself."""
    found = [value for part in word.split(",") for value in _of(part.strip(), word)]
    return list(dict.fromkeys(found))


def _of(part: str, word: str) -> list[str]:
    if re.match(r"(lin|log):", part):
        return [_written(x) for x in _spaced(part)]
    if re.fullmatch(r"[+-]?\d+:[+-]?\d+", part):
        start, stop = map(int, part.split(":"))
        _check_count(part, stop - start)
        return [str(k) for k in range(start, stop)]
    if not part:
        raise ValueError(f"an empty value in {word!r}")
    return [part]


def _spaced(part: str) -> list[float]:
    kind, *numbers = part.split(":")
    try:
        first, last, count = float(numbers[0]), float(numbers[1]), int(numbers[2])
    except (ValueError, IndexError):
        count = None
    if count is None or len(numbers) != 3:
        raise ValueError(f"a range is {kind}:FIRST:LAST:COUNT, not {part!r}")
    if not (math.isfinite(first) and math.isfinite(last)):
        raise ValueError(f"a range has finite ends, not {part!r}")
    if kind == "log" and min(first, last) <= 0:
        raise ValueError(f"a logarithmic range has positive ends, not {part!r}")
    _check_count(part, count)
    steps = [k / max(1, count - 1) for k in range(count)]
    if kind == "lin":
        return [(1 - t) * first + t * last for t in steps]
    return [math.exp((1 - t) * math.log(first) + t * math.log(last)) for t in steps]


def _check_count(part: str, count: int) -> None:
    if not 1 <= count <= MOST:
        raise ValueError(f"a range has 1 to {MOST} values, {part!r} has {max(0, count)}")


def _written(x: float) -> str:
    """A whole number as such, so that fields of whole numbers take it."""
    x = float(f"{x:.{DIGITS}g}")
    return str(int(x)) if x.is_integer() else repr(x)
