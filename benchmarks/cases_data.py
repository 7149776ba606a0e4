"""The data path: batches of an epoch, beside the copies that they are."""

import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from benchmarks import inputs
from manifoldlab.benchmarking.case import Case, Contest, Contestant, Floor, Setting
from manifoldlab.data.image_folder import image_folder
from manifoldlab.data.in_memory import in_memory
from manifoldlab.interfaces import Data

SIZE = 128


def _first(x: Tensor) -> Tensor:
    """A number of each sample; nothing else of the batch is kept, whose memory serves the next."""
    return x.flatten(1)[:, 0].clone()


def _epoch(data: Data, seed: int | None) -> Tensor:
    """Of an epoch, whatever its order."""
    return torch.cat([_first(b.x) for b in data.batches(SIZE, seed)]).sort().values


def _of_loader(loader: "DataLoader[list[Tensor]]", scale: float) -> Tensor:
    return torch.cat([_first(x / scale) for x, _ in loader]).sort().values


def _in_memory(setting: Setting) -> Contest:
    n = setting.pick(4096, 256)
    x = (255 * inputs.uniform(n, *inputs.IMAGE)).to(torch.uint8)
    y = torch.arange(n) % 10
    data = in_memory(x.to(setting.device), y.to(setting.device), 10)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    loader = DataLoader(TensorDataset(x, y), SIZE, shuffle=True)
    given = x.to(setting.device)
    return Contest(
        own=Contestant(lambda: _epoch(data, 0)),
        floor=Floor(
            "the pictures in another order, as numbers in [0, 1]",
            lambda: [_first(given[rows].float() / 255) for rows in torch.split(order, SIZE)],
        ),
        peers={"DataLoader": Contestant(lambda: _of_loader(loader, 255.0))},
        exact=lambda: (x.double().flatten(1)[:, 0] / 255).sort().values,
        within=1e-6,
        reason="float32",
        sizes={"n": n, "D": x[0].numel()},
        error=_absolute,
    )


def _absolute(found: Tensor, exact: Tensor) -> float:
    return float((found - exact).abs().max())


@lru_cache(maxsize=2)
def _folder(count: int, side: int) -> "tempfile.TemporaryDirectory[str]":
    """Of PNG files, removed when the process ends."""
    kept = tempfile.TemporaryDirectory()
    pixels = (255 * inputs.uniform(count, side, side, 3)).to(torch.uint8).numpy()
    for i, picture in enumerate(pixels):
        file = Path(kept.name) / f"class{i % 2}" / f"{i:04}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(picture).save(file)
    return kept


class _Files(Dataset[tuple[Tensor, int]]):
    def __init__(self, folder: Path):
        self.files = sorted(folder.glob("*/*.png"))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        picture = np.array(Image.open(self.files[i]).convert("RGB"))
        return torch.from_numpy(picture).permute(2, 0, 1).float() / 255, 0


def _image_folder(setting: Setting) -> Contest:
    count, side = setting.pick(256, 8), setting.pick(64, 32)
    folder = Path(_folder(count, side).name)
    data = image_folder(root=str(folder), split=".", size=side)
    files = _Files(folder)
    loader = DataLoader(files, SIZE)
    return Contest(
        own=Contestant(lambda: _epoch(data, None)),
        floor=Floor(
            "decoding every file", lambda: [np.array(Image.open(file)) for file in files.files]
        ),
        peers={"DataLoader": Contestant(lambda: _of_loader(loader, 1.0))},  # type: ignore[arg-type]
        exact=lambda: (
            torch.stack([files[i][0][0, 0, 0].double() for i in range(count)]).sort().values
        ),
        within=1e-6,
        reason="float32",
        sizes={"n": count, "D": 3 * side * side},
        error=_absolute,
        waits=True,
    )


CASES = (
    Case("data/in_memory/32", "an epoch of pictures held as bytes", _in_memory),
    Case("data/image_folder/64", "an epoch of PNG files", _image_folder),
)
