"""An architecture as data: the name of a model of the catalog, the shape it takes, and its options.

A checkpoint has one among its facts, from which its network is built again.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self, final

import torch
from torch import nn

from manifoldlab import catalog, checkpoints

KEY = "architecture"  # among the facts
TRAINING = "training"  # among those of a training's state, which names no architecture
FUNCTION = "function"  # {"function": "ReLU"} stands for a function in JSON
PLAIN = (bool, int, float, str, type(None))


@final
@dataclass(frozen=True)
class Architecture:
    """Options are numbers, words, tuples of them, and functions of torch.nn or of the model's file."""

    name: str
    shape: tuple[int, ...]  # of one sample
    num_classes: int | None = None  # of a classifier; others have none
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not isinstance(self.shape, list | tuple) or not all(_is_size(n) for n in self.shape):
            raise ValueError(f"the shape of a sample is of numbers above 0, not {self.shape}")
        known = options_of(self.name)
        for name in self.options:
            if name not in known:
                what = f"option of the model {self.name}"
                raise ValueError(catalog.unknown(what, name, list(known)))
        if is_classifier(self.name) != (self.num_classes is not None):
            kind = "a classifier" if self.num_classes is None else "no classifier"
            raise ValueError(f"{self.name} is {kind}: num_classes cannot be {self.num_classes}")
        options = {name: self._option(name, value) for name, value in self.options.items()}
        object.__setattr__(self, "options", options)
        object.__setattr__(self, "shape", tuple(self.shape))

    def _option(self, name: str, value: Any) -> Any:
        """As the model takes it; JSON has lists for tuples and names for functions."""
        if isinstance(value, list | tuple):
            return tuple(self._option(name, item) for item in value)
        if isinstance(value, Mapping) and set(value) == {FUNCTION}:
            value = self._functions().get(value[FUNCTION], value)
        elif isinstance(value, PLAIN):
            return value
        if not any(value is known for known in self._functions().values()):
            raise ValueError(
                f"{name}={value} of {self.name} cannot stand in a checkpoint: options are numbers, "
                f"words, and functions of torch.nn or {catalog.source('models', self.name).name}"
            )
        return value

    def _functions(self) -> dict[str, Any]:
        """Nothing else is looked up by a name that a file gives: no file can run other code."""
        module = vars(catalog.module("models", self.name))
        own = {k: v for k, v in module.items() if inspect.isfunction(v)}
        layers = {k: v for k, v in vars(nn).items() if inspect.isclass(v)}
        return {k: v for k, v in (own | layers).items() if not k.startswith("_")}

    def build(self, seed: int) -> nn.Module:
        """On the CPU, with parameters that `seed` determines; the global generators stay as they are."""
        sizes = (self.shape,) if self.num_classes is None else (self.shape, self.num_classes)
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would touch GPUs, too
            built: nn.Module = _function(self.name)(*sizes, **self.options)
        return built

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        options = {name: _json(value) for name, value in self.options.items()}
        classes = {} if self.num_classes is None else {"num_classes": self.num_classes}
        return {"name": self.name, "shape": list(self.shape), **classes, "options": options}

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """The inverse of `facts`."""
        try:
            given = facts["name"], facts["shape"], facts.get("num_classes"), facts["options"]
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no architecture, which has name, shape, options: {facts}") from error
        return cls(*given)


def _is_size(number: Any) -> bool:
    return isinstance(number, int) and number > 0


def _json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_json(item) for item in value]
    return value if isinstance(value, PLAIN) else {FUNCTION: value.__name__}


class Restored(NamedTuple):
    architecture: Architecture
    model: nn.Module
    facts: dict[str, Any]


def restored(path: Path) -> Restored:
    """The network of a checkpoint, in the dtype that it was saved in and in evaluation mode."""
    tensors, facts = checkpoints.load(path)
    if TRAINING in facts:
        raise ValueError(
            f"checkpoint {path} is the state of a training after step {facts.get('step')}, not of a "
            "network: the call that wrote it goes on from it, and a run keeps its network, when "
            "it ends, as model.safetensors"
        )
    if KEY not in facts:
        known = f"only {', '.join(facts)}" if facts else "and no facts at all"
        raise ValueError(f"checkpoint {path} names no architecture, {known}: it cannot be built")
    try:
        architecture = Architecture.of(facts[KEY])
        model = architecture.build(0)
    except (ValueError, TypeError, AttributeError) as error:  # whatever the file holds
        raise ValueError(f"checkpoint {path}: {error}") from error
    dtypes = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    model = model.to(dtypes.pop()) if len(dtypes) == 1 else model
    checkpoints.check_fits(model, tensors, str(architecture), f"checkpoint {path}")
    model.load_state_dict(tensors)
    return Restored(architecture, model.eval(), facts)


def is_classifier(name: str) -> bool:
    """Whether a model of the catalog is made for a number of classes."""
    return "num_classes" in inspect.signature(_function(name)).parameters


def options_of(name: str) -> dict[str, Any]:
    """The options of a model of the catalog and their defaults."""
    parameters = inspect.signature(_function(name)).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def examples(name: str, shape: tuple[int, ...], num_classes: int) -> list[Architecture]:
    """Small networks of a model for samples of that shape; none where it does not fit."""
    classes = num_classes if is_classifier(name) else None
    found = catalog.module("models", name).examples(shape)
    return [Architecture(name, shape, classes, options) for options in found]


def _function(name: str) -> Callable[..., nn.Module]:
    found: Callable[..., nn.Module] = catalog.find("models", name)
    return found
