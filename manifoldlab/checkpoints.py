"""Checkpoints: one safetensors file with facts as JSON in its header; whole or not there, never pickle."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

FACTS = "manifoldlab"  # the key of the header under which the facts stand
LOOKS = (  # how files begin that are saved under a checkpoint's name by mistake
    (b"PK\x03\x04", "a zip archive, as torch.save writes: a pickle inside, which is not read"),
    (b"\x80", "a pickle, which is not read: it can run any code"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"version https://git-lfs", "a Git LFS pointer: fetch the file itself"),
)


def save(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Under a temporary name, on the disk, then renamed: a crash or a full disk leaves the old file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(descriptor)
    whole = {key: t.detach().cpu().contiguous().clone() for key, t in tensors.items()}
    try:
        _write(Path(name), whole, facts)
        os.replace(name, path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError | SafetensorError):
            raise OSError(f"cannot write the checkpoint {path}: {_reason(error)}") from error
        raise


def _write(path: Path, tensors: dict[str, Tensor], facts: Mapping[str, Any]) -> None:
    save_file(tensors, path, metadata={FACTS: json.dumps(facts, allow_nan=False)})
    os.chmod(path, 0o644)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or " ".join(str(error).split())


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts; a file that is no whole checkpoint is refused in one line."""
    if path.is_dir() or not path.exists():
        what = "it is a folder" if path.is_dir() else "there is no such file"
        raise ValueError(f"no checkpoint {path}: {what}")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            header = file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"no checkpoint {path}: {_looks(path, error)}") from error
    try:
        facts = json.loads(header.get(FACTS, "{}"))
    except json.JSONDecodeError as error:
        raise ValueError(f"no checkpoint {path}: its header holds no JSON: {error}") from error
    return tensors, facts


def _looks(path: Path, error: Exception) -> str:
    with path.open("rb") as file:
        start = file.read(512)
    size = path.stat().st_size
    if not start:
        return "it is empty"
    if start.lstrip()[:1] == b"<":
        return f"it looks like a web page, {start.lstrip()[:32].decode(errors='replace')!r}..."
    for sign, what in LOOKS:
        if start.startswith(sign):
            return f"it looks like {what}"
    wanted = 8 + int.from_bytes(start[:8], "little")
    if start[8:9] == b"{":
        return (
            f"it is cut short: {size} bytes, of which the header alone asks for {wanted} and more"
        )
    return f"it is no safetensors file: {_reason(error)}"


def check_fits(model: nn.Module, tensors: Mapping[str, Tensor], what: str, where: object) -> None:
    """Refuses tensors of another architecture: `what` the model is, `where` the tensors come from."""
    own = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    given = {name: tuple(t.shape) for name, t in tensors.items()}
    for name, shape in own.items():
        if name not in given:
            raise ValueError(f"{where} does not fit {what}: it has no {name} {shape}")
        if given[name] != shape:
            raise ValueError(
                f"{where} does not fit {what}: its {name} is {given[name]}, the model's {shape}"
            )
    for name in given:
        if name not in own:
            raise ValueError(f"{where} does not fit {what}, which has no {name} {given[name]}")
