"""Classifiers of images by the words of a configuration, from this package or from elsewhere.

    FILE.safetensors     a checkpoint of this package, which names its architecture
    manifoldlab:NAME     a model of the catalog, with the stem for large pictures where it has one
    torchvision:NAME     of torchvision.models, which has to be installed
    timm:NAME            of timm, likewise

The weights of the last three are in a file, .safetensors or what torch.save writes of tensors and nothing
else; without one they are random. Pixels of models from elsewhere are normalized by `mean` and `deviation`.
"""

import importlib
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from manifoldlab import catalog, checkpoints
from manifoldlab.architecture import Architecture, is_classifier, options_of, restored
from manifoldlab.interfaces import Data
from manifoldlab.models.base import Channels, normalizing

Build = Callable[[str, Data, int], nn.Module]  # name, data, seed
SUFFIX = ".safetensors"
WRAPPED = ("state_dict", "model")  # keys under which checkpoints of trainings have the weights
PREFIXES = ("", "module.", "model.", "module.model.")  # of parallel trainings, and of wrappers


def check(model: str, weights: str) -> None:
    """Words only; whether the files are there is seen when they are read."""
    source, colon, name = model.partition(":")
    if model.endswith(SUFFIX):
        if weights:
            raise ValueError(f"the checkpoint {model} has its weights: give no others ({weights})")
    elif not (colon and name and source in SOURCES):
        known = ", ".join(f"{source}:NAME" for source in SOURCES)
        raise ValueError(f"no model called {model!r}: it is FILE{SUFFIX}, {known}")


def classifier(
    model: str, weights: str, data: Data, mean: Channels, deviation: Channels, *, seed: int = 0
) -> nn.Module:
    """For images of the data, in evaluation mode; refused if it is of other classes than theirs."""
    check(model, weights)
    if model.endswith(SUFFIX):
        found = _checkpoint(Path(model), data)
    else:
        source, _, name = model.partition(":")
        inner = SOURCES[source](name, data, seed)
        if weights:
            _load(inner, Path(weights), model)
        found = nn.Sequential(normalizing(data.shape, mean, deviation), inner)
    found = found.float().eval().requires_grad_(False)
    _check_classes(found, model, data)
    return found


def _checkpoint(path: Path, data: Data) -> nn.Module:
    there = restored(path)
    if there.architecture.shape != data.shape:
        shape = there.architecture.shape
        raise ValueError(f"{path} is for images of shape {shape}, the data have {data.shape}")
    return there.model


def _own(name: str, data: Data, seed: int) -> nn.Module:
    known = [one for one in catalog.names("models") if is_classifier(one)]
    if name not in known:
        raise ValueError(catalog.unknown("classifier", name, known))
    module = catalog.module("models", name)
    stem = {"stem": module.imagenet_stem} if "stem" in options_of(name) else {}
    return Architecture(name, data.shape, data.num_classes, stem).build(seed)


def _torchvision(name: str, data: Data, seed: int) -> nn.Module:
    del data
    library = _imported("torchvision.models")
    return _made(lambda: library.get_model(name, weights=None), name, seed)


def _timm(name: str, data: Data, seed: int) -> nn.Module:
    del data
    library = _imported("timm")
    return _made(lambda: library.create_model(name, pretrained=False), name, seed)


SOURCES: Mapping[str, Build] = {"manifoldlab": _own, "torchvision": _torchvision, "timm": _timm}


def _imported(module: str) -> Any:
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:
            raise
        line = f"models of {package} need it: python -m pip install {package}"
        raise ValueError(line) from None


def _made(make: Callable[[], nn.Module], name: str, seed: int) -> nn.Module:
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return make()
    except (ValueError, RuntimeError, KeyError) as error:  # each library refuses in its own way
        raise ValueError(f"no model called {name!r}: {_one_line(error)}") from error


def _load(model: nn.Module, path: Path, what: str) -> None:
    given = {n: t.float() if t.is_floating_point() else t for n, t in _tensors(path).items()}
    names = list(model.state_dict())
    prefix = next((p for p in PREFIXES if all(f"{p}{name}" in given for name in names)), "")
    if prefix:  # beside the model a wrapper may have tensors of its own
        given = {name: given[f"{prefix}{name}"] for name in names}
    checkpoints.check_fits(model, given, what, f"weights {path}")
    model.load_state_dict(given)


def _tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ValueError(f"no weights {path}: there is no such file")
    if path.suffix == SUFFIX:
        return checkpoints.load(path)[0]
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        line = "it holds more than tensors, which could run any code, or is no file of torch.save"
        raise ValueError(f"weights {path} are not read: {line}") from None
    except (RuntimeError, EOFError, OSError, KeyError) as error:
        raise ValueError(f"weights {path} cannot be read: {_one_line(error)}") from error
    for key in WRAPPED:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping):
        raise ValueError(f"weights {path} are no tensors by name but {type(found).__name__}")
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


@torch.no_grad()
def _check_classes(model: nn.Module, what: str, data: Data) -> None:
    try:
        logits = model(torch.zeros(1, *data.shape))
    except RuntimeError as error:
        line = f"{what} does not take images of shape {data.shape}: {_one_line(error)}"
        raise ValueError(line) from error
    if logits.ndim != 2 or logits.shape[1] != data.num_classes:
        given = logits.shape[1] if logits.ndim == 2 else tuple(logits.shape)
        raise ValueError(f"{what} is of {given} classes, the data are of {data.num_classes}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
