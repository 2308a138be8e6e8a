"""What is written to be looked at: colours, overlays, picture files, and PNG files that grow row by row."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

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
    """An image (H, W, bands) as (H, W, 3) or (H, W, 1) that can be looked at.

    Grey and RGB of 8 bits stay. Of others the first three bands (of two the first) are stretched: two standard
    deviations below the mean is black, two above is white. mean, std: per band, in units of [0, 1].
    """
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
    """Writes (H, W, 3) RGB, or (H, W) or (H, W, 1) grey, to an image file of the kind that the suffix names."""
    Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels).save(path)


def save_array(array: NDArray[np.float16], path: Path) -> None:
    """Writes an array to a file that `numpy.load` reads; it holds numbers only."""
    np.save(path, array, allow_pickle=False)


class PngRows:
    """An 8-bit PNG file that is written from top to bottom, so that it need never be held as a whole.

    Use it as a context manager; `add` takes (rows, width) values or (rows, width, 3) colours, as `bands` says. palette:
    a colour for each value. The file is complete once the height is reached and the context left.
    """

    def __init__(
        self, path: Path, height: int, width: int, *, bands: int = 1, palette: Sequence[Colour] | None = None
    ) -> None:
        self.path, self.height, self.width, self.bands, self.palette = path, height, width, bands, palette
        self.done = 0

    def __enter__(self) -> PngRows:
        self._file: BinaryIO = self.path.open("wb")
        self._packer = zlib.compressobj(6)
        kind = 2 if self.bands == 3 else 0 if self.palette is None else 3  # PNG's colour types: RGB, grey, palette
        self._file.write(b"\x89PNG\r\n\x1a\n")
        self._chunk(b"IHDR", struct.pack(">IIBBBBB", self.width, self.height, 8, kind, 0, 0, 0))
        if self.palette is not None:
            self._chunk(b"PLTE", bytes(value for colour in self.palette for value in colour))
        return self

    def add(self, rows: NDArray[np.uint8]) -> None:
        """The next rows."""
        flat = np.ascontiguousarray(rows).reshape(rows.shape[0], self.width * self.bands)
        # each row begins with the number of its filter: 0, as it is
        data = self._packer.compress(np.concatenate([np.zeros((len(flat), 1), np.uint8), flat], 1).tobytes())
        if data:
            self._chunk(b"IDAT", data)
        self.done += len(flat)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            assert self.done == self.height, "a row is missing"
            self._chunk(b"IDAT", self._packer.flush())
            self._chunk(b"IEND", b"")
        self._file.close()
        if kind is not None:
            self.path.unlink(missing_ok=True)

    def _chunk(self, name: bytes, data: bytes) -> None:
        self._file.write(struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)))
