"""What a file's header says, without decoding it: size, bands, numbers."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from fuzzyseg.data.io.mat import SUFFIX as MATLAB
from fuzzyseg.data.io.mat import read_matlab_mask
from fuzzyseg.data.io.pillow import SIXTEEN_BIT, check_pixels, undecodable
from fuzzyseg.data.io.tiff import exif_turn, open_raster
from fuzzyseg.data.sample import DataError

_BANDS = {
    "1": 1, "L": 1, "P": 1, "I": 1, "F": 1, "LA": 2, "PA": 1, "RGB": 3, "RGBA": 4, "CMYK": 3, "YCbCr": 3, "LAB": 3,
    "HSV": 3, **dict.fromkeys(SIXTEEN_BIT, 1),
}  # fmt: skip
"""Pillow's mode -> bands once it is converted to grey or RGB, opacity included."""

_WORDS = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")
"""Chunks of a PNG in which an orientation can stand."""

_DEPTH, _COLOUR_TYPE = 24, 25  # where a PNG says how many bits a band has, and which bands


@dataclass(frozen=True)
class Header:
    """height, width: as looked at (orientation applied). bands: opacity included; 1 for a palette's index.

    dtype: name of the number type, such as uint8, uint16, float32. mode: Pillow's mode, or `bands` for what Pillow does
    not read. alpha: the last band is opacity. palette: the pixels are indices into colours. orientation: EXIF's number.
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

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width


def read_header(path: Path) -> Header:
    """The header of an image or mask file. Raises DataError naming the file."""
    if path.suffix.lower() == MATLAB:
        mask = read_matlab_mask(path)
        return Header(mask.shape[0], mask.shape[1], 1, str(mask.dtype), "bands", "MAT")
    raster = open_raster(path)
    if raster is not None and raster.colour:
        size = (raster.height, raster.width)
        height, width = size if raster.orientation < 5 else size[::-1]
        kind = "NPY" if raster.path.suffix.lower() == ".npy" else "TIFF"
        dtype = raster.dtype.newbyteorder("=").name
        return Header(
            height, width, raster.bands, dtype, "bands", kind, alpha=raster.alpha, orientation=raster.orientation
        )
    return _pillow(path)


def file_size(path: Path) -> tuple[int, int]:
    """Height and width of a file as looked at, from its header alone. Raises DataError."""
    return read_header(path).size


def _pillow(path: Path) -> Header:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with path.open("rb") as file:
                start = file.read(_COLOUR_TYPE + 1)
                file.seek(0)
                with Image.open(file) as image:
                    width, height = image.size
                    turn = _turn(image, file, path)
                    mode, kind = image.mode, str(image.format)
                    alpha = mode in ("LA", "PA", "RGBA")
    except DataError:
        raise
    except Exception as error:  # damaged bytes make the decoders raise nearly anything
        raise undecodable(path, error) from None
    if mode not in _BANDS:
        raise DataError(f"{path}: has pixels of mode {mode}, which is not read; save it as PNG or TIFF")
    dtype = {"I": "int32", "F": "float32"}.get(mode, "uint16" if mode in SIXTEEN_BIT else "uint8")
    if kind == "PNG" and start[_DEPTH] == 16:
        dtype = "uint16"
    if turn >= 5:
        height, width = width, height
    palette = mode in ("P", "PA")
    return Header(height, width, _BANDS[mode], dtype, mode, kind, alpha=alpha, palette=palette, orientation=turn)


def _turn(image: Image.Image, file: BinaryIO, path: Path) -> int:
    """EXIF's orientation. Pillow decodes a whole PNG to look for it behind the pixels, where it hardly ever is."""
    if image.format != "PNG":
        return exif_turn(image.getexif())
    place = file.tell()
    words = _behind_pixels(file)
    file.seek(place)
    if words:
        check_pixels(path, image.height, image.width)
        return exif_turn(image.getexif())
    return exif_turn(Image.Image.getexif(image))


def _behind_pixels(file: BinaryIO) -> bool:
    """Whether a PNG file has chunks behind its pixels that may say how it is turned; only their heads are read."""
    file.seek(8)
    pixels = False
    while len(head := file.read(8)) == 8:
        name = head[4:]
        pixels |= name == b"IDAT"
        if pixels and name in _WORDS:
            return True
        file.seek(int.from_bytes(head[:4], "big") + 4, 1)
    return False
