"""The recipes of CONTRIBUTING.md, each written as one new file into a copy of the package.

What the project promises to a newcomer: the file is found, drawn, held to the contract of its kind
and verified, and no other file is touched.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```python\n# (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# What of the copy is run, and by which of these files each new file must have been met.
FILES = (
    "tests/test_new.py",
    "tests/test_catalog.py",
    "tests/test_layers.py",
    "tests/test_manifolds.py",
    "tests/test_densities.py",
    "tests/test_problems.py",
    "tests/test_probes.py",
    "tests/test_attacks.py",
    "tests/test_objectives.py",
    "tests/test_ensembles.py",
    "tests/test_models.py",
    "tests/test_architecture.py",
    "tests/test_calculus.py",
    "theory_checks/check_b2_isotropic_noise_leaks_along_normals.py",
    "theory_checks/check_c3_denoisers_project_on_the_tangent_space.py",
    "theory_checks/check_e1_cross_entropy_is_a_difference_of_energies.py",
    "theory_checks/check_x1_posterior_gradients_cancel.py",
)
MET = {
    "catenary": {"catalog", "layers", "manifolds", "densities", "calculus", "b2", "c3"},
    "cardioid": {"catalog", "layers"},
    "noisy_labels": {"catalog", "layers", "problems", "e1", "x1"},
    "gradient_norm": {"catalog", "layers", "probes"},
    "logit_penalty": {"catalog", "layers", "objectives", "ensembles"},
    "single_step": {"catalog", "layers", "attacks"},
    "random_features": {"catalog", "layers", "models", "architecture"},
    "mean_of_normals": {"layers"},
    "check_x1": {"layers", "x1"},
}
# Tests without the name of a member that go over all of them, or over the charts of the new density.
BESIDE = ("test_new", "ClosedCurve", "every_family_lives_somewhere", "labels_follow", "mass_is_one")

NEW = """
from dataclasses import replace

import pytest

from manifoldlab import catalog, strategies
from manifoldlab.densities.cardioid import Cardioid
from manifoldlab.manifolds.clifford_torus import CliffordTorus
from manifoldlab.theorem import Theorem
from manifoldlab.verification import laws, reject


def test_new_files_are_found_and_drawn() -> None:
    assert catalog.find("manifolds", "catenary").__name__ == "Catenary"
    assert "catenary" in strategies.manifolds()
    assert {type(law) for law in strategies.densities(CliffordTorus((1.0,)), 0)} >= {Cardioid}
    assert "noisy_labels" in strategies.problems()
    assert "gradient_norm" in catalog.names("probes")
    assert "catenary" in laws()["B2"].cases() and "catenary" in laws()["C3"].cases()
    assert "noisy_labels" in laws()["X1"].cases()


@pytest.mark.parametrize("law", [laws()["B2"], laws()["C3"]], ids=["B2", "C3"])
def test_controls_are_rejected_on_the_new_curve(law: Theorem) -> None:
    for control in law.controls:
        families = {"catenary": (control.cases or law.cases)()["catenary"]}
        reject(law, replace(control, cases=lambda: families))
"""


def recipes() -> dict[str, str]:
    return dict(BLOCK.findall((ROOT / "CONTRIBUTING.md").read_text()))


def test_there_is_a_recipe_for_each_kind() -> None:
    folders = [str(Path(name).parent) for name in recipes()]
    kinds = [
        "manifolds",
        "densities",
        "problems",
        "probes",
        "objectives",
        "attacks",
        "models",
        "experiments",
    ]
    members = [f"manifoldlab/{kind}" for kind in kinds]
    assert sorted(folders) == sorted([*members, "theory_checks", "paper_figs"])


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree with the new files, all of them new."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("manifoldlab", "theory_checks", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    for name in ("benchmarks", "paper_figs"):
        (folder / name).mkdir()
    (folder / "benchmarks" / "empty.py").touch()
    (folder / "tests" / "test_new.py").write_text(NEW)
    for name, code in recipes().items():
        assert not (folder / name).exists()
        (folder / name).write_text(code)
    return folder


def run(folder: Path, *arguments: str) -> str:
    """What `python -m` prints, in the copy."""
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", *arguments]
    found = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout[-6000:] + found.stderr
    return found.stdout


def test_new_files_are_found_drawn_and_held_to_their_contracts(copy: Path) -> None:
    report = copy / "report.xml"
    chosen = " or ".join([*MET, *BESIDE])
    options = ["-q", "-p", "no:cacheprovider", "--hypothesis-profile=quick", f"--junitxml={report}"]
    run(copy, "pytest", *FILES, "-k", chosen, *options)
    met: dict[str, set[str]] = {name: set() for name in MET}
    for case in ElementTree.parse(report).iter("testcase"):
        where, test = case.attrib["classname"], case.attrib["name"]
        for name in MET:
            if plain(name) in plain(where + test):
                met[name].add(where.split(".")[1].split("_")[1])  # of test_probes or check_b2_...
    for name, wanted in MET.items():
        assert wanted <= met[name], f"{name} was met by {met[name]} only"


def plain(name: str) -> str:
    """noisy_labels is NoisyLabels."""
    return name.replace("_", "").casefold()


def test_the_experiment_is_swept_and_its_figure_drawn(copy: Path, tmp_path: Path) -> None:
    command = next(line for line in recipes()["paper_figs/fig_mean_of_normals.py"].splitlines()
                   if line.strip().startswith("manifoldlab sweep"))  # fmt: skip
    results, out = str(tmp_path / "results"), str(tmp_path / "figures")
    swept = run(copy, *command.split(), "--fast", "--jobs", "1", "--out", results)
    assert "5 runs recorded, 0 found" in swept
    drawn = run(
        copy, "manifoldlab", "figures", "mean_of_normals", "--results", results, "--out", out
    )
    assert drawn.count("mean_of_normals.") == 2
    listed = run(copy, "manifoldlab", "list", "results", "--results", results)
    assert listed.split()[:3] == ["mean_of_normals", "5", "runs"]


def test_the_recipes_are_linted(copy: Path) -> None:
    run(copy, "ruff", "check", *recipes())
