"""Block-wise reading of files above the pixel limit. Blocks are whole rows, so that each tile is decoded once."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fuzzyseg.data.io.image import Bands, Levels, Windows, open_windows
from fuzzyseg.data.io.mask import read_raster_mask
from fuzzyseg.data.io.pillow import too_large
from fuzzyseg.data.io.raster import Raster, open_raster
from fuzzyseg.data.labels.decode import mask_of, read_stored, training_labels
from fuzzyseg.data.sample import Box, DataError, Item

BLOCK = 2**22
"""Approximate number of pixels per row block. A block consists of whole rows of tiles."""


def open_large(path: Path, channels: int = 3, *, bands: Bands = None, levels: Levels | None = None) -> Windows | None:
    """Like `open_windows`, but only for images above the pixel limit. Returns None for others. Raises DataError."""
    windows = open_windows(path, channels, bands=bands, levels=levels)
    return windows if windows is not None and _large(windows.raster) else None


def large_raster(path: Path) -> Raster | None:
    """Return the `Raster` of a file above the pixel limit that can be read in windows, otherwise None.

    Raises DataError.
    """
    raster = open_raster(path)
    return raster if raster is not None and raster.windowed and _large(raster) else None


def _large(raster: Raster) -> bool:
    return too_large(*raster.size, raster.bands)


def row_blocks(raster: Raster) -> Iterator[Box]:
    """Yield boxes of whole rows that cover the file from top to bottom, without splitting tiles or strips."""
    rows = max(1, BLOCK // (raster.width * raster.block[0])) * raster.block[0]
    for top in range(0, raster.height, rows):
        yield top, 0, min(top + rows, raster.height), raster.width


def row_arrays(raster: Raster) -> Iterator[NDArray[Any]]:
    """Yield the pixels (rows, W, bands) of each row block, as stored. Raises DataError."""
    for box in row_blocks(raster):
        yield raster.read(box)


def stored_parts(item: Item) -> Iterator[tuple[int, NDArray[np.integer]]]:
    """Yield (first row, pixels) of an item's `read_stored` mask: whole or, above the pixel limit, in row blocks."""
    raster = large_raster(mask_of(item))
    if raster is None:
        yield 0, read_stored(item)
        return
    for box in row_blocks(raster):
        yield box[0], read_raster_mask(raster, box)


def label_reader(item: Item, *, classes: int, ignore_index: int) -> Callable[[Box], NDArray[np.uint8]]:
    """Return a function that reads the `training_labels` of a box.

    A mask within the pixel limit is read once, by this call. Both this call and the function raise DataError.
    """
    raster = large_raster(mask_of(item))
    if raster is None:
        labels = training_labels(item, classes=classes, ignore_index=ignore_index)
        return lambda box: labels[box[0] : box[2], box[1] : box[3]]

    def read(box: Box) -> NDArray[np.uint8]:
        part = read_raster_mask(raster, box)
        try:
            return training_labels(item, classes=classes, ignore_index=ignore_index, part=part)
        except DataError as error:
            where = f"rows {box[0]} to {box[2] - 1} and columns {box[1]} to {box[3] - 1}"
            raise DataError(f"{error} (counted within {where}, which were read separately)") from None

    return read
