"""Imports point down the layers, read from the sources; modules of one line do not know each other.

A member is a module or a package of manifoldlab; inside a package its files may import each other.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LAYERS = (  # the top first
    "app",
    "benching figures holdings probing running selfcheck summaries",
    "planting trials",
    "report experiments faults",
    "studies",
    "benchmarking verification arguments options listing configuration",
    "judging",
    "strategies sweep",
    "ensembles engines",
    "training",
    "theorem descent evaluation tangent_cache",
    "tangent_files spans",
    "problems",
    "probes objectives tangents scores generation attribution metrics data",
    "architecture denoising integrand",
    "manifolds densities attacks models",
    "energies gradients perception resuming",
    "factor_mixtures",
    "calculus comparison cover factor_components gaussian_components gaussian_regimes geometries "
    "intrinsic_dimension reach_bounds",
    "directions draws expectations frozen jacobian_range krylov linalg logistic_ridge mixtures "
    "nearest_point neighbours panels recomputed schedules special statistics synchronized",
    "checkpoints restricted_pickle",
    "interfaces records",
    "reachable",
    "catalog decoding environment files pickle_machine ranges",
)
RANK = {name: rank for rank, line in enumerate(reversed(LAYERS)) for name in line.split()}

# Packages from outside that few may import, for they are slow to load or no part of the method.
ONLY = {"hypothesis": {"strategies"}, "matplotlib": {"report"}}


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imports(source: str, package: str = "manifoldlab") -> set[str]:
    """Full names of what a source imports, relative ones resolved from `package`.

    A literal kind in catalog.find("probes", name) or catalog.module("probes", name) counts, too.
    """
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            upwards = package.split(".")[: len(package.split(".")) - node.level + 1]
            start = [*upwards, node.module] if node.level else [node.module]
            found |= {".".join([*filter(None, start), alias.name]) for alias in node.names}
        elif isinstance(node, ast.Call) and _is_of_catalog(node.func) and node.args:
            kind = node.args[0]
            if isinstance(kind, ast.Constant):
                found.add(f"manifoldlab.{kind.value}")
    return found


def _is_of_catalog(function: ast.expr) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in ("find", "module")


def members(imported: set[str]) -> set[str]:
    """Those of manifoldlab."""
    split = [name.split(".") for name in imported]
    return {parts[1] for parts in split if parts[0] == "manifoldlab" and len(parts) > 1}


def member(path: Path) -> str:
    return path.relative_to(ROOT / "manifoldlab").with_suffix("").parts[0]


def package(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).parts[:-1])


SOURCES = [path for path in sources("manifoldlab") if member(path) not in ("__init__", "__main__")]
each_source = pytest.mark.parametrize(
    "path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "manifoldlab"))
)


def test_there_are_sources() -> None:
    assert {"interfaces", "manifolds", "problems", "probes"} <= {member(path) for path in SOURCES}
    assert all(sources(folder) for folder in ("theory_checks", "benchmarks", "paper_figs"))


def test_every_module_has_a_layer() -> None:
    unknown = {member(path) for path in SOURCES} - RANK.keys()
    assert not unknown, f"put into a line of LAYERS: {sorted(unknown)}"


@each_source
def test_imports_point_down(path: Path) -> None:
    here = member(path)
    names = members(imports(path.read_text(), package(path))) - {"__version__", "__path__"}
    assert names <= RANK.keys() | {here}, f"no layer: {sorted(names - RANK.keys())}"
    wrong = {name for name in names if name != here and RANK[name] >= RANK[here]}
    assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}, which is not below it"


@each_source
def test_some_packages_are_for_few(path: Path) -> None:
    roots = {name.split(".")[0] for name in imports(path.read_text())}
    wrong = {name for name, few in ONLY.items() if name in roots and member(path) not in few}
    wrong |= roots & {"theory_checks", "tests"}  # which come after the package
    assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}"


@pytest.mark.parametrize("path", sources("theory_checks"), ids=lambda path: path.stem[:16])
def test_theory_checks_import_what_is_below_reports(path: Path) -> None:
    above = {name for name, rank in RANK.items() if rank >= RANK["report"]}
    assert not members(imports(path.read_text())) & above


@pytest.mark.parametrize("path", sources("paper_figs"), ids=lambda path: path.stem)
def test_figures_read_and_draw_and_do_not_compute(path: Path) -> None:
    found = imports(path.read_text())
    assert members(found) <= {"records", "report"}
    assert not {name.split(".")[0] for name in found} & {"torch", "scipy", "theory_checks"}


@pytest.mark.parametrize(
    ("source", "inside", "name"),
    [
        ("from manifoldlab.problems.base import Problem", "manifoldlab.probes", "problems"),
        ("from manifoldlab import problems as p", "manifoldlab", "problems"),
        ("import manifoldlab.problems.tube", "manifoldlab", "problems"),
        ("def late():\n    from ..problems import tube", "manifoldlab.probes", "problems"),
        ("from . import problems", "manifoldlab", "problems"),
        ("x = catalog.find('problems', name)", "manifoldlab", "problems"),
        ("x = module('problems', 'tube').Tube", "manifoldlab", "problems"),
    ],
)
def test_every_kind_of_import_is_seen(source: str, inside: str, name: str) -> None:
    assert name in members(imports(source, inside))
