"""Inspection of individual image and mask files, decoded as in training."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fuzzyseg.data.io.header import Header, read_header
from fuzzyseg.data.io.image import GREY_WEIGHTS, read_native
from fuzzyseg.data.io.mask import read_mask, to_integers
from fuzzyseg.data.io.pillow import empty
from fuzzyseg.data.labels.blocks import large_raster, row_arrays
from fuzzyseg.data.sample import DataError, Size

Kind = Literal["image", "mask"]
KINDS: tuple[Kind, ...] = ("image", "mask")

ACROSS, DOWN, SIDE = 9, 8, 16
"""Sizes of the downsampled images: fingerprint (9 x 8, for 8 x 8 differences) and thumbnail (16 x 16)."""

LARGE = 1024
"""Images are subsampled before averaging, with the largest step that keeps the longer side at least this long, in
pixels."""

_NAMES = {1: "grey", 2: "grey with alpha", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True)
class FileInfo:
    """Properties of a file. problem: error message, or None if the file was read.

    size: (H, W) with the EXIF orientation applied. bands: number of bands without alpha; 3 for a palette. words:
    description such as `8-bit RGB JPEG`. digest: hash of the pixels. fingerprint, thumbnail: see `fingerprint_of`.
    windows: whether the file was read in blocks because it is too large to decode as a whole.
    """

    path: Path
    problem: str | None = None
    size: Size | None = None
    bands: int = 0
    words: str = ""
    digest: bytes = b""
    fingerprint: int | None = None
    thumbnail: bytes = b""
    windows: bool = False


def inspect_file(path: Path, kind: Kind, windows: bool = True) -> FileInfo:
    """Decode a whole file and return its properties. Sets `problem` instead of raising DataError.

    windows: whether to decode files that are too large for memory block by block, with the same result.
    """
    try:
        if path.stat().st_size == 0:
            return FileInfo(path, str(empty(path)))
        head = read_header(path)
        raster = large_raster(path) if windows else None
        if raster is not None and kind == "image" and raster.dtype == np.bool_:
            raster = None
        parts: Iterable[NDArray[Any]]
        if raster is not None:
            parts = (to_integers(part, path) if kind == "mask" else part for part in row_arrays(raster))
        elif kind == "mask":
            parts = [read_mask(path, colours=True, lossy=True)]
        else:
            parts = [read_native(path, 3 if head.palette else head.bands)]
        state, step, rows, top = hashlib.blake2b(digest_size=16), max(1, max(head.size) // LARGE), [], 0
        for part in parts:
            if top == 0:
                kinds = f"{(head.height, *part.shape[1:])} {part.dtype.kind}{part.dtype.itemsize}"
                state.update(kinds.encode())
            state.update(np.ascontiguousarray(part).data)
            if kind == "image":
                rows.append(part[-top % step :: step, ::step, :3].copy())  # a view would keep the block in memory
            top += len(part)
    except DataError as error:
        return FileInfo(path, str(error))
    except OSError as error:
        return FileInfo(path, f"{path}: cannot be read ({error.strerror or error})")
    bands = 3 if head.palette else head.bands - head.alpha
    number, small = fingerprint_of(np.concatenate(rows)) if rows else (None, b"")
    return FileInfo(path, None, head.size, bands, _words(head), state.digest(), number, small, raster is not None)


def _words(head: Header) -> str:
    if head.palette:
        return f"palette {head.format}"
    bands = head.mode if head.mode in ("CMYK", "LAB", "HSV") else _NAMES.get(head.bands, f"{head.bands}-band")
    if head.bands in (2, 4) and not head.alpha:
        bands = f"{head.bands}-band"
    kind = np.dtype(head.dtype)
    number = f"{8 * kind.itemsize}-bit" if kind.kind in "ub" else str(kind)
    return f"{number} {bands} {head.format}"


def fingerprint_of(pixels: NDArray[Any]) -> tuple[int | None, bytes]:
    """Return the difference hash ("dHash", 64 bits) of an image (H, W, bands), and a thumbnail.

    The grey image is averaged to 9 x 8 cells; bit 8 y + x is set if cell (y, x + 1) is brighter than cell (y, x). The
    hash is robust to changes in size, brightness and compression. The thumbnail contains 16 x 16 standardised averages
    as float16. Returns (None, b"") for a single-colour image.
    """
    part = pixels[..., :3]
    weights = np.array(GREY_WEIGHTS if part.shape[2] == 3 else [1 / part.shape[2]] * part.shape[2], np.float32)
    grey = np.nan_to_num(part.astype(np.float32) @ weights, nan=0.0, posinf=0.0, neginf=0.0)
    picture = Image.fromarray(np.ascontiguousarray(grey))
    small = np.array(picture.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float64)
    cells = np.array(picture.resize((ACROSS, DOWN), Image.Resampling.BOX), dtype=np.float64)
    deviation = float(small.std())
    if deviation <= 1e-6 * max(1.0, float(np.abs(small).max())):
        return None, b""
    bits = (cells[:, 1:] > cells[:, :-1]).ravel()
    number = int(sum(1 << place for place in np.flatnonzero(bits).tolist()))
    return number, ((small - small.mean()) / deviation).astype(np.float16).tobytes()
