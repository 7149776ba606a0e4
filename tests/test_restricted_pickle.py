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
    with pytest.raises(ValueError, match="^it asks for posix.mkdir: nothing of it was executed$"):
        restricted_pickle.read(content)
    assert not mark.exists()
    pickle.loads(content)  # which shows that it would have been
    assert mark.exists()


HARMFUL = {
    "a name": (b"cbuiltins\neval\n.", "it asks for builtins.eval:"),
    "a call": (b"cos\nsystem\n(S'true'\ntR.", "it asks for os.system:"),
    "an instance": (b"(S'true'\nios\nsystem\n.", "it asks for os.system:"),
    "an instance of a name": (b"(inumpy\nndarray\n.", "it asks for numpy.ndarray:"),
    "an object": (b"(cos\nsystem\no.", "it asks for os.system:"),
    "a part of numpy": (b"cnumpy\nload\n.", "it asks for numpy.load:"),
    "a name in two lines": (b"\x80\x04\x8c\x02os\x8c\x04a\nbc\x93.", "it asks for os.a bc:"),
    "a part of a name": (
        b"\x80\x04\x8c\x05numpy\x8c\x07dtype.x\x93.",
        "it asks for numpy.dtype.x:",
    ),
    "an object from outside": (
        b"Pname\n.",
        "no pickle of plain values: instruction b'P' at byte 0",
    ),
    "a known extension": (
        b"\x80\x02\x82\x01.",
        "no pickle of plain values: instruction b'\\x82' at byte 2",
    ),
    "a class without its call": (
        b"\x80\x02cnumpy\ndtype\n)\x81.",
        "no pickle of plain values: instruction b'\\x81' at byte 16",
    ),
    "an attribute of a name": (b"cnumpy\ndtype\n}b.", "to set the state of numpy.dtype:"),
    "an attribute of a list": (b"]}b.", "to set the state of a list:"),
    "a call of a list": (b"])R.", "to call a list:"),
    "a call of a class": (b"cnumpy\nndarray\n)R.", "to call numpy.ndarray:"),
    "objects in an array": (b"cnumpy\ndtype\nU\x02O8\x85R.", "an array of 'O8', not of numbers:"),
    "fields in an array": (
        b"cnumpy\ndtype\nU\x02u1\x85R(K\x03U\x01|NX\x01\x00\x00\x00aNtb.",
        "an array of a kind described by",
    ),
    "an array of a list": (
        b"cnumpy.core.multiarray\n_reconstruct\n)R(K\x01K\x02cnumpy\ndtype\nU\x02u1\x85R\x89]tb.",
        "an array whose content is no bytes of numbers:",
    ),
    "another encoding": (b"c_codecs\nencode\nX\x01\x00\x00\x00aU\x05rot13\x86R.", "encoded as"),
    "a name alone": (b"cnumpy\nndarray\n.", "it asks for numpy.ndarray:"),
    "a kind alone": (b"cnumpy\ndtype\nU\x02u1\x85R.", "it asks for a Kind:"),
    "a set": (b"\x80\x04\x8f.", "no pickle of plain values: instruction b'\\x8f' at byte 2"),
    "a list as a key": (b"}]K\x01s.", "for a key that is a list:"),
    "an item of a list": (b"]K\x00K\x01s.", "to set a key of a list:"),
    "more of a string": (b"U\x01aK\x01a.", "to append to a bytes:"),
}


@pytest.mark.parametrize("content, words", HARMFUL.values(), ids=HARMFUL)
def test_whatever_else_it_asks_for_is_named(content: bytes, words: str) -> None:
    list(pickletools.genops(content))  # a pickle it is
    with pytest.raises(ValueError) as refused:
        restricted_pickle.read(content)
    assert words in str(refused.value) and "\n" not in str(refused.value)


DAMAGED = {
    "empty": b"",
    "text": b"<html>no such page</html>",
    "a list within itself": b"]q\x00h\x00a.",
    "no stack": b"t.",
    "an empty stack": b"\x85.",
    "nothing noted": b"h\x07.",
    "two values": b"NN.",
    "half an item": b"}(K\x01u.",
    "too many bytes": of_python_2(PIXELS, [3, 9]).replace(b"T\x0c", b"T\x0b"),
    "too large an array": of_python_2(PIXELS, [3, 9]).replace(b"M\x06", b"M\x07"),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_what_is_damaged_is_refused_in_one_line(content: bytes) -> None:
    with pytest.raises(
        ValueError, match="^it is damaged, or no pickle of plain values: "
    ) as refused:
        restricted_pickle.read(content)
    assert "\n" not in str(refused.value)


def test_a_truncated_one_is_refused_wherever_it_ends() -> None:
    content = of_python_2(PIXELS, [3, 9])
    for end in range(len(content)):
        with pytest.raises(ValueError, match="^it is damaged, or no pickle of plain values: "):
            restricted_pickle.read(content[:end])


def test_a_note_of_a_large_number_needs_no_memory() -> None:
    """Python's machine keeps a table as long as the number."""
    assert restricted_pickle.read(b"\x80\x02]r\xff\xff\xff\x7f.") == []


def test_any_change_of_some_bytes_is_read_or_refused() -> None:
    random = np.random.default_rng(0)
    content = np.frombuffer(of_python_2(PIXELS, [3, 9]), np.uint8)
    read = 0
    for _ in range(2000):
        changed = content.copy()
        changed[random.integers(0, len(content), 2)] = random.integers(0, 256, 2)
        try:
            restricted_pickle.read(changed.tobytes())
            read += 1
        except ValueError as error:
            assert str(error).startswith("it ") and "\n" not in str(error)
    assert 0 < read < 2000
