"""What the words of the command line stand for: a device, a problem, a model."""

import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from manifoldlab import catalog
from manifoldlab.architecture import restored
from manifoldlab.frozen import frozen
from manifoldlab.interfaces import Model
from manifoldlab.problems.base import BayesClassifier, Problem


def device(name: str) -> str:
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch finds no CUDA device here; --device cpu works")
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


def problem(text: str, seed: int) -> Problem:
    """The first example of a problem of the catalog, or what Python builds from its words."""
    if text.isidentifier():
        found = catalog.module("problems", text).examples(seed)[0]
    else:
        try:
            found = eval(text, _vocabulary())
        except Exception as error:
            raise ValueError(f"--problem {text!r}: {_one_line(error)}") from error
    if not isinstance(found, Problem):
        raise ValueError(f"--problem {text!r} is of type {type(found).__name__}, not a problem")
    return found


def _vocabulary() -> dict[str, Any]:
    """All that manifolds, densities and problems define, by name."""
    found: dict[str, Any] = {}
    for kind in ("manifolds", "densities", "problems"):
        for name in catalog.names(kind):
            module = catalog.module(kind, name)
            own = {k: v for k, v in vars(module).items() if _is_of(v, module.__name__)}
            found |= {k: v for k, v in own.items() if not k.startswith("_") and k != "examples"}
    return found


def _is_of(value: Any, module: str) -> bool:
    return (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__ == module


def model(text: str, truth: Problem, device: str) -> Model:
    """`bayes`, a checkpoint, or the callable that a file of the user defines, checked at every call."""
    if text == "bayes":
        return BayesClassifier(truth)
    file, separator, name = text.rpartition(":")
    if separator and file.endswith(".py"):
        found = _defined(Path(file), name)
    elif text.endswith(".safetensors") or (Path(text).exists() and not text.endswith(".py")):
        found = _saved(Path(text), truth)
    else:
        raise ValueError(
            f"--model {text!r}: a model is bayes, FILE.py:NAME, FILE.safetensors, or the folder of a run"
        )
    if isinstance(found, nn.Module):
        found = frozen(found.to(device))
    return Checked(found, text, truth.num_classes)


def _saved(path: Path, truth: Problem) -> nn.Module:
    """The network of a checkpoint, or of the one in the folder of a run, if it is for this problem."""
    try:
        found = restored(path / "model.safetensors" if path.is_dir() else path)
    except ValueError as error:
        raise ValueError(f"--model: {error}") from error
    own = found.architecture
    if (own.shape, own.num_classes) != (truth.shape, truth.num_classes):
        raise ValueError(
            f"--model: checkpoint {path} of {own} is for samples of shape {own.shape} and "
            f"{own.num_classes or 'no'} classes, the problem has shape {truth.shape} and "
            f"{truth.num_classes} classes: {truth!r}"
        )
    return found.model


def _defined(file: Path, name: str) -> Callable[[Tensor], Tensor]:
    if not file.is_file():
        raise ValueError(f"--model: there is no file {file}")
    spec = importlib.util.spec_from_file_location("model_of_the_user", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    sys.path.insert(0, str(file.parent.resolve()))  # as python FILE.py does
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"--model: {file} cannot be imported: {_one_line(error)}") from error
    if name not in vars(module):
        known = [k for k, v in vars(module).items() if callable(v) and not k.startswith("_")]
        raise ValueError(f"--model: {file}: {catalog.unknown('function', name, known)}")
    found = vars(module)[name]
    if callable(found) and not isinstance(found, nn.Module) and not _takes_an_argument(found):
        try:
            found = found()
        except Exception as error:
            raise ValueError(f"--model: {name}() of {file} failed: {_one_line(error)}") from error
    if not callable(found):
        raise ValueError(
            f"--model: {name} of {file} is of type {type(found).__name__}; expected a function of "
            "x (n, *shape) to logits (n, K), an nn.Module, or a function without arguments that makes one"
        )
    model: Callable[[Tensor], Tensor] = found
    return model


def _takes_an_argument(found: Callable[..., Any]) -> bool:
    """What can be called without one makes the model, anything else is one."""
    try:
        parameters = inspect.signature(found).parameters.values()
    except ValueError:  # written in C
        return True
    places = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    required = any(p.kind in places and p.default is p.empty for p in parameters)
    return required or any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters)


@final
class Checked:
    """A model whose output is refused, in one line, where it is no finite logits (n, K)."""

    def __init__(self, model: Model, name: str, num_classes: int):
        self.model, self.name, self.num_classes = model, name, num_classes
        tensors = model.parameters() if isinstance(model, nn.Module) else ()
        self.dtype = next((p.dtype for p in tensors if p.is_floating_point()), None)

    def __call__(self, x: Tensor) -> Tensor:
        what = f"model {self.name} on x of shape {tuple(x.shape)} and {x.dtype}"
        try:
            logits = self.model(x if self.dtype is None else x.to(self.dtype))
        except Exception as error:
            raise ValueError(f"{what}: {_one_line(error)}") from error
        if not isinstance(logits, Tensor):
            raise ValueError(f"{what} gives {type(logits).__name__}, not a tensor of logits")
        if logits.shape != (len(x), self.num_classes):
            wanted = f"the problem's {self.num_classes} classes need {(len(x), self.num_classes)}"
            raise ValueError(f"{what} gives logits of shape {tuple(logits.shape)}; {wanted}")
        bad = ~logits.isfinite().all(1)
        if bool(bad.any()):
            first = int(bad.nonzero()[0])
            raise ValueError(
                f"{what} gives logits that are not finite for {int(bad.sum())} of {len(x)} samples, "
                f"first sample {first}: {logits[first].tolist()}"
            )
        return logits.to(x.dtype)


def _one_line(error: Exception) -> str:
    kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    return kind + " ".join(str(error).split())
