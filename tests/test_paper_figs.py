"""Figures are drawn from records, and say how to make a record that is missing."""

import json
import subprocess
import sys
from pathlib import Path

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
    rows = [{"id": "B1"}]
    for line in (
        f"there is no {tmp_path}/laws.json",
        f"{tmp_path}/laws.json has no curves of law B2",
    ):
        missing = run(figure, *options)
        assert missing.returncode == 1 and missing.stderr.startswith(line)
        assert missing.stderr.strip().endswith(
            f"manifoldlab verify B2 --profile full --out {tmp_path}"
        )
        assert missing.stderr.count("\n") == 1
        (tmp_path / "laws.json").write_text(json.dumps(rows))
    rows.append({"id": "B2", "curves": {"sphere": CURVE, "closed_curve": CURVE}})
    (tmp_path / "laws.json").write_text(json.dumps(rows))
    drawn = run(figure, *options)
    assert drawn.returncode == 0, drawn.stderr
    pdf, png = map(Path, drawn.stdout.split())
    assert pdf.read_bytes().startswith(b"%PDF") and png.read_bytes().startswith(b"\x89PNG")
    assert pdf.parent == tmp_path / "figures"
