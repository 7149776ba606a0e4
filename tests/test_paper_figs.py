"""Figures are drawn from records, and say how to make a record that is missing."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

Run = Callable[..., tuple[int, str, str]]
Refused = Callable[[tuple[int, str, str]], str]
ROOT = Path(__file__).parents[1]
CURVE = {
    "scales": [0.003, 0.006, 0.012],
    "left": [9e-6, 3.6e-5, 1.45e-4],
    "right": [9e-6, 3.6e-5, 1.44e-4],
}


def run(figure: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "paper_figs" / figure), *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )


def test_normal_leakage(tmp_path: Path) -> None:
    figure, options = (
        "fig_normal_leakage.py",
        ("--results", tmp_path, "--out", tmp_path / "figures"),
    )
    rows, folder = [{"id": "B1"}], tmp_path / "verify"
    folder.mkdir()
    for line in (
        f"there is no {folder}/laws.json",
        f"{folder}/laws.json has no curves of law B2",
    ):
        missing = run(figure, *options)
        assert missing.returncode == 1 and missing.stderr.startswith(line)
        assert missing.stderr.strip().endswith(
            f"manifoldlab verify B2 --profile full --out {folder}"
        )
        assert missing.stderr.count("\n") == 1
        (folder / "laws.json").write_text(json.dumps(rows))
    rows.append({"id": "B2", "curves": {"sphere": CURVE, "closed_curve": CURVE}})
    (folder / "laws.json").write_text(json.dumps(rows))
    drawn = run(figure, *options)
    assert drawn.returncode == 0, drawn.stderr
    pdf, png = map(Path, drawn.stdout.split())
    assert pdf.read_bytes().startswith(b"%PDF") and png.read_bytes().startswith(b"\x89PNG")
    assert pdf.parent == tmp_path / "figures"


def test_figures_are_drawn_by_their_names(tmp_path: Path, run: Run, refused: Refused) -> None:
    assert "no figure called 'normal_leakge' (did you mean" in refused(
        run("figures", "normal_leakge")
    )
    words = ("--results", str(tmp_path), "--out", str(tmp_path / "out"))
    for names, status in ((("normal_leakage",), 1), ((), 0)):
        code, shown, _ = run("figures", *names, *words)
        assert code == status and f"normal_leakage: there is no {tmp_path}/verify" in shown
    (tmp_path / "verify").mkdir()
    curves = {"id": "B2", "curves": {"sphere": CURVE}}
    (tmp_path / "verify" / "laws.json").write_text(json.dumps([curves]))
    code, shown, _ = run("figures", "normal_leakage", *words)
    drawn = [tmp_path / "out" / f"normal_leakage.{kind}" for kind in ("pdf", "png")]
    assert code == 0 and all(file.is_file() and str(file) in shown for file in drawn)
    (tmp_path / "verify" / "laws.json").write_text("{")
    code, _, said = run("figures", *words)
    assert code == 1 and "Traceback" in said
    assert any(
        line.startswith("normal_leakage ") for line in run("list", "figures")[1].splitlines()
    )
