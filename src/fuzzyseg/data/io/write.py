"""Colours, overlays and picture files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fuzzyseg.data.sample import Colour


def default_colours(count: int) -> list[Colour]:
    """`count` distinct colours: the bits of the class index, lowest first, become the highest bits of r, g, b (VOC)."""
    colours = []
    for index in range(count):
        colour = [0, 0, 0]
        for bit in range(8):
            if index >> bit & 1:
                colour[bit % 3] |= 128 >> (bit // 3)
        colours.append((colour[0], colour[1], colour[2]))
    return colours


def overlay(
    image: NDArray[np.uint8], mask: NDArray[np.integer], colours: Sequence[Colour], strength: float = 0.5
) -> NDArray[np.uint8]:
    """(H, W, 3) or (H, W, 1) image with each pixel's class colour mixed in; pixels without a colour (void) stay."""
    table = np.zeros((256, 3), dtype=np.float32)
    table[: len(colours)] = np.asarray(colours, dtype=np.float32).reshape(-1, 3)
    base = np.broadcast_to(image, (*image.shape[:2], 3)).astype(np.float32)
    mixed = base * (1 - strength) + table[mask] * strength
    known = (mask < len(colours))[..., None]
    return np.where(known, np.rint(mixed), base).astype(np.uint8)


def to_picture(image: NDArray[Any], mean: Sequence[float], std: Sequence[float]) -> NDArray[np.uint8]:
    """An image (H, W, bands) as a viewable 8-bit image (H, W, 3) or (H, W, 1).

    Grey and RGB of 8 bits are returned as they are. Of other images the first three bands (of two, the first) are
    scaled: two standard deviations below the mean is black, two above is white. mean, std: per band, in [0, 1];
    further bands are left out.
    """
    image = image[..., : len(mean)]
    bands = image.shape[2]
    if image.dtype == np.uint8 and bands in (1, 3):
        return image
    shown = 3 if bands >= 3 else 1
    part = image[..., :shown].astype(np.float32) / (255 if image.dtype == np.uint8 else 1)
    middle, spread = (np.asarray(value[:shown], dtype=np.float32) for value in (mean, std))
    stretched = (part - middle) / (4 * np.maximum(spread, 1e-12)) + 0.5
    picture: NDArray[np.uint8] = (255 * np.clip(stretched, 0, 1)).round().astype(np.uint8)
    return picture


def save_picture(pixels: NDArray[np.uint8], path: Path) -> None:
    """Writes (H, W, 3) RGB, or (H, W) or (H, W, 1) grey, in the format of the suffix."""
    Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels).save(path)


def save_array(array: NDArray[np.float16], path: Path) -> None:
    """Writes an array as a .npy file, without pickles."""
    np.save(path, array, allow_pickle=False)
