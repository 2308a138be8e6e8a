"""One image or mask file, opened as training opens it: what it is, or what is wrong with it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fuzzyseg.data.io.header import Header, read_header
from fuzzyseg.data.io.image import GREY_WEIGHTS, read_native
from fuzzyseg.data.io.mask import read_mask, to_integers
from fuzzyseg.data.io.pillow import empty
from fuzzyseg.data.io.raster import Raster
from fuzzyseg.data.labels.blocks import large_raster, row_arrays
from fuzzyseg.data.sample import DataError, Size

Kind = Literal["image", "mask"]

ACROSS, DOWN, SIDE = 9, 8, 16
"""Pixels of the pictures that are compared: of the fingerprint (9 x 8 make 8 x 8 differences) and the thumbnail."""

LARGE = 1024
"""Of a larger picture only every other row and column (or fewer) are averaged for the fingerprint."""

_NAMES = {1: "grey", 2: "grey with opacity", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True)
class Seen:
    """What a file turned out to be. problem: a sentence that names the file, None where it was read.

    size: as looked at (orientation applied). bands: without opacity; 3 for a palette. words: such as `8-bit RGB JPEG`.
    digest: of its pixels, not of its bytes. fingerprint, thumbnail: of an image, see `fingerprint_of`; None and nothing
    for a picture of one colour. windows: it is too large to be decoded whole and was read row block by row block.
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


def look_at(path: Path, kind: Kind, windows: bool = True) -> Seen:
    """Opens and decodes the whole file. Never raises DataError: that is what `problem` tells.

    windows: one that is too large for that may be decoded row block by row block; what is found is the same.
    """
    try:
        if path.stat().st_size == 0:
            return Seen(path, str(empty(path)))
        head = read_header(path)
        raster = large_raster(path) if windows else None
        if raster is not None and (kind == "mask" or raster.dtype != np.bool_):
            return _by_blocks(raster, head, kind)
        if kind == "mask":
            pixels: NDArray[Any] = read_mask(path, colours=True, lossy=True)
        else:
            pixels = read_native(path, 3 if head.palette else head.bands)
    except DataError as error:
        return Seen(path, str(error))
    except OSError as error:
        return Seen(path, f"{path}: cannot be read ({error.strerror or error})")
    size = (pixels.shape[0], pixels.shape[1])
    bands = 3 if head.palette else head.bands - head.alpha
    seen = Seen(path, None, size, bands, _words(head), digest_of(pixels))
    if kind == "mask":
        return seen
    number, small = fingerprint_of(pixels)
    return replace(seen, fingerprint=number, thumbnail=small)


def _by_blocks(raster: Raster, head: Header, kind: Kind) -> Seen:
    """What `look_at` finds, of a file that is never held whole. Raises DataError."""
    step, rows = max(1, max(head.size) // LARGE), []
    state, top = None, 0
    for array in row_arrays(raster):
        part: NDArray[Any] = to_integers(array, raster.path) if kind == "mask" else array
        if state is None:
            state = _digest((head.height, *part.shape[1:]), part.dtype)
        state.update(np.ascontiguousarray(part).data)
        if kind == "image":
            rows.append(array[-top % step :: step, ::step, :3].copy())  # a view would keep the block
        top += len(array)
    assert state is not None
    seen = Seen(raster.path, None, head.size, head.bands - head.alpha, _words(head), state.digest(), windows=True)
    if kind == "mask":
        return seen
    number, small = _fingerprint(np.concatenate(rows))
    return replace(seen, fingerprint=number, thumbnail=small)


def _words(head: Header) -> str:
    if head.palette:
        return f"palette {head.format}"
    bands = head.mode if head.mode in ("CMYK", "LAB", "HSV") else _NAMES.get(head.bands, f"{head.bands}-band")
    if head.bands in (2, 4) and not head.alpha:
        bands = f"{head.bands}-band"
    kind = np.dtype(head.dtype)
    number = f"{8 * kind.itemsize}-bit" if kind.kind in "ub" else str(kind)
    return f"{number} {bands} {head.format}"


def digest_of(pixels: NDArray[Any]) -> bytes:
    """The same for the same pixels, however they are stored."""
    state = _digest(pixels.shape, pixels.dtype)
    state.update(np.ascontiguousarray(pixels).data)
    return state.digest()


def _digest(shape: tuple[int, ...], dtype: np.dtype[Any]) -> hashlib.blake2b:
    """Of pixels of this shape and type, before the first of them."""
    return hashlib.blake2b(f"{shape} {dtype.kind}{dtype.itemsize}".encode(), digest_size=16)


def fingerprint_of(pixels: NDArray[Any]) -> tuple[int | None, bytes]:
    """64 bits of an image (H, W, bands), and a thumbnail, by which pictures that look alike are found.

    Bit 8 y + x says whether, in the grey picture averaged to 9 x 8 cells, cell (y, x + 1) is brighter than cell (y, x)
    ("dHash"): the same at another size, brightness or compression. The thumbnail is 16 x 16 averages, standardised, as
    float16. Neither exists (None, nothing) for a picture of one colour.
    """
    step = max(1, max(pixels.shape[:2]) // LARGE)
    return _fingerprint(pixels[::step, ::step, :3])


def _fingerprint(part: NDArray[Any]) -> tuple[int | None, bytes]:
    """`fingerprint_of`, of the rows, columns and bands that it looks at."""
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
