"""docs/performance.md, from files of a bench."""

from pathlib import Path
from typing import Any


def write(path: Path, found: Any) -> None:
    raise NotImplementedError
