"""Class colours, overlays, legends and image writing."""

import colorsys
import errno
import itertools
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fuzzyseg.data.sample import Colour, DataError

_DISTINCT: tuple[Colour, ...] = (
    (86, 180, 233), (213, 94, 0), (240, 228, 66), (122, 122, 122), (204, 121, 167), (0, 158, 115),
    (51, 34, 136), (230, 159, 0), (0, 114, 178), (136, 34, 85), (68, 170, 153), (221, 204, 119),
)  # fmt: skip

_PARTS = itertools.count()


class Unwritable(OSError, DataError):
    """Raised if a file or folder cannot be written, for example on a full disk. The message reports what is intact."""

    def __init__(self, path: Path, error: OSError, status: str) -> None:
        reason = error.strerror or f"{error}: the disk may be full"  # NumPy sets no error number
        text = f"cannot be written ({reason}); {status}"
        super().__init__(error.errno or errno.ENOSPC, text, str(error.filename or path))

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}"

    def __reduce__(self) -> tuple[Any, ...]:  # pickled to send it from a worker to the main process
        return _unwritable, (self.errno, self.strerror, self.filename)


def _unwritable(number: int, text: str, filename: str) -> Unwritable:
    error = Unwritable.__new__(Unwritable)
    error.errno, error.strerror, error.filename = number, text, filename
    return error


def class_colours(count: int) -> list[Colour]:
    """Return `count` distinct colours: seven by Okabe and Ito, four by Tol and a grey, then bright hues."""
    hues = [colorsys.hsv_to_rgb(0.618 * place % 1, 0.6 + 0.4 * (place % 2), 0.95) for place in range(count)]
    bright = [(round(255 * r), round(255 * g), round(255 * b)) for r, g, b in hues]
    return [*_DISTINCT, *bright][:count]


def default_colours(count: int) -> list[Colour]:
    """Return the first `count` VOC colours: bits of the class index, lowest first, set the high bits of r, g, b."""
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
    """Blend class colours into an image (H, W, 3 or 1). Returns (H, W, 3). Void and black classes are not blended."""
    table = np.zeros((256, 3), dtype=np.float32)
    table[: len(colours)] = np.asarray(colours, dtype=np.float32).reshape(-1, 3)
    base = np.broadcast_to(image, (*image.shape[:2], 3)).astype(np.float32)
    mixed = base * (1 - strength) + table[mask] * strength
    return np.where(np.asarray(table.any(1))[mask][..., None], np.rint(mixed), base).astype(np.uint8)


def to_picture(image: NDArray[Any], mean: Sequence[float], std: Sequence[float]) -> NDArray[np.uint8]:
    """Convert an image (H, W, bands) to a displayable 8-bit image (H, W, 3) or (H, W, 1).

    8-bit grey and RGB images are returned unchanged. Other images are reduced to three bands (one if there are fewer)
    and scaled so that mean - 2 std is black and mean + 2 std is white. mean, std: per band, in [0, 1]; bands beyond
    their length are dropped.
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


def legend(entries: Sequence[tuple[str, Colour | None]], width: int) -> NDArray[np.uint8]:
    """Draw (text, colour) entries as a strip (h, w, 3), w >= `width`: a square unless colour is None, then the text."""
    font = ImageFont.load_default(size=max(12, min(40, width // 40)))
    edge = round(1.4 * font.getbbox("Ag")[3])
    lengths = [round(font.getlength(text)) + 2 * edge for text, _ in entries]
    width = max(width, *lengths, 0) if lengths else width
    places, x, row = [], 0, 0
    for length in lengths:
        if x and x + length > width:
            x, row = 0, row + 1
        places.append((x, row * edge))
        x += length
    strip = Image.new("RGB", (width, (row + 1) * edge), "white")
    draw = ImageDraw.Draw(strip)
    for (text, colour), (left, top) in zip(entries, places, strict=True):
        if colour is not None:
            square = (left + edge // 6, top + edge // 6, left + edge - edge // 6, top + edge - edge // 6)
            draw.rectangle(square, fill=colour, outline="black")
        draw.text((left + edge + edge // 8, top + edge // 6), text, fill="black", font=font)
    return np.array(strip)


def stack(above: NDArray[np.uint8], below: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Stack two images (h, w, 3) vertically, padding the narrower one with white."""
    width = max(above.shape[1], below.shape[1])
    parts = [np.pad(part, ((0, 0), (0, width - part.shape[1]), (0, 0)), constant_values=255) for part in (above, below)]
    return np.concatenate(parts)


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """Context manager for atomic writes: yields a path with the same suffix, which replaces `path` on success."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{os.getpid()}-{threading.get_ident()}-{next(_PARTS)}.part{path.suffix}")
    try:
        yield part
        os.replace(part, path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.strerror and error.filename in (None, str(part), part):
            error.filename, error.filename2 = str(path), None
        raise


def check_writable(folder: Path) -> None:
    """Raise Unwritable unless files can be written to a folder or, if it does not exist, its nearest existing parent.

    No file is left behind.
    """
    place = next((path for path in (folder, *folder.absolute().parents) if path.exists()), folder)
    try:
        with TemporaryFile(dir=place) as file:
            file.write(bytes(2**16))
    except OSError as error:
        error.filename = folder  # instead of the temporary file's name
        raise Unwritable(folder, error, "choose another folder") from None


def save_picture(pixels: NDArray[np.uint8], path: Path) -> None:
    """Atomically write (H, W, 3) RGB, or (H, W) or (H, W, 1) grey, in the format given by the suffix."""
    with written_beside(path) as part:
        Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels).save(part)
