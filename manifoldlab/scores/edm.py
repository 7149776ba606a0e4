"""The score of published EDM weights (Karras et al. 2022): `song_unet` from a file of safetensors.

Published files are pickles of NVlabs' own classes, which run code when they are read. Convert one within
that code (github.com/NVlabs/edm), where `torch_utils` and `dnnlib` can be imported, once:

    net = pickle.load(open("edm-cifar10-32x32-cond-vp.pkl", "rb"))["ema"]
    safetensors.torch.save_file({k: v.contiguous() for k, v in net.state_dict().items()}, "edm.safetensors")

Only names that begin with edm-: weights called baseline- have the same names and shapes but another
preconditioning, and nothing in them tells. `sigma` is in units of x, pictures in [0, 1]: half of what it
is in the paper, so that the published score at 0.5 (Srinivas et al. 2023) has sigma=0.25 here.

No published file was at hand: names, shapes and the number of parameters, 55,733,891 with the 1,152 of
map_augment, are those of the code and a random network of these sizes is read back to the bit; that a
real file denoises was never seen. The mean of `denoising` on pictures that it knows tells: it is far
below 1.
"""

import re
from pathlib import Path

from torch import Tensor

from manifoldlab import checkpoints
from manifoldlab.architecture import Architecture
from manifoldlab.interfaces import Reference
from manifoldlab.models.denoiser import Denoiser
from manifoldlab.scores.denoised import denoised

RANGE = (0.001, 40.0)  # of the published sampler, 0.002 to 80 in [-1, 1]
SIZE = re.compile(r"enc\.(\d+)x(\d+)_")
UNUSED = "map_augment.weight"  # of labels of augmentation, all zero when one asks for a score


def edm(
    path: Path,
    *,
    sigma: float,
    conditional: bool = False,
    draws: int = 0,
    seed: int = 0,
    chunk: int = 256,
    device: str = "cpu",
) -> Reference:
    """Weights that know classes give conditional scores only: they were trained with every label told."""
    model = edm_denoiser(path)
    if bool(model.classes) != conditional:
        kind = f"{model.classes} classes" if model.classes else "no classes"
        asked = "a conditional" if conditional else "an unconditional"
        raise ValueError(f"{path} knows {kind}: it has not {asked} score")
    placed = model.to(device)
    return denoised(
        placed, sigma=sigma, conditional=conditional, draws=draws, seed=seed, chunk=chunk
    )


def edm_denoiser(path: Path) -> Denoiser:
    """On the CPU, in float32 and in evaluation mode."""
    tensors = _named(path)
    try:
        case = _architecture(tensors)
        model = case.build(0)
    except (LookupError, ValueError) as error:
        raise ValueError(f"{path} holds no DDPM++ of EDM, a song_unet: {error}") from error
    assert isinstance(model, Denoiser)
    checkpoints.check_fits(model.network, tensors, str(case), path)
    model.network.load_state_dict(tensors)
    return model.eval()


def _named(path: Path) -> dict[str, Tensor]:
    """As the network has them: without the prefix of its preconditioning, and without what it fixes."""
    found = {}
    for name, tensor in checkpoints.load(path)[0].items():
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"{path} has numbers in {name} that are not finite")
        if not name.endswith("resample_filter"):
            found[name.removeprefix("model.")] = tensor.float()
        elif tensor.shape[2:] != (2, 2) or not bool((tensor == 0.25).all()):
            raise ValueError(f"{path} halves pictures by another filter than DDPM++: {name}")
    found.pop(UNUSED, None)
    return found


def _architecture(tensors: dict[str, Tensor]) -> Architecture:
    """From names and shapes: enc.HEIGHTxWIDTH_conv comes first, enc.16x16_block0.qkv has attention."""
    if "map_noise.freqs" in tensors:
        raise ValueError("its noise level goes through random Fourier features, as in NCSN++")
    sizes = {(int(m[1]), int(m[2])) for m in map(SIZE.match, tensors) if m}
    if not sizes:
        raise ValueError(
            f"it has no enc.32x32_conv.weight, but {', '.join(list(tensors)[:3])}, ..."
        )
    names = [f"enc.{high}x{wide}" for high, wide in sorted(sizes, reverse=True)]
    width, channels = tensors[f"{names[0]}_conv.weight"].shape[:2]
    blocks = sum(f"{names[0]}_block{i}.norm0.weight" in tensors for i in range(100))
    made = [len(tensors[f"{name}_block0.conv0.bias"]) for name in names]
    seen = [f"{name}_block0.qkv.weight" in tensors for name in names]
    heights = sorted((high for high, _ in sizes), reverse=True)
    options = {
        "width": width,
        "multipliers": tuple(m // width for m in made),
        "blocks": blocks,
        "attention": tuple(h for h, attends in zip(heights, seen, strict=True) if attends),
        "classes": tensors["map_label.weight"].shape[1] if "map_label.weight" in tensors else 0,
        "levels": RANGE,
    }
    return Architecture("song_unet", (channels, *max(sizes)), None, options)
