"""Published data sets from tiny files of their layouts: read alike, and refused by name where wrong."""

import gzip
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from manifoldlab.data import base, cifar10, digits, mnist
from manifoldlab.interfaces import Batch, Data


def whole(data: Data) -> Batch:
    return next(data.batches(10**6, None))


def bytes_of(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write_idx(path: Path, values: np.ndarray, magic: int) -> None:
    content = struct.pack(f">{1 + values.ndim}I", magic, *values.shape) + values.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_mnist(folder: Path, ending: str = "", n: int = 7) -> None:
    for part in ("train", "t10k"):
        write_idx(folder / f"{part}-images-idx3-ubyte{ending}", bytes_of((n, 28, 28)), 2051)
        write_idx(folder / f"{part}-labels-idx1-ubyte{ending}", bytes_of((n,), 1) % 10, 2049)


def write_cifar10(folder: Path, write: Callable[[Path, np.ndarray, np.ndarray], None]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate((*cifar10.BATCHES, "test_batch")):
        write(folder / name, bytes_of((4, 3072), i), bytes_of((4,), 10 + i) % 10)


def write_binary(path: Path, x: np.ndarray, y: np.ndarray) -> None:
    path.with_suffix(".bin").write_bytes(np.hstack([y[:, None], x]).tobytes())


def write_pickle(path: Path, x: np.ndarray, y: np.ndarray) -> None:
    path.write_bytes(pickle.dumps({b"data": x, b"labels": y.tolist()}, protocol=2))


def test_digits_are_split_alike_in_every_class() -> None:
    train, test = whole(digits.digits()), whole(digits.digits(train=False))
    assert train.x.shape == (797, 1, 8, 8) and test.x.shape == (1000, 1, 8, 8)
    assert (train.x.min(), train.x.max()) == (0, 1) and train.x.dtype == torch.float32
    counts = train.y.bincount() + test.y.bincount()
    assert (test.y.bincount() - counts * 1000 / 1797).abs().max() < 1
    rows = {tuple(x.flatten().tolist()) for x in train.x}
    assert not rows & {tuple(x.flatten().tolist()) for x in test.x}


def test_another_split_seed_is_another_split() -> None:
    own = digits.digits(train=False)
    assert own.fingerprint == digits.digits(root="nowhere", train=False).fingerprint
    assert own.fingerprint != digits.digits(train=False, split_seed=1).fingerprint
    assert own.classes == tuple("0123456789") and own.shape == (1, 8, 8)


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("place", ["", "MNIST/raw", "mnist"])
def test_mnist_packed_or_not_in_any_of_its_places(tmp_path: Path, place: str, ending: str) -> None:
    write_mnist(tmp_path / place, ending)
    data = mnist.mnist(root=str(tmp_path), check=False)
    batch = whole(data)
    assert torch.equal((255 * batch.x).round().byte()[:, 0], torch.tensor(bytes_of((7, 28, 28))))
    assert batch.y.tolist() == (bytes_of((7,), 1) % 10).tolist()
    assert data.shape == (1, 28, 28) and len(data.classes) == data.num_classes == 10


def test_the_environment_says_where_data_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mnist(tmp_path)
    monkeypatch.setenv(base.VARIABLE, str(tmp_path))
    assert mnist.mnist(train=False, check=False).shape == (1, 28, 28)
    monkeypatch.delenv(base.VARIABLE)
    with pytest.raises(base.Missing, match="give root or set MANIFOLDLAB_DATA; looked for t10k"):
        mnist.mnist(train=False)


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(ValueError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_is_missing_is_named_with_its_places_and_its_page(tmp_path: Path) -> None:
    root = str(tmp_path)
    line = refused(lambda: mnist.mnist(root=root))
    words = [root, "train-images-idx3-ubyte", ".gz", "MNIST/raw", "yann.lecun.com"]
    assert not [word for word in words if word not in line]
    line = refused(lambda: cifar10.cifar10(root=root))
    words = ["data_batch_5.bin", "data_batch_5 ", "cifar-10-batches-py", "cs.toronto.edu"]
    assert not [word for word in words if word not in f"{line} "]
    assert f"there is no folder {root}/none" in refused(lambda: mnist.mnist(root=f"{root}/none"))
    write_mnist(tmp_path / "mnist")
    (tmp_path / "mnist/train-labels-idx1-ubyte").unlink()
    line = refused(lambda: mnist.mnist(root=root))
    assert f"mnist is not whole: {root}/mnist lacks train-labels-idx1-ubyte;" in line


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def relabel(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"\x0a")


def make_images(path: Path) -> None:
    write_idx(path, bytes_of((7, 28, 28)), 2051)


WRONG_MNIST = {
    "shortened": (shorten, "labels-idx1-ubyte has 14 bytes, not the 15 of its 7 items"),
    "no header": (lambda path: path.write_bytes(b"1234"), "is truncated: 4 bytes"),
    "another label": (relabel, "label 10 at sample 6 for classes 0 to 9"),
    "images": (make_images, "(2051, 7) where the magic number"),
    "too few": (lambda p: write_idx(p, bytes_of((3,)) % 10, 2049), "3 labels for the 7 images"),
}


@pytest.mark.parametrize("damage, words", WRONG_MNIST.values(), ids=WRONG_MNIST)
def test_a_wrong_file_of_mnist_is_named(
    tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    write_mnist(tmp_path)
    path = tmp_path / "train-labels-idx1-ubyte"
    damage(path)
    line = refused(lambda: mnist.mnist(root=str(tmp_path), check=False))
    assert str(path) in line and words in line.replace("(2051,)", "(2051, 7)")


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    write_mnist(tmp_path, ".gz")
    path = tmp_path / "train-images-idx3-ubyte.gz"
    content = path.read_bytes()
    for broken in (content[:-20], b"no archive", content[:30] + b"xxxx" + content[34:]):
        path.write_bytes(broken)
        line = refused(lambda: mnist.mnist(root=str(tmp_path), check=False))
        assert line.startswith(f"{path} is damaged: ")


def test_a_file_that_is_not_the_published_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hashlib

    write_mnist(tmp_path)
    path = tmp_path / "t10k-images-idx3-ubyte"
    line = refused(lambda: mnist.mnist(root=str(tmp_path), train=False))
    assert (
        line.startswith(f"{path} is not the published file: its md5 is ") and "check=False" in line
    )
    own = {name: hashlib.md5((tmp_path / name).read_bytes()).hexdigest() for name in mnist.MD5}
    monkeypatch.setattr(mnist, "MD5", own)
    assert mnist.found(str(tmp_path), False)[2:] == (7, 7, 10, "md5")


def test_cifar10_binary_and_pickled_is_the_same(tmp_path: Path) -> None:
    write_cifar10(tmp_path / "a/cifar-10-batches-bin", write_binary)
    write_cifar10(tmp_path / "b/cifar-10-batches-py", write_pickle)
    for train, count in ((True, 20), (False, 4)):
        one, other = (
            cifar10.cifar10(root=str(tmp_path / name), train=train, check=False) for name in "ab"
        )
        assert one.fingerprint == other.fingerprint and one.classes[6] == "frog"
        x, y = whole(one).x, whole(one).y
        assert torch.equal(x, whole(other).x) and torch.equal(y, whole(other).y)
        assert x.shape == (count, 3, 32, 32)
    last = bytes_of((4, 3072), 4)[3].reshape(3, 32, 32)
    row = whole(cifar10.cifar10(root=str(tmp_path / "a"), check=False)).x[19]
    assert torch.equal((row * 255).round().byte(), torch.tensor(last))


def test_a_harmful_pickle_is_named_and_not_executed(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    write_cifar10(folder, write_pickle)
    mark = tmp_path / "executed"
    (folder / "data_batch_3").write_bytes(f"cos\nmkdir\n(S'{mark}'\ntR.".encode())
    for check in (False, True):
        line = refused(
            lambda check=check: cifar10.table([folder / "data_batch_3"], cifar10.FORMAT, check)
        )
        assert line.startswith(f"{folder / 'data_batch_3'} is not read: it asks for os.mkdir: ")
    assert not mark.exists()


X = bytes_of((4, 3072))
WRONG_PICKLES = {
    "no labels": ({"data": X}, "no list 'labels'"),
    "too few labels": ({"data": X, "labels": [1]}, "no list 'labels' of 4"),
    "labels of another kind": ({"data": X, "labels": [1.0, 2.0, 3.0, 4.0]}, "whole numbers"),
    "a label too large": ({"data": X, "labels": [1, 2, 10, 3]}, "label 10 at sample 2"),
    "pixels of another kind": ({"data": X.astype(float), "labels": [1] * 4}, "no array 'data'"),
    "pictures of another size": ({"data": X[:, :5], "labels": [1] * 4}, "3072 a picture"),
    "a list": ([1, 2], "no array 'data'"),
}


@pytest.mark.parametrize("value, words", WRONG_PICKLES.values(), ids=WRONG_PICKLES)
def test_a_wrong_pickle_is_named(tmp_path: Path, value: object, words: str) -> None:
    path = tmp_path / "data_batch_1"
    path.write_bytes(pickle.dumps(value, protocol=2))
    line = refused(lambda: cifar10.table([path], cifar10.FORMAT, False))
    assert line.startswith(str(path)) and words in line


def test_a_truncated_binary_file_is_named(tmp_path: Path) -> None:
    write_cifar10(tmp_path, write_binary)
    path = tmp_path / "data_batch_2.bin"
    for content in (path.read_bytes()[:-1], b""):
        path.write_bytes(content)
        line = refused(lambda: cifar10.cifar10(root=str(tmp_path), check=False))
        assert line.startswith(f"{path} is truncated, or another file: {len(content)} bytes")


def test_a_name_may_have_options() -> None:
    own = digits.digits(train=False, split_seed=3).fingerprint
    assert base.load("digits(split_seed=3)", train=False).fingerprint == own
    composed = base.load("distractor(of='digits(split_seed=3)', letter='B')")
    assert composed.shape == (1, 16, 8)
    for text, words in [
        ("digits(root='x')", "no option of data set digits called 'root'"),
        (
            "digits(split=3)",
            "no option of data set digits called 'split' (did you mean split_seed?)",
        ),
        ("digits(split_seed=open('x'))", "is neither a data set nor one with options"),
        ("digits(3)", "is neither a data set nor one with options"),
        ("digits.digits()", "is neither a data set nor one with options"),
        ("tiny imagenet", "is neither a data set nor one with options"),
        ("", "is neither a data set nor one with options"),
    ]:
        assert words in refused(lambda text=text: base.load(text))


def test_only_data_sets_are_loaded_by_name() -> None:
    assert {"digits", "mnist", "cifar10"} <= set(base.loaders())
    assert base.load("digits", train=False).fingerprint == digits.digits(train=False).fingerprint
    for name in ("in_memory", "samples", "fresh_samples", "minst"):
        line = refused(lambda name=name: base.load(name))
        assert f"no data set called {name!r}" in line and "cifar10, " in line and "mnist, " in line
