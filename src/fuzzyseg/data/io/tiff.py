"""TIFF and NumPy files: any number of bands, any number type, read whole or by windows."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from fuzzyseg.data.io.pillow import NUMPY, TIFF, check_pixels, check_stream, undecodable
from fuzzyseg.data.sample import DataError

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what is wrong with a file is told by the error that names it

ORIENTATION = 0x0112  # EXIF and TIFF tag; 5 to 8 swap height and width

BAND_AXES = "SCIQ"
"""tifffile's letters for axes that are bands: samples, channels, and pages without a meaning of their own."""

TILES = (322, 323, 324, 325)  # TIFF tags: width, length, places and sizes of tiles

HEADER = 8
"""Bytes at the start of every TIFF file that are no pixels."""

Array = NDArray[Any]
Box = tuple[int, int, int, int]
"""y0, x0, y1, x1."""


@dataclass
class Raster:
    """A file whose pixels are numbers in bands, as its header describes it; nothing is decoded yet.

    height, width: as stored, before `orientation` (EXIF's number, 1: as it is). dtype: of the numbers. alpha: the last
    band is opacity. colour: the bands are what they seem; False for palettes, CMYK and the like, which Pillow converts.
    axis: where the bands are in the stored array: -1 last, 0 first, None: there is no such axis.
    """

    path: Path
    height: int
    width: int
    bands: int
    dtype: np.dtype[Any]
    alpha: bool = False
    colour: bool = True
    orientation: int = 1
    axis: int | None = None
    pages: int = 1
    _page: Any = field(default=None, repr=False)
    _checked: bool = field(default=False, repr=False)

    def whole(self) -> Array:
        """The pixels (H, W, bands) as stored, not turned. Raises DataError."""
        check_pixels(self.path, self.height, self.width, self.bands)
        try:
            if self._page is None:
                return self._last(np.array(_mapped(self.path)))
            with tifffile.TiffFile(self.path) as file:
                for page in file.series[0].pages:
                    if page:
                        _check_page(self.path, file.filehandle.size, page, page.keyframe)
                _guard(self.path, file.series[0].keyframe)
                return self._last(np.asarray(file.series[0].asarray(maxworkers=1)))
        except DataError:
            raise
        except Exception as error:  # damaged bytes make the decoders raise nearly anything
            raise undecodable(self.path, error) from None

    @property
    def windowed(self) -> bool:
        """Whether `window` reads less than the whole file."""
        if self.orientation != 1 or not self.colour:
            return False
        if self._page is None:
            return True
        return self.pages == 1 and (bool(self._page.is_tiled) or int(self._page.rowsperstrip) < self.height)

    @property
    def tall(self) -> int:
        """Rows of a tile or strip, which are decoded together; 1 where each row stands for itself."""
        if self._page is None:
            return 1
        return int(self._page.tilelength if self._page.is_tiled else self._page.rowsperstrip)

    def window(self, box: Box) -> Array:
        """The pixels (h, w, bands) of a part, decoding only the tiles or strips that it touches. Raises DataError.

        A file that lacks a part of its pixels is refused as `whole` refuses it, wherever the window lies.
        """
        assert self.windowed
        try:
            if self._page is None:
                mapped = _mapped(self.path)
                rows, columns = slice(box[0], box[2]), slice(box[1], box[3])
                part = mapped[:, rows, columns] if self.axis == 0 else mapped[rows, columns]
                return self._last(np.array(part))
            if not self._checked:  # once for all windows: a large file has many thousands of tiles
                _check_parts(self.path, self._page)
                _check_page(self.path, self.path.stat().st_size, self._page, self._page)
                self._checked = True
            return self._segments(box)
        except DataError:
            raise
        except Exception as error:
            raise undecodable(self.path, error) from None

    def _last(self, array: Array) -> Array:
        """With the bands as the last axis."""
        if self.axis is None:
            return array[..., None]
        return np.moveaxis(array, 0, -1) if self.axis == 0 else array

    def _segments(self, box: Box) -> Array:
        page = self._page
        y0, x0, y1, x1 = box
        part = np.zeros((y1 - y0, x1 - x0, self.bands), self.dtype)
        with self.path.open("rb") as file:
            for index, (band, top, left, height, width) in _touched(page, self.bands, box):
                count, tile = page.databytecounts[index], None
                if count:
                    file.seek(page.dataoffsets[index])
                    data = file.read(count)
                    if len(data) != count:  # since it was checked
                        raise DataError(f"{self.path}: is cut short; copy it again")
                    decoded, _, shape = page.decode(data, index, jpegtables=page.jpegtables)
                    tile = decoded[0, : shape[1], : shape[2]]
                    height, width = min(height, tile.shape[0]), min(width, tile.shape[1])
                a, b = max(y0, top), min(y1, top + height)
                c, d = max(x0, left), min(x1, left + width)
                bands = slice(None) if band is None else slice(band, band + 1)
                part[a - y0 : b - y0, c - x0 : d - x0, bands] = (
                    page.nodata if tile is None else tile[a - top : b - top, c - left : d - left]
                )
        return part


def _touched(page: Any, bands: int, box: Box) -> Iterator[tuple[int, tuple[int | None, int, int, int, int]]]:
    """Number of each tile or strip that meets the box, and its band (None: all), top, left, height, width."""
    tall = page.tilelength if page.is_tiled else page.rowsperstrip
    wide = page.tilewidth if page.is_tiled else page.imagewidth
    down, across = -(-page.imagelength // tall), -(-page.imagewidth // wide)
    apart = bands > 1 and int(page.planarconfig) == 2
    for band in range(bands) if apart else (None,):
        for row in range(box[0] // tall, min(down, -(-box[2] // tall))):
            for column in range(box[1] // wide, min(across, -(-box[3] // wide))):
                index = ((band or 0) * down + row) * across + column
                yield index, (band, row * tall, column * wide, tall, wide)


def _check_parts(path: Path, page: Any) -> None:
    """Raises DataError where one tile or strip, which is decoded as a whole for a single pixel too, is too large."""
    bands = 1 if int(page.planarconfig) == 2 else page.samplesperpixel
    if page.is_tiled:
        check_pixels(path, page.tilelength * page.tiledepth, page.tilewidth, bands, part="tiles")
    else:
        check_pixels(path, min(page.rowsperstrip, page.imagelength), page.imagewidth, bands, part="strips")


def _guard(path: Path, page: Any) -> None:
    """Has tiles that say a size of their own looked at before they are decoded, by tifffile or by `window`."""
    if page.compression not in tifffile.TIFF.IMAGE_COMPRESSIONS:
        return
    plain = page.decode

    def decode(data: bytes | None, *arguments: Any, **options: Any) -> Any:
        if data is not None:
            check_stream(path, data)
        return plain(data, *arguments, **options)

    page.decode = decode


def _check_page(path: Path, size: int, page: Any, first: Any) -> None:
    """Raises DataError where a page lacks some of its pixels: the decoder would fill them up.

    A tile of no place and no bytes was never written, which is allowed: it has the file's value for missing data, or 0.
    A strip without bytes was lost, and so was a tile that has either. size: of the file; first: the page of a series
    that describes all of them.
    """
    parts = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    end = max((offset + count for offset, count in parts), default=0)
    if end > size:
        raise DataError(f"{path}: is cut short ({size} bytes, {end} expected); copy it again")
    lost = any(offset < HEADER if count else offset or not first.is_tiled for offset, count in parts)
    if lost or len(parts) != math.prod(first.chunked):
        raise DataError(f"{path}: a part of its pixels is lost; copy it again")


def _mapped(path: Path) -> Array:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path}: is an archive of arrays; expected one array in a .npy file")
    return array


def open_raster(path: Path) -> Raster | None:
    """The header of a TIFF or NumPy file; None for other suffixes, and for a TIFF that is none. Raises DataError."""
    suffix = path.suffix.lower()
    if suffix != NUMPY and suffix not in TIFF:
        return None
    try:
        if suffix == NUMPY:
            return _numpy(path)
        with tifffile.TiffFile(path) as file:
            return _tiff(path, file)
    except DataError:
        raise
    except tifffile.TiffFileError:  # another kind of image by a wrong name, or text: Pillow has the words
        return None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception as error:
        raise undecodable(path, error) from None


def _numpy(path: Path) -> Raster:
    array = _mapped(path)
    if array.dtype.kind not in "biuf" or array.ndim not in (2, 3) or 0 in array.shape:
        raise DataError(
            f"{path}: found {array.dtype} values of shape {array.shape}; expected numbers of shape (H, W), (H, W, "
            "bands) or (bands, H, W)"
        )
    axis = None if array.ndim == 2 else 0 if array.shape[0] < array.shape[2] else -1
    height, width = (array.shape[1], array.shape[2]) if axis == 0 else (array.shape[0], array.shape[1])
    bands = 1 if axis is None else array.shape[axis]
    return Raster(path, height, width, bands, array.dtype, axis=axis)


def _tiff(path: Path, file: tifffile.TiffFile) -> Raster | None:
    series, page = file.series[0], file.pages[0]
    assert isinstance(page, tifffile.TiffPage)
    axes, shape = series.axes, series.shape
    extra = [letter for letter in axes if letter not in "YX"]
    if axes.count("Y") != 1 or axes.count("X") != 1 or len(extra) > 1 or any(e not in BAND_AXES for e in extra):
        raise DataError(
            f"{path}: holds {'x'.join(map(str, shape))} values with the axes {axes}; expected one image, with bands or "
            "without: save each slice or frame as a file of its own"
        )
    axis = None if not extra else 0 if axes[0] == extra[0] else -1
    if axes.index("X") < axes.index("Y") or (axis == -1 and axes[-1] != extra[0]):
        raise DataError(f"{path}: holds values with the axes {axes}; expected rows before columns")
    names = {int(sample) for sample in page.extrasamples}
    bands = shape[axes.index(extra[0])] if extra else 1
    photometric = getattr(page.photometric, "name", str(page.photometric))
    plain = photometric in ("MINISBLACK", "RGB") or (photometric == "YCBCR" and page.compression == 7)
    tag = page.tags.get(ORIENTATION)
    turn = int(tag.value) if tag is not None and str(tag.value).isdigit() else 1
    tiled = any(tag in page.tags for tag in TILES)
    if not page.imagelength or not page.imagewidth or (tiled and not (page.tilelength and page.tilewidth)):
        raise DataError(f"{path}: says no height or width; it is damaged: copy it again")
    if page.is_tiled:  # a tile may be larger than the image; strips are not, and `whole` checks that
        _check_parts(path, page)
    if page.dtype is None:
        raise DataError(f"{path}: found {page.bitspersample} bits a pixel; expected 8, 16 or 32")
    _guard(path, page)
    _ = page.decode, page.jpegtables, page.nodata  # made while the file is open, and used by `window` when it is not
    return Raster(
        path,
        page.imagelength,
        page.imagewidth,
        bands,
        np.dtype(page.dtype),
        alpha=bool(names & {1, 2}) and bands in (2, 4),
        colour=plain and int(page.bitspersample) >= 8,
        orientation=turn if 1 <= turn <= 8 else 1,
        axis=axis,
        pages=len(series.pages),
        _page=page,
    )


def exif_turn(exif: Mapping[int, Any]) -> int:
    """The orientation, 1 to 8, of what Pillow's `getexif` gave; 1 where it says none, or one that does not exist."""
    value = exif.get(ORIENTATION, 1)
    return next((turn for turn in range(1, 9) if turn == value), 1)


def turned(array: Array, orientation: int) -> Array:
    """(H, W, ...) as EXIF's orientation 1 to 8 says it is to be looked at."""
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    down, right = {1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 0), 5: (0, 0), 6: (0, 1), 7: (1, 1), 8: (1, 0)}[orientation]
    return array[:: -1 if down else 1, :: -1 if right else 1]
