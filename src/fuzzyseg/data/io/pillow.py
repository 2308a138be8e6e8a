"""Image decoding with Pillow, and the pixel limit against decompression bombs."""

import io
import struct
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from fuzzyseg.data.sample import DataError

TIFF = (".tif", ".tiff")
NUMPY = ".npy"
HEIF = (".heic", ".heif") if find_spec("pillow_heif") else ()
"""Suffixes of HEIF images (phone photos), supported if pillow-heif is installed."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".bmp", *TIFF, ".webp", ".jp2", ".gif", *HEIF, NUMPY)
"""Suffixes of supported image and mask files. Only the first frame of an animation is read."""

SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
"""Pillow modes with a single 16-bit band."""

FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "JPEG2000", "GIF", *["HEIF"] * bool(HEIF))
"""Pillow decoders to try, regardless of a file's suffix."""

ORIENTATION = 0x0112
"""EXIF and TIFF tag; values 5 to 8 swap height and width."""

USUAL_MEGAPIXELS = 89
"""Pillow's default limit in megapixels, rounded."""

_MEGAPIXELS: ContextVar[int | None] = ContextVar("megapixels", default=None)


@contextmanager
def pixel_limit(megapixels: int | None) -> Iterator[None]:
    """Limit the size, in megapixels, of images that are decoded as a whole. None: no change.

    The default is Pillow's `MAX_IMAGE_PIXELS`, which is never changed. Forked processes inherit the limit, but new
    threads and other processes do not.
    """
    token = _MEGAPIXELS.set(_MEGAPIXELS.get() if megapixels is None else megapixels)
    try:
        yield
    finally:
        _MEGAPIXELS.reset(token)


def most_pixels() -> int:
    """Return the maximum number of pixels of an image that is decoded as a whole."""
    megapixels = _MEGAPIXELS.get()
    return (Image.MAX_IMAGE_PIXELS or sys.maxsize) if megapixels is None else megapixels * 10**6


def too_large(height: int, width: int, bands: int = 1) -> bool:
    """Return whether an image has more pixels than the limit, or more than 16 times that many values over all bands."""
    limit = most_pixels()
    return height * width > limit or height * width * bands > 16 * limit


class TooLarge(DataError):
    """Raised if a file, or one of its tiles or strips, exceeds the pixel limit."""


def check_pixels(path: Path, height: int, width: int, bands: int = 1, *, part: str | None = None) -> None:
    """Raise TooLarge if an image, or a `part` of it (`tiles`, `crops`), exceeds the limit."""
    if too_large(height, width, bands):
        of = f" of {bands} bands" if bands > 1 else ""
        raise TooLarge(
            f"{path}: has {f'{part} of ' if part else ''}{height} x {width} pixels{of}, more than the {most_pixels()} "
            "that are decoded at once: a damaged or hostile file can claim any size. If the size is right, raise "
            f"data.max_megapixels (predict: --max-megapixels), or cut it into {'smaller ' if part else ''}tiles"
        )


def suffix_of(path: Path) -> str:
    """Return the suffix in lower case, without trailing spaces."""
    return path.suffix.lower().rstrip()


def check_regular(path: Path) -> None:
    """Raise DataError for a pipe, socket or device, because reading it could block forever."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise DataError(f"{path}: is a pipe, socket or device, not a regular file; remove it from the images and masks")


def read_bytes(path: Path) -> bytes:
    """Return the contents of a file. Raises DataError if it cannot be read or is empty."""
    check_regular(path)
    with decoding(path):
        data = path.read_bytes()
    if not data:
        raise empty(path)
    return data


def empty(path: Path) -> DataError:
    """Return the error for an empty file."""
    return DataError(f"{path}: is empty (0 bytes); copy it again or delete it")


def open_image(path: Path) -> Image.Image:
    """Open and decode an image, and apply its EXIF orientation. Raises DataError."""
    data = read_bytes(path)
    with decoding(path):
        image = open_header(io.BytesIO(data))
        check_pixels(path, image.height, image.width)
        if image.format == "PNG":  # decoding ignores checksums, so a flipped bit could change a label
            image.verify()
            image = open_header(io.BytesIO(data))
        image.load()
        return upright(image)


def upright(image: Image.Image) -> Image.Image:
    """Return the image with its EXIF orientation applied."""
    result = ImageOps.exif_transpose(image)
    result.format = image.format
    return result


def open_header(file: BinaryIO) -> Image.Image:
    """Like `PIL.Image.open`, but without the size check, whose limit is a Pillow global."""
    Image.init()
    if HEIF and "HEIF" not in Image.OPEN:
        import pillow_heif  # type: ignore[import-not-found, import-untyped, unused-ignore]

        pillow_heif.register_heif_opener()
    start = file.read(16)
    for name in FORMATS:
        decoder, accept = Image.OPEN[name]
        if accept is None or accept(start) is True:
            file.seek(0)
            try:
                return decoder(file, "")
            except (SyntaxError, IndexError, TypeError, struct.error):  # another format
                continue
    raise UnidentifiedImageError


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Context manager that converts errors to DataError with the file name. Decoders raise many types on bad data."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        raise _undecodable(path, error) from None


def _undecodable(path: Path, error: Exception) -> DataError:
    if isinstance(error, OSError) and error.strerror:
        return DataError(f"{path}: cannot be read ({error.strerror})")
    with suppress(OSError), path.open("rb") as file:
        start = file.read(64).lstrip().lower()
        if not start:
            return empty(path)
        if start.startswith(b"version https://git-lfs"):
            return DataError(f"{path}: is a Git LFS pointer, not the file itself: run `git lfs pull`")
        if start.startswith((b"<!doctype", b"<html", b"<?xml")):
            return DataError(f"{path}: is an HTML or XML page, as from a failed download: download it again")
    if isinstance(error, UnidentifiedImageError):
        reason = "is not an image, or its format is not supported"
    else:
        reason = str(error) or type(error).__name__
    return DataError(f"{path}: cannot be decoded ({reason}); expected an undamaged file, one of {', '.join(SUFFIXES)}")


def exif_turn(exif: Mapping[int, Any]) -> int:
    """Return the orientation, 1 to 8, from EXIF or TIFF tags; 1 if it is missing or invalid."""
    value = exif.get(ORIENTATION, 1)
    return next((turn for turn in range(1, 9) if turn == value), 1)


def turned(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Apply EXIF orientation 1 to 8 to an array (H, W, ...)."""
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    down, right = {1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 0), 5: (0, 0), 6: (0, 1), 7: (1, 1), 8: (1, 0)}[orientation]
    return array[:: -1 if down else 1, :: -1 if right else 1]
