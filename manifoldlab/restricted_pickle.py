"""Reads a pickle of arrays, lists, dictionaries, strings and numbers, and executes nothing of it.

numpy describes an array by three names: a function that makes an empty one, its class, and its kind
of numbers. Here they stand for notes of what is said, and every other name is refused. Strings of
Python 2 are bytes: they are given as such, but for the keys of dictionaries.
"""

from typing import Any, final

import numpy as np

from manifoldlab import pickle_machine
from manifoldlab.pickle_machine import PLAIN, Calls, Made, Name, Refused, text, title

KINDS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")  # of numbers
ORDERS = ("|", "<", ">", "=")  # of bytes
FAILURES = (ValueError, TypeError, LookupError, OverflowError, RecursionError)  # of damaged files


@final
class Kind(Made):
    """What numpy.dtype(name) would be."""

    def __init__(self, name: Any, *copied: Any):
        self.name = text(name)
        if self.name not in KINDS:
            raise Refused(f"for an array of {self.name!r}, not of numbers")

    def build(self, state: Any) -> None:
        _, order, *parts = state
        if text(order) not in ORDERS or any(part is not None for part in parts[:3]):
            raise Refused(f"for an array of a kind described by {state!r}")
        self.name = f"{text(order)}{self.name[-2:]}"


@final
class Array(Made):
    """An array, empty until its state is known."""

    def __init__(self, *given: Any):
        self.value = np.empty(0, np.uint8)

    def build(self, state: Any) -> None:
        _, shape, kind, fortran, content = state
        if type(kind) is not Kind or type(content) is not bytes:
            raise Refused("for an array whose content is no bytes of numbers")
        flat = np.frombuffer(content, np.dtype(kind.name))
        self.value = flat.reshape(shape, order="F" if fortran else "C")


def _bytes(letters: str, encoding: str) -> bytes:
    """How Python 3 writes bytes in protocols 0 to 2."""
    if type(letters) is not str or encoding != "latin1":
        raise Refused(f"for bytes encoded as {encoding!r}")
    return letters.encode("latin1")


CALLS: Calls = {
    ("numpy", "ndarray"): None,
    ("numpy", "dtype"): Kind,
    ("numpy.core.multiarray", "_reconstruct"): Array,
    ("numpy._core.multiarray", "_reconstruct"): Array,  # numpy 2
    ("_codecs", "encode"): _bytes,
}


def read(content: bytes) -> Any:
    """What a pickle holds; a ValueError of one line where that is anything else, or damaged."""
    try:
        return _plain(pickle_machine.run(content, CALLS), {})
    except Refused as error:
        line = " ".join(str(error).split())
        raise ValueError(f"it asks {line}: nothing of it was executed") from None
    except FAILURES as error:
        line = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"it is damaged, or no pickle of plain values: {line}") from None


def _plain(value: Any, done: dict[int, Any]) -> Any:
    """With arrays instead of what noted them; each part once, however often it is referred to."""
    if type(value) in PLAIN:
        return value
    if id(value) not in done:
        done[id(value)] = _part(value, done)
    return done[id(value)]


def _part(value: Any, done: dict[int, Any]) -> Any:
    match value:
        case Array():
            return value.value
        case dict():
            return {key: _plain(item, done) for key, item in value.items()}
        case list() | tuple() if type(value) is not Name:
            return [_plain(item, done) for item in value]
        case _:
            raise Refused(f"for {title(value)}")
