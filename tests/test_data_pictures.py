"""Data sets of pictures in files, from tiny ones in their publishers' layouts."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from manifoldlab import decoding
from manifoldlab.data import cifar100, image_folder, imagenet, svhn, tiny_imagenet, voc
from manifoldlab.data.base import Missing
from manifoldlab.interfaces import Batch, Data


def bytes_of(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def whole(data: Data) -> Batch:
    return next(data.batches(10**6, None))


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(ValueError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_cifar100_has_the_fine_labels_of_both_forms(tmp_path: Path) -> None:
    import pickle

    x, coarse, fine = bytes_of((5, 3072)), bytes_of((5,), 1) % 20, bytes_of((5,), 2) % 100
    binary, pickled = tmp_path / "a/cifar-100-binary", tmp_path / "b/cifar-100-python"
    for folder in (binary, pickled):
        folder.mkdir(parents=True)
    (binary / "train.bin").write_bytes(np.hstack([np.stack([coarse, fine], 1), x]).tobytes())
    value = {b"data": x, b"coarse_labels": coarse.tolist(), b"fine_labels": fine.tolist()}
    (pickled / "train").write_bytes(pickle.dumps(value, protocol=2))
    one, other = (cifar100.cifar100(root=str(tmp_path / name), check=False) for name in "ab")
    assert one.fingerprint == other.fingerprint and whole(one).y.tolist() == fine.tolist()
    assert torch.equal((255 * whole(one).x).round().byte(), torch.tensor(x).reshape(5, 3, 32, 32))
    assert len(set(one.classes)) == one.num_classes == 100
    assert one.classes == tuple(sorted(one.classes))
    assert cifar100.found(str(tmp_path / "a"), True).verified == "no checksum known"
    line = refused(lambda: cifar100.cifar100(root=str(tmp_path / "b")))
    assert line.startswith(f"{pickled / 'train'} is not the published file")


def test_label_10_of_svhn_is_the_digit_0(tmp_path: Path) -> None:
    from scipy.io import savemat

    path, x = tmp_path / "test_32x32.mat", bytes_of((32, 32, 3, 4))
    savemat(path, {"X": x, "y": np.array([[1], [9], [10], [10]], np.uint8)})
    data = svhn.svhn(root=str(tmp_path), train=False, check=False)
    assert whole(data).y.tolist() == [1, 9, 0, 0] and data.shape == (3, 32, 32)
    assert (255 * whole(data).x[3, 2, 5, 7]).round() == x[5, 7, 2, 3]
    wrong = {
        "label 11 at sample 1": {"X": x, "y": np.array([[1], [12], [10], [10]], np.uint8)},
        "for 4 pictures": {"X": x, "y": np.array([[1], [1]], np.uint8)},
        "not uint8 of (32, 32, 3)": {"X": x[:5], "y": np.ones((4, 1), np.uint8)},
        "no .mat file of X and y": {"X": x},
    }
    for words, held in wrong.items():
        savemat(path, held)
        line = refused(lambda: svhn.svhn(root=str(tmp_path), train=False, check=False))
        assert line.startswith(str(path)) and words in line
    path.write_bytes(path.read_bytes()[:-40])
    assert "is damaged" in refused(lambda: svhn.svhn(root=str(tmp_path), train=False, check=False))


def folders(root: Path, **counts: int) -> None:
    for i, (name, count) in enumerate(counts.items()):
        for k in range(count):
            write(root / name / f"{k}.png", bytes_of((5, 6, 3), 10 * i + k))


def test_class_folders_are_labels(tmp_path: Path) -> None:
    folders(tmp_path / "train", cat=3, ape=2)
    folders(tmp_path / "val", cat=1)
    (tmp_path / "train/.hidden").mkdir()
    (tmp_path / "train/ape/notes.txt").write_text("no picture")
    data = image_folder.image_folder(root=str(tmp_path), workers=0)
    assert data.classes == ("ape", "cat") and data.shape == (3, 5, 6)
    assert whole(data).y.tolist() == [0, 0, 1, 1, 1]
    own = torch.tensor(bytes_of((5, 6, 3), 11)).permute(2, 0, 1)
    assert torch.equal((255 * whole(data).x[1]).round().byte(), own)
    assert whole(image_folder.image_folder(root=str(tmp_path), train=False, workers=0)).y == 1
    bare = image_folder.image_folder(root=str(tmp_path / "train"), split=".", workers=0)
    assert torch.equal(whole(bare).x, whole(data).x)


def test_worker_processes_give_the_same_batches(tmp_path: Path) -> None:
    folders(tmp_path / "train", a=4, b=3)
    here, there = (image_folder.image_folder(root=str(tmp_path), workers=n) for n in (0, 2))
    for seed in (None, 5):
        for one, other in zip(here.batches(3, seed), there.batches(3, seed), strict=True):
            assert torch.equal(one.x, other.x) and torch.equal(one.y, other.y)
            assert torch.equal(one.index, other.index)
    assert here.fingerprint == there.fingerprint
    assert next(here.batches(7, 5)).index.tolist() != list(range(7))


def test_processes_that_take_turns_read_their_own_batches(tmp_path: Path) -> None:
    folders(tmp_path / "train", a=4, b=3)
    whole_of = list(image_folder.image_folder(root=str(tmp_path), workers=0).batches(2, 1))
    for count in (2, 5):
        parts = [
            list(image_folder.image_folder(root=str(tmp_path), workers=0, turn=turn).batches(2, 1))
            for turn in ((rank, count) for rank in range(count))
        ]
        for number, entire in enumerate(whole_of):
            for rank, part in enumerate(parts):
                own, batch = number % count == rank, part[number]
                assert torch.equal(batch.x, entire.x if own else torch.zeros_like(entire.x))
                assert torch.equal(batch.y, entire.y) and torch.equal(batch.index, entire.index)
    for turn in ((2, 2), (-1, 2), (0, 0)):
        assert f"turn {turn[0]} of {turn[1]}" in refused(
            lambda turn=turn: image_folder.image_folder(root=str(tmp_path), turn=turn)
        )


def test_workers_leave_global_random_numbers_alone(tmp_path: Path) -> None:
    folders(tmp_path / "train", a=2)
    before = torch.get_rng_state()
    list(image_folder.image_folder(root=str(tmp_path), workers=1).batches(1, 0))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_limit_takes_as_many_of_each_class(tmp_path: Path) -> None:
    folders(tmp_path / "train", a=5, b=2, c=5)
    data = image_folder.image_folder(root=str(tmp_path), limit=8, workers=0)
    batch = whole(data)
    assert batch.y.bincount().tolist() == [3, 2, 3] and data.num_classes == 3
    entire = image_folder.image_folder(root=str(tmp_path), workers=0)
    assert torch.equal(whole(entire).x[batch.index], batch.x)
    assert entire.fingerprint != data.fingerprint


def test_a_fingerprint_knows_names_sizes_labels_and_the_view(tmp_path: Path) -> None:
    folders(tmp_path / "train", a=2, b=1)

    def own(size: int = 0) -> str:
        return image_folder.image_folder(root=str(tmp_path), size=size).fingerprint

    first = own()
    prints = {first, own(4), own(5)}
    (tmp_path / "train/a/1.png").rename(tmp_path / "train/a/2.png")
    prints.add(own())
    (tmp_path / "train/a/2.png").rename(tmp_path / "train/b/2.png")
    prints.add(own())
    write(tmp_path / "train/b/2.png", bytes_of((9, 9, 3)))
    prints.add(own())
    assert len(prints) == 6 and own() == own()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_wrong_picture_is_named_in_one_line(tmp_path: Path, workers: int) -> None:
    folders(tmp_path / "train", a=3)
    path = tmp_path / "train/a/1.png"

    def line() -> str:
        return refused(
            lambda: whole(image_folder.image_folder(root=str(tmp_path), workers=workers))
        )

    write(path, bytes_of((5, 7, 3)))
    assert line() == f"{path} is 7 x 5 where 6 x 5 is due: give size"
    write(path, bytes_of((5, 6)).astype(np.uint16))
    assert line() == f"{path} has mode I;16, not 8 bits a channel"
    path.write_bytes(b"no picture")
    assert line() == f"{path} is no picture"
    write(path, bytes_of((5, 6, 3)))
    path.write_bytes(path.read_bytes()[:60])
    assert line().startswith(f"{path} is damaged: ")


def test_wrong_folders_are_named(tmp_path: Path) -> None:
    root = str(tmp_path)
    assert "has no folder train" in refused(lambda: image_folder.image_folder(root=root))
    (tmp_path / "train").mkdir()
    assert "has no pictures" in refused(lambda: image_folder.image_folder(root=root))
    folders(tmp_path / "train", a=1)
    (tmp_path / "train/b").mkdir()
    line = refused(lambda: image_folder.image_folder(root=root))
    assert line.startswith(f"{tmp_path / 'train/b'} has no pictures")
    folders(tmp_path / "val", c=1)
    line = refused(lambda: image_folder.image_folder(root=root, train=False))
    assert line.startswith(f"{tmp_path / 'val/c/0.png'} is in no folder of a class")


@pytest.mark.parametrize(
    "mode, channels", [("L", 1), ("RGBA", 4), ("P", 1), ("CMYK", 4), ("1", 1), ("LA", 2)]
)
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str, channels: int) -> None:
    ending = "tif" if mode == "CMYK" else "png"
    Image.fromarray(bytes_of((5, 6, 3))).convert(mode).save(tmp_path / f"one.{ending}")
    assert decoding.pixels(decoding.picture(tmp_path / f"one.{ending}")).shape == (3, 5, 6)
    assert len(Image.new(mode, (1, 1)).getbands()) == channels


@pytest.mark.parametrize(
    "width, height, left, top, sides",
    [(40, 20, 6, 1, (20, 10)), (20, 41, 1, 6, (10, 20)), (20, 20, 1, 1, (10, 10))],
)
def test_the_shorter_side_is_resized_and_the_centre_cropped(
    width: int, height: int, left: int, top: int, sides: tuple[int, int]
) -> None:
    """Sides as torchvision's Resize and CenterCrop have them: longer ones rounded down, corners to even."""
    image = Image.fromarray(bytes_of((height, width, 3)))
    expected = image.resize(sides, Image.Resampling.BILINEAR)
    own = decoding.pixels(decoding.Central(10, 8)(image))
    assert torch.equal(own, decoding.pixels(expected)[:, top : top + 8, left : left + 8])


def test_views_that_cannot_be_are_refused() -> None:
    for crop in (0, 11):
        assert f"side {crop} from" in refused(lambda crop=crop: decoding.Central(10, crop))
    assert "not 0" in refused(lambda: decoding.Squeezed(0))


WNIDS = [f"n{10**7 + 3 * i}" for i in range(1000)]


def write_classes(folder: Path) -> None:
    rows = [f"{i}\t{wnid}\tclass {i}\t" for i, wnid in enumerate(WNIDS)]
    (folder / "classes.tsv").write_text("\n".join(["index\twnid\tname\tfile", *rows]))


def test_imagenet_in_class_folders_or_flat(tmp_path: Path) -> None:
    chosen = {WNIDS[7]: bytes_of((30, 50, 3)), WNIDS[999]: bytes_of((50, 30), 1)}
    for wnid, pixels in chosen.items():
        write(tmp_path / f"a/imagenet/val/{wnid}/{wnid}_one.JPEG", pixels)
        write(tmp_path / f"b/val/{wnid}_one.JPEG", pixels)
    options = {"train": False, "shorter": 12, "crop": 10, "workers": 0}
    write_classes(tmp_path / "a/imagenet")
    (tmp_path / "b/LOC_synset_mapping.txt").write_text("".join(f"{w} a, b\n" for w in WNIDS))
    one, other = (imagenet.imagenet(root=str(tmp_path / name), **options) for name in "ab")
    assert torch.equal(whole(one).x, whole(other).x)
    assert whole(one).y.tolist() == whole(other).y.tolist() == [7, 999]
    assert one.shape == (3, 10, 10) and one.num_classes == 1000
    assert (one.classes[7], other.classes[7]) == ("class 7", "a, b")
    assert imagenet.found(str(tmp_path / "a"), False)[2:4] == (2, 2)


def test_a_thousand_class_folders_name_themselves(tmp_path: Path) -> None:
    for wnid in WNIDS:
        (tmp_path / "val" / wnid).mkdir(parents=True)
    write(tmp_path / f"val/{WNIDS[3]}/one.JPEG", bytes_of((20, 20, 3)))
    data = imagenet.imagenet(root=str(tmp_path), train=False)
    assert data.classes == tuple(WNIDS) and imagenet.found(str(tmp_path), False).classes == 1
    (tmp_path / "val" / WNIDS[0]).rmdir()
    assert "999 class folders, not 1000" in refused(lambda: imagenet.found(str(tmp_path), False))


def test_what_is_wrong_with_imagenet_is_named(tmp_path: Path) -> None:
    def line() -> str:
        return refused(lambda: imagenet.imagenet(root=str(tmp_path), train=False))

    assert "looked for val/WNID/*.JPEG" in line() and "image-net.org" in line()
    folder = tmp_path / "imagenet"
    write(folder / f"val/{WNIDS[0]}/one.JPEG", bytes_of((20, 20, 3)))
    write_classes(folder)
    other = write(folder / "val/ILSVRC2012_val_00000001.JPEG", bytes_of((20, 20, 3)))
    assert line() == f"{other} is neither in the folder of a class nor named by one"
    table = (folder / "classes.tsv").read_text().splitlines()
    for rows, words in ((table[:-1], "names 999 classes"), (table[::-1], "once each and in order")):
        (folder / "classes.tsv").write_text("\n".join(rows))
        assert line().startswith(str(folder / "classes.tsv")) and words in line()


TINY = ("n00000001", "n00000002", "n00000003")


def write_tiny(root: Path, train: tuple[str, ...] = TINY) -> Path:
    folder = root / "tiny-imagenet-200"
    lines = list[str]()
    for i, wnid in enumerate(TINY):
        write(folder / f"val/images/val_{i}.JPEG", bytes_of((64, 64, 3), i))
        lines.append(f"val_{i}.JPEG\t{wnid}\t{i}\t10\t{i + 1}\t63\n")
    (folder / "val/val_annotations.txt").write_text("".join(lines))
    for i, wnid in enumerate(train):
        for k in range(2):
            write(folder / f"train/{wnid}/images/{wnid}_{k}.JPEG", bytes_of((64, 64), i + k))
        boxes = "".join(f"{wnid}_{k}.JPEG\t0\t0\t62\t{k}\n" for k in range(2))
        (folder / f"train/{wnid}/{wnid}_boxes.txt").write_text(boxes)
    (folder / "wnids.txt").write_text("\n".join(TINY[::-1]))
    (folder / "words.txt").write_text(f"{TINY[0]}\tfirst\nn99999999\tother\n")
    return folder


def test_tiny_imagenet_with_its_boxes(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    data = tiny_imagenet.tiny_imagenet(root=str(tmp_path), train=False)
    batch = whole(data)
    assert data.classes == ("first", *TINY[1:]) and batch.y.tolist() == [0, 1, 2]
    expected = torch.zeros(3, 3, 64, 64, dtype=torch.bool)
    for i in range(3):
        expected[i, :, 10:64, i : i + 2] = True
    assert torch.equal(batch.region, expected) and batch.x.shape == expected.shape
    grey = whole(tiny_imagenet.tiny_imagenet(root=str(tmp_path)))
    assert torch.equal(grey.x[:, 0], grey.x[:, 2]) and grey.y.tolist() == [0, 0, 1, 1, 2, 2]
    assert grey.region[1, 0].sum() == 2 * 63 and tiny_imagenet.found(str(tmp_path), True)[2:4] == (
        6,
        3,
    )


def test_tiny_imagenet_of_fewer_classes_when_stated(tmp_path: Path) -> None:
    write_tiny(tmp_path, TINY[1:])
    line = refused(lambda: tiny_imagenet.tiny_imagenet(root=str(tmp_path)))
    assert "train has 2 of 3 classes: partial=True takes these" in line
    train, val = (
        tiny_imagenet.tiny_imagenet(root=str(tmp_path), train=part, partial=True)
        for part in (True, False)
    )
    assert train.classes == val.classes == TINY[1:]
    assert whole(train).y.tolist() == [0, 0, 1, 1] and whole(val).y.tolist() == [0, 1]


def test_what_is_wrong_with_tiny_imagenet_is_named(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path)
    notes = folder / "val/val_annotations.txt"
    good = notes.read_text()

    def line() -> str:
        return refused(lambda: tiny_imagenet.tiny_imagenet(root=str(tmp_path), train=False))

    for old, new, words in [
        ("\t63\n", "\t64\n", f"{notes}, line 1 is not a name and a box within 64 x 64"),
        ("\t63\n", "\n", f"{notes}, line 1 is not"),
        (TINY[1], "n4", f"{notes}: val_1.JPEG has class 'n4', not of wnids.txt"),
        ("val_2", "val_5", f"{folder}/val/images/val_2.JPEG is without a box, and 0 more"),
    ]:
        notes.write_text(good.replace(old, new))
        assert line().startswith(words)
    notes.write_text(good)
    path = write(folder / "val/images/val_1.JPEG", bytes_of((64, 63, 3)))
    assert line() == f"{path} is 63 x 64, not 64 x 64"
    path.unlink()
    assert line() == f"{path} is missing, and 0 more"
    notes.unlink()
    with pytest.raises(Missing, match="there is no .*val_annotations"):
        tiny_imagenet.tiny_imagenet(root=str(tmp_path), train=False)


def xml(sides: tuple[int, int], *objects: tuple[str, int, int, int, int]) -> str:
    boxes = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax>"
        f"<ymax>{d}</ymax></bndbox></object>"
        for name, a, b, c, d in objects
    )
    size = f"<size><width>{sides[0]}</width><height>{sides[1]}</height></size>"
    return f"<annotation>{size}{boxes}</annotation>"


def write_voc(root: Path, split: str, **pictures: str) -> Path:
    folder = root / "VOCdevkit/VOC2012"
    for i, (name, text) in enumerate(pictures.items()):
        write(folder / f"JPEGImages/{name}.jpg", bytes_of((20, 40, 3), i))
        (folder / "Annotations").mkdir(exist_ok=True)
        (folder / f"Annotations/{name}.xml").write_text(text)
    (folder / "ImageSets/Main").mkdir(parents=True, exist_ok=True)
    (folder / f"ImageSets/Main/{split}.txt").write_text("\n".join(pictures))
    return folder


SMALL, DOG, OTHER = ("cat", 1, 1, 40, 2), ("dog", 1, 1, 20, 10), ("dog", 39, 19, 40, 20)


def test_voc_is_labelled_by_its_largest_object(tmp_path: Path) -> None:
    write_voc(tmp_path, "val", a=xml((40, 20), SMALL, DOG, OTHER), b=xml((40, 20), SMALL))
    data = voc.voc(root=str(tmp_path), train=False, size=10, workers=0)
    batch = whole(data)
    assert [data.classes[label] for label in batch.y] == ["dog", "cat"]
    expected = torch.zeros(2, 3, 10, 10, dtype=torch.bool)
    expected[0, :, :5, :5] = True
    expected[0, :, 9, 9] = True
    expected[1, :, 0] = True
    assert torch.equal(batch.region, expected) and batch.x.shape == expected.shape


def test_the_lists_of_voc_are_its_parts(tmp_path: Path) -> None:
    write_voc(tmp_path, "sample", a=xml((40, 20), DOG))
    line = refused(lambda: voc.voc(root=str(tmp_path)))
    assert "voc has no list train" in line and "has sample: split chooses one" in line
    names = [voc.found(str(tmp_path), False).part]
    own = voc.voc(root=str(tmp_path), split="sample").fingerprint
    assert own == voc.voc(root=str(tmp_path), train=False).fingerprint
    write_voc(tmp_path, "val", a=xml((40, 20), SMALL))
    assert [*names, voc.found(str(tmp_path), False).part] == ["sample", "val"]
    assert "looked for ImageSets/Main/train.txt in" in refused(
        lambda: voc.voc(root=str(tmp_path / "VOCdevkit/VOC2012/Annotations"))
    )


WRONG_VOC = {
    "no xml": ("<annotation>", "is no annotation of VOC"),
    "no size": ("<annotation></annotation>", "has no objects"),
    "no box": ("<annotation><object><name>dog</name></object></annotation>", "is no annotation"),
    "an unknown class": (xml((40, 20), ("bat", 1, 1, 2, 2)), "'bat' in box (1, 1, 2, 2)"),
    "outside": (xml((40, 20), ("dog", 1, 1, 41, 2)), "'dog' in box (1, 1, 41, 2) of a picture of"),
    "another size": (xml((41, 20), DOG), "is (40, 20), and (41, 20) in its annotation"),
}


@pytest.mark.parametrize("text, words", WRONG_VOC.values(), ids=WRONG_VOC)
def test_what_is_wrong_with_voc_is_named(tmp_path: Path, text: str, words: str) -> None:
    folder = write_voc(tmp_path, "val", a=text)
    line = refused(lambda: whole(voc.voc(root=str(tmp_path), train=False, workers=0)))
    assert line.startswith(str(folder)) and words in line
    (folder / "JPEGImages/a.jpg").unlink()
    assert "there is no" in refused(lambda: voc.voc(root=str(tmp_path), train=False))
