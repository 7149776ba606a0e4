"""Cases of benchmarks at tiny sizes, and the command that measures them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import variants
from manifoldlab import benching, catalog
from manifoldlab.benchmarking import differences, growth
from manifoldlab.benchmarking.case import Case, Contestant, Setting
from manifoldlab.benchmarking.clock import Reading
from manifoldlab.report import costs

Run = Callable[..., tuple[int, str, str]]
Refused = Callable[[tuple[int, str, str]], str]

CASES = benching.cases()
OPERATIONS = len({case.name.split("/")[1] for case in CASES if case.kind == "manifolds"})
# Of each family another operation: its own tests have all of them.
ELSEWHERE = {
    case.name
    for i, case in enumerate(case for case in CASES if case.kind == "manifolds")
    if i % OPERATIONS != i // OPERATIONS % OPERATIONS
}
SMOKE = [case for case in CASES if case.name not in ELSEWHERE]


@pytest.mark.parametrize("case", SMOKE, ids=lambda case: case.name)
def test_what_is_timed_is_right(case: Case) -> None:
    contest = case.ready(Setting(small=True))
    found = contest.own.read(contest.own.call()).detach().double()
    assert contest.error(found, contest.exact().double()) <= contest.within, contest.reason
    assert contest.own.call is not contest.floor.call
    contest.floor.call()


@pytest.mark.parametrize("kind", ["probes", "tangents", "objectives", "attacks", "manifolds"])
def test_every_member_has_a_case(kind: str) -> None:
    timed = {part for case in CASES if case.kind == kind for part in case.name.split("/")[1:]}
    assert set(catalog.names(kind)) <= timed


def test_every_problem_has_a_case_and_names_differ() -> None:
    timed = {case.name.split("/")[2] for case in CASES if case.kind == "problems"}
    assert set(catalog.names("problems")) <= timed
    assert len({case.name for case in CASES}) == len(CASES)


def test_variants_of_a_gpu_do_the_same_job() -> None:
    """On the CPU as far as this has them; in bfloat16, with its 8 bits."""
    x = torch.rand(4, 20, generator=torch.Generator().manual_seed(0))
    model = torch.nn.Sequential(torch.nn.Linear(20, 30), torch.nn.Tanh(), torch.nn.Linear(30, 1))
    job: variants.Job = lambda model, x: model(x).detach()
    found = variants.all_of(job, model, x)
    assert variants.on_gpu(job, model, x) == {} and set(found) >= {"TF32", "bfloat16"}
    for name, within in (("TF32", 1e-6), ("bfloat16", 0.02)):
        contestant = found[name]
        assert isinstance(contestant, Contestant)
        assert (contestant.call() - job(model, x)).abs().max() < within


ONE = "special_functions/log_bessel/10"
WORDS = ("bench", "--fast", "--only", ONE, "--out")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from manifoldlab import app

    folder = tmp_path_factory.mktemp("bench")
    with pytest.raises(SystemExit) as left:
        app.main([*WORDS, str(folder), "--quiet"])
    assert left.value.code == 0
    return folder


def test_a_run_writes_json_and_a_page(measured: Path) -> None:
    found = json.loads((measured / "bench.json").read_text())
    (row,) = found["cases"]
    assert row["name"] == ONE and row["right"] and row["own"]["seconds"] > 0
    assert (row["device"], row["dtype"], row["threads"]) == ("cpu", "float64", 1)
    assert row["own"]["bytes_per_second"] > 0 and found["ceilings"]["copy"] > 0
    assert found["environment"]["packages"]["torch"] == torch.__version__
    page = (measured / "bench.html").read_text()
    assert "log_bessel/10" in page and "<svg" in page
    assert 'src="http' not in page and 'href="http' not in page  # it needs nothing else


def test_a_file_compares_with_itself(run: Run, measured: Path, tmp_path: Path) -> None:
    file = str(measured / "bench.json")
    status, out, err = run("bench", "--read", file, "--compare", file, "--out", str(tmp_path))
    assert (status, err) == (0, "") and "same" in out and "slower" not in out


def altered(measured: Path, folder: Path, **own: float) -> str:
    found = json.loads((measured / "bench.json").read_text())
    found["cases"][0]["own"] |= own
    (folder / "old.json").write_text(json.dumps(found))
    return str(folder / "old.json")


def test_a_worse_ratio_ends_with_1(run: Run, measured: Path, tmp_path: Path) -> None:
    old = altered(measured, tmp_path, ratio=0.01, noise=0.0001)
    words = ("bench", "--read", str(measured / "bench.json"), "--compare", old)
    status, out, _ = run(*words, "--out", str(tmp_path))
    assert status == 1 and "slower" in out
    assert "slower" in (tmp_path / "bench.html").read_text()


def rows(ratio: float, noise: float | None, dtype: str = "float32") -> list[dict[str, Any]]:
    return [{"name": "a", "dtype": dtype, "own": {"ratio": ratio, "noise": noise}}]


@pytest.mark.parametrize(
    ("before", "after", "noise", "verdict"),
    [
        (1.0, 1.04, 0.0, "same"),  # less than what memory's layout makes of it
        (1.0, 1.06, 0.0, "slower"),
        (1.0, 0.94, 0.0, "faster"),
        (1.0, 1.1, 0.01, "same"),  # 0.05 + 4 * sqrt(2) * 0.01
        (1.0, 1.11, 0.01, "slower"),
        (1.0, 1.15, None, "same"),  # single rounds
        (1.0, 1.3, None, "slower"),
    ],
)
def test_changes_are_beyond_noise(
    before: float, after: float, noise: float | None, verdict: str
) -> None:
    (change,) = differences.changes(rows(before, noise), rows(after, noise), "old.json")
    assert change.verdict == verdict


def test_files_of_other_kinds_are_refused(
    run: Run, refused: Refused, tmp_path: Path, measured: Path
) -> None:
    found = json.loads((measured / "bench.json").read_text())
    files = {
        "no bench": ({"kind": "else"}, "is no file of manifoldlab bench"),
        "device": (found | {"device": "cuda"}, "has device cuda, and what is compared has cpu"),
        "threads": (found | {"threads": 2}, "has threads 2, and what is compared has 1"),
        "version": (found | {"version": 0}, "is of version 0, this one is 1"),
    }
    for name, (content, why) in files.items():
        (tmp_path / name).write_text(json.dumps(content))
        line = refused(run(*WORDS, str(tmp_path), "--compare", str(tmp_path / name)))
        assert why in line
    (tmp_path / "text").write_text("no JSON")
    assert "is no file of" in refused(
        run(*WORDS, str(tmp_path), "--compare", str(tmp_path / "text"))
    )
    assert "gone.json" in refused(
        run(*WORDS, str(tmp_path), "--compare", str(tmp_path / "gone.json"))
    )
    with pytest.raises(
        ValueError, match=r"old.json has a in float64, and what is compared in float32"
    ):
        differences.changes(rows(1, 0, "float64"), rows(1, 0), "old.json")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--device", "tpu"), "no device called 'tpu' (did you mean cpu?); there are cpu, cuda"),
        (("--threads", "0"), "--threads is 1 or more, not 0"),
        (("--only", "probes/tangent_alignement"), "did you mean probes/tangent_alignment?"),
        (("--only", "prob"), "no benchmark called 'prob'"),
    ],
)
def test_bad_words_are_refused(
    run: Run, refused: Refused, tmp_path: Path, words: tuple[str, ...], why: str
) -> None:
    assert why in refused(run("bench", "--out", str(tmp_path), *words))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_no_gpu_is_said(run: Run, refused: Refused, tmp_path: Path) -> None:
    assert "torch finds no CUDA device" in refused(
        run("bench", "--device", "cuda", "--out", str(tmp_path))
    )


def test_a_case_that_fails_is_a_row(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ready(setting: Setting) -> Any:
        raise RuntimeError(f"no such\nthing on {setting.device}")

    broken = [Case("toys/broken/1", "", ready), next(c for c in CASES if c.name == ONE)]
    monkeypatch.setattr(benching, "cases", lambda: broken)
    status, out, err = run("bench", "--fast", "--out", str(tmp_path))
    assert status == 1 and "FAILED RuntimeError: no such thing on cpu" in " ".join(out.split())
    assert "toys/broken/1 is wrong, or failed" in err and "log_bessel" in out
    assert "failed: RuntimeError" in (tmp_path / "bench.html").read_text()


def test_threads_are_put_back(measured: Path) -> None:
    assert measured and torch.get_num_threads() == 1


class Told:
    """A clock that believes what a call says of its time."""

    device = "cpu"

    def read(self, call: Callable[[], float], calls: int = 1) -> Reading:
        return Reading(call(), call(), calls)

    def seconds(self, reading: Reading) -> float:
        return reading.core


def test_growth_finds_the_powers() -> None:
    def ready(setting: Setting, sizes: growth.Sizes) -> Callable[[], float]:
        """Time n^2, memory n."""
        return lambda: 1e-6 * sizes["n"] ** 2 + 0 * float(torch.ones(sizes["n"], 1000)[0, 0])

    terms = {"1": lambda s: 1.0, "n n": lambda s: float(s["n"] ** 2)}
    sizes = (500, 1000, 2000, 4000)
    one = growth.Growing("toy/line", "", ready, {"n": 500}, {"n": sizes}, terms, ({"n": 3000},))
    row = growth.measure(one, Setting(), Told())  # type: ignore[arg-type]
    assert row["axes"]["n"]["time"]["slope"] == pytest.approx(2)
    assert row["axes"]["n"]["memory"]["slope"] == pytest.approx(1, abs=1e-3)
    assert row["formula"] == pytest.approx({"1": 0.0, "n n": 1e-6})
    assert row["held_out_factor"] == pytest.approx(1) and len(row["held_out"]) == 1


def test_formulas_are_fitted_and_read_alike() -> None:
    """By the page's own reading of its words."""
    terms = {
        "1": lambda s: 1.0,
        "n D": lambda s: s["n"] * s["D"],
        "n if over 4": lambda s: s["n"] * (s["n"] > 4),
    }
    truth = {"1": 0.5, "n D": 2.0, "n if over 4": 3.0}
    points = [
        growth.Point({"n": n, "D": d}, costs.seconds(truth, {"n": n, "D": d}), 0)
        for n in (1, 4, 5, 8)
        for d in (1, 10)
    ]
    found = growth.fit(terms, points)
    assert found == pytest.approx(truth, rel=1e-4)
    assert growth.worst(found, terms, points) == pytest.approx(1, abs=1e-4)


def test_the_page_of_costs_says_what_was_not_measured(measured: Path, tmp_path: Path) -> None:
    found = json.loads((measured / "bench.json").read_text())
    costs.write(tmp_path / "performance.md", found)
    text = (tmp_path / "performance.md").read_text()
    assert "## cuda\n\nNot measured: no such device was at hand." in text
    assert "Tiny sizes, one round: these numbers mean nothing" in text
    assert json.loads((tmp_path / "performance" / "cpu.json").read_text()) == found
