"""A fault: one line of the package replaced by a wrong one, and the checks that ought to see it.

A check is a law on one family of cases, "A1/helix"; one of the law's controls there, "B1t/helix/0", for
a fault that makes the law trivial or touches only what the control predicts; or a test,
"tests/test_linalg.py::test_...". Every check that is named must fail with the fault, and hold without it.
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from torch import Tensor


@final
@dataclass(frozen=True)
class Fault:
    name: str  # a sentence: what is wrong
    module: str  # of manifoldlab, such as probes.on_off_robustness, or theory_checks.NAME
    line: str  # text that the source of the module has once
    replacement: str
    effect: Callable[[], Tensor]  # numbers that it changes
    checks: tuple[str, ...]

    @property
    def place(self) -> str:
        """The file, relative to the checkout."""
        name = self.module.replace(".", "/")
        return f"{name}.py" if name.startswith("theory_checks/") else f"manifoldlab/{name}.py"

    def number(self, source: str) -> int:
        """Of the first line that is changed."""
        self._count(source)
        return source[: source.index(self.line)].count("\n") + 1

    def planted(self, source: str) -> str:
        """The source with the wrong line."""
        self._count(source)
        changed = source.replace(self.line, self.replacement)
        try:
            compile(changed, self.place, "exec")
        except SyntaxError as error:
            raise ValueError(
                f"{self.place} is no Python with {self.replacement!r}: {error}"
            ) from error
        return changed

    def _count(self, source: str) -> None:
        if (count := source.count(self.line)) != 1:
            raise ValueError(f"{self.place} has {self.line!r} {count} times, not once")


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Numbers to compute effects of."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def groups() -> list[str]:
    """The files of this package."""
    found = pkgutil.iter_modules([str(Path(__file__).parent)])
    return sorted(module.name for module in found if module.name != "base")


def group(name: str) -> tuple[Fault, ...]:
    faults: tuple[Fault, ...] = importlib.import_module(f"manifoldlab.faults.{name}").FAULTS
    return faults
