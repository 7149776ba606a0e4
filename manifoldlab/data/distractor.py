"""A picture in a random half and in the other one always the same letter: MNIST with a distractor.

Srinivas et al. 2023, Figure 5. The letter says nothing of the label; the region is the picture's half.
"""

import torch
from torch import Tensor

from manifoldlab.data import base
from manifoldlab.data.halves import halves
from manifoldlab.interfaces import Data


def distractor(
    *,
    of: str = "mnist",
    letter: str = "A",
    seed: int = 0,
    root: str = "",
    train: bool = True,
    device: str = "cpu",
) -> Data:
    """x (C, 2 H, W) of the data set `of`; the seed chooses the halves."""
    data = base.load(of, root=root, train=train, device=device)
    return halves(data, drawn(letter, data.shape), seed=seed)


def drawn(letter: str, shape: tuple[int, ...]) -> Tensor:
    """White on black, in the middle, three quarters of the shorter side high."""
    from PIL import Image, ImageDraw, ImageFont

    if len(letter) != 1 or not letter.isprintable() or letter.isspace():
        raise ValueError(f"a distractor is one letter, not {letter!r}")
    channels, height, width = shape
    image = Image.new("L", (width, height))
    font = ImageFont.load_default(0.75 * min(height, width) / 0.7)  # capitals are .7 of its size
    ImageDraw.Draw(image).text((width / 2, height / 2), letter, 255, font, anchor="mm")
    grey = torch.tensor(list(image.tobytes()), dtype=torch.float32) / 255
    return grey.reshape(1, height, width).repeat(channels, 1, 1)
