"""Image reading, whole or in windows: as uint8, as float32 in units (see `Levels`), or as stored values."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from fuzzyseg.data.io.header import read_header
from fuzzyseg.data.io.pillow import SIXTEEN_BIT, decoding, open_image, turned, upright
from fuzzyseg.data.io.raster import Raster, gdal_read, open_raster
from fuzzyseg.data.sample import Box, DataError, Size

Pixels = NDArray[np.uint8]
"""An image (H, W, channels) with 8 bits per band."""

Units = NDArray[np.float32]
"""An image (H, W, channels) in units: the low and high values of its `Levels` are mapped to 0 and 1."""

Bands = Sequence[int] | None
"""Band numbers to read, starting from 1; None: all."""

Image = Pixels | Units
Picture: TypeAlias = str | Path | Pillow.Image
"""A file, or an image opened with Pillow."""

GREY_WEIGHTS = (0.299, 0.587, 0.114)
"""Weights of red, green and blue for conversion to grey (ITU-R 601)."""


@dataclass(frozen=True)
class Levels:
    """Value range per band, for files that are not uint8. In units, low becomes 0 and high becomes 1.

    Default: 0 and the maximum of the file's unsigned type (255 or 65535). Values outside the range are not clipped. NaN
    and infinity (missing data) become 0. 8-bit files keep the range 0 to 255 if any `high` is above 255.
    """

    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None

    def units(self, array: NDArray[Any], path: Path) -> Units:
        """Convert file values (H, W, bands) to units, float32. Raises DataError if the value range is unknown."""
        if self.low is None or self.high is None:
            if array.dtype.kind != "u" or array.dtype.itemsize > 2:
                raise DataError(
                    f"{path}: found {array.dtype} values; expected 8 or 16 bits as in the other images: data.low and "
                    "data.high (one value per band) set the values of black and white"
                )
            return array.astype(np.float32) / np.float32(np.iinfo(array.dtype).max)
        if len(self.low) != array.shape[2] or len(self.high) != array.shape[2]:
            raise DataError(f"{path}: has {array.shape[2]} bands; expected {len(self.low)}, as many as data.low has")
        low, high = np.array(self.low), np.array(self.high)
        if array.dtype == np.uint8 and high.max() > 255:  # a range for 16-bit files does not apply to 8-bit files
            low, high = np.zeros_like(low), np.full_like(high, 255)
        scaled = (array.astype(np.float64) - low) / np.where(high > low, high - low, 1.0)
        return np.where(np.isfinite(scaled), scaled, 0.0).astype(np.float32)


def read_image(
    source: Path | Raster | Pillow.Image,
    channels: int = 3,
    *,
    bands: Sequence[int] | None = None,
    levels: Levels | None = None,
    with_known: bool = False,
    box: Box | None = None,
) -> NDArray[Any]:
    """Read an image as (H, W, channels), uint8, or float32 in units if `levels` is given. EXIF orientation is applied.

    If the number of bands differs from `channels`, grey is repeated for 3 channels, RGB is converted to grey (ITU-R
    601) for 1 channel, and alpha is dropped; palettes and CMYK become RGB. bands: band numbers to read, starting from
    1, in this order. Default: all. Without levels, 16-bit files are reduced to the high byte. with_known: if the file
    may have missing data (see `Raster.missing`), append a band that is 0 for missing pixels and 255, or 1.0, elsewhere,
    and set missing pixels to 0 in all bands. box: y0, x0, y1, x1 of the part of a raster to read. Raises a DataError
    that names the file.
    """
    path, array, alpha, missing = _stored(source, box, exact=levels is not None)
    choose = partial(_chosen, alpha=alpha, path=path, channels=channels, bands=bands)
    if levels is None:
        chosen = choose(_eight_bits(array, path))
        chosen = chosen if chosen.dtype == np.uint8 else np.rint(chosen).astype(np.uint8)
    elif levels.low is not None:
        chosen = levels.units(choose(array), path)
    else:
        chosen = choose(levels.units(array, path)).astype(np.float32, copy=False)
    if missing is None or not with_known:
        return chosen
    known, one = ~missing[..., None], chosen.dtype.type(255 if chosen.dtype == np.uint8 else 1)
    return np.concatenate([np.where(known, chosen, chosen.dtype.type(0)), known * one], -1)


def read_native(path: Path, channels: int = 3, *, bands: Sequence[int] | None = None) -> NDArray[Any]:
    """Like `read_image`, but keeps the stored dtype (float64 for grey from non-8-bit RGB). Raises DataError."""
    _, array, alpha, _ = _stored(path, exact=True)
    return _chosen(array, alpha, path, channels, bands)


def read_known(
    source: Path | Raster, channels: int = 3, *, bands: Sequence[int] | None = None, box: Box | None = None
) -> NDArray[np.float64]:
    """Like `read_native`, but returns float64 with NaN for missing data. Raises DataError."""
    path, array, alpha, missing = _stored(source, box, exact=True)
    numbers: NDArray[np.float64] = _chosen(array, alpha, path, channels, bands).astype(np.float64)
    if missing is not None:
        numbers[missing] = np.nan
    return numbers


def _stored(
    source: Path | Raster | Pillow.Image, box: Box | None = None, *, exact: bool
) -> tuple[Path, NDArray[Any], bool, NDArray[np.bool_] | None]:
    """Return the path, the bands (H, W, n), whether the last one is alpha, and the missing pixels (H, W) bool, if any.

    exact: keep all 16 bits of a colour PNG.
    """
    if isinstance(source, Pillow.Image):
        return Path("the image"), *of_pillow(upright(source)), None
    raster = source if isinstance(source, Raster) else open_raster(source)
    if raster is None:
        assert isinstance(source, Path)
        return source, *_by_pillow(source, exact=exact), None
    array = raster.read(box)
    missing = raster.missing(array) if raster.may_miss else None
    array = array.astype(np.uint8) * np.uint8(255) if array.dtype == np.bool_ else array
    return raster.path, array, raster.alpha, missing


def _by_pillow(path: Path, *, exact: bool) -> tuple[NDArray[Any], bool]:
    image = open_image(path)
    if exact and image.format == "PNG" and image.mode not in SIXTEEN_BIT and read_header(path).dtype == "uint16":
        with decoding(path):  # Pillow, which has verified checksums, keeps only 8 bits
            deep = turned(gdal_read(path, "PNG"), read_header(path).orientation)
        return deep, deep.shape[2] in (2, 4)
    return of_pillow(image)


def of_pillow(image: Pillow.Image) -> tuple[NDArray[Any], bool]:
    """Return the bands (H, W, n) of a Pillow image, and whether the last one is alpha."""
    if image.mode in SIXTEEN_BIT or (image.mode == "I" and image.format == "PNG"):
        return np.asarray(image).astype(np.uint16)[..., None], False
    if image.mode in ("I", "F"):
        return np.array(image)[..., None], False
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")  # a palette may have transparency; converting to RGB would warn
        return np.array(image)[..., :3], False
    if image.mode not in ("L", "LA", "RGB", "RGBA"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    array = np.array(image, dtype=np.uint8)
    return (array[..., None] if array.ndim == 2 else array), image.mode in ("LA", "RGBA")


def _eight_bits(array: NDArray[Any], path: Path) -> Pixels:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.uint16:
        return (array >> 8).astype(np.uint8)
    raise DataError(
        f"{path}: found {8 * array.dtype.itemsize}-bit pixels ({array.dtype}); expected 8 or 16 bits, as in the "
        "training images: convert it to one of them"
    )


def _chosen(array: NDArray[Any], alpha: bool, path: Path, channels: int, bands: Sequence[int] | None) -> NDArray[Any]:
    """Select or convert the requested bands of an array (H, W, n)."""
    count = array.shape[2]
    if bands is not None:
        if len(bands) != channels or not all(1 <= band <= count for band in bands):
            expected = f"{channels} numbers (network.channels) from 1 to {count}"
            raise DataError(f"{path}: has {count} bands; found data.bands={list(bands)}, expected {expected}")
        return array[..., [band - 1 for band in bands]]
    if count == channels:
        return array
    if alpha:
        return _chosen(array[..., :-1], False, path, channels, None)
    if count == 1 and channels == 3:
        return np.repeat(array, 3, 2)
    if count == 3 and channels == 1:
        if array.dtype == np.uint8:  # with Pillow's rounding
            return np.array(Pillow.fromarray(np.ascontiguousarray(array)).convert("L"))[..., None]
        grey: NDArray[np.float64] = array.astype(np.float64) @ np.array(GREY_WEIGHTS)
        return grey[..., None]
    fewer = f", or name those to use, such as data.bands={list(range(1, channels + 1))}" if count > channels else ""
    raise DataError(
        f"{path}: has {count} band{'s' * (count > 1)}, but the network takes {channels} channel{'s' * (channels > 1)}: "
        f"for a new training set network.channels={count} to use all its bands{fewer}; a trained model needs images "
        "with the bands of its training images"
    )


@dataclass(frozen=True)
class Windows:
    """A file that is read in windows with `read_image`."""

    raster: Raster
    channels: int
    bands: tuple[int, ...] | None = None
    levels: Levels | None = None

    @property
    def size(self) -> Size:
        """Height and width."""
        return self.raster.size

    def read(self, box: Box, *, with_known: bool = False) -> NDArray[Any]:
        """Read the box y0, x0, y1, x1 as (h, w, channels). with_known: see `read_image`. Raises DataError."""
        kind: dict[str, Any] = {"bands": self.bands, "levels": self.levels}
        return read_image(self.raster, self.channels, **kind, with_known=with_known, box=box)

    def known(self, box: Box) -> NDArray[np.float64]:
        """Read a box with `read_known`: stored values as float64, NaN for missing data. Raises DataError."""
        return read_known(self.raster, self.channels, bands=self.bands, box=box)


def open_windows(path: Path, channels: int = 3, *, bands: Bands = None, levels: Levels | None = None) -> Windows | None:
    """Open a tiled or striped TIFF or a NumPy file for reading in windows, or return None. Raises DataError."""
    raster = open_raster(path)
    if raster is None or not raster.windowed or raster.dtype == np.bool_:
        return None
    return Windows(raster, channels, None if bands is None else tuple(bands), levels)
