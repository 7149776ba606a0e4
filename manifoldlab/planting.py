"""A checkout of its own for every fault: a copy of the sources, in which one line is another.

Any line can be changed, also one that runs at import; processes that a test starts have the fault as
well, for they import the copy; and a fault cannot outlive its folder.
"""

import compileall
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import manifoldlab
from manifoldlab.faults.base import Fault

HOME = Path(manifoldlab.__path__[0]).parent
PACKAGES = ("manifoldlab", "theory_checks", "tests", "paper_figs")
BESIDE = ("conftest.py", "pyproject.toml")


@contextmanager
def checkout(home: Path = HOME) -> Iterator[Path]:
    """A copy of the present sources, compiled, which later changes do not reach."""
    missing = [name for name in (*PACKAGES, *BESIDE) if not (home / name).exists()]
    if missing:
        raise ValueError(f"faults are planted in a checkout, and {home} has no {missing[0]}")
    with TemporaryDirectory(prefix="manifoldlab-") as folder:
        copy = Path(folder) / "sound"
        copy.mkdir()
        for name in PACKAGES:
            shutil.copytree(home / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in BESIDE:
            shutil.copy2(home / name, copy / name)
        for name in PACKAGES[:2]:  # pytest compiles tests
            compileall.compile_dir(copy / name, quiet=2)
        yield copy


@contextmanager
def planted(sound: Path, fault: Fault) -> Iterator[Path]:
    """A copy of the sound checkout with the fault."""
    source = fault.planted((sound / fault.place).read_text(encoding="utf-8"))
    with TemporaryDirectory(prefix="faulty-", dir=sound.parent) as folder:
        copy = Path(folder) / "checkout"
        shutil.copytree(sound, copy)
        for compiled in (copy / fault.place).parent.glob(f"__pycache__/{Path(fault.place).stem}.*"):
            compiled.unlink()  # it may be as long and as old as the wrong one
        (copy / fault.place).write_text(source, encoding="utf-8")
        yield copy


def environment(folder: Path) -> dict[str, str]:
    """Of a process that imports the package from the folder."""
    return os.environ | {
        "PYTHONPATH": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }


def stamp(folder: Path) -> str:
    """Of all sources that a verdict depends on, but for the catalogue itself."""
    digest = hashlib.sha256()
    for name in (*PACKAGES, *BESIDE):
        for file in sorted((folder / name).rglob("*.py")) or [folder / name]:
            if file.parent.name != "faults":
                digest.update(file.relative_to(folder).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def key(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
