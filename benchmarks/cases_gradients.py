"""Input gradients, beside forward passes. A gradient is two of them: forward, and backward to the input."""

from functools import partial

import torch
from torch import Tensor, nn

from benchmarks import inputs, peers
from benchmarks.variants import on_gpu
from manifoldlab.benchmarking.case import (
    Case,
    Contest,
    Contestant,
    Floor,
    Setting,
    library,
    typical,
)
from manifoldlab.gradients import input_gradient, logit_jacobian, margin

ROUNDING = "float32, of the median sample: in some a ReLU is within rounding of its kink"


def _gradient(name: str, shape: tuple[int, ...], n: int, setting: Setting) -> Contest:
    if setting.small and len(shape) > 1:
        shape = (3, 8, 8)
    model = inputs.network(name, setting.device, shape, **({"width": 4} if setting.small else {}))
    x, y, *_ = inputs.pictures(setting.pick(n, 2), setting.device, shape)
    given = model, x, y, margin
    return Contest(
        own=Contestant(partial(input_gradient, inputs.prepared(model), *given[1:])),
        floor=Floor("a forward pass without gradients", inputs.passes(model, x)),
        peers={
            "loss.backward": Contestant(partial(peers.by_backward, *given)),
            "vmap(grad)": Contestant(partial(peers.by_vmap, *given)),
            **on_gpu(lambda model, x: input_gradient(model, x, y, margin), model, x),
            "captum": library(
                "captum.attr", lambda c: Contestant(partial(peers.by_captum, c, *given))
            ),
        },
        exact=lambda: peers.by_backward(inputs.doubled(model), x.double(), y, margin),
        within=2e-3,
        reason=ROUNDING,
        error=typical,
        sizes={"n": len(x), "D": x[0].numel(), "K": 10},
    )


def _jacobian(setting: Setting) -> Contest:
    shape = (3, 8, 8) if setting.small else inputs.IMAGE
    model = inputs.network("resnet18", setting.device, shape, width=setting.pick(64, 4))
    x, _, *_ = inputs.pictures(setting.pick(4, 2), setting.device, shape)

    def rows(model: nn.Module, x: Tensor) -> Tensor:
        each = [x.new_full((len(x),), k).long() for k in range(10)]
        return torch.stack(
            [peers.by_backward(model, x, y, lambda f, y: f.gather(1, y[:, None])) for y in each]
        )

    by_sample = lambda found: found.transpose(0, 1)
    return Contest(
        own=Contestant(partial(logit_jacobian, inputs.prepared(model), x), by_sample),
        floor=Floor(
            "a forward pass, and 10 backward passes to the input counted as forward ones",
            inputs.times(11, inputs.passes(model, x)),
        ),
        peers={
            "loss.backward a class": Contestant(partial(rows, model, x), by_sample),
            "vmap(jacrev)": Contestant(partial(peers.by_vmapped_jacrev, model, x)),
        },
        exact=lambda: by_sample(rows(inputs.doubled(model), x.double())),
        within=2e-3,
        reason=ROUNDING,
        error=typical,
        sizes={"n": len(x), "D": x[0].numel(), "K": 10},
    )


CASES = (
    Case(
        "gradients/input_gradient/resnet18",
        "margin's gradient of a ResNet-18 at pictures of 3 x 32 x 32",
        partial(_gradient, "resnet18", inputs.IMAGE, 32),
    ),
    Case(
        "gradients/input_gradient/mlp",
        "of a perceptron of 784 numbers",
        partial(_gradient, "mlp", (784,), 128),
    ),
    Case(
        "gradients/input_gradient/mlp_one",
        "the same at one sample, where calls cost more than numbers",
        partial(_gradient, "mlp", (784,), 1),
    ),
    Case("gradients/logit_jacobian/resnet18", "the gradients of 10 logits", _jacobian),
)
