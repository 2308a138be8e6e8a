"""TIFF and NumPy files with any number of bands and any numeric type, read whole or in windows.

TIFF pixels are decoded by rasterio (extra `geo`). If it is not installed, Pillow decodes the TIFF files that it
supports exactly; others raise an error that names the extra.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from fuzzyseg.data.io import pillow
from fuzzyseg.data.sample import Box, DataError

Array = NDArray[Any]

NO_SIDECARS = {"GDAL_PAM_ENABLED": "NO", "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}
"""GDAL options for ignoring sidecar files (.aux.xml, .ovr, .msk)."""

HUGE = 1e30
"""Nodata values of larger magnitude are compared with a tolerance, because files often round them (-3.4e+38 for the
lowest float32)."""


@dataclass(frozen=True)
class Raster:
    """Header of a TIFF or NumPy file; `read` decodes its pixels.

    height, width: as stored, before applying `orientation` (EXIF value, 1 to 8). alpha: whether the last band is alpha.
    nodata: value that marks missing data, if declared and representable. block: height and width of a tile or strip,
    which is decoded as a whole. pages: numbers of the TIFF directories that contain the bands. axis: band axis of a
    NumPy array, if any.
    """

    path: Path
    height: int
    width: int
    bands: int
    dtype: np.dtype[Any]
    alpha: bool = False
    orientation: int = 1
    nodata: float | None = None
    block: tuple[int, int] = (1, 1)
    pages: tuple[int, ...] = (1,)
    axis: int | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width

    @property
    def windowed(self) -> bool:
        """Whether reading a window decodes less than the whole file."""
        parts = self.orientation == 1 and self.block != self.size and not pillow.too_large(*self.block, self.bands)
        return parts and (pillow.suffix_of(self.path) == pillow.NUMPY or find_spec("rasterio") is not None)

    @property
    def may_miss(self) -> bool:
        """Whether pixels can be missing: a value is declared for missing data, or the dtype is floating-point."""
        return self.nodata is not None or self.dtype.kind == "f"

    def missing(self, array: Array) -> NDArray[np.bool_]:
        """Return a bool array (h, w) that is True at missing pixels of an array (h, w, bands) from `read`.

        A pixel is missing if any of its bands is NaN, infinite or equal to the declared value. For unsigned types,
        where this value may also be a valid brightness, all bands must be equal to it. Alpha is ignored.
        """
        bands = array[..., : self.bands - self.alpha]
        absent = ~np.isfinite(bands)
        if self.nodata is not None and abs(self.nodata) > HUGE:
            absent = absent | np.isclose(bands, np.float64(self.nodata), rtol=1e-3, atol=0)
        elif self.nodata is not None:
            absent = absent | (bands == self.dtype.type(self.nodata))
        return np.asarray(absent.all(-1) if self.dtype.kind == "u" else absent.any(-1))

    def read(self, box: Box | None = None) -> Array:
        """Read pixels (h, w, bands) in native byte order. Raises DataError.

        box: y0, x0, y1, x1; only the tiles or strips that intersect it are decoded. None: the whole file, with its
        orientation applied.
        """
        if box is None:
            pillow.check_pixels(self.path, self.height, self.width, self.bands)
            box = (0, 0, self.height, self.width)
        pillow.check_pixels(self.path, *self.block, self.bands, part="tiles or strips")
        with pillow.decoding(self.path):
            if pillow.suffix_of(self.path) == pillow.NUMPY:
                stored = _mapped(self.path)
                bands_last = stored[..., None] if self.axis is None else np.moveaxis(stored, self.axis, -1)
                array = np.array(bands_last[box[0] : box[2], box[1] : box[3]])
            elif find_spec("rasterio") is None:
                array = np.asarray(pillow.open_image(self.path)).astype(self.dtype, copy=False)
                return array if array.ndim == 3 else array[..., None]
            else:
                array = np.concatenate([gdal_read(self.path, "GTiff", box, page) for page in self.pages], -1)
            return pillow.turned(array.astype(self.dtype.newbyteorder("="), copy=False), self.orientation)


def gdal_read(path: Path, driver: str, box: Box | None = None, page: int = 1) -> Array:
    """Decode pixels (h, w, bands) with a single GDAL driver.

    Other drivers are disabled, because some (VRT) open files and network addresses named in the file. Raises DataError
    (no rasterio) or RasterioError (damaged file).
    """
    check_rasterio(path)
    import rasterio
    from rasterio.windows import Window

    name = path if page == 1 else f"GTIFF_DIR:{page}:{path}"
    window = None if box is None else Window(box[1], box[0], box[3] - box[1], box[2] - box[0])
    with warnings.catch_warnings(), rasterio.Env(**NO_SIDECARS, GDAL_ERROR_ON_LIBJPEG_WARNING=True):
        warnings.simplefilter("ignore")  # files without georeferencing are common
        with rasterio.open(name, driver=driver) as file:
            return np.moveaxis(file.read(window=window), 0, -1)


def check_rasterio(path: Path) -> None:
    """Raise DataError unless rasterio (extra `geo`) is installed."""
    if find_spec("rasterio") is None:
        raise DataError(f"{path}: its bands or data type can only be read by rasterio: pip install fuzzyseg[geo]")


def open_raster(path: Path) -> Raster | None:
    """Read the header of a TIFF or NumPy file. Returns None for files that Pillow reads. Raises DataError.

    Pillow reads files with a palette, CMYK or fewer than 8 bits, and files that are not TIFF despite their suffix. TIFF
    pages with one grey band each are read as the bands of one image; other files with several pages raise an error.
    """
    suffix = pillow.suffix_of(path)
    if suffix != pillow.NUMPY and suffix not in pillow.TIFF:
        return None
    pillow.check_regular(path)
    with pillow.decoding(path):
        return _numpy(path) if suffix == pillow.NUMPY else _tiff(path)


def _mapped(path: Path) -> Array:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path}: is an archive of arrays; expected one array in a .npy file")
    return array


def _numpy(path: Path) -> Raster:
    array = _mapped(path)
    if array.dtype.kind not in "biuf" or array.ndim not in (2, 3) or 0 in array.shape:
        expected = "expected numbers of shape (H, W), (H, W, bands) or (bands, H, W)"
        raise DataError(f"{path}: found {array.dtype} values of shape {array.shape}; {expected}")
    axis = None if array.ndim == 2 else 0 if array.shape[0] < array.shape[2] else -1
    height, width = array.shape[1:] if axis == 0 else array.shape[:2]
    return Raster(path, height, width, 1 if axis is None else array.shape[axis], array.dtype, axis=axis)


def _tiff(path: Path) -> Raster | None:
    pages = _pages(path)
    if not pages:
        return None
    tags = next(iter(pages.values()))
    height, width, bits = int(tags.get(257, 0)), int(tags.get(256, 0)), set(_values(tags, 258, 1))
    if not height or not width:
        raise DataError(f"{path}: has no height or width; it is damaged: copy it again")
    tiled = any(tag in tags for tag in (322, 323, 324, 325))
    block = (int(tags[323]), int(tags[322])) if tiled else (min(int(tags.get(278, height)), height), width)
    if tiled:  # a tile may be larger than the image, and Pillow also decodes it as a whole
        pillow.check_pixels(path, *block, part="tiles")
    photometric, compression, samples = tags.get(262, 0), tags.get(259, 1), int(tags.get(277, 1))
    # values are grey or RGB; JPEG's YCbCr is decoded to RGB
    numbers = min(bits) >= 8 and (photometric in (1, 2) or (photometric == 6 and compression == 7))
    alike = all(page.get(tag) == tags.get(tag) for page in pages.values() for tag in (256, 257, 258, 262, 277, 339))
    if len(pages) > 1 and not (numbers and samples == 1 and alike):
        raise DataError(
            f"{path}: has {len(pages)} pages; expected one image, or pages of one grey band each, which are its bands: "
            "save each page as a separate file (ImageMagick: convert FILE.tif page-%d.png)"
        )
    for page in pages.values():
        _check_complete(path, page, tiled, block)
    if not numbers:
        if 1 not in pages:
            raise DataError(f"{path}: its first page is a thumbnail, which would be read instead; save only the image")
        return None
    kind = "uifu"[min(int(_values(tags, 339, 1)[0]), 4) - 1]  # sample format: unsigned, signed, float, undefined
    if len(bits) > 1 or not bits <= {8, 16, 32, 64}:
        raise DataError(f"{path}: found {sorted(bits)} bits per pixel; expected 8, 16 or 32")
    dtype = np.dtype(f"{kind}{bits.pop() // 8}")
    bands, extra = samples * len(pages), _values(tags, 338, 0)
    alpha = bands in (2, 4) and (1 in extra or 2 in extra)
    byte = dtype == np.uint8 and (bands in (1, 3) or (alpha and 1 not in extra))
    simple = list(pages) == [1] and (byte or (bands == 1 and dtype in (np.uint16, np.int32, np.float32)))
    if not simple:
        check_rasterio(path)
    nodata = _nodata(tags, dtype)
    return Raster(path, height, width, bands, dtype, alpha, pillow.exif_turn(tags), nodata, block, tuple(pages))


def _nodata(tags: Mapping[int, Any], dtype: np.dtype[Any]) -> float | None:
    """Parse the GDAL_NODATA text tag. Returns None if it is missing or the dtype cannot represent its value."""
    try:
        value = float(str(tags[42113]).strip("\0 "))
    except (KeyError, ValueError):
        return None
    if dtype.kind == "f":
        return value
    possible = value.is_integer() and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max
    return value if possible else None


def palette_nodata(path: Path) -> float | None:
    """Return the nodata value declared by a TIFF file with at most 8 bits, or None."""
    pages = _pages(path)
    return _nodata(pages[1], np.dtype(np.uint8)) if pages else None


def _pages(path: Path) -> dict[int, dict[int, Any]]:
    """Return the tags of each image directory in a TIFF file, keyed by its number from 1; {} for other files.

    Omits thumbnails and overviews (recognised by their tag, or by being at most half as high and wide) and transparency
    masks (by their tag).
    """
    pages: dict[int, dict[int, Any]] = {}
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = file.read(16)
        if start[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return {}
        directory = ImageFileDirectory_v2(start if 43 in start[2:4] else start[:8])
        places = set()
        while directory.next and directory.next not in places:
            places.add(directory.next)
            file.seek(directory.next)
            directory.load(file)
            pages[len(places)] = dict(directory)
    reduced, page, transparency = 1, 2, 4  # bits of tag 254
    kinds = {number: int(tags.get(254, 0)) for number, tags in pages.items()}
    images = {number: tags for number, tags in pages.items() if not kinds[number] & (reduced | transparency)} or pages
    height, width = (max((int(tags.get(tag, 0)) for tags in images.values()), default=0) for tag in (257, 256))
    return {
        number: tags
        for number, tags in images.items()
        if kinds[number] & page or 2 * int(tags.get(257, 0)) > height or 2 * int(tags.get(256, 0)) > width
    }


def _values(tags: Mapping[int, Any], tag: int, default: Any) -> tuple[Any, ...]:
    value = tags.get(tag, default)
    return value if isinstance(value, tuple) else (value,)


def _check_complete(path: Path, tags: Mapping[int, Any], tiled: bool, block: tuple[int, int]) -> None:
    """Raise DataError if a page lacks pixels, which GDAL would fill with zeros.

    A tile with offset and size 0 was never written, which is allowed: it contains missing data, or 0. A strip of size 0
    is lost, as is a tile where only one of the two is 0.
    """
    places, counts = (_values(tags, tag, ()) for tag in ((324, 325) if tiled else (273, 279)))
    expected = -(-tags[257] // block[0]) * -(-tags[256] // block[1])
    expected *= int(tags.get(277, 1)) if tags.get(284) == 2 else 1
    parts = list(zip(places, counts, strict=True))
    size, end = path.stat().st_size, max((place + count for place, count in parts), default=0)
    if end > size:
        raise DataError(f"{path}: is truncated ({size} bytes; expected {end}); copy it again")
    if len(parts) != expected or any(place < 8 if count else place or not tiled for place, count in parts):
        raise DataError(f"{path}: some of its pixels are missing; copy it again")
