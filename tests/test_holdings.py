"""`manifoldlab data`: what is found is counted, what is missing and what is wrong is said in a line."""

import gzip
import hashlib
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from manifoldlab import holdings
from manifoldlab.data import base, mnist

Run = Callable[..., tuple[int, str, str]]
Refused = Callable[[tuple[int, str, str]], str]


def write_mnist(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five pictures a part, of which the checksums are said to be the published ones."""
    folder.mkdir(parents=True, exist_ok=True)
    md5 = dict[str, str]()
    for name in mnist.MD5:
        images = "images" in name
        header = (2051, 5, 28, 28) if images else (2049, 5)
        content = struct.pack(f">{len(header)}I", *header) + bytes(5 * 784 if images else 5)
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        md5[name] = hashlib.md5(content).hexdigest()
    monkeypatch.setattr(mnist, "MD5", md5)


def rows(out: str, name: str) -> list[list[str]]:
    return [line.split() for line in out.splitlines() if line.split()[:1] == [name]]


def test_what_is_found_is_counted_and_what_is_missing_is_named(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mnist(tmp_path / "MNIST/raw", monkeypatch)
    status, out, _ = run("data", "--root", str(tmp_path))
    assert status == 0 and "wrong:" not in out
    parts = [row[1:5] for row in rows(out, "mnist")]
    assert parts == [[part, "5", "1", "of"] for part in ("train", "test")]
    assert [row[2] for row in rows(out, "digits")] == ["797", "1,000"]
    lines = [line for line in out.splitlines() if line.startswith("missing: ")]
    named = ("cifar10", "cifar100", "imagenet", "svhn", "tiny_imagenet", "voc")
    assert [line.split()[1] for line in lines] == list(named)  # once each
    assert all("looked for" in line and "published at http" in line for line in lines)


def test_what_is_wrong_is_named_and_told_by_the_status(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mnist(tmp_path, monkeypatch)
    path = tmp_path / "t10k-labels-idx1-ubyte.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[-1] = 3
    path.write_bytes(gzip.compress(content))
    status, out, _ = run("data", "--root", str(tmp_path))
    wrong = [line for line in out.splitlines() if line.startswith("wrong: ")]
    assert status == 1 and len(wrong) == 1
    assert wrong[0].startswith(f"wrong: {path} is not the published file: its md5 is ")
    assert [row[1] for row in rows(out, "mnist")] == ["train"]


def test_without_a_folder_there_are_still_the_digits(
    run: Run, refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(base.VARIABLE, raising=False)
    status, out, _ = run("data")
    assert status == 0 and len(rows(out, "digits")) == 2
    assert "give root or set MANIFOLDLAB_DATA; looked for train-images" in out
    monkeypatch.setenv(base.VARIABLE, str(tmp_path))
    assert f"mnist is not in {tmp_path}" in run("data")[1]
    assert "there is no such folder" in refused(run("data", "--root", str(tmp_path / "none")))


def test_what_takes_long_is_said(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holdings, "PATIENCE", 1e9)
    assert run("data", "--root", str(tmp_path))[2] == ""
    monkeypatch.setattr(holdings, "PATIENCE", -1.0)
    assert "looking at digits\nlooking at imagenet\n" in run("data", "--root", str(tmp_path))[2]
