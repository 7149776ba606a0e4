"""Files and folders that are whole or absent, and locks that end with their process. No torch."""

import errno
import fcntl
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)  # of some file systems


def check_writable(folder: Path) -> None:
    """Makes the folder and refuses one that cannot be written, before anything is computed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"cannot write results to {folder}: {error.strerror}") from error


def check_file(path: Path) -> None:
    """Refuses a file that cannot be written, likewise."""
    if path.is_dir():
        raise ValueError(f"cannot write {path}: it is a folder")
    check_writable(path.parent)


def write_text(path: Path, text: str) -> None:
    """Under a temporary name, then renamed: the file is whole or not there."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):  # of a descriptor, which has no name
            error.filename = str(path)
        raise


def write_json(path: Path, value: Mapping[str, Any] | list[Any]) -> None:
    """Strict JSON: numbers that are not finite become null."""
    write_text(path, json.dumps(_finite(value), indent=2, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@contextmanager
def whole_folder(path: Path, *, replace: bool) -> Iterator[Path]:
    """A new folder to fill, which is put at `path` where the block ends well.

    Where there is one already, the new one takes its place or is given up, as `replace` says.
    """
    new = Path(tempfile.mkdtemp(dir=path.parent, prefix=beside(path, "new-").name))
    try:
        yield new
        os.chmod(new, 0o755)
        _flush(new)
        if replace:
            _replace(path, new)
        else:
            _place(path, new)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _place(path: Path, new: Path) -> None:
    try:
        os.rename(new, path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


def _replace(path: Path, new: Path) -> None:
    """No system call exchanges two folders everywhere: in between, the old one is at `former`."""
    if path.exists():
        shutil.rmtree(former(path), ignore_errors=True)
        os.rename(path, former(path))
    try:
        os.rename(new, path)
    except OSError:
        with suppress(FileNotFoundError):
            os.rename(former(path), path)
        raise
    shutil.rmtree(former(path), ignore_errors=True)


def former(path: Path) -> Path:
    """Where the old folder is that a killed process was about to replace."""
    return beside(path, "old")


def beside(path: Path, what: str) -> Path:
    """A hidden name next to that of `path`."""
    return path.with_name(f".{path.name}.{what}")


def clear_new(path: Path) -> None:
    """Removes the new folders that killed processes left."""
    for left in path.parent.glob(beside(path, "new-*").name):
        shutil.rmtree(left, ignore_errors=True)


def clear_beside(path: Path) -> None:
    """Removes all that killed processes left beside a folder that is there; its lock is ours."""
    for left in path.parent.glob(beside(path, "*").name) if path.exists() else ():
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        elif left != beside(path, "lock"):
            left.unlink(missing_ok=True)


def _flush(folder: Path) -> None:
    """To the disk, so that after a loss of power no renamed folder holds empty files."""
    for file in (*folder.iterdir(), folder):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def lock(path: Path, *, wait: bool) -> Iterator[bool]:
    """Whether it is ours; the system frees it when the process ends, in whatever way."""
    descriptor = _locked(path, wait)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            path.unlink(missing_ok=True)
            os.close(descriptor)


def _locked(path: Path, wait: bool) -> int | None:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                os.close(descriptor)
                raise
            return descriptor  # without locks a run may be done twice; its record stays one
        except BaseException:
            os.close(descriptor)
            raise
        if _is_at(path, descriptor):
            return descriptor
        os.close(descriptor)  # its owner removed it while we waited: ours would bind nobody


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
