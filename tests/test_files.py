"""Files and folders are whole or not there, JSON is strict, and a lock binds until its process ends."""

import errno
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from manifoldlab import files


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    files.write_text(path, "νέο")
    assert path.read_text(encoding="utf-8") == "νέο"
    assert path.stat().st_mode & 0o777 == 0o644
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("stop", [OSError("no space"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: BaseException
) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "old")

    def replace(*_: object) -> None:
        raise stop

    monkeypatch.setattr(files.os, "replace", replace)
    with pytest.raises(type(stop)):
        files.write_text(path, "new")
    assert path.read_text() == "old" and names(tmp_path) == ["a.txt"]


def test_numbers_that_are_not_finite_are_null(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"a": [1.5, math.nan, (math.inf, {"b": -math.inf})], "c": 2})
    text = path.read_text()
    assert json.loads(text) == {"a": [1.5, None, [None, {"b": None}]], "c": 2}
    assert "NaN" not in text and "Infinity" not in text


def test_what_is_no_json_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        files.write_json(tmp_path / "a.json", {"a": object()})
    assert not list(tmp_path.iterdir())


def test_a_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    files.check_writable(tmp_path / "a" / "b")
    assert not list((tmp_path / "a" / "b").iterdir())


def test_what_cannot_be_written_is_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ValueError, match=rf"^cannot write results to {file}/a: Not a directory$"):
        files.check_writable(file / "a")
    with pytest.raises(ValueError, match=r"it is a folder$"):
        files.check_file(tmp_path)
    files.check_file(tmp_path / "new.json")
    assert names(tmp_path) == ["file"]


def fill(path: Path, text: str, *, replace: bool) -> None:
    with files.whole_folder(path, replace=replace) as new:
        (new / "text").write_text(text)


def test_a_folder_that_is_there_stays_or_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for text, replace, wanted in (
        ("one", False, "one"),
        ("two", False, "one"),
        ("three", True, "three"),
    ):
        fill(path, text, replace=replace)
        assert (path / "text").read_text() == wanted and names(tmp_path) == ["a"]
    assert path.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("stop", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_folder_that_is_not_filled_leaves_nothing(
    tmp_path: Path, stop: type[BaseException], replace: bool
) -> None:
    fill(tmp_path / "a", "old", replace=False)
    with pytest.raises(stop), files.whole_folder(tmp_path / "a", replace=replace) as new:
        (new / "text").write_text("half")
        raise stop
    assert (tmp_path / "a" / "text").read_text() == "old" and names(tmp_path) == ["a"]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    """Whatever instant it was killed at: while it filled the new folder, or put it in its place."""
    path = tmp_path / "a"
    (tmp_path / ".a.newer").mkdir()
    (tmp_path / ".a.new-x1").mkdir()
    files.clear_new(path)
    files.clear_beside(path)  # there is no folder to be beside of: it is still to be made
    assert names(tmp_path) == [".a.newer"]
    (tmp_path / ".a.newer").rmdir()
    fill(files.former(path), "old", replace=False)
    fill(path, "new", replace=True)
    assert (path / "text").read_text() == "new" and names(tmp_path) == ["a"]


def test_what_is_beside_a_whole_folder_is_removed_but_its_lock(tmp_path: Path) -> None:
    fill(tmp_path / "a", "text", replace=False)
    for name in (".a.old", ".a.new-x1", ".a.work-0", ".b.work-0", "a.more"):
        fill(tmp_path / name, "text", replace=False)
    for name in (".a.lock", ".a.error.abcd1234", "a.error"):
        (tmp_path / name).touch()
    files.clear_beside(tmp_path / "a")
    assert names(tmp_path) == [".a.lock", ".b.work-0", "a", "a.error", "a.more"]


HOLD = """
import sys, time
from pathlib import Path
from manifoldlab import files
with files.lock(Path(sys.argv[1]), wait=False) as ours:
    print(ours, flush=True)
    sys.stdin.read()
"""


def hold(path: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        cwd=Path(files.__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "True\n"
    return process


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with hold(path) as process:
        with files.lock(path, wait=False) as ours:
            assert not ours
        assert path.exists()
        process.kill()
    with files.lock(path, wait=False) as ours:
        assert ours
    assert not path.exists()


def test_a_lock_that_was_removed_while_one_waited_is_taken_anew(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with hold(path) as process:
        assert process.stdin is not None
        process.stdin.close()  # its owner leaves, and removes the file, while we wait
        with files.lock(path, wait=True) as ours:
            assert ours and path.exists()
            with files.lock(path, wait=False) as twice:
                assert not twice


def test_a_file_system_without_locks_does_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", flock)
    with files.lock(tmp_path / "lock", wait=True) as ours:
        assert ours


def test_a_folder_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, sync, rename = list[str](), os.fsync, os.rename

    def flushed(descriptor: int) -> None:
        done.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        sync(descriptor)

    def renamed(source: Path, target: Path) -> None:
        done.append(f"named {Path(target).name}")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "rename", renamed)
    with files.whole_folder(tmp_path / "a", replace=False) as new:
        for name in ("one", "two"):
            (new / name).write_text(name)
    assert sorted(done[:3]) == sorted(["one", "two", new.name]) and done[3:] == ["named a"]
