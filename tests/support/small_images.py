"""Small network, model card and image files for inference tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from fuzzyseg.data import Item
from fuzzyseg.inference import ModelCard, Predictor

MEAN, STD = [0.2, 0.4, 0.6], [0.5, 0.25, 0.5]


class PointNetwork(nn.Module):
    """Pixel-wise network at full resolution; image sides must be multiples of `divisor`."""

    def __init__(self, classes: int = 3, divisor: int = 1) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(3, classes, 1)
        self.divisor = divisor
        self.sizes: list[tuple[int, int]] = []

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        assert height % self.divisor == 0
        assert width % self.divisor == 0
        self.sizes.append((height, width))
        return 3 * self.encoder(image)


def card(classes: int | list[str] = 3, **changes: Any) -> ModelCard:
    names = [f"class{i}" for i in range(classes)] if isinstance(classes, int) else list(classes)
    return ModelCard(**{"classes": names, "mean": MEAN, "std": STD, "crop": (24, 30), **changes})


def predictor(network: nn.Module | None = None, **changes: Any) -> Predictor:
    torch.manual_seed(0)
    return Predictor(network or PointNetwork(), card(**changes))


def noise(height: int, width: int, seed: int = 0, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def write(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def item(folder: Path, name: str, image: np.ndarray, mask: np.ndarray) -> Item:
    return Item(write(folder / "images" / f"{name}.png", image), write(folder / "masks" / f"{name}.png", mask), name)
