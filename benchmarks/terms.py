"""Sizes at which growth is measured, and the terms of formulas for costs."""

from collections.abc import Callable

from manifoldlab.benchmarking.growth import Sizes

IMAGE, SMALL = 150_528, 3_072  # numbers of 3 x 224 x 224, and of 3 x 32 x 32
AMBIENT = tuple(3 * side * side for side in (32, 64, 112, 224))
BATCHES = (1, 2, 4, 8, 16, 32)
DIRECTIONS = (16, 32, 64, 128, 256)


def side(sizes: Sizes) -> int:
    """Of a square picture of D numbers."""
    return round(float(sizes["D"] / 3) ** 0.5)


def _one(sizes: Sizes) -> float:
    return 1.0


def product(*names: str) -> Callable[[Sizes], float]:
    def term(sizes: Sizes) -> float:
        found = 1.0
        for name in names:
            found *= sizes[name]
        return found

    return term


CACHE = 2**22  # numbers of float32, 16 MiB: more of them are read from memory, at another speed
BEYOND = f"n D k if over {CACHE}"


def beyond(sizes: Sizes) -> float:
    bases = product("n", "D", "k")(sizes)
    return bases if bases > CACHE else 0.0


STACK = (
    2**17
)  # n D, of which the 64 steps of a sample make 32 MiB: more is given back at once, and cleared anew
STACKED = f"n D if over {STACK}"


def stacked(sizes: Sizes) -> float:
    numbers = product("n", "D")(sizes)
    return numbers if numbers > STACK else 0.0


def terms(*words: str) -> dict[str, Callable[[Sizes], float]]:
    """'n D k' stands for the product of the three."""
    return {"1": _one} | {word: product(*word.split()) for word in words}
