"""The command line as a whole: help, wrong words, and what it lists."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import manifoldlab
from manifoldlab import app, catalog, listing, records, verification

Run = Callable[..., tuple[int, str, str]]
Refused = Callable[[tuple[int, str, str]], str]


def test_help_is_quick_and_leaves_torch_alone() -> None:
    """In a process of its own, by the time of its core: the machine of the tests may be busy. What
    would make it slow is an import of torch, and that is looked for by its name."""
    code = (
        "import sys, time; start = time.process_time()\n"
        "from manifoldlab.app import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as left: assert left.code == 0\n"
        "slow = {'torch', 'numpy', 'matplotlib', 'hypothesis'} & set(sys.modules)\n"
        "print(sorted(slow), time.process_time() - start)"
    )
    best = 9.0
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        loaded, _, seconds = done.stdout.splitlines()[-1].rpartition(" ")
        assert loaded == "[]" and "verify" in done.stdout
        best = min(best, float(seconds))
    assert best < 1.0


def test_the_version_is_that_of_the_package(run: Run) -> None:
    assert run("--version") == (0, f"manifoldlab {manifoldlab.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["verfy"], ["verfy", "verify, list, probe"]),
        (["verify", "--profil", "quick"], ["--profil", "Perhaps you meant", "--profile"]),
        (["verify", "--profile", "quik"], ["quik", "'quick'", "'thorough'"]),
        (["verify", "--seed", "x"], ["--seed", "x"]),
        (["probe", "--device", "tpu"], ["tpu", "cuda"]),
        ([], ["verify", "list", "probe"]),
    ],
)
def test_wrong_words_are_explained(run: Run, arguments: list[str], words: list[str]) -> None:
    status, out, err = run(*arguments)
    assert status == 2 and "Traceback" not in err and "\x1b" not in out + err
    assert not [word for word in words if word not in out + err]


def test_laws_may_stand_before_and_behind_options() -> None:
    from manifoldlab import options

    for words in (["B1", "C2", "--seed", "3"], ["--seed", "3", "B1", "C2"]):
        assert options.parse(["verify", *words]) == options.Verify(laws=("B1", "C2"), seed=3)
    assert options.parse(["verify"]) == options.Verify()
    assert options.Verify() == options.Verify((), "full", 0, Path("results/verify"), "cpu", False)


def test_the_kinds_are_listed(run: Run) -> None:
    status, out, _ = run("list")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == [*catalog.kinds(), *listing.BESIDE]


@pytest.mark.parametrize("kind", catalog.kinds())
def test_members_are_listed_with_a_sentence(run: Run, kind: str) -> None:
    status, out, _ = run("list", kind)
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == catalog.names(kind)
    assert all(len(line.split()) > 3 for line in out.splitlines())


def test_laws_are_read_as_they_are_imported() -> None:
    assert listing.laws() == {name: law.title for name, law in verification.laws().items()}


def test_an_unknown_kind_is_refused(run: Run, refused: Refused) -> None:
    assert "no kind called 'probe' (did you mean probes?)" in refused(run("list", "probe"))


def test_a_missing_tool_is_named(
    run: Run, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "manifoldlab.options", None)
    monkeypatch.delattr(manifoldlab, "options", raising=False)
    with pytest.raises(ModuleNotFoundError):  # of ours: no user's error
        app.main(["list"])
    monkeypatch.delitem(sys.modules, "manifoldlab.options")
    monkeypatch.setitem(sys.modules, "tyro", None)
    assert "this command needs tyro" in refused(run("list"))


def test_records_need_no_torch() -> None:
    code = "import manifoldlab.records, manifoldlab.listing, sys; sys.exit('torch' in sys.modules)"
    folder = Path(records.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=folder).returncode == 0
