"""The source files that a module can reach: those of the package that it imports, and so on. No torch.

Imports are read from the sources, also those inside functions. A literal kind in catalog.find("models",
name) or catalog.module(...) reaches all members of the kind, for which one it is decided later.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import manifoldlab

PACKAGE = "manifoldlab"
LOOKUPS = ("find", "module")


def reachable(start: Path) -> set[Path]:
    """Of the package, and `start` itself wherever it is."""
    seen, left = set[Path](), [start]
    while left:
        file = left.pop()
        if file not in seen:
            seen.add(file)
            names = _imported(file, file.stat().st_mtime_ns)
            left += (path for name in names for path in _files(name))
    return seen


@cache
def _imported(file: Path, changed: int) -> tuple[str, ...]:
    """`changed`, so that another content of a file is read again."""
    del changed
    tree = ast.parse(file.read_bytes())
    return tuple({name: None for node in ast.walk(tree) for name in _names(node)})


def _names(node: ast.AST) -> Iterator[str]:
    """Full names that a statement imports; KIND.*, or all of the package, for a look-up in the catalog."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
        owner, kind = node.func.value, node.args[0]
        if node.func.attr in LOOKUPS and isinstance(owner, ast.Name) and owner.id == "catalog":
            known = isinstance(kind, ast.Constant)
            yield f"{PACKAGE}.{ast.literal_eval(kind)}.*" if known else f"{PACKAGE}.**"


def _files(name: str) -> Iterator[Path]:
    """Of a.b.c the module a/b/c.py or, where c is defined in one, a/b.py; and the packages above."""
    first, *parts = name.split(".")
    if first != PACKAGE:
        return
    here = Path(manifoldlab.__path__[0])
    yield here / "__init__.py"
    for part in parts:
        if part in ("*", "**"):
            yield from here.glob("*.py") if part == "*" else here.rglob("*.py")
        elif (here / part / "__init__.py").is_file():
            here = here / part
            yield here / "__init__.py"
        else:
            module = here / f"{part}.py"
            if module.is_file():
                yield module
            return
