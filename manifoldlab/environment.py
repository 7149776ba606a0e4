"""Where and with what a result was made. No torch."""

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import manifoldlab

PACKAGES = {  # how they are imported: how they are installed
    **{
        n: n
        for n in ("torch", "numpy", "scipy", "matplotlib", "hypothesis", "tyro", "rich", "jinja2")
    },
    "safetensors": "safetensors",
    "sklearn": "scikit-learn",
    "PIL": "pillow",
}


def environment(device: str) -> dict[str, Any]:
    """Versions, threads, commit and hardware, as every result records them."""
    return {
        "manifoldlab": manifoldlab.__version__,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES.values()},
        "commit": _commit(),
        "threads": {
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
            "torch": sys.modules["torch"].get_num_threads() if "torch" in sys.modules else None,
        },
        "processes": processes(),
        "hardware": {
            "machine": platform.machine(),
            "system": f"{platform.system()} {platform.release()}",
            "processor": _processor(),
            "cores": os.cpu_count(),
            "device": device,
            "device_name": _device_name(device),
        },
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [*_program(), *sys.argv[1:]],
    }


def _program() -> list[str]:
    """By its name only: where it is says nothing about a result."""
    name = Path(sys.argv[0]).name
    return ["python", "-m", "manifoldlab"] if name == "__main__.py" else [name]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit() -> str:
    """The commit of the checkout that the package runs from, marked if it has been changed.

    Without a lock on its index, which a process that is killed would leave behind: `git describe
    --dirty` takes one, whatever it is told.
    """
    tracked = _git("ls-files", "--error-unmatch", __file__)
    name = _git("describe", "--always", "--abbrev=12")
    if not tracked or not name:
        return "unknown"
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return f"{name}-dirty" if changed else name


def _git(*words: str) -> str:
    """What it prints; nothing where it fails."""
    command, here = ["git", "--no-optional-locks", *words], Path(__file__).parent
    try:
        return subprocess.run(command, capture_output=True, text=True, cwd=here).stdout.strip()
    except OSError:
        return ""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _device_name(device: str) -> str | None:
    torch = sys.modules.get("torch")
    return torch.cuda.get_device_name() if torch and device.startswith("cuda") else None


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processes() -> int:
    """Those that torchrun started, of which this is one; 1 without it."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def rank() -> int:
    """Which of them this is: the first, 0, records and speaks."""
    return int(os.environ["RANK"]) if processes() > 1 else 0
