"""Reads a pickle of arrays, lists, dictionaries, strings and numbers, and executes nothing of it.

A pickle is a program that may call anything by its name. Here a name stands for nothing but one of
the inert makers below, which only note what an array is said to be; every other name is refused.
Strings of Python 2 are bytes: they are given as such, but for the keys of dictionaries.
"""

import io
import pickle
from typing import Any, final

import numpy as np

KINDS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")  # of numbers
ORDERS = ("|", "<", ">", "=")
PLAIN = (str, bytes, int, float, bool, type(None))
FAILURES = (  # what pickle raises where a file is damaged, or bears something on what is inert
    *(pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, LookupError),
    *(OverflowError, MemoryError, RecursionError),
)


class _Refused(Exception):
    """What a pickle asked for and does not get."""


@final
class _Kind:
    """numpy.dtype: one of plain numbers."""

    __slots__ = ("name",)

    def __init__(self, name: Any):
        self.name = name.decode("ascii") if isinstance(name, bytes) else name
        if self.name not in KINDS:
            raise _Refused(f"an array of {self.name!r}, not of numbers")

    def __setstate__(self, state: Any) -> None:
        order = state[1].decode("ascii") if isinstance(state[1], bytes) else state[1]
        if order not in ORDERS or any(part is not None for part in state[2:5]):
            raise _Refused(f"an array of a kind described by {state!r}")
        self.name = f"{order}{self.name[-2:]}"


@final
class _Array:
    """numpy.ndarray: what its state will say."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = np.empty(0, np.uint8)

    def __setstate__(self, state: Any) -> None:
        *_, shape, kind, fortran, content = state
        content = content.encode("latin1") if isinstance(content, str) else content
        if not isinstance(kind, _Kind) or not isinstance(content, bytes):
            raise _Refused("an array whose content is no bytes of numbers")
        flat = np.frombuffer(content, np.dtype(kind.name))
        self.value = flat.reshape(shape, order="F" if fortran else "C")


@final
class _Name:
    """A name that a pickle may ask for: called, it makes something inert; it has no attributes to set."""

    __slots__ = ("_make",)
    _make: Any

    def __init__(self, make: Any):
        object.__setattr__(self, "_make", make)

    def __setattr__(self, name: str, value: Any) -> None:
        raise _Refused(f"to set {name} of a function")

    def __call__(self, *given: Any) -> Any:
        return self._make(*given)


def _bytes(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes in the protocol of Python 2."""
    if encoding != "latin1":
        raise _Refused(f"bytes encoded as {encoding!r}")
    return text.encode(encoding)


_KIND = _Name(lambda name, *copied: _Kind(name))
_CLASS = _Name(lambda *given: _Array())
_NAMES = {
    ("numpy", "dtype"): _KIND,
    ("numpy", "ndarray"): _CLASS,
    ("_codecs", "encode"): _Name(_bytes),
}
_NAMES |= {(f"numpy.{core}.multiarray", "_reconstruct"): _CLASS for core in ("core", "_core")}


@final
class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NAMES:
            raise _Refused(f"{module}.{name}")
        return _NAMES[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused("an object from outside")


def read(content: bytes) -> Any:
    """What a pickle holds; a ValueError of one line where that is anything else, or damaged."""
    try:
        return _plain(_Reader(io.BytesIO(content), encoding="bytes").load(), {})
    except _Refused as error:
        raise ValueError(f"it asks for {error}: nothing of it was executed") from None
    except FAILURES as error:
        line = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"it is damaged, or no pickle: {line}") from None


def _plain(value: Any, done: dict[int, Any]) -> Any:
    """With arrays instead of what noted them; each part once, however often it is referred to."""
    if type(value) in PLAIN:
        return value
    if id(value) not in done:
        done[id(value)] = _part(value, done)
    return done[id(value)]


def _part(value: Any, done: dict[int, Any]) -> Any:
    match value:
        case _Array():
            return value.value
        case dict():
            return {_key(key): _plain(item, done) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item, done) for item in value]
        case _:
            raise _Refused(f"an object of type {type(value).__name__.lstrip('_')}")


def _key(key: Any) -> Any:
    if type(key) not in PLAIN:
        raise _Refused(f"a key of type {type(key).__name__.lstrip('_')}")
    return key.decode("ascii") if isinstance(key, bytes) else key
