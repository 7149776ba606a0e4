"""Planted faults are caught, missed or refused as they should be, and a sample of the catalogue is caught."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from manifoldlab import planting, selfcheck, verification
from manifoldlab.faults.base import Fault
from manifoldlab.selfcheck import Planted

SAMPLE = (  # spread over kinds of faults and modules, quick ones
    "A projector is its complement",
    "The margin leaves the other classes out",
    "An interval has the quantile of z for that of t",
    "The weight of WEAT leaves a small term out, as torch's softplus does",
    "The normalizer of a Gaussian lacks the power of 2 pi",
    "Gaussian logits are computed in float32",
    "The pull of a blurred sphere has the noise for its square",
    "The normalizer of normal noise is off by one dimension",
    "Steps off the manifold are steps along it",
    "An attack leaves a BatchNorm in training mode",
    "A gradient penalty is of the norm, not of its square",
    "Gradients of several steps accumulate",
    "A checkpoint does not restore the optimizer",
    "The smallest eigenvalues come first",
    "A law with a control that is not rejected is shown with one that is",
)

TOY = '''
"""Of a function that doubles."""

import torch

from manifoldlab import toy
from manifoldlab.faults.base import Fault

CHECK = "tests/test_toy.py::test_"


def doubled():
    return torch.tensor([toy.double(1.0)])


FAULTS = (
    Fault("caught", "toy", "2 * x", "3 * x", doubled, (CHECK + "three",)),
    Fault("missed", "toy", "2 * x", "2.1 * x", doubled, (CHECK + "three", CHECK + "sign")),
    Fault("twice", "toy", "def ", "class ", doubled, (CHECK + "three",)),
    Fault("absent", "toy", "4 * x", "5 * x", doubled, (CHECK + "three",)),
    Fault("no Python", "toy", "2 * x", "2 * ", doubled, (CHECK + "three",)),
    Fault("without effect", "toy", "2 * x", "x * 2", doubled, (CHECK + "three",)),
    Fault("breaks", "toy", "2 * x", "z * x", doubled, (CHECK + "three",)),
    Fault("refused", "toy", "2 * x", "refuse(x)", doubled, (CHECK + "three",)),
    Fault("without a check", "toy", "2 * x", "3 * x", doubled, ()),
    Fault("of a check that fails", "toy", "2 * x", "3 * x", doubled, (CHECK + "nothing",)),
    Fault("of no test", "toy", "2 * x", "3 * x", doubled, (CHECK + "absent",)),
)
'''
CODE = """
def refuse(x: float) -> float:
    raise ValueError("refused")


def double(x: float) -> float:
    return 2 * x
"""
TESTS = """
from manifoldlab.toy import double


def test_three() -> None:
    assert abs(double(3.0) - 6) < 0.5


def test_sign() -> None:
    assert double(-1.0) < 0


def test_nothing() -> None:
    assert double(0.0) == 1
"""
VERDICTS = {
    "caught": "",
    "missed": "",
    "twice": "2 times, not once",
    "absent": "0 times, not once",
    "no Python": "is no Python",
    "without effect": "it changes no number",
    "breaks": "breaks: NameError",
    "refused": "",
    "without a check": "it names no check",
    "of a check that fails": "without the fault",
    "of no test": "no test has run",
}


@pytest.fixture(scope="module")
def sound() -> Iterator[Path]:
    """A checkout with a module, its test and a file of faults more."""
    with planting.checkout() as folder:
        (folder / "manifoldlab" / "toy.py").write_text(CODE)
        (folder / "manifoldlab" / "faults" / "toy.py").write_text(TOY)
        (folder / "tests" / "test_toy.py").write_text(TESTS)
        yield folder


@pytest.fixture(scope="module")
def toys(sound: Path) -> list[Planted]:
    """As this process knows them, which has no such module."""
    space: dict[str, object] = {
        "Fault": Fault,
        "CHECK": "tests/test_toy.py::test_",
        "doubled": None,
    }
    exec(TOY[TOY.index("FAULTS") :], space)
    faults = space["FAULTS"]
    assert isinstance(faults, tuple)
    return [Planted("toy", fault) for fault in faults]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept")


def test_what_becomes_of_a_fault(sound: Path, toys: list[Planted], kept: Path) -> None:
    rows = {row["name"]: row for row in selfcheck.check(toys, sound, kept, jobs=1)}
    assert rows.keys() == VERDICTS.keys()
    for name, why in VERDICTS.items():
        row = rows[name]
        expected = "missed" if name == "missed" else "error" if why else "caught"
        assert row["verdict"] == expected and why in (row["error"] or ""), row
    assert rows["caught"]["number"] == 7 and rows["caught"]["change"] == 0.5
    assert rows["caught"]["caught"].keys() == {"tests/test_toy.py::test_three"}
    assert rows["missed"]["missed"] == [f"tests/test_toy.py::test_{t}" for t in ("three", "sign")]
    assert "ValueError: refused" in rows["refused"]["caught"]["tests/test_toy.py::test_three"]
    assert rows["refused"]["change"] is None


def test_what_was_found_is_not_looked_for_again(
    sound: Path, toys: list[Planted], kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But by the same sources only."""
    test_what_becomes_of_a_fault(sound, toys, kept)  # by this test alone

    def refused(asked: object, folder: Path) -> dict[str, object]:
        raise AssertionError(f"{asked} again")

    monkeypatch.setattr(selfcheck, "_process", refused)
    test_what_becomes_of_a_fault(sound, toys, kept)
    changed = sound / "tests" / "test_toy.py"
    try:
        changed.write_text(TESTS + "\n")
        with pytest.raises(AssertionError, match="again"):
            list(selfcheck.check(toys, sound, kept, jobs=1))
    finally:
        changed.write_text(TESTS)


@pytest.mark.parametrize(
    ("only", "status", "counts"),
    [
        ("caught", 0, "1 caught, 0 missed, 0 error"),
        ("missed", 1, "0 caught, 1 missed, 0 error"),
        ("absent", 1, "0 caught, 0 missed, 1 error"),
        ("toy", 1, "2 caught, 1 missed, 8 error"),
    ],
)
def test_the_command(
    only: str,
    status: int,
    counts: str,
    sound: Path,
    toys: list[Planted],
    kept: Path,
    run,
    monkeypatch,
) -> None:
    test_what_becomes_of_a_fault(sound, toys, kept)

    @contextmanager
    def checkout() -> Iterator[Path]:
        yield sound

    monkeypatch.setattr(planting, "checkout", checkout)
    monkeypatch.setattr(selfcheck, "catalogue", lambda: toys)
    words = ["selfcheck", "--out", str(kept), "--only", only, "--jobs", "1"]
    found = run(*words)
    assert found[0] == status and counts in found[1], found
    rows = json.loads((kept / "selfcheck.json").read_text())["faults"]
    assert len(rows) == sum(int(word) for word in counts.split() if word.isdigit())
    told = sorted(f"{row['verdict']:6} {row['name']}" for row in rows)
    assert sorted(found[2].splitlines()) == told
    quiet = run(*words, "--quiet")
    assert quiet[0] == status and quiet[2] == "" and (quiet[1] == "") == (status == 0)


def test_wrong_words_have_one_line(run, refused, tmp_path: Path) -> None:
    out = ("--out", str(tmp_path / "out"))
    assert "is called 'nonsense'" in refused(run("selfcheck", "--only", "nonsense", *out))
    assert "--jobs counts processes" in refused(run("selfcheck", "--jobs", "-1", *out))
    assert not (tmp_path / "out").exists()


def test_faults_are_planted_in_a_checkout_only(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no manifoldlab"), planting.checkout(tmp_path):
        pass


def test_every_fault_can_be_planted_and_names_checks_that_there_are() -> None:
    faults = [one.fault for one in selfcheck.catalogue()]
    assert len(faults) >= 200
    laws, families = verification.laws(), dict[str, set[str]]()
    for fault in faults:
        fault.planted((planting.HOME / fault.place).read_text())
        for check in fault.checks:
            file, _, test = check.partition("::")
            if file.startswith("tests/"):
                assert f"def {test or 'test_'}" in (planting.HOME / file).read_text(), check
            else:
                name, family, *control = check.split("/")
                law = laws[name]
                known = families.setdefault(name, set(law.cases()))
                cases = law.controls[int(control[0])].cases if control else None
                assert family in (known if cases is None else set(cases())), check


def test_every_law_and_most_of_the_package_have_faults() -> None:
    faults = [one.fault for one in selfcheck.catalogue()]
    named = {check.split("/")[0] for fault in faults for check in fault.checks} - {"tests"}
    assert named == set(verification.laws())
    packages = {fault.module.split(".")[0] for fault in faults if "." in fault.module}
    assert packages >= {"attacks", "data", "densities", "manifolds", "models", "objectives"}
    assert packages >= {"probes", "problems", "scores", "studies", "tangents"}
    assert {"verification", "theorem", "records", "training", "resuming"} <= {
        fault.module for fault in faults
    }


def test_a_sample_of_the_catalogue_is_caught(tmp_path: Path) -> None:
    chosen = [one for one in selfcheck.catalogue() if one.fault.name in SAMPLE]
    assert len(chosen) == len(SAMPLE) == 15
    with planting.checkout() as sound:
        rows = list(selfcheck.check(chosen, sound, tmp_path, jobs=1))
    assert [row for row in rows if row["verdict"] != "caught"] == []
