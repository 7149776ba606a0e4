"""Checkpoints: one safetensors file with facts as JSON in its header; whole or not there, never pickle."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialized
from torch import Tensor, nn

FACTS = "manifoldlab"  # the key of the header under which the facts stand
LONGEST = 100_000_000  # bytes of a header, by the format
CONVERT = (
    "which can run any code and is not read; if you trust it, "
    "safetensors.torch.save_file(torch.load(OLD, weights_only=True), NEW)"
)
LOOKS = (  # how files begin that are saved under a checkpoint's name by mistake
    (b"<", "a web page: the link wants a log-in, perhaps, or has moved"),
    (b"PK\x03\x04", f"a zip archive, as torch.save writes: a pickle inside, {CONVERT}"),
    (b"\x80", f"a pickle, {CONVERT}"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x89HDF", "an HDF5 file"),
    (b"version https://git-lfs", "a Git LFS pointer: fetch the file itself"),
)


def save(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Under a temporary name, on the disk, then renamed: a crash or a full disk leaves the old file.

    Facts come back as JSON has them: a tuple as a list, keys as words, a float to the last bit.
    """
    try:
        text = json.dumps(facts, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the facts of {path} are no JSON: {error}") from error
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, serialized({key: _alone(t) for key, t in tensors.items()}, {FACTS: text}))
    except OSError as error:
        what = f"cannot write the checkpoint {path}: {error.strerror}"
        raise OSError(error.errno, what) from error


def _alone(tensor: Tensor) -> Tensor:
    """In memory of its own: the format knows no weights that share it."""
    return tensor.detach().cpu().contiguous().clone()


def _write(path: Path, content: bytes) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # before the name: after a loss of power it names no empty file
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors, on the CPU, and facts; a file that is no whole checkpoint is refused in one line."""
    if path.is_dir() or not path.exists():
        what = "it is a folder" if path.is_dir() else "there is no such file"
        raise ValueError(f"no checkpoint {path}: {what}")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            header = file.metadata() or {}
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"no checkpoint {path}: {_looks(path, error)}") from error
    try:
        facts = json.loads(header.get(FACTS, "{}"))
    except json.JSONDecodeError as error:
        raise ValueError(f"no checkpoint {path}: its header holds no JSON: {error}") from error
    return tensors, facts


def written(path: Path) -> int:
    """When, in nanoseconds, and 0 where there is none: a key for what is kept of its contents."""
    return path.stat().st_mtime_ns if path.exists() else 0


def _looks(path: Path, error: Exception) -> str:
    """What a file is that is refused. Its header comes first: a length can begin like anything."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(512)
        header = int.from_bytes(start[:8], "little")
        if start[8:9] == b"{" and header <= LONGEST:
            file.seek(8)
            return _damage(file.read(header), header, size, error)
    if not start:
        return "it is empty"
    for sign, what in LOOKS:
        if start.lstrip().startswith(sign):
            return f"it begins with {start.strip()[:16]!r} and looks like {what}"
    return f"it is no safetensors file: {_one_line(error)}"


def _damage(found: bytes, header: int, size: int, error: Exception) -> str:
    if size < 8 + header:
        return f"it is cut short: {size} bytes, of which the header alone asks for {8 + header}"
    try:
        ends = [
            entry["data_offsets"][1] for entry in json.loads(found).values() if "shape" in entry
        ]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return f"its header is damaged: {_one_line(error)}"
    wanted = 8 + header + max(ends, default=0)
    if size < wanted:
        return f"it is cut short: {size} bytes of {wanted}"
    return f"it is damaged: {_one_line(error)}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def check_fits(model: nn.Module, tensors: Mapping[str, Tensor], what: str, where: object) -> None:
    """Refuses tensors of another architecture: `what` the model is, `where` the tensors come from."""
    own = {name: _kind(t) for name, t in model.state_dict().items()}
    given = {name: _kind(t) for name, t in tensors.items()}
    for name, kind in own.items():
        if name not in given:
            raise ValueError(f"{where} does not fit {what}: it has no {name} {kind}")
        if given[name] != kind:
            raise ValueError(
                f"{where} does not fit {what}: its {name} is {given[name]}, the model's {kind}"
            )
    for name in given:
        if name not in own:
            raise ValueError(f"{where} does not fit {what}, which has no {name} {given[name]}")


def _kind(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} of {tensor.dtype}"
