"""A pickle is read for its numbers and strings; whatever else it asks for does not happen."""

import pickle
import pickletools
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manifoldlab import restricted_pickle

PIXELS = np.arange(12, dtype=np.uint8).reshape(2, 6)


def of_python_2(pixels: np.ndarray, labels: list[int]) -> bytes:
    """As the official CIFAR-10 files are, byte for byte: protocol 2 of Python 2 and of its numpy."""
    rows, columns = (b"M" + struct.pack("<H", side) for side in pixels.shape)
    raw = pixels.tobytes()
    return (
        b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x07a batchq\x03U\x06labelsq\x04]q\x05("
        + b"".join(b"K" + bytes([label]) for label in labels)
        + b"eU\x04dataq\x06cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85"
        + b"U\x01b\x87Rq\t(K\x01"
        + (rows + columns)
        + b"\x86cnumpy\ndtype\nq\nU\x02u1K\x00K\x01\x87Rq\x0b(K\x03U\x01|NNNJ\xff\xff\xff\xff"
        + b"J\xff\xff\xff\xffK\x00tb\x89T"
        + struct.pack("<i", len(raw))
        + raw
        + b"tbU\tfilenamesq\x0c]q\r(U\x05a.pngq\x0eU\x05b.pngq\x0feu."
    )


def test_the_form_of_python_2() -> None:
    held = restricted_pickle.read(of_python_2(PIXELS, [3, 9]))
    assert list(held) == ["batch_label", "labels", "data", "filenames"]
    assert held["labels"] == [3, 9] and held["filenames"] == [b"a.png", b"b.png"]
    assert held["data"].dtype == np.uint8 and np.array_equal(held["data"], PIXELS)


@pytest.mark.parametrize("protocol", range(5))
@pytest.mark.parametrize(
    "array",
    [PIXELS, np.asfortranarray(PIXELS), np.linspace(0, 1, 5), PIXELS.astype(">i4"), PIXELS > 3],
    ids=lambda array: f"{array.dtype.str}{array.shape}",
)
def test_what_python_3_writes(protocol: int, array: np.ndarray) -> None:
    value = {"x": array, "names": ["a", b"b", 1, 2.5, True, None], "nested": {"y": [array, array]}}
    held = restricted_pickle.read(pickle.dumps(value, protocol=protocol))
    assert held["x"].dtype == array.dtype and np.array_equal(held["x"], array)
    assert held["names"] == value["names"]
    assert held["nested"]["y"][0] is held["nested"]["y"][1]


class Calls:
    """Pickled, it calls a function when it is loaded."""

    def __init__(self, function: Any, *given: Any):
        self.call = (function, given)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_is_executed(protocol: int, tmp_path: Path) -> None:
    import os

    mark = tmp_path / "executed"
    content = pickle.dumps({"data": Calls(os.mkdir, str(mark))}, protocol=protocol)
    with pytest.raises(ValueError, match=r"^it asks for posix\.mkdir: nothing of it was executed$"):
        restricted_pickle.read(content)
    assert not mark.exists()
    pickle.loads(content)  # which shows that it would have been
    assert mark.exists()


HARMFUL = {
    "a name": (b"cbuiltins\neval\n.", "builtins.eval"),
    "a call": (b"cos\nsystem\n(S'true'\ntR.", "os.system"),
    "an instance": (b"(S'true'\nios\nsystem\n.", "os.system"),
    "an object": (b"(cos\nsystem\nS'true'\no.", "os.system"),
    "a part of numpy": (b"cnumpy\nload\n.", "numpy.load"),
    "a part of a name": (
        b"\x80\x04\x8c\x05numpy\x8c\x0edtype.__init__\x93.",
        "numpy.dtype.__init__",
    ),
    "an object from outside": (b"Pname\n.", "an object from outside"),
    "an attribute of a name": (
        b"cnumpy\ndtype\nN}X\x05\x00\x00\x00_makeK\x01s\x86b.",
        "to set _make",
    ),
    "objects in an array": (b"cnumpy\ndtype\n(U\x02O8K\x00K\x01tR.", "an array of 'O8'"),
    "a name alone": (b"cnumpy\nndarray\n.", "an object of type Name"),
    "a set": (b"\x80\x04\x8f.", "an object of type set"),
}


@pytest.mark.parametrize("content, words", HARMFUL.values(), ids=HARMFUL)
def test_whatever_else_it_asks_for_is_named(content: bytes, words: str) -> None:
    list(pickletools.genops(content))  # a pickle it is
    with pytest.raises(ValueError, match="nothing of it was executed") as refused:
        restricted_pickle.read(content)
    assert words in str(refused.value) and "\n" not in str(refused.value)


DAMAGED = {
    "empty": b"",
    "text": b"<html>no such page</html>",
    "an unknown extension": b"\x80\x02\x82\x01.",
    "a class of a name": b"\x80\x02cnumpy\nndarray\n)\x81.",
    "a list within itself": b"]q\x00h\x00a.",
    "an attribute of a list": b"]}U\x01aK\x01sb.",
    "bytes of no kind": b"cnumpy\nndarray\n)R(K\x01K\x02\x85K\x03\x89U\x02abtb.",
    "too many bytes": of_python_2(PIXELS, [3, 9]).replace(b"T\x0c", b"T\x0b"),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_what_is_damaged_is_refused_in_one_line(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"^it (is damaged, or no pickle|asks for)") as refused:
        restricted_pickle.read(content)
    assert "\n" not in str(refused.value)


def test_a_truncated_one_is_refused_wherever_it_ends() -> None:
    content = of_python_2(PIXELS, [3, 9])
    for end in range(len(content)):
        with pytest.raises(ValueError, match="^it is damaged, or no pickle"):
            restricted_pickle.read(content[:end])
