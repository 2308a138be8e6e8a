"""Image and mask files as arrays. Whatever is wrong with a file becomes a DataError that names it."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from fuzzyseg.data.items import MAX_CLASSES, VOID, DataError
from fuzzyseg.data.matlab import SUFFIX as MATLAB
from fuzzyseg.data.matlab import read_matlab_mask

Colour = tuple[int, int, int]
Pixels = NDArray[np.uint8]

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

ORIENTATION = 0x0112  # EXIF tag; 5 to 8 swap height and width

_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")


def _open(path: Path) -> Image.Image:
    """A decoded image, turned as its EXIF orientation says."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    if not data:
        raise DataError(f"{path}: is empty (0 bytes); copy it again or delete it")
    try:
        with warnings.catch_warnings():
            # Pillow only warns about the first step beyond its limit against decompression bombs.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data))
            if image.format == "PNG":  # decoding skips the checksums, so a flipped bit would be another label
                image.verify()
                image = Image.open(io.BytesIO(data))
            image.load()
            turned = ImageOps.exif_transpose(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{path}: is too large to be decoded safely ({error}); cut it into tiles") from None
    except Exception as error:  # damaged bytes make the decoders raise nearly anything
        reason = "is no image, or of no kind that is read" if isinstance(error, Image.UnidentifiedImageError) else error
        raise DataError(
            f"{path}: cannot be decoded ({reason}); expected one of {', '.join(SUFFIXES)}, whole and undamaged"
        ) from None
    turned.format = image.format
    return turned


def read_image(path: Path, channels: int = 3) -> NDArray[np.uint8]:
    """An image file as (H, W, channels), EXIF orientation applied.

    channels 3: RGB; grey is repeated, a palette looked up, CMYK converted, alpha dropped. channels 1: grey (ITU-R 601).
    16-bit files give the high byte. Raises DataError naming the file.
    """
    if channels not in (1, 3):
        raise DataError(
            f"{path}: {channels} channels were asked for; image files are read as RGB (3) or grey (1): "
            "set network.channels to one of them"
        )
    image = _open(path)
    if image.mode in _SIXTEEN_BIT or (image.mode == "I" and image.format == "PNG"):
        high = np.asarray(image).astype(np.int64) >> 8
        image = Image.fromarray(high.astype(np.uint8))
    if image.mode in ("I", "F"):
        raise DataError(
            f"{path}: found 32-bit pixels (mode {image.mode}); expected 8 or 16 bits: convert it to 8-bit PNG"
        )
    wanted = "RGB" if channels == 3 else "L"
    if image.mode != wanted:
        if image.mode == "P":
            image = image.convert("RGBA")  # a palette may hold transparency; straight to RGB would warn
        image = image.convert(wanted)
    array = np.array(image, dtype=np.uint8)
    return array if channels == 3 else array[..., None]


def read_mask(path: Path) -> NDArray[np.integer]:
    """An index mask as (H, W) integers, as stored (8 or 16 bit; palette files give their index), EXIF applied.

    Raises DataError naming the file for anything that holds no class index a pixel.
    """
    if path.suffix.lower() == MATLAB:
        return read_matlab_mask(path)
    image = _open(path)
    if image.format == "JPEG":
        raise DataError(f"{path}: is a JPEG, which changes the class indices it stores; save masks as PNG")
    if image.mode == "1":
        return np.array(image, dtype=np.uint8)
    if image.mode in ("L", "P"):
        return np.array(image)
    if image.mode in _SIXTEEN_BIT:
        return np.array(image).astype(np.uint16)
    if image.mode == "I":
        return np.array(image).astype(np.int32)
    bands = len(image.getbands())
    raise DataError(
        f"{path}: found {image.height}x{image.width} pixels with {bands} bands (mode {image.mode}); colour-coded masks "
        "are not read yet: expected one band that holds a class index a pixel; convert it to an 8-bit index PNG"
    )


def read_colours(path: Path) -> NDArray[np.uint8]:
    """A mask as it is seen: (H, W, 3) RGB, palettes looked up and alpha dropped; (H, W) where it has one 8-bit band.

    EXIF applied. Raises DataError naming the file.
    """
    image = _open(path)
    if image.format == "JPEG":
        raise DataError(f"{path}: is a JPEG, which changes the colours of a mask; save masks as PNG")
    if image.mode not in ("1", "L", "P", "RGB", "RGBA"):
        raise DataError(f"{path}: found pixels of mode {image.mode}; expected a mask with 8 bits a band")
    if image.mode == "P":
        image = image.convert("RGBA")  # as in read_image
    return np.array(image if image.mode == "L" else image.convert("L" if image.mode == "1" else "RGB"))


def file_size(path: Path) -> tuple[int, int]:
    """Height and width of an image file, EXIF orientation applied, from its header alone. Raises DataError."""
    if path.suffix.lower() == MATLAB:
        height, width = read_matlab_mask(path).shape
        return height, width
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                width, height = image.size
                turned = int(image.getexif().get(ORIENTATION, 1)) >= 5
    except Exception as error:  # as in _open
        raise DataError(f"{path}: the size cannot be read ({error})") from None
    return (width, height) if turned else (height, width)


def values_in(mask: NDArray[np.integer], path: Path) -> list[int]:
    """The distinct values of an index mask, ascending. Raises DataError for negative ones."""
    if mask.size and int(mask.min()) < 0:
        raise DataError(f"{path}: found the value {int(mask.min())}; expected class indices from 0")
    if mask.size and int(mask.max()) > 65535:
        return [int(v) for v in np.unique(mask)]
    return [int(v) for v in np.flatnonzero(np.bincount(mask.ravel()))]


def short(values: Sequence[object], most: int = 8) -> str:
    """The first few of a list, for messages."""
    text = ", ".join(str(v) for v in values[:most])
    return text if len(values) <= most else f"{text}, ... ({len(values)} in all)"


def to_training_mask(mask: NDArray[np.integer], *, classes: int, ignore_index: int, path: Path) -> NDArray[np.uint8]:
    """File values -> class indices in uint8, with 255 where the file has `ignore_index` (promise 3).

    Raises DataError naming the file where a value is neither a class nor `ignore_index`. 255 is void in any case:
    there are at most 255 classes, so it can be nothing else.
    """
    if classes > MAX_CLASSES:
        raise DataError(f"found {classes} classes; at most {MAX_CLASSES} are supported: merge some")
    ignored = (mask == ignore_index) | (mask == VOID)
    bad = ~ignored & ((mask < 0) | (mask >= classes))
    if bad.any():
        values = [int(v) for v in np.unique(mask[bad])]
        raise DataError(
            f"{path}: found the values {short(values)} in {int(bad.sum())} pixels; expected 0 to {classes - 1} "
            f"({classes} classes) or {ignore_index} (ignored). If a value is void, set ignore_index to it; "
            "if it is a class, name all classes in dataset.yaml"
        )
    return np.where(ignored, VOID, mask).astype(np.uint8)


def save_index_png(array: NDArray[np.integer], path: Path) -> None:
    """Writes (H, W) class indices from 0 to 255 as an 8-bit single-channel PNG; `read_mask` gives them back."""
    if array.ndim != 2 or (array.size and (int(array.min()) < 0 or int(array.max()) > 255)):
        raise DataError(f"{path}: found an array of shape {array.shape}; expected (H, W) with values from 0 to 255")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(array.astype(np.uint8))).save(path)


def save_picture(pixels: Pixels, path: Path) -> None:
    """Writes (H, W, 3) RGB, or (H, W) grey, to an image file of the kind that the suffix names."""
    Image.fromarray(pixels).save(path)


def save_array(array: NDArray[np.float16], path: Path) -> None:
    """Writes an array to a file that `numpy.load` reads; it holds numbers only."""
    np.save(path, array, allow_pickle=False)


def default_colours(count: int) -> list[Colour]:
    """`count` distinct colours: the bits of the class index, lowest first, become the highest bits of r, g, b (VOC)."""
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
    """(H, W, 3) or (H, W, 1) image with each pixel's class colour mixed in; pixels without a colour (void) stay."""
    table = np.zeros((256, 3), dtype=np.float32)
    table[: len(colours)] = np.asarray(colours, dtype=np.float32).reshape(-1, 3)
    base = np.broadcast_to(image, (*image.shape[:2], 3)).astype(np.float32)
    mixed = base * (1 - strength) + table[mask] * strength
    known = (mask < len(colours))[..., None]
    return np.where(known, np.rint(mixed), base).astype(np.uint8)
