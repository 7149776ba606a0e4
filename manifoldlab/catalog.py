"""The file system is the registry: probes/tangent_alignment.py defines tangent_alignment.

A kind is a package of manifoldlab. Another installed package adds members to it by entry points
of the group `manifoldlab.KIND`, each naming a module that defines its own name.
"""

import difflib
import importlib
import pkgutil
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import manifoldlab

NOT_KINDS = ("benchmarking", "faults", "report", "studies")
NOT_MEMBERS = ("base", "__main__")


def kinds() -> list[str]:
    """The packages that hold one member a file."""
    found = pkgutil.iter_modules(manifoldlab.__path__)
    return sorted(m.name for m in found if m.ispkg and m.name not in NOT_KINDS)


@cache
def _modules(kind: str) -> dict[str, str]:
    if kind not in kinds():
        raise ValueError(unknown("kind", kind, kinds()))
    folder = Path(manifoldlab.__path__[0]) / kind
    own = (m.name for m in pkgutil.iter_modules([str(folder)]))
    found = {name: f"manifoldlab.{kind}.{name}" for name in own if name not in NOT_MEMBERS}
    return found | {e.name: e.value for e in entry_points(group=f"manifoldlab.{kind}")}


def names(kind: str) -> list[str]:
    """Members of a kind, without importing them."""
    return sorted(_modules(kind))


def module(kind: str, name: str) -> ModuleType:
    if name not in names(kind):
        raise ValueError(unknown(kind, name, names(kind)))
    return importlib.import_module(_modules(kind)[name])


def source(kind: str, name: str) -> Path:
    """The file of a member, without importing it."""
    spec = find_spec(_modules(kind)[name])
    if spec is None or spec.origin is None:
        raise ValueError(f"{kind} {name} has no source: {_modules(kind)[name]}")
    return Path(spec.origin)


def find(kind: str, name: str) -> Any:
    """The function `name`, or the class of the same words, of the module `name`."""
    members = vars(module(kind, name))
    title = "".join(word.capitalize() for word in name.split("_"))
    for candidate in (name, title):
        if candidate in members:
            return members[candidate]
    raise ValueError(f"{members['__file__']} must define {name} or {title}")


def unknown(what: str, name: str, known: list[str]) -> str:
    """One line that says what there is instead."""
    folded = {other.casefold(): other for other in known}
    close = difflib.get_close_matches(name.casefold(), folded, 1)
    hint = f" (did you mean {folded[close[0]]}?)" if close else ""
    return f"no {what} called {name!r}{hint}; there are {', '.join(known) or 'none'}"
