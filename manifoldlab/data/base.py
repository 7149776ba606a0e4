"""Files of published data sets: where they are looked for, and whether they are what was published.

A data set of the catalog that is read from files is a function `name(*, root, train, device, ...)`;
its module also has `found(root, train)`, which counts and verifies without keeping anything. Nothing
is ever downloaded.
"""

import ast
import hashlib
import inspect
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from manifoldlab import catalog
from manifoldlab.data.in_memory import in_memory
from manifoldlab.interfaces import Data

VARIABLE = "MANIFOLDLAB_DATA"
COMMON = ("root", "train", "device")  # options of all data sets, given apart


class Missing(ValueError):
    """A data set that is not there, or not all of it."""


class Publication(NamedTuple):
    name: str
    page: str  # of the publisher, where users get it


class Layout(NamedTuple):
    """Files in one of several folders below the root."""

    folders: tuple[str, ...]
    files: tuple[str, ...]
    endings: tuple[str, ...] = ("",)  # that each of them may have

    def there(self, place: Path) -> dict[str, Path]:
        """Those of the files that are in a folder."""
        paths = {file: [place / f"{file}{end}" for end in self.endings] for file in self.files}
        found = {file: [path for path in ways if path.is_file()] for file, ways in paths.items()}
        return {file: ways[0] for file, ways in found.items() if ways}

    def words(self) -> str:
        endings = "".join(f" or {end}" for end in self.endings if end)
        return f"{', '.join(self.files)}{endings} in {' or '.join(self.folders)}"


class Found(NamedTuple):
    """What one part of a data set holds."""

    part: str
    where: str
    images: int
    classes: int  # those that have images
    of: int  # so many that there are
    verified: str  # in what way


class Table(NamedTuple):
    """A part of a data set as it was read."""

    x: Tensor  # (n, *shape): uint8, or float in [0, 1]
    y: Tensor  # (n,) int64
    where: Path
    verified: str

    def data(self, classes: tuple[str, ...], device: str, region: Tensor | None = None) -> Data:
        """With a region (n, 1, H, W), if it is known, kept once for all channels."""
        x, y = self.x.to(device), self.y.to(device)
        where = None if region is None else region.to(device).expand(x.shape)
        return in_memory(x, y, len(classes), region=where, classes=classes)

    def found(self, part: str, num_classes: int) -> Found:
        classes = len(torch.unique(self.y))
        return Found(part, str(self.where), len(self.y), classes, num_classes, self.verified)


def load(name: str, *, root: str = "", train: bool = True, device: str = "cpu") -> Data:
    """A data set as `--data` gives it: its name, or with options as in "voc(split='sample')"."""
    own, options = _parsed(name)
    if own not in loaders():
        raise ValueError(catalog.unknown("data set", own, loaders()))
    known = [option for option in _options(own) if option not in COMMON]
    for option in options:
        if option not in known:
            raise ValueError(catalog.unknown(f"option of data set {own}", option, known))
    data: Data = catalog.find("data", own)(root=root, train=train, device=device, **options)
    return data


def _parsed(text: str) -> tuple[str, dict[str, Any]]:
    """The name of a call, and its arguments, which are constants."""
    try:
        match ast.parse(text, mode="eval").body:
            case ast.Name(name):
                return name, {}
            case ast.Call(ast.Name(name), [], keywords):
                return name, {str(one.arg): ast.literal_eval(one.value) for one in keywords}
    except (SyntaxError, TypeError, ValueError):
        pass
    raise ValueError(
        f"{text!r} is neither a data set nor one with options, as in mnist(check=False)"
    )


def loaders() -> list[str]:
    """The data sets: those of the catalog that take a root, which no other source of samples does."""
    return [name for name in catalog.names("data") if "root" in _options(name)]


def _options(name: str) -> Sequence[str]:
    source: Callable[..., Any] = catalog.find("data", name)
    return list(inspect.signature(source).parameters)


def folder(publication: Publication, root: str, files: str) -> Path:
    """The root, or what the environment gives for it."""
    given = root or os.environ.get(VARIABLE, "")
    line = f"looked for {files}; {publication.name} is published at {publication.page}"
    if not given:
        raise Missing(f"no folder of data: give root or set {VARIABLE}; {line}")
    if not Path(given).expanduser().is_dir():
        raise Missing(f"there is no folder {given}; {line}")
    return Path(given).expanduser()


def locate(publication: Publication, root: str, layouts: Sequence[Layout]) -> list[Path]:
    """The files of the first layout that is there as a whole."""
    looked = "; or ".join(layout.words() for layout in layouts)
    above = folder(publication, root, looked)
    partial = list[tuple[Path, list[str]]]()
    for layout in layouts:
        for place in layout.folders:
            there = layout.there(above / place)
            absent = [file for file in layout.files if file not in there]
            if not absent:
                return [there[file] for file in layout.files]
            if there:
                partial.append((above / place, absent))
    if partial:
        nearest, absent = min(partial, key=lambda pair: len(pair[1]))
        what = f"{publication.name} is not whole: {nearest} lacks {', '.join(absent)}"
    else:
        what = f"{publication.name} is not in {above}: looked for {looked}"
    raise Missing(f"{what}; it is published at {publication.page}")


def verify(path: Path, content: bytes, md5: str | None, *, check: bool) -> str:
    """Refuses a file that is not the published one; says how far it is known to be that."""
    if md5 is None or not check:
        return "not checked" if md5 else "no checksum known"
    own = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if own != md5:
        raise ValueError(
            f"{path} is not the published file: its md5 is {own}, not {md5}; check=False reads it"
        )
    return "md5"


def labels(path: Path, y: Tensor, num_classes: int) -> Tensor:
    """Of a file, as int64; refused where one is no class."""
    wrong = ((y < 0) | (y >= num_classes)).nonzero().flatten().tolist()
    if wrong:
        line = f"label {int(y[wrong[0]])} at sample {wrong[0]}"
        raise ValueError(f"{path}: {line} for classes 0 to {num_classes - 1}")
    return y.to(torch.int64)
