"""A run is a folder named by its whole configuration: whole or absent, stale or not, never lost."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from manifoldlab import files, records
from manifoldlab.records import Outcome, Run


@dataclass(frozen=True)
class Inner:
    width: int = 3


@dataclass(frozen=True)
class Config:
    rate: float = 1e-3
    widths: tuple[int, ...] = (1, 2)
    name: str = "a"
    limit: int | None = None
    inner: Inner = Inner()


OUTCOME = Outcome(
    {"slope": {"predicted": -1, "measured": -0.9, "agrees": False}, "x": 0.1},
    {"y": np.arange(6.0).reshape(2, 3), "words": np.array(["a", "bc"])},
)


def saved(root: Path, config: Config | None = None, outcome: Outcome = OUTCOME) -> Run:
    plain = records.plain(config or Config())
    folder = root / "acme" / records.name("acme", plain)
    folder.parent.mkdir(exist_ok=True)
    return records.save(folder, "acme", plain, outcome, seconds=2.5, replace=True)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    run = saved(tmp_path)
    (loaded,) = records.load("acme", tmp_path)
    assert loaded == run == records.find(run.folder)
    assert run.config == {
        "rate": 0.001,
        "widths": [1, 2],
        "name": "a",
        "limit": None,
        "inner": {"width": 3},
    }
    assert run.metrics == OUTCOME.metrics and run.seconds == 2.5 and not run.agrees
    assert run.environment["command"] and run.environment["packages"]["numpy"]
    samples = run.samples()
    assert samples.keys() == OUTCOME.samples.keys()
    assert all(np.array_equal(samples[key], OUTCOME.samples[key]) for key in samples)
    kept = json.loads((run.folder / "run.json").read_text())
    assert kept["agrees"] is False and kept["sources"] == run.sources
    assert sorted(path.name for path in run.folder.iterdir()) == ["run.json", "samples.npz"]
    assert [path.name for path in run.folder.parent.iterdir()] == [run.folder.name]


def test_a_name_is_that_of_the_values() -> None:
    """Of a text that is written out here: names must not change from one version to the next."""
    text = (
        '{"config":{"inner":{"width":3},"limit":null,"name":"a","rate":0.001,"widths":[1,2]},'
        '"experiment":"acme"}'
    )
    known = hashlib.sha256(text.encode()).hexdigest()[:12]
    assert records.name("acme", records.plain(Config())) == known
    same = Config(rate=0.001, widths=(1, 2), inner=Inner(3))
    assert records.plain(same) == records.plain(Config())
    for value, other in ((1, 1.0), (1e-3, 0.001), (0.0, -0.0), (1e22, 10**22)):
        assert records.name("acme", {"a": value}) == records.name("acme", {"a": other})
    assert records.name("acme", {"a": 1, "b": 2}) == records.name("acme", {"b": 2, "a": 1})


def test_a_name_tells_every_field_and_the_experiment() -> None:
    others = (
        Config(rate=0.0010000000000000002),
        Config(widths=(2, 1)),
        Config(name="1"),
        Config(limit=0),
        Config(inner=Inner(4)),
    )
    found = {records.name("acme", records.plain(config)) for config in (Config(), *others)}
    found |= {records.name("acm", records.plain(Config()))}
    for value in (1, True, "1", [1], None):
        found.add(records.name("acme", {"a": value}))
    assert len(found) == 12 and all(len(name) == 12 for name in found)


@pytest.mark.parametrize(
    ("config", "line"),
    [
        (Config(rate=float("nan")), "a configuration is made of finite numbers, rate is nan"),
        (Config(widths=(1, Path("x"))), "of numbers and words, widths is PosixPath"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_configuration_is_refused(config: Config, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        records.plain(config)


def test_what_is_no_outcome_leaves_nothing(tmp_path: Path) -> None:
    for outcome, line in (
        (Outcome({"a": object()}), "the metrics of acme are no JSON: Object of type object"),
        (Outcome({}, {"b": np.array([None])}), "samples are arrays of .* b is of object"),
    ):
        with pytest.raises(ValueError, match=line):
            saved(tmp_path, outcome=outcome)
    assert not list((tmp_path / "acme").iterdir())


def test_records_of_other_sources_are_stale_and_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = saved(tmp_path)
    assert not fresh.stale and records.note([fresh]) == f"1 runs, sources {fresh.sources}"
    monkeypatch.setattr(records, "sources", lambda experiment: "0" * 12)
    runs = [fresh, saved(tmp_path, Config(name="b"))]
    assert [run.stale for run in runs] == [True, False]
    assert records.note(runs) == (
        f"2 runs, sources {'0' * 12}, {fresh.sources}; "
        "1 of them STALE: made by other sources than the present"
    )


ACME = {
    "__init__.py": "",
    "catalog.py": "",
    "experiments/__init__.py": "",
    "experiments/acme.py": "from manifoldlab import a\nfrom manifoldlab.catalog import find",
    "a.py": "def late():\n    import manifoldlab.deep.b",
    "deep/__init__.py": "",
    "deep/b.py": "from manifoldlab import catalog\nmake = lambda name: catalog.find('models', name)",
    "models/__init__.py": "",
    "models/one.py": "",
    "beside.py": "import manifoldlab.a",
}


def test_the_fingerprint_is_of_every_source_that_can_be_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in ACME.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(records.manifoldlab, "__path__", [str(tmp_path)])
    monkeypatch.setattr(records.catalog, "names", lambda kind: ["acme"])
    own = tmp_path / "experiments" / "acme.py"
    monkeypatch.setattr(records.catalog, "source", lambda kind, name: own)

    def fingerprint() -> str:
        return records.sources.__wrapped__("acme")

    def changed(name: str, text: str) -> bool:
        before = fingerprint()
        (tmp_path / name).write_text(text)
        return fingerprint() != before

    assert fingerprint() == fingerprint()
    for name in ("a.py", "deep/__init__.py", "deep/b.py", "models/one.py", "experiments/acme.py"):
        assert changed(name, f"{ACME[name]}\n")
    assert changed("models/two.py", "# a new member")
    assert not changed("beside.py", "# nobody imports this")
    assert not changed("notes.txt", "no source")
    assert changed("a.py", "from manifoldlab import catalog\ncatalog.find(kind, 'x')")
    assert changed("beside.py", "# now anything may be reached")


def test_an_experiment_of_another_package_counts_too(toy: Path) -> None:
    before = records.sources("toy")
    assert before != records.sources("no experiment")
    file = toy.parent / "package" / "toy_experiment.py"
    file.write_text(file.read_text() + "\n")
    records.sources.cache_clear()
    assert records.sources("toy") != before


def test_a_record_about_to_be_replaced_is_still_there(tmp_path: Path) -> None:
    """Its process was killed between the two renames of a replacement."""
    run = saved(tmp_path)
    run.folder.rename(files.former(run.folder))
    found = records.find(run.folder)
    assert found is not None and found.metrics == run.metrics
    assert [r.metrics for r in records.load("acme", tmp_path)] == [run.metrics]
    again = saved(tmp_path, outcome=Outcome({"new": 1}))
    assert again.metrics == {"new": 1} and len(records.load("acme", tmp_path)) == 1
    assert [path.name for path in run.folder.parent.iterdir()] == [run.folder.name]


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda f: (f / "run.json").write_text("{"), "run.json is damaged: JSONDecodeError"),
        (lambda f: (f / "run.json").write_bytes(b"\xff"), "run.json is damaged: UnicodeDecodeError"),
        (lambda f: (f / "run.json").write_text("[]"), "run.json is damaged: TypeError"),
        (lambda f: (f / "run.json").write_text("{}"), "run.json is damaged: KeyError"),
        (lambda f: (f / "run.json").unlink(), "run.json is damaged: FileNotFoundError"),
        (lambda f: f.rename(f.with_name("0" * 12)), "its configuration is not the one of its folder"),
        (lambda f: (f / "samples.npz").unlink(), "samples.npz is damaged: it is missing or trunc"),
        (
            lambda f: (f / "samples.npz").write_bytes((f / "samples.npz").read_bytes()[:-30]),
            "samples.npz is damaged: it is missing or truncated",
        ),
    ],
)  # fmt: skip
def test_a_damaged_record_is_named_and_the_others_are_read(  # type: ignore[no-untyped-def]
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage, line: str
) -> None:
    whole, broken = saved(tmp_path), saved(tmp_path, Config(name="b"))
    damage(broken.folder)
    assert records.load("acme", tmp_path) == [whole]
    said = capsys.readouterr().err
    assert line in said and said.count("\n") == 1 and str(tmp_path / "acme") in said
    lines: list[str] = []
    records.load("acme", tmp_path, complain=lines.append)
    assert lines == [said.strip()]


def test_there_may_be_no_records(tmp_path: Path) -> None:
    assert records.load("acme", tmp_path) == []
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme" / ".0123456789ab.new-x").mkdir()
    (tmp_path / "acme" / ".0123456789ab.lock").touch()
    (tmp_path / "acme" / "0123456789ab.error").touch()
    assert records.load("acme", tmp_path) == []


def test_one_of_two_that_make_the_same_record_gives_up_its_copy(tmp_path: Path) -> None:
    first = saved(tmp_path)
    plain = records.plain(Config())
    second = records.save(first.folder, "acme", plain, Outcome({"late": 1}), seconds=1.0)
    assert second == first and second.metrics == OUTCOME.metrics


@pytest.mark.parametrize(
    ("parts", "agrees"),
    [((), True), ((True, True), True), ((True, False), False), ((False, True), False)],
)
def test_a_record_agrees_if_all_of_it_does(parts: tuple[bool, ...], agrees: bool) -> None:
    metrics: dict[str, object] = {f"m{i}": {"agrees": part} for i, part in enumerate(parts)}
    metrics |= {"number": 0.1, "measured": {"measured": 1.0}}  # of which nothing was predicted
    run = records.Run("acme", {}, metrics, 0.0, "sources", {}, Path())
    assert run.agrees is agrees
