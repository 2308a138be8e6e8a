"""Headers of image and mask files: size, bands and dtype, read without decoding pixels."""

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from fuzzyseg.data.io import pillow
from fuzzyseg.data.io.mat import SUFFIX as MATLAB
from fuzzyseg.data.io.mat import read_matlab_mask
from fuzzyseg.data.io.raster import open_raster, palette_nodata
from fuzzyseg.data.sample import DataError, Size

_BANDS = {
    "1": 1, "L": 1, "P": 1, "I": 1, "F": 1, "LA": 2, "PA": 1, "RGB": 3, "RGBA": 4, "CMYK": 3, "YCbCr": 3, "LAB": 3,
    "HSV": 3, **dict.fromkeys(pillow.SIXTEEN_BIT, 1),
}  # fmt: skip
"""Maps Pillow modes to the number of bands, including alpha, after conversion to grey or RGB."""

_WORDS = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")
"""PNG chunks that may contain an EXIF orientation."""

_DEPTH = 24
"""Offset of the bit depth in a PNG file."""


@dataclass(frozen=True)
class Header:
    """Header of an image or mask file.

    height, width: after applying the orientation. bands: number of bands, including alpha; 1 for a palette. dtype: name
    such as uint8, uint16 or float32. mode: Pillow mode, or `bands` for a `Raster`. alpha: whether the last band is
    alpha. palette: whether pixels are palette indices. orientation: EXIF value. nodata: value that marks missing data,
    if declared. pages: number of pages of a TIFF file.
    """

    height: int
    width: int
    bands: int
    dtype: str
    mode: str
    format: str
    alpha: bool = False
    palette: bool = False
    orientation: int = 1
    nodata: float | None = None
    pages: int = 1

    @property
    def size(self) -> Size:
        """Height and width."""
        return self.height, self.width


def read_header(path: Path) -> Header:
    """Read the header of an image or mask file. Raises DataError with the file name."""
    pillow.check_regular(path)
    if pillow.suffix_of(path) == MATLAB:
        mask = read_matlab_mask(path)
        return Header(mask.shape[0], mask.shape[1], 1, str(mask.dtype), "bands", "MAT")
    raster = open_raster(path)
    if raster is not None:
        height, width = raster.size if raster.orientation < 5 else raster.size[::-1]
        kind = "NPY" if pillow.suffix_of(path) == pillow.NUMPY else "TIFF"
        dtype, extra = raster.dtype.newbyteorder("=").name, (raster.orientation, raster.nodata, len(raster.pages))
        return Header(height, width, raster.bands, dtype, "bands", kind, raster.alpha, False, *extra)
    return _pillow(path)


def file_size(path: Path) -> Size:
    """Return the height and width of an image or mask after applying its orientation. Raises DataError."""
    return read_header(path).size


def _pillow(path: Path) -> Header:
    with pillow.decoding(path), path.open("rb") as file:
        start = file.read(_DEPTH + 1)
        file.seek(0)
        image = pillow.open_header(file)
        # whether Pillow applies the orientation to the size of a TIFF depends on its version
        width, height = (image.tag_v2[256], image.tag_v2[257]) if image.format == "TIFF" else image.size
        turn = _turn(image, file, path)
        mode, kind = image.mode, str(image.format)
    if mode not in _BANDS:
        raise DataError(f"{path}: has pixels of mode {mode}, which are not supported; save it as PNG or TIFF")
    dtype = {"I": "int32", "F": "float32"}.get(mode, "uint16" if mode in pillow.SIXTEEN_BIT else "uint8")
    if kind == "PNG" and start[_DEPTH] == 16:
        dtype = "uint16"
    height, width = (width, height) if turn >= 5 else (height, width)
    alpha, palette = mode in ("LA", "PA", "RGBA"), mode in ("P", "PA")
    nodata = palette_nodata(path) if kind == "TIFF" else None
    return Header(height, width, _BANDS[mode], dtype, mode, kind, alpha, palette, turn, nodata)


def _turn(image: Image.Image, file: BinaryIO, path: Path) -> int:
    """Return the EXIF orientation. Unlike Pillow, decodes a PNG's pixels only if metadata follows them."""
    if image.format != "PNG":
        return pillow.exif_turn(image.getexif())
    place = file.tell()
    words = _behind_pixels(file)
    file.seek(place)
    if words:
        pillow.check_pixels(path, image.height, image.width)
        return pillow.exif_turn(image.getexif())
    return pillow.exif_turn(Image.Image.getexif(image))


def _behind_pixels(file: BinaryIO) -> bool:
    """Return whether a PNG may have an orientation in a chunk after its pixels. Reads only chunk headers."""
    file.seek(8)
    pixels = False
    while len(head := file.read(8)) == 8:
        name = head[4:]
        pixels |= name == b"IDAT"
        if pixels and name in _WORDS:
            return True
        file.seek(int.from_bytes(head[:4], "big") + 4, 1)
    return False
