"""Pictures from files: decoded, made RGB, resized and cropped as usual, and given as bytes."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp")
DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")  # modes of more than 8 bits a channel


@final
@dataclass(frozen=True)
class Central:
    """The shorter side resized (bilinear, smoothed where it shrinks), then a square of the centre."""

    shorter: int = 256
    crop: int = 224

    def __post_init__(self) -> None:
        if not 1 <= self.crop <= self.shorter:
            line = f"a square of side {self.crop} from pictures of shorter side {self.shorter}"
            raise ValueError(f"no crop: {line}")

    def __call__(self, image: "Image") -> "Image":
        width, height = image.size
        longer = int(self.shorter * max(width, height) / min(width, height))
        size = (self.shorter, longer) if width <= height else (longer, self.shorter)
        left, top = (round((side - self.crop) / 2) for side in size)
        resized = image.resize(size, _bilinear())
        return resized.crop((left, top, left + self.crop, top + self.crop))


@final
@dataclass(frozen=True)
class Squeezed:
    """The whole picture in a square, whatever its sides are."""

    size: int = 224

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"the side of a picture is 1 pixel or more, not {self.size}")

    def __call__(self, image: "Image") -> "Image":
        return image.resize((self.size, self.size), _bilinear())


def as_it_is(image: "Image") -> "Image":
    return image


def picture(path: Path) -> "Image":
    """Decoded, in RGB; a file that is damaged or no picture is named."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as opened:
            if opened.mode in DEEP:
                raise ValueError(f"{path} has mode {opened.mode}, not 8 bits a channel")
            return opened.convert("RGB")
    except UnidentifiedImageError:
        raise ValueError(f"{path} is no picture") from None
    except (OSError, SyntaxError, EOFError) as error:  # of decoders
        raise ValueError(f"{path} is damaged: {error}") from error


def pixels(image: "Image") -> Tensor:
    """uint8 (3, H, W)"""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def _bilinear() -> int:
    from PIL import Image

    return Image.Resampling.BILINEAR
