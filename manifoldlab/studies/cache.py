"""What is dear and shared by many runs, kept by all that it depends on: denoisers, twins, tangent bases.

    CACHE/KIND/HASH12/,    CACHE = $MANIFOLDLAB_CACHE, or ~/.cache/manifoldlab

A killed process leaves a checkpoint in the folder, from which the next one goes on; two at once take
turns. The folder may be removed at any time.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from manifoldlab import files

VARIABLE = "MANIFOLDLAB_CACHE"


def root() -> Path:
    return Path(os.environ.get(VARIABLE) or "~/.cache/manifoldlab").expanduser()


@contextmanager
def place(kind: str, facts: Mapping[str, Any]) -> Iterator[Path]:
    """The folder of these facts, which nobody else works in meanwhile."""
    text = json.dumps(facts, sort_keys=True, allow_nan=False)
    folder = root() / kind / hashlib.sha256(text.encode()).hexdigest()[:12]
    files.check_writable(folder)
    with files.lock(files.beside(folder, "lock"), wait=True):
        yield folder
