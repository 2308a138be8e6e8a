"""Reading masks as stored values or colours, and writing index masks."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fuzzyseg.data.io.mat import SUFFIX as MATLAB
from fuzzyseg.data.io.mat import read_matlab_mask
from fuzzyseg.data.io.pillow import SIXTEEN_BIT, open_image, suffix_of
from fuzzyseg.data.io.raster import Raster, open_raster, palette_nodata
from fuzzyseg.data.io.write import written_beside
from fuzzyseg.data.sample import VOID, Box, Colour, DataError
from fuzzyseg.data.text import short

LOSSY = ("JPEG", "MPO", "JPEG2000")
"""Formats with lossy compression. JPEG 2000 can be lossless, but files do not reliably declare it."""

RUN_LENGTHS = (1, 2)
"""BMP compression types (run-length encoding) for which missing rows are read as zeros, without an error."""


def read_mask(path: Path, *, colours: bool = False, lossy: bool = False) -> NDArray[np.integer]:
    """Read the stored values of a mask as (H, W) integers, or its colours as (H, W, 3 or 4) uint8.

    EXIF orientation is applied. Supports 8 to 32 bits. Palette files yield indices, or colours if `colours` is set.
    lossy: also read formats such as JPEG, whose compression changes values. Raises a DataError that names the file.
    """
    if suffix_of(path) == MATLAB:
        return read_matlab_mask(path)
    raster = open_raster(path)
    if raster is not None:
        return read_raster_mask(raster)
    image = open_image(path)
    if image.format in LOSSY and not lossy:
        raise DataError(
            f"{path}: is a {image.format}, which changes the class indices it stores; save masks as PNG, or, for masks "
            "of 0 and 255, set encoding: binary in dataset.yaml and use --snap"
        )
    if image.format == "BMP" and image.info.get("compression") in RUN_LENGTHS:
        raise DataError(f"{path}: is a run-length encoded BMP, in which damage cannot be detected; save masks as PNG")
    if image.format == "TIFF" and image.mode in ("1", "P") and (nodata := palette_nodata(path)) is not None:
        missing = np.array(image, dtype=np.uint8) == nodata
        return _voided(_stored(image, path, colours), missing, nodata, path)
    return _stored(image, path, colours)


def _stored(image: Image.Image, path: Path, colours: bool) -> NDArray[np.integer]:
    if image.mode in ("P", "PA") and colours:
        image = image.convert("RGBA")
    if image.mode == "PA":  # the index is the first band
        return np.array(image.getchannel(0))
    if image.mode == "1":
        return np.array(image, dtype=np.uint8)
    if image.mode in SIXTEEN_BIT:
        return np.array(image).astype(np.uint16)
    if image.mode == "I":
        return np.array(image).astype(np.int32)
    if image.mode in ("L", "P", "F", "LA", "RGB", "RGBA"):
        return to_integers(np.array(image), path)
    raise DataError(
        f"{path}: found {image.height}x{image.width} pixels of mode {image.mode}; expected one band with a class index "
        "per pixel, or red, green and blue: convert it to PNG"
    )


def read_raster_mask(raster: Raster, box: Box | None = None) -> NDArray[np.integer]:
    """Like `read_mask`, but for a TIFF or NumPy file, or a box within it. Raises DataError.

    Pixels with the value declared for missing data are void (255, or transparent). Undeclared NaN raises an error.
    """
    array, path = raster.read(box), raster.path
    if len(raster.pages) > 1:
        raise DataError(f"{path}: has {len(raster.pages)} pages; expected one: save the mask as a single page")
    if raster.nodata is None:
        return to_integers(array, path)
    missing = raster.missing(array)
    labels = to_integers(np.where(missing[..., None], array.dtype.type(0), array), path)
    return _voided(labels, missing, raster.nodata, path)


def _voided(labels: NDArray[np.integer], missing: NDArray[np.bool_], nodata: float, path: Path) -> NDArray[np.integer]:
    """Return a mask with the missing pixels set to void. Raises DataError if this is ambiguous."""
    if not missing.any():
        return labels
    if labels.ndim == 3:
        opacity = labels[..., 3] if labels.shape[2] == 4 else np.full(missing.shape, 255, np.uint8)
        return np.dstack([labels[..., :3], np.where(missing, np.uint8(0), opacity)])
    if nodata != VOID and (labels[~missing] == VOID).any():
        raise DataError(
            f"{path}: declares {nodata:g} as the value of missing data, which is void, and also contains {VOID}, which "
            f"may be void or an object. If {nodata:g} is a class, remove the tag (gdal_edit.py -unsetnodata FILE); "
            f"else give {VOID} another value"
        )
    return np.where(missing, VOID, labels if labels.dtype != np.int8 else labels.astype(np.int32))


def to_integers(array: NDArray[Any], path: Path) -> NDArray[np.integer]:
    """Convert raster values to what `read_mask` returns: (H, W) integers or (H, W, 3 or 4) uint8. Raises DataError.

    Whole numbers stored as floats become integers.
    """
    bands, is_byte = array.shape[2] if array.ndim == 3 else 0, array.dtype == np.uint8
    if bands == 1 or (bands == 2 and is_byte and (array[..., 1] == 255).all()):
        array = array[..., 0]
    elif bands and not (bands in (3, 4) and is_byte):
        raise DataError(
            f"{path}: found {array.dtype} values of shape {array.shape}; expected one band with a class index per "
            "pixel, or red, green and blue with 8 bits each"
        )
    if array.dtype == np.bool_:
        return array.astype(np.uint8)
    if array.dtype.kind == "f":
        is_integer = np.isfinite(array) & (np.rint(array) == array) & (np.abs(array) < 2**31)
        if not is_integer.all():
            strange = short([f"{v:g}" for v in np.unique(array[~is_integer])])
            raise DataError(f"{path}: found {strange} in {int((~is_integer).sum())} pixels; expected class indices")
        return array.astype(np.int32)
    return array


def palette_of(path: Path) -> list[Colour] | None:
    """Return the palette of a file as a list of colours, or None if it has none. Raises DataError."""
    image = open_image(path)
    values = image.getpalette() if image.mode in ("P", "PA") else None
    return None if values is None else list(zip(values[::3], values[1::3], values[2::3], strict=True))


def values_in(mask: NDArray[np.integer], path: Path) -> list[int]:
    """Return the distinct values of an index mask in ascending order. Raises DataError for negative values."""
    if mask.size and int(mask.min()) < 0:
        raise DataError(f"{path}: found the value {int(mask.min())}; expected class indices from 0")
    if mask.size and int(mask.max()) > 65535:
        return [int(v) for v in np.unique(mask)]
    values: list[int] = np.flatnonzero(np.bincount(mask.ravel())).tolist()
    return values


def save_index_png(array: NDArray[np.integer], path: Path, palette: list[Colour] | None = None) -> None:
    """Write class indices (H, W) from 0 to 255 as a single-band 8-bit PNG that `read_mask` reads back unchanged.

    palette: one colour per index, for image viewers; pixels remain indices. Raises DataError for other arrays.
    """
    if array.ndim != 2 or (array.size and (int(array.min()) < 0 or int(array.max()) > 255)):
        raise DataError(f"{path}: found an array of shape {array.shape}; expected (H, W) with values from 0 to 255")
    image = Image.fromarray(np.ascontiguousarray(array.astype(np.uint8)))
    if palette is not None:
        image.putpalette([value for colour in palette for value in colour])
    with written_beside(path) as part:
        image.save(part)
