"""`manifoldlab verify`: exit status, one line an error, whole files or none."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import strategies as st

import manifoldlab
from manifoldlab import listing, verification
from manifoldlab.report import page, pictures
from manifoldlab.theorem import Control, Identity, Rate, Sides, Sweep, Theorem

Run = Callable[..., tuple[int, str, str]]
Refused = Callable[[tuple[int, str, str]], str]


# A law of two families that holds up to `number` 4 if `broken`, and one of a rate.


@dataclass(frozen=True)
class Number:
    number: int
    device: str = "cpu"

    def on(self, device: str) -> "Number":
        return replace(self, device=device)


def squares(case: Number) -> Sides:
    left = torch.full((3,), float(case.number + 1), dtype=torch.float64)
    return Sides(left.square(), left * left, left)


def off_by_one(case: Number) -> Sides:
    left, right, summand = squares(case)
    return Sides(left + 1, right, summand)


def broken(case: Number) -> Sides:
    return off_by_one(case) if case.number > 4 else squares(case)


def interrupted(case: Number) -> Sides:
    raise KeyboardInterrupt


def quadratic(case: Number, power: int = 2) -> Sweep:
    scales = torch.tensor([0.01, 0.02, 0.04, 0.08], dtype=torch.float64)
    return Sweep(scales, scales[:, None] ** power, scales[:, None] ** 2)


def cases() -> dict[str, Any]:
    numbers = st.builds(Number, st.integers(0, 100))
    return {"even": numbers, "odd": numbers}


def law(name: str, measure: Callable[[Number], Any] = squares, **changes: Any) -> Theorem:
    one = lambda case: torch.ones(3, dtype=torch.float64)
    control = Control("off by one", off_by_one, one)
    options = {"claim": Identity(), "controls": (control,)} | changes
    return Theorem(name, f"Law {name}", "$a = b$", cases=cases, measure=measure, **options)


RATE = law("R1", quadratic, claim=Rate(2), controls=(Control("cubic", lambda c: quadratic(c, 3)),))
HOLLOW = law("H1", controls=(Control("nothing dropped", squares),))


@pytest.fixture
def verify(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Verifies the given laws with the quick profile, and writes to tmp_path/out."""
    monkeypatch.setattr(pictures, "gallery", list)

    def called(*laws: Theorem, options: tuple[str, ...] = ()) -> tuple[int, str, str]:
        known = {law.id: law for law in laws}
        monkeypatch.setattr(verification, "laws", lambda: known)
        monkeypatch.setattr(
            listing, "laws", lambda: {name: law.title for name, law in known.items()}
        )
        where = ("--profile", "quick", "--out", str(tmp_path / "out"))
        return run(
            "verify", *where, "--jobs", "1", *options
        )  # patches do not reach other processes

    return called


def read(folder: Path) -> list[dict[str, Any]]:
    found = json.loads((folder / "out" / "laws.json").read_text())
    assert isinstance(found, list)
    return found


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["B9"], "no law called 'B9'"),
        (["b1T"], "did you mean B1t?"),
        (["--seed", "-1"], "not at -1"),
        (["--jobs", "-1"], "not -1"),
    ],
)
def test_wrong_use_of_verify_leaves_nothing(
    run: Run, refused: Refused, tmp_path: Path, arguments: list[str], words: str
) -> None:
    assert words in refused(run("verify", *arguments, "--out", str(tmp_path / "out")))
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_refused_first(
    verify: Run, refused: Refused, tmp_path: Path
) -> None:
    (tmp_path / "out").touch()
    line = refused(verify(law("X1", interrupted)))
    assert "cannot write results to" in line and str(tmp_path / "out") in line


@pytest.mark.skipif(torch.cuda.is_available(), reason="refused only where there is no such device")
def test_a_device_that_is_not_there_is_refused(
    verify: Run, refused: Refused, tmp_path: Path
) -> None:
    assert "no CUDA device" in refused(verify(law("X1"), options=("--device", "cuda")))
    assert not list((tmp_path / "out").iterdir())


def test_laws_that_hold_are_verified(verify: Run, tmp_path: Path) -> None:
    status, out, err = verify(law("X1"), RATE, options=("--seed", "7"))
    assert status == 0
    assert "\x1b" not in out + err and "\r" not in out + err
    assert [line.split(",")[0] for line in err.splitlines()] == ["X1   verified", "R1   verified"]
    assert out.count("verified") == 2 and out.count("1 of 1 rejected") == 2
    assert f"Report: {tmp_path / 'out' / 'report.html'}" in out
    assert "manifoldlab verify --profile full" in out
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["environment.json", "laws.json", "report.html"]


def test_only_the_laws_asked_for_are_verified(verify: Run, tmp_path: Path) -> None:
    _, out, _ = verify(law("X1"), law("X2"), law("X3"), options=("X3", "X2", "X3"))
    assert [row["id"] for row in read(tmp_path)] == ["X3", "X2"]
    assert "manifoldlab verify X3 X2 X3 --profile full" in out


def test_the_record_keeps_its_contract(verify: Run, tmp_path: Path) -> None:
    verify(law("X1"), RATE, options=("--seed", "7"))
    row, rate = read(tmp_path)
    expected = {
        "id": "X1",
        "title": "Law X1",
        "kind": "identity",
        "verdict": "verified",
        "worst": 0.0,
    }
    expected |= {"tolerance": 1e-9, "cases": 4, "families": {"even": 2, "odd": 2}}
    expected |= {"seed": 7, "profile": "quick"}
    assert {name: row[name] for name in expected} == expected
    assert row["seconds"] > 0 and "slope" not in row
    control = {"verdict": "rejected", "predicted": 1.0, "measured": 1.0}
    assert {name: row["control"][name] for name in control} == control
    assert row["controls"] == [row["control"]]
    assert rate["control"]["predicted"] is None and rate["control"]["measured"] is None
    assert rate["slope"] == pytest.approx(2) and rate["slope_predicted"] == 2
    assert rate["constant"] == pytest.approx(1) and rate["constant_predicted"] == pytest.approx(1)
    assert rate["tolerance"] == 1 and rate["worst"] < 1e-9
    curve = rate["curves"]["odd"]
    assert (
        curve["scales"] == [0.01, 0.02, 0.04, 0.08]
        and len(curve["left"]) == len(curve["right"]) == 4
    )
    environment = json.loads((tmp_path / "out" / "environment.json").read_text())
    assert environment["manifoldlab"] == manifoldlab.__version__


def test_a_refuted_law_prints_code_that_rebuilds_its_case(verify: Run, tmp_path: Path) -> None:
    status, out, _ = verify(law("X1"), law("X2", broken))
    assert status == 1
    assert "X2 is refuted." in out and "X1 is" not in out
    code = out[out.index("from ") : out.index("\n\nReport")]
    built: dict[str, Any] = {}
    exec(code.replace(f"from {__name__} import Number", ""), {"Number": Number}, built)
    assert built["case"] == Number(5)  # the smallest one that fails
    first, second = read(tmp_path)
    assert (first["verdict"], second["verdict"]) == ("verified", "refuted")
    assert "case = Number(number=5" in second["failure"]
    assert "case = Number(number=5" in (tmp_path / "out" / "report.html").read_text()


def test_a_control_that_is_not_rejected_fails_the_run(verify: Run, tmp_path: Path) -> None:
    status, out, _ = verify(HOLLOW)
    assert status == 1
    assert "H1, control 'nothing dropped' is not rejected. the law holds still" in out
    (row,) = read(tmp_path)
    assert row["verdict"] == "verified" and row["control"]["verdict"] == "not rejected"


def test_a_law_that_cannot_be_measured_is_refuted(verify: Run, tmp_path: Path) -> None:
    def failing(case: Number) -> Sides:
        raise RuntimeError("no such thing")

    status, out, _ = verify(law("X1", failing))
    assert status == 1 and "RuntimeError: no such thing" in out
    assert read(tmp_path)[0]["worst"] is None  # infinitely bad, which JSON has no word for


def test_quiet_prints_what_is_refuted_and_nothing_else(verify: Run) -> None:
    assert verify(law("X1"), options=("--quiet",)) == (0, "", "")
    status, out, err = verify(law("X1"), law("X2", broken), options=("--quiet",))
    assert status == 1 and err == ""
    assert "X1" not in out and "Report" not in out and "X2 is refuted." in out


def test_two_processes_find_what_one_finds(run: Run, tmp_path: Path) -> None:
    """Real laws, for the other processes import them afresh; the order is that of the command."""
    found = []
    for jobs in ("1", "2"):
        where = ("--profile", "quick", "--jobs", jobs, "--out", str(tmp_path / "out"))
        assert run("verify", "E3", "B3", *where, "--quiet") == (0, "", "")
        found.append([row | {"seconds": 0} for row in read(tmp_path)])
    assert [row["id"] for row in found[0]] == ["E3", "B3"]
    assert found[0] == found[1]


def test_an_interrupted_run_writes_nothing(verify: Run, tmp_path: Path) -> None:
    status, out, err = verify(law("X1"), law("X2", interrupted))
    assert (status, out) == (130, "")
    assert err.splitlines()[-1].startswith("manifoldlab: interrupted, nothing was written to ")
    assert not list((tmp_path / "out").iterdir())


def test_an_interrupted_report_leaves_the_numbers_and_no_old_page(
    verify: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> str:
        raise KeyboardInterrupt

    verify(law("X1"))
    monkeypatch.setattr(page, "render", stopped)
    status, _, err = verify(law("X2"))
    assert status == 130 and "report.html is not" in err
    assert [row["id"] for row in read(tmp_path)] == ["X2"]
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["environment.json", "laws.json"]
