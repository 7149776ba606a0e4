"""What there is, read from the sources without importing them: kinds, members and laws. No torch."""

import ast
import re
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import manifoldlab
from manifoldlab import catalog, records

BESIDE = {  # the catalog's kinds
    "laws": "One theorem a file of theory_checks, with the controls that must fail.",
    "figures": "One figure a file of paper_figs, drawn from records.",
    "results": "The records of each experiment, how many of them stale, damaged or failed.",
}

SENTENCE = re.compile(r"(?<=\.)(?<!\bal\.)(?<!\beq\.)\s|\n\n")  # where one ends


def kinds() -> dict[str, str]:
    """Every kind, with the first sentence of its docstring."""
    folder = Path(manifoldlab.__path__[0])
    found = {kind: _sentence(folder / kind / "__init__.py") for kind in catalog.kinds()}
    return found | BESIDE


def members(kind: str, root: Path = Path("results")) -> dict[str, str]:
    """The members of a kind; of results, those in the folder `root`."""
    if kind not in kinds():
        raise ValueError(catalog.unknown("kind", kind, list(kinds())))
    if kind in BESIDE:
        listed: dict[str, Callable[[], dict[str, str]]]
        listed = {"laws": laws, "figures": figures, "results": partial(results, root)}
        return listed[kind]()
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


def figures() -> dict[str, str]:
    """Name and first sentence of every figure."""
    folder = Path(manifoldlab.__path__[0]).parent / "paper_figs"
    found = sorted(folder.glob("fig_*.py"))
    if not found:
        raise ValueError(f"there is no {folder}/fig_*.py: figures are drawn in a checkout")
    return {file.stem.removeprefix("fig_"): _sentence(file) for file in found}


def figure(name: str) -> Path:
    """The script of a figure."""
    return Path(manifoldlab.__path__[0]).parent / "paper_figs" / f"fig_{name}.py"


def results(root: Path) -> dict[str, str]:
    """Of each experiment with records or failures: how many."""
    if not root.is_dir():
        raise ValueError(f"there is no folder {root}: manifoldlab run and sweep make it")
    counted = {folder.name: _counts(root, folder.name) for folder in sorted(root.iterdir())}
    return {name: line for name, line in counted.items() if line}


def _counts(root: Path, experiment: str) -> str:
    damaged = list[str]()
    runs = records.load(experiment, root, complain=damaged.append)
    failed = len(list((root / experiment).glob("*.error")))
    counts = {
        "stale": sum(run.stale for run in runs),
        "damaged": len(damaged),
        "failed": failed,
        "against the prediction": sum(not run.agrees for run in runs),
    }
    whole = [f"{len(runs)} runs"] if runs or damaged or failed else []
    notable = [f"{count} {what}" for what, count in counts.items() if count]
    return "\n".join([", ".join(whole + notable), *damaged])


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
