"""report.html: a verification on one page that needs nothing else, from the rows of laws.json."""

import shlex
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from manifoldlab.report import formulas, pictures, plots

Row = Mapping[str, Any]  # a law, as in laws.json


def templates() -> jinja2.Environment:
    """With the filters that all pages use."""
    page = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page.filters |= {"typeset": formulas.typeset, "number": number, "padded": padded}
    page.filters |= {"percent": percent, "breakable": breakable}
    return page


def render(rows: Sequence[Row], environment: Mapping[str, Any]) -> str:
    return (
        templates()
        .get_template("page.html.jinja")
        .render(
            rows=rows,
            facts=facts(environment),
            verified=sum(row["verdict"] == "verified" for row in rows),
            controls=sum(len(row["controls"]) for row in rows),
            rejected=sum(rejected(row) for row in rows),
            cases=sum(row["cases"] for row in rows),
            counted=rejected,
            gallery=pictures.gallery(),
            plots=plots,
        )
    )


def rejected(row: Row) -> int:
    """How many of a law's controls."""
    return sum(control["verdict"] == "rejected" for control in row["controls"])


def number(value: float | None, form: str = ".3g") -> Markup:
    """Short, with a power of ten; a dash where there is none."""
    if value is None or not isfinite(value):
        return Markup("–")
    mantissa, _, exponent = f"{value:{form}}".replace("-", "−").rstrip(".").partition("e")
    if not exponent:
        return Markup(mantissa)
    power = int(exponent.replace("−", "-"))
    return Markup(f"{mantissa}×10<sup>{str(power).replace('-', '−')}</sup>")


def padded(value: float | None) -> Markup:
    """Four digits, zeros too: measured beside predicted."""
    return number(value, "#.4g")


def breakable(code: str) -> Markup:
    """A line may end behind a bracket."""
    return Markup("(<wbr>").join(escape(part) for part in code.split("("))


def percent(share: float | None) -> str:
    if share is None or not isfinite(share):
        return "–"
    return f"{100 * share:.2g} %" if share >= 1e-5 else "< 0.001 %"


def facts(environment: Mapping[str, Any]) -> dict[str, str]:
    """The environment in words; nothing of the machine's file system."""
    hardware, threads = environment["hardware"], environment["threads"]
    versions = [f"{name} {version}" for name, version in environment["packages"].items() if version]
    return {
        "Date": environment["date"],
        "Command": shlex.join(environment["command"]),
        "Versions": f"manifoldlab {environment['manifoldlab']}, Python {environment['python']}, "
        + ", ".join(versions),
        "Commit": environment["commit"],
        "Threads": f"{threads['torch']} (OMP_NUM_THREADS={threads['OMP_NUM_THREADS']})",
        "Hardware": f"{hardware['processor']}, {hardware['cores']} cores, {hardware['system']}",
        "Device": hardware["device_name"] or hardware["device"],
    }
