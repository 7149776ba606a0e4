"""The table of theorems shows what was verified, what was refuted, and which laws a record has not."""

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from manifoldlab import listing

ROOT = Path(__file__).parents[1]
FIGURE = ROOT / "paper_figs" / "fig_theorems.py"


def control(name: str, verdict: str, amount: float | None) -> dict[str, Any]:
    amounts = dict.fromkeys(("measured", "predicted", "deviation"), amount)
    return {"name": name, "verdict": verdict, "cases": 3, **amounts}


def law(name: str, verdict: str, worst: float | None, *controls: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": name,
        "title": "100 % of cases",
        "statement": r"$a_1 = b_1$ for the x_1 & x_2 of $M$.",
        "kind": "identity",
        "verdict": verdict,
        "worst": worst,
        "tolerance": 1e-9,
        "cases": 7,
        "control": controls[-1],
        "controls": list(controls),
        "seed": 0,
        "profile": "quick",
        "device": "cpu",
    }


ROWS = [
    law("A1", "verified", 4.44e-13, control("R_in", "rejected", 0.5)),
    law("B1t", "refuted", None, control("a", "rejected", 1e6), control("b", "not rejected", None)),
]


@pytest.fixture
def page() -> dict[str, Any]:
    return runpy.run_path(str(FIGURE))


def drawn(results: Path, out: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, str(FIGURE), "--results", str(results), "--out", str(out)]
    return subprocess.run(
        words, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )


def test_a_missing_record_has_one_line(tmp_path: Path) -> None:
    missing = drawn(tmp_path, tmp_path / "out")
    file = tmp_path / "verify" / "laws.json"
    line = (
        f"there is no {file}; make it with: manifoldlab verify --profile full --out {file.parent}\n"
    )
    assert missing.returncode == 1 and missing.stderr == line and missing.stdout == ""


def test_the_table_is_drawn_and_written_for_latex(tmp_path: Path) -> None:
    (tmp_path / "verify").mkdir()
    (tmp_path / "verify" / "laws.json").write_text(json.dumps(ROWS))
    done = drawn(tmp_path, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    pdf, png, tex = map(Path, done.stdout.split())
    assert pdf.read_bytes().startswith(b"%PDF") and png.read_bytes().startswith(b"\x89PNG")
    body = tex.read_text()
    assert r"100 \% of cases. {\footnotesize $a_1 = b_1$ for the x\_1 \& x\_2 of $M$.}" in body
    assert r"& \emph{R\_in} &  & 3 & $0.5$ & $0.5$ & 1 of 1 rejected \\" in body
    assert body.count(r"\\") == 2 + 2 * len(ROWS) and body.count("$") % 2 == 0


def test_what_failed_is_plain_to_see(page: dict[str, Any]) -> None:
    good, rejected = page["lines"](ROWS[0])
    assert good.good and good.cells[3:] == ("7", r"$4.44 \times 10^{-13}$", "$10^{-9}$", "verified")
    assert rejected.good and rejected.cells[-1] == "1 of 1 rejected"
    bad, left = page["lines"](ROWS[1])
    assert not bad.good and bad.cells[4:] == ("not finite", "$10^{-9}$", "REFUTED")
    assert not left.good and left.cells[3:] == ("6", "–", "–", "1 of 2 rejected")
    marked = [
        t.get_text() for t in page["figure"](ROWS).axes[0].texts if t.get_color() == "#b00020"
    ]
    assert marked[:2] == ["REFUTED", "1 of 2 rejected"] and len(marked) == 3
    assert marked[2].startswith("1 of 2 laws verified, 2 of 3 controls rejected, 14 cases (quick")


def test_laws_that_are_missing_are_named(page: dict[str, Any]) -> None:
    known = list(listing.laws())
    assert page["missing"](ROWS) == [name for name in known if name not in ("A1", "B1t")]
    words, good = page["summary"](
        [law(name, "verified", 0.0, ROWS[0]["control"]) for name in known]
    )
    assert good and "NOT IN" not in words
    assert "; NOT IN THIS RECORD: A2, A3, " in page["summary"](ROWS)[0]
