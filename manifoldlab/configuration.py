"""The configuration of an experiment from words: every field is read by its type.

In a sweep each field has one word of values (see ranges); of a field of several numbers, a tuple,
the values stand between semicolons: `--widths '64,64;128,128'`.
"""

import io
import math
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import fields, is_dataclass, make_dataclass, replace
from itertools import product
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro

from manifoldlab import catalog, ranges

Words = Mapping[str, Sequence[str]]  # of each field; the names of nested ones have dots
WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "a word",
    type(None): "None",
    Ellipsis: "...",
}
PLAIN = (tyro.conf.Positional, tyro.conf.FlagConversionOff)


def types_of(config: Any) -> dict[str, Any]:
    """Of every field, nested ones by names with dots."""
    hints, found = get_type_hints(type(config), include_extras=True), dict[str, Any]()
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            inner = types_of(value)
            found |= {f"{field.name}.{name}": hint for name, hint in inner.items()}
        else:
            found[field.name] = hints[field.name]
    return found


def configured(default: Any, words: Words, *, options: Sequence[str] = ()) -> Any:
    """The default with the fields that are named changed."""
    values = {name: _value(name, given, default, options) for name, given in words.items()}
    return _changed(default, values)


def grid(default: Any, words: Words, *, options: Sequence[str] = ()) -> Iterator[Any]:
    """The product of the values of all the fields that are named, the last one fastest."""
    hints = {name: _hint(name, default, options) for name in words}
    for name, given in words.items():
        if len(given) != 1:
            raise ValueError(f"--{name} of a sweep has one word of values, not {' '.join(given)!r}")
    values = {name: _split(given[0], hints[name]) for name, given in words.items()}
    count = math.prod(map(len, values.values()))
    if count > ranges.MOST:
        raise ValueError(f"a sweep has up to {ranges.MOST} runs, this one {count}")
    axes = [[_read(name, one, hints[name]) for one in many] for name, many in values.items()]
    return (_changed(default, dict(zip(words, one, strict=True))) for one in product(*axes))


def _split(word: str, hint: Any) -> list[Sequence[str]]:
    if get_origin(_bare(hint)) is tuple:
        return [part.replace(",", " ").split() for part in word.split(";")]
    return [[value] for value in ranges.values(word)]


def _value(name: str, given: Sequence[str], default: Any, options: Sequence[str]) -> Any:
    hint = _hint(name, default, options)
    return _read(name, given or (["True"] if _bare(hint) is bool else []), hint)


def _hint(name: str, default: Any, options: Sequence[str]) -> Any:
    known = types_of(default)
    if name not in known:
        dashed = [f"--{other}" for other in (*known, *options)]
        raise ValueError(catalog.unknown("field or option", f"--{name}", dashed))
    return known[name]


def _read(name: str, given: Sequence[str], hint: Any) -> Any:
    """By tyro, whose own report is a page long."""
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            return tyro.cli(hint, args=["--", *given], config=PLAIN)
    except SystemExit:
        line = f"--{name} is {_described(hint)}, not {' '.join(given)!r}"
    raise ValueError(line)


def _bare(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _described(hint: Any) -> str:
    hint = _bare(hint)
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_described(one) for one in get_args(hint))
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, get_args(hint)))
    if get_origin(hint) is tuple:
        return "a row of " + ", ".join(map(_described, get_args(hint)))
    return WORDS.get(hint, str(hint))


def _changed(config: Any, values: Mapping[str, Any]) -> Any:
    """A copy; `inner.width` is a field of the field `inner`."""
    own = {name: value for name, value in values.items() if "." not in name}
    inner: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        outer, dot, rest = name.partition(".")
        if dot:
            inner.setdefault(outer, {})[rest] = value
    nested = {name: _changed(getattr(config, name), given) for name, given in inner.items()}
    return replace(config, **own, **nested)


def written(config: Any, default: Any) -> list[str]:
    """The words that make this configuration out of the default."""
    found = []
    for name in types_of(config):
        value, usual = _at(config, name), _at(default, name)
        if value != usual:
            words = map(str, value) if isinstance(value, tuple | list) else [str(value)]
            found += [f"--{name}", *words]
    return found


def labels(configs: Sequence[Any], names: Iterable[str]) -> list[str]:
    """What tells each from the others: those of the fields in which they differ."""
    columns = {name: [str(_at(config, name)) for config in configs] for name in names}
    varied = {name: column for name, column in columns.items() if len(set(column)) > 1} or columns
    pairs = [[f"{name}={value}" for value in column] for name, column in varied.items()]
    return [" ".join(row) for row in zip(*pairs, strict=True)]


def _at(config: Any, name: str) -> Any:
    for part in name.split("."):
        config = getattr(config, part)
    return config


def show(command: Any, default: Any, claim: str) -> None:
    """Help: the options of a command and the fields of an experiment."""
    unnamed = tyro.conf.arg(name="")
    own = ("command", Annotated[type(command), unnamed], command)
    both = make_dataclass("both", [own, ("config", Annotated[type(default), unnamed], default)])
    program = f"manifoldlab {type(command).__name__.lower()}"
    off = (tyro.conf.FlagCreatePairsOff,)
    tyro.cli(both, prog=program, description=claim, args=["--help"], config=off)
