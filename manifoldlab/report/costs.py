"""docs/performance.md: what functions cost, on each device for which there is a file of a bench.

The files lie in a folder beside it, performance/cpu.json and performance/cuda.json: one that is not there
is an empty row that says so.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from manifoldlab import files
from manifoldlab.report.bench import duration, factor, rate, ratio, slope

Row = Mapping[str, Any]
DEVICES = ("cpu", "cuda")
KINDS = ("gradients", "probes", "tangents", "attacks", "objectives", "ensembles", "data")
GRADIENT, FORWARD = "gradients/input_gradient/resnet18", "networks/forward/resnet18"
EXAMPLES = (
    {"n": 32, "D": 3_072, "k": 16, "K": 10},
    {"n": 8, "D": 12_288, "k": 64, "K": 10},
    {"n": 1, "D": 150_528, "k": 64, "K": 10},
)

HEAD = """# Performance

Written by `manifoldlab bench --scale --doc docs/performance.md` from files in `docs/performance/`, one a
device. Ratios carry over to other machines; times are those of the machine that is named.

* **floor**: the passes, or the bytes, that no version avoids, under the same kernels, in the same rounds.
* **x floor**, **x best peer**: own time over theirs, medians over interleaved rounds, ± a standard error.
* Every contestant has first been shown to agree with float64.
* A **pass** of a network of yours costs what it costs: time one, or take that of the ResNet-18 below.
"""


def write(path: Path, found: Row) -> None:
    """Keeps what was found beside the page, and writes the page from all that is kept."""
    folder = path.with_suffix("")
    files.check_writable(folder)
    files.write_json(folder / f"{found['device']}.json", dict(found))
    kept = {device: _kept(folder / f"{device}.json") for device in DEVICES}
    files.write_text(path, "\n".join([HEAD, *(_device(d, f) for d, f in kept.items())]))


def _kept(file: Path) -> Row | None:
    found: Row | None = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    return found


def _device(device: str, found: Row | None) -> str:
    if found is None:
        return f"## {device}\n\nNot measured: no such device was at hand.\n"
    hardware = found["environment"]["hardware"]
    where = hardware["device_name"] or hardware["processor"]
    torch = found["environment"]["packages"]["torch"]
    tops = {
        name: rate(v, "B" if name == "copy" else "FLOP") for name, v in found["ceilings"].items()
    }
    warning = "\n**Tiny sizes, one round: these numbers mean nothing.**\n" if found["fast"] else ""
    return "\n".join(
        [
            f"## {device}\n{warning}",
            f"{where}, {found['threads']} thread{'s' * (found['threads'] > 1)}, torch {torch}, "
            f"{found['environment']['date'][:10]}, commit {found['environment']['commit']}. "
            f"Ceilings: {', '.join(f'{name} {value}' for name, value in tops.items())}.\n",
            *_ratios(found["cases"]),
            *(_costs(found["growth"]) if found["growth"] else []),
        ]
    )


def _ratios(rows: Sequence[Row]) -> list[str]:
    lines = [
        "### Beside floors and peers\n",
        _line("function / size", "sizes", "time", "floor", "x floor", "x best peer"),
    ]
    lines.append(_line(*["---"] * 2, *["---:"] * 2, "---:", "---"))
    for row in rows:
        if row["name"].partition("/")[0] in KINDS and "own" in row:
            best = row["best_peer"]
            peer = "-" if best is None else f"{ratio(best)} {best['name']}"
            sizes = ", ".join(f"{name} {value}" for name, value in row["sizes"].items())
            name, floor = row["name"], row["floor"]["name"]
            lines.append(
                _line(
                    f"`{name}`",
                    sizes,
                    duration(row["own"]["seconds"]),
                    floor,
                    ratio(row["own"]),
                    peer,
                )
            )
    return [*lines, ""]


def _costs(rows: Sequence[Row]) -> list[str]:
    """Formulas, what they say at a few sizes, and exponents."""
    known = {row["name"]: row for row in rows}
    intro = (
        "### The cost at your size\n",
        "n samples of D numbers, k tangent directions, K classes. A cost is that of the passes of your "
        "network, and of the function's own part:\n",
        "    gradients x gradient(n, D) + forward(passes n, D) + own part(n, D, k, K)\n",
        "`off by`: the largest factor between the own part and what was measured at sizes that it was not "
        "fitted to; in brackets, at those that it was.\n",
    )
    lines = [
        *intro,
        _line("function", "passes of the network", "own part", "off by"),
        _line(*["---"] * 3, "---:"),
    ]
    for row in rows:
        passes = ", ".join(
            f"{count} {name}{'s' * (count > 1)}" for name, count in row["passes"].items()
        )
        off = f"{factor(row['held_out_factor'])} ({factor(row['fit_factor'])})"
        lines.append(_line(f"`{row['name']}`", passes or "-", formula(row["formula"]), off))
    return [*lines, "", *_examples(known), *_exponents(rows)]


def formula(costs: Mapping[str, float]) -> str:
    """In words: a term is '1', or names of sizes with a space between them."""
    parts = [_term(name, value) for name, value in costs.items() if value > 0]
    return " + ".join(parts)


def _term(name: str, value: float) -> str:
    word, _, bound = name.partition(" if over ")
    number = duration(value) if value >= 1e-9 else f"{value * 1e12:.3g} ps"
    found = number if word == "1" else f"{number} {word.replace(' ', '·')}"
    return f"({found}, if {word.replace(' ', '·')} > {int(bound):,})" if bound else found


def seconds(costs: Mapping[str, float], sizes: Mapping[str, float]) -> float:
    """What a formula says."""
    total = 0.0
    for name, value in costs.items():
        word, _, bound = name.partition(" if over ")
        amount = 1.0
        for factor_name in word.split():
            amount *= 1.0 if factor_name == "1" else sizes[factor_name]
        total += value * amount * (not bound or amount > int(bound))
    return total


def of_probe(row: Row, known: Mapping[str, Row], sizes: Mapping[str, float]) -> float:
    """With a ResNet-18 for the network."""
    passes = row["passes"]
    own: float = seconds(row["formula"], sizes)
    gradient = passes.get("gradient", 0) * seconds(known[GRADIENT]["formula"], sizes)
    many = dict(sizes) | {"n": passes.get("forward", 0) * sizes["n"]}
    forward: float = seconds(known[FORWARD]["formula"], many) if passes.get("forward") else 0.0
    return own + float(gradient) + forward


def _examples(known: Mapping[str, Row]) -> list[str]:
    """Of what has passes of a network, where the network was measured, too."""
    if not {GRADIENT, FORWARD} <= known.keys():
        return []
    head = [", ".join(f"{k} {v:,}" for k, v in sizes.items() if k != "K") for sizes in EXAMPLES]
    lines = [
        "With a ResNet-18 (stem for small pictures, 10 classes) the formulas say:\n",
        _line("function", *head),
    ]
    lines.append(_line("---", *["---:"] * len(head)))
    for name, row in known.items():
        if row["passes"] or name in (GRADIENT, FORWARD):
            cells = [duration(of_probe(row, known, sizes)) for sizes in EXAMPLES]
            lines.append(_line(f"`{name}`", *cells))
    return [*lines, ""]


def _exponents(rows: Sequence[Row]) -> list[str]:
    lines = [
        "### Growth\n",
        "Exponents of time and of peak memory in one size, the others fixed.\n",
    ]
    lines += [
        _line("function", "from", "with", "time", "memory"),
        _line(*["---"] * 3, *["---:"] * 2),
    ]
    for row in rows:
        start = ", ".join(f"{name} {value}" for name, value in row["start"].items())
        for axis, found in row["axes"].items():
            lines.append(
                _line(f"`{row['name']}`", start, axis, slope(found["time"]), slope(found["memory"]))
            )
    return [*lines, ""]


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
