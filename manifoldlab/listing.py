"""What there is, read from the sources without importing them: kinds, members and laws. No torch."""

import ast
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import manifoldlab
from manifoldlab import catalog

SENTENCE = re.compile(r"(?<=\.)(?<!\bal\.)(?<!\beq\.)\s|\n\n")  # where one ends


def kinds() -> dict[str, str]:
    """Every kind, with the first sentence of its docstring."""
    folder = Path(manifoldlab.__path__[0])
    found = {kind: _sentence(folder / kind / "__init__.py") for kind in catalog.kinds()}
    return found | {
        "laws": "One theorem a file of theory_checks, with the controls that must fail."
    }


def members(kind: str) -> dict[str, str]:
    """The members of a kind, or the laws."""
    if kind not in kinds():
        raise ValueError(catalog.unknown("kind", kind, list(kinds())))
    if kind == "laws":
        return laws()
    return {name: _described(catalog.source(kind, name), name) for name in catalog.names(kind)}


def laws() -> dict[str, str]:
    """Identifier and title of every law."""
    spec = find_spec("theory_checks")
    folders = spec.submodule_search_locations if spec else None
    if not folders:
        raise ValueError("the package theory_checks is not installed, and not in the folder either")
    files = (file for folder in folders for file in Path(folder).glob("check_*.py"))
    found = (_law(ast.parse(file.read_text(encoding="utf-8"))) for file in files)
    return dict(sorted((str(law["id"]), str(law["title"])) for law in found if law))


def _law(tree: ast.Module) -> dict[str, Any] | None:
    """The constants among the options of LAW = Theorem(...)."""
    for node in tree.body:
        names = [n.id for n in getattr(node, "targets", ()) if isinstance(n, ast.Name)]
        value = getattr(node, "value", None)
        if names == ["LAW"] and isinstance(value, ast.Call):
            given = value.keywords
            return {
                k.arg: k.value.value for k in given if k.arg and isinstance(k.value, ast.Constant)
            }
    return None


def _described(file: Path, name: str) -> str:
    """The first sentence, and the options of a function as it is called: [width=128, depth=2]"""
    options = _options(ast.parse(file.read_text(encoding="utf-8")), name)
    return _sentence(file) + (f" [{', '.join(options)}]" if options else "")


def _options(tree: ast.Module, name: str) -> list[str]:
    """The keyword-only arguments of a function, with their defaults."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            pairs = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
            return [f"{a.arg}={ast.unparse(d)}" if d else a.arg for a, d in pairs]
    return []


def _sentence(file: Path) -> str:
    """The first one of a module's docstring."""
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return " ".join(SENTENCE.split(text, maxsplit=1)[0].split())
