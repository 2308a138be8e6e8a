"""Opening an image file with Pillow; its limit against decompression bombs. What is wrong becomes a DataError."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageOps

from fuzzyseg.data.sample import DataError

TIFF = (".tif", ".tiff")
NUMPY = ".npy"
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", *TIFF, ".webp", NUMPY)
"""Suffixes of the files that are read as images and as masks."""

SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
"""Pillow's modes for 16 bits in one band."""


USUAL_MEGAPIXELS = 89
"""Pillow's own limit, where no other is set, in millions of pixels and rounded."""


@contextmanager
def pixel_limit(most: int | None) -> Iterator[None]:
    """Within it files with up to `most` million pixels are decoded whole; None: Pillow's limit of some 89 million.

    It is Pillow's own limit that is moved, which holds for the process; reading processes that are forked inherit it.
    """
    before = Image.MAX_IMAGE_PIXELS
    if most is not None:
        Image.MAX_IMAGE_PIXELS = most * 10**6
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def too_large(height: int, width: int, bands: int = 1) -> bool:
    """Whether this is more pixels, or 16 times as many numbers, than are decoded at once."""
    most = Image.MAX_IMAGE_PIXELS
    return most is not None and (height * width > most or height * width * bands > 16 * most)


class TooLarge(DataError):
    """A file, or one of its tiles or strips, has more pixels than are decoded at once."""


def check_pixels(path: Path, height: int, width: int, bands: int = 1, *, part: str | None = None) -> None:
    """Raises TooLarge for a file whose header promises more pixels, or 16 times as many numbers, than are decoded.

    part: what has these pixels, `tiles`, `strips` or `crops`, where it is not the whole image.
    """
    if too_large(height, width, bands):
        most = Image.MAX_IMAGE_PIXELS
        of = f" of {bands} bands" if bands > 1 else ""
        raise TooLarge(
            f"{path}: has {f'{part} of ' if part else ''}{height} x {width} pixels{of}, more than the {most} that are "
            "decoded at once: a damaged or hostile file can claim any size. If it is right, raise data.max_megapixels "
            f"(predict: --max-megapixels), or cut it into {'smaller ' if part else ''}tiles"
        )


def check_stream(path: Path, data: bytes) -> None:
    """Raises DataError for a tile that is a JPEG, JPEG 2000, PNG or WebP of more pixels than are decoded.

    Such a tile says its own size, and is decoded to it, whatever size the file's header gives.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=("JPEG", "JPEG2000", "PNG", "WEBP")) as image:
                width, height = image.size
    except Image.DecompressionBombError as error:
        raise undecodable(path, error) from None
    except Exception:  # damaged, or of another kind: the decoder has the words
        return
    check_pixels(path, height, width, part="tiles")


def read_bytes(path: Path) -> bytes:
    """The content of a file. Raises DataError for one that cannot be read or is empty."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    if not data:
        raise empty(path)
    return data


def empty(path: Path) -> DataError:
    """The error for a file without content."""
    return DataError(f"{path}: is empty (0 bytes); copy it again or delete it")


def open_image(path: Path) -> Image.Image:
    """A decoded image, turned as its EXIF orientation says."""
    data = read_bytes(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # check_pixels is stricter
            image = Image.open(io.BytesIO(data))
            check_pixels(path, image.height, image.width)
            if image.format == "PNG":  # decoding skips the checksums, so a flipped bit would be another label
                image.verify()
                image = Image.open(io.BytesIO(data))
            image.load()
            turned = ImageOps.exif_transpose(image)
    except DataError:
        raise
    except Exception as error:  # damaged bytes make the decoders raise nearly anything
        raise undecodable(path, error) from None
    turned.format = image.format
    return turned


def undecodable(path: Path, error: Exception) -> DataError:
    """The error for a file that no decoder takes."""
    if isinstance(error, Image.DecompressionBombError):
        return DataError(
            f"{path}: has too many pixels to be decoded at once ({error}); if the file is right, raise "
            "data.max_megapixels (predict: --max-megapixels), or cut it into tiles"
        )
    if path.is_file() and path.stat().st_size == 0:
        return empty(path)
    if isinstance(error, Image.UnidentifiedImageError):
        reason = "is no image, or of no kind that is read"
    else:
        reason = str(error) or type(error).__name__
    return DataError(
        f"{path}: cannot be decoded ({reason}); expected one of {', '.join(SUFFIXES)}, whole and undamaged"
    )
