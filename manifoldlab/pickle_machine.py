"""A machine for pickles that makes plain values and executes nothing.

A pickle is a program for a machine with a stack. Python's own calls whatever it is told to; this one
knows the instructions of protocols 0 to 4 by which plain values are made, and for a function that is
called it has what stands for it in `calls`. Whatever else is asked for is refused.
"""

import abc
import pickle
import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, final

PLAIN = (str, bytes, int, float, bool, type(None))
# By module and name; None stands for what may be mentioned, and not called.
Calls = Mapping[tuple[str, str], Callable[..., Any] | None]


class Refused(Exception):
    """What a pickle asked for and does not get: "for" a thing, or "to" do something."""


class Made(abc.ABC):
    """What a call makes, and what an instruction may then set the state of."""

    @abc.abstractmethod
    def build(self, state: Any) -> None: ...


class Name(NamedTuple):
    """One of those that a pickle may mention, on the stack."""

    module: str
    name: str


@final
class Machine:
    """What is left to read, a stack, the lengths that it had at the marks, and what was noted."""

    def __init__(self, content: bytes, calls: Calls) -> None:
        self.content, self.at, self.calls = content, 0, calls
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.notes: dict[int, Any] = {}

    def bytes(self, count: int) -> bytes:
        self.at += count
        if self.at > len(self.content):
            raise LookupError("it ends too early")
        return self.content[self.at - count : self.at]

    def number(self, size: int, *, signed: bool = False) -> int:
        return int.from_bytes(self.bytes(size), "little", signed=signed)

    def text(self, size: int) -> str:
        return self.bytes(self.number(size)).decode("utf-8", "surrogatepass")

    def line(self, encoding: str = "ascii") -> str:
        end = self.content.index(b"\n", self.at)
        return self.bytes(end + 1 - self.at)[:-1].decode(encoding)

    def note(self, key: int) -> None:
        self.notes[key] = self.stack[-1]

    def take(self, count: int) -> list[Any]:
        if count > len(self.stack):
            raise LookupError("its stack is empty")
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken

    def marked(self) -> list[Any]:
        return self.take(len(self.stack) - self.marks.pop())

    def name(self, module: Any, name: Any) -> None:
        if (module, name) not in self.calls:
            raise Refused(f"for {module}.{name}")
        self.stack.append(Name(module, name))

    def instance(self, module: str, name: str) -> None:
        raise Refused(f"for {module}.{name}")

    def called(self) -> Any:
        function, given = self.take(2)
        made_by = self.calls[function] if type(function) is Name else None
        if made_by is None:
            raise Refused(f"to call {title(function)}")
        return made_by(*given)

    def build(self) -> None:
        [state] = self.take(1)
        if not isinstance(self.stack[-1], Made):
            raise Refused(f"to set the state of {title(self.stack[-1])}")
        self.stack[-1].build(state)

    def append(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise Refused(f"to append to {title(self.stack[-1])}")
        self.stack[-1].extend(items)

    def set(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not dict:
            raise Refused(f"to set a key of {title(self.stack[-1])}")
        self.stack[-1].update(self.dictionary(items))

    def dictionary(self, items: list[Any]) -> dict[Any, Any]:
        for key in items[::2]:
            if type(key) not in PLAIN:
                raise Refused(f"for a key that is {title(key)}")
        return dict(zip(map(text, items[::2]), items[1::2], strict=True))


def title(value: Any) -> str:
    return ".".join(value) if type(value) is Name else f"a {type(value).__name__}"


def text(given: Any) -> Any:
    """Strings of Python 2 are bytes."""
    return given.decode("ascii") if isinstance(given, bytes) else given


def _string(line: str) -> bytes:
    if len(line) < 2 or line[0] not in "'\"" or line[0] != line[-1] or "\\" in line:
        raise ValueError(f"string {line}")
    return line[1:-1].encode("ascii")


# What puts a value on the stack, and what changes the stack.
VALUES: dict[bytes, Callable[[Machine], Any]] = {
    pickle.NONE: lambda m: None,
    pickle.NEWTRUE: lambda m: True,
    pickle.NEWFALSE: lambda m: False,
    pickle.BININT: lambda m: m.number(4, signed=True),
    pickle.BININT1: lambda m: m.number(1),
    pickle.BININT2: lambda m: m.number(2),
    pickle.LONG1: lambda m: m.number(m.number(1), signed=True),
    pickle.INT: lambda m: {"00": False, "01": True}.get(line := m.line(), int(line)),
    pickle.LONG: lambda m: int(m.line().removesuffix("L")),
    pickle.FLOAT: lambda m: float(m.line()),
    pickle.STRING: lambda m: _string(m.line()),
    pickle.UNICODE: lambda m: m.line("raw-unicode-escape"),
    pickle.BINFLOAT: lambda m: struct.unpack(">d", m.bytes(8))[0],
    pickle.SHORT_BINSTRING: lambda m: m.bytes(m.number(1)),
    pickle.BINSTRING: lambda m: m.bytes(m.number(4)),
    pickle.SHORT_BINBYTES: lambda m: m.bytes(m.number(1)),
    pickle.BINBYTES: lambda m: m.bytes(m.number(4)),
    pickle.BINBYTES8: lambda m: m.bytes(m.number(8)),
    pickle.SHORT_BINUNICODE: lambda m: m.text(1),
    pickle.BINUNICODE: lambda m: m.text(4),
    pickle.EMPTY_TUPLE: lambda m: (),
    pickle.EMPTY_LIST: lambda m: [],
    pickle.EMPTY_DICT: lambda m: {},
    pickle.LIST: lambda m: m.marked(),
    pickle.TUPLE1: lambda m: tuple(m.take(1)),
    pickle.TUPLE2: lambda m: tuple(m.take(2)),
    pickle.TUPLE3: lambda m: tuple(m.take(3)),
    pickle.TUPLE: lambda m: tuple(m.marked()),
    pickle.DICT: lambda m: m.dictionary(m.marked()),
    pickle.GET: lambda m: m.notes[int(m.line())],
    pickle.BINGET: lambda m: m.notes[m.number(1)],
    pickle.LONG_BINGET: lambda m: m.notes[m.number(4)],
    pickle.REDUCE: lambda m: m.called(),
}
CHANGES: dict[bytes, Callable[[Machine], object]] = {
    pickle.PROTO: lambda m: m.number(1),
    pickle.FRAME: lambda m: m.number(8),
    pickle.MARK: lambda m: m.marks.append(len(m.stack)),
    pickle.APPEND: lambda m: m.append(m.take(1)),
    pickle.APPENDS: lambda m: m.append(m.marked()),
    pickle.SETITEM: lambda m: m.set(m.take(2)),
    pickle.SETITEMS: lambda m: m.set(m.marked()),
    pickle.PUT: lambda m: m.note(int(m.line())),
    pickle.BINPUT: lambda m: m.note(m.number(1)),
    pickle.LONG_BINPUT: lambda m: m.note(m.number(4)),
    pickle.MEMOIZE: lambda m: m.note(len(m.notes)),
    pickle.INST: lambda m: m.instance(m.line(), m.line()),
    pickle.GLOBAL: lambda m: m.name(m.line(), m.line()),
    pickle.STACK_GLOBAL: lambda m: m.name(*m.take(2)),
    pickle.BUILD: lambda m: m.build(),
}


def run(content: bytes, calls: Calls) -> Any:
    """The value that a pickle leaves on the stack."""
    machine = Machine(content, calls)
    while (code := machine.bytes(1)) != pickle.STOP:
        if code in VALUES:
            machine.stack.append(VALUES[code](machine))
        elif code in CHANGES:
            CHANGES[code](machine)
        else:
            raise ValueError(f"instruction {code!r} at byte {machine.at - 1}")
    [value] = machine.stack
    return value
