"""The page: formulas, plots, pictures, and that it is whole, escaped and needs nothing else."""

import base64
import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import numpy as np
import pytest
from markupsafe import Markup
from matplotlib.path import Path as Outline

from manifoldlab import catalog
from manifoldlab.environment import environment
from manifoldlab.manifolds.closed_curve import ClosedCurve
from manifoldlab.manifolds.flat import Flat
from manifoldlab.report import formulas, page, pictures, plots, terminal
from manifoldlab.verification import laws

CODE = "from a import B\ncase = B('<script>', x & y)"


def row(**changes: Any) -> dict[str, Any]:
    control = {"name": "without <x>", "verdict": "rejected", "predicted": 0.5, "measured": 0.5}
    control |= {"deviation": 1e-9, "cases": 3, "families": {"sphere": 3}, "failure": None}
    found = {
        "id": "X1",
        "title": "A < B",
        "statement": r"If $a < b$, then $\frac{a}{b} < 1$.",
        "kind": "identity",
        "verdict": "verified",
        "worst": 1.2e-14,
        "tolerance": 1e-9,
        "cases": 2,
        "families": {"sphere": 2},
        "control": control,
        "controls": [control],
        "seconds": 1.5,
        "seed": 0,
        "profile": "quick",
        "device": "cpu",
        "failure": None,
    }
    return found | changes


def rate() -> dict[str, Any]:
    scales = [0.01, 0.02, 0.04]
    right = [3 * s**2 for s in scales]
    fit = {"slope": 2.01, "slope_predicted": 2.0, "constant": 3.01, "constant_predicted": 3.0}
    curve = {"scales": scales, "left": [1.01 * r for r in right], "right": right} | fit
    curves = {"sphere": curve, "helix": curve | {"left": [0.0, np.nan, 1.0]}}
    families = {"sphere": 2, "helix": 1, "flat": 1}
    return row(id="X2", kind="rate", **fit, curves=curves, families=families)


@pytest.fixture
def no_gallery(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "gallery", list)


def render(*rows: dict[str, Any]) -> str:
    return page.render(rows, environment("cpu"))


def test_text_around_formulas_is_escaped() -> None:
    html = formulas.typeset("a < b & $x < y$, so <b>")
    assert html.startswith("a &lt; b &amp; <span") and html.endswith(
        ", so &lt;b&gt;".replace(", ", " ")
    )
    assert 'aria-label="x &lt; y"' in html and "</svg>,</span>" in html
    assert "<b>" not in html


def test_a_formula_stands_on_the_baseline() -> None:
    depth = lambda source: float(
        re.search(r"vertical-align:(-?[\d.]+)em", formulas.formula(source))[1]
    )  # type: ignore[index]
    assert depth("x") == pytest.approx(0, abs=0.03)
    assert depth(r"\frac{x}{y}") < depth("y") < -0.1


def test_a_formula_is_well_formed_and_small() -> None:
    source = r"\frac{\tau^2}{2}\left(\frac{\mathrm{div}_M(S\nabla p_a)}{p_a}\right) < \|x\|"
    svg = ElementTree.fromstring(formulas.formula(source))
    assert svg.attrib["role"] == "img" and svg.attrib["aria-label"] == source
    assert len(formulas.formula(source)) < 10_000


def test_an_outline_has_every_point_once() -> None:
    square = Outline([(0, 0), (1, 0), (1, 2), (0, 2), (0, 0)], closed=True)
    assert formulas.outline(square) == "M0 0L1 0L1 -2L0 -2Z"
    curved = Outline([(0, 0), (1, 1), (2, 0), (3, 1), (4, 1), (5, 0)], [1, 3, 3, 4, 4, 4])
    assert formulas.outline(curved) == "M0 0Q1 -1 2 0C3 -1 4 -1 5 0"


def test_what_is_no_formula_is_shown_as_written() -> None:
    assert formulas.formula(r"\nonsense{<") == Markup(r"<code>\nonsense{&lt;</code>")


@pytest.mark.parametrize("law", laws())
def test_every_statement_can_be_typeset(law: str) -> None:
    theorem = laws()[law]
    assert "<code>" not in formulas.typeset(theorem.statement), theorem.statement
    assert theorem.statement.count("$") % 2 == 0


def test_the_page_says_what_the_rows_say(no_gallery: None) -> None:
    html = render(row(), rate())
    assert "All laws verified" in html and "2 of 2" in html
    assert "A &lt; B" in html and "without &lt;x&gt;" in html
    assert "1.2×10<sup>−14</sup>" in html and "slope 2.010" in html and "3.010" in html
    assert html.count("<section") == 2 and html.count('aria-label="X2: ') == 2


def test_a_failing_case_is_shown_as_code(no_gallery: None) -> None:
    unrejected = row()["control"] | {"verdict": "not rejected", "failure": "holds\ncase = 1"}
    refuted = row(verdict="refuted", failure=CODE, worst=None)
    html = render(refuted, row(id="X3", control=unrejected, controls=[unrejected]))
    assert "Not all laws verified" in html and "1 of 2" in html
    assert "case = B(&#39;&lt;script&gt;&#39;, x &amp; y)" in html and "<script" not in html
    assert "holds\ncase = 1" in html


def test_the_page_needs_nothing_else_and_names_no_folder(no_gallery: None) -> None:
    html = render(row(), rate())
    for address in re.findall(r'(?:src|href|url)\s*[=(]\s*["\']?([^"\')\s>]+)', html):
        assert address.startswith(("#", "data:")), address
    assert "<link" not in html and "<script" not in html and "@import" not in html
    assert not re.search(r"/(work|home|root|usr|tmp)/", re.sub(r"<dd>.*?</dd>", "", html))


def test_ids_are_unique_in_a_page(no_gallery: None) -> None:
    ids = re.findall(r'\bid="([^"]+)"', render(row(), rate(), rate() | {"id": "X4"}))
    assert len(ids) == len(set(ids))


def test_a_plot_is_well_formed() -> None:
    for draw in (plots.log_log, plots.deviation):
        svg = draw(rate()["curves"], "X2")
        ElementTree.fromstring(svg.replace("xlink:", ""))
        assert len(svg) < 100_000


def test_seventy_families_look_different() -> None:
    looks = plots.looks({str(i): {} for i in range(70)})
    assert len(set(looks.values())) == 70


@pytest.fixture(scope="module")
def gallery() -> list[pictures.Picture]:
    return pictures.gallery()


def test_every_manifold_has_its_picture(gallery: list[pictures.Picture]) -> None:
    names = [name for name in catalog.names("manifolds") if name != "placed"]
    assert set(names) <= {picture.name for picture in gallery}
    assert sum(len(picture.image) for picture in gallery) < 2_000_000
    for picture in gallery:
        head = base64.b64decode(picture.image.partition(",")[2])[:8]
        assert head == b"\x89PNG\r\n\x1a\n" and picture.title


def test_a_picture_shows_all_of_a_manifold_or_says_so() -> None:
    whole, note = pictures._in_view([ClosedCurve(3).embed(_angles()).numpy()])
    assert note == "" and np.array_equal(whole[0], ClosedCurve(3).embed(_angles()).numpy())
    _, note = pictures._in_view([ClosedCurve(5, 3).embed(_angles()).numpy()])
    assert "5 dimensions" in note
    assert pictures.picture("flat", Flat(1)).note == ""


def _angles() -> Any:
    import torch

    return torch.linspace(0, 6, 50, dtype=torch.float64)[:, None]


def test_a_table_fits_80_columns(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    terminal.console().print(terminal.verdicts([row(), rate()]))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert any("1.2e-14 <= 1e-09" in line for line in lines)
    assert any("slope 2.010 ~ 2" in line for line in lines)
    assert any("1 of 1 rejected" in line for line in lines)
    assert not any("…" in line or "\x1b" in line for line in lines)
