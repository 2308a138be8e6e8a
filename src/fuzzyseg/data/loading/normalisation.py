"""Mean, standard deviation and value range of each band, measured on sampled images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fuzzyseg.data.io.header import read_header
from fuzzyseg.data.io.image import Bands, Levels, open_windows, read_image, read_known
from fuzzyseg.data.io.pillow import too_large
from fuzzyseg.data.labels.class_counts import map_items
from fuzzyseg.data.labels.detect import subsample
from fuzzyseg.data.sample import Box, DataError, Item, Size
from fuzzyseg.data.text import short

HEADERS, IMAGES = 500, 200
"""Maximum number of headers and of images to read."""

WINDOW, WINDOWS = 512, 16
"""Side length and number of the evenly spaced windows read from a large file."""

UNSIGNED = ("uint8", "uint16")


@dataclass(frozen=True)
class Kinds:
    """Image properties read from the headers.

    bands: distinct band counts. dtypes: distinct dtypes. plain: whether all images are 8-bit RGB or grey, and at
    least one is RGB (only for 3 channels).
    """

    bands: tuple[int, ...]
    dtypes: tuple[str, ...]
    plain: bool

    @property
    def levels(self) -> Levels | None:
        """None for 8-bit images, otherwise the default `Levels`, which suffice unless `measured_range` is True."""
        return None if set(self.dtypes) == {"uint8"} else Levels()

    @property
    def measured_range(self) -> bool:
        """Whether the value range must be measured, because the dtypes do not define it."""
        return not set(self.dtypes) <= set(UNSIGNED)

    def words(self) -> str:
        """Describe the bands and dtypes, for messages."""
        return f"images have {short(self.bands)} band{'s' * (self.bands != (1,))} of {' and '.join(self.dtypes)}"


def kinds_of(items: Sequence[Item], channels: int) -> Kinds:
    """Read band counts and dtypes from headers. Raises a DataError that names an unreadable file."""
    heads = map_items(subsample(items, HEADERS), lambda item: read_header(item.image))
    pictures = all(head.dtype == "uint8" and head.bands - head.alpha in (1, 3) for head in heads)
    colour = channels == 3 and pictures and any(head.bands > 2 for head in heads)
    dtypes = {"uint8" if head.dtype == "bool" else head.dtype for head in heads}
    return Kinds(tuple(sorted({head.bands for head in heads})), tuple(sorted(dtypes)), colour)


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation per channel, in units (see `Levels`), measured on `images` images."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    levels: Levels | None
    images: int


def measure(
    items: Sequence[Item], kinds: Kinds, channels: int, bands: Bands, levels: Levels | None = None
) -> Statistics:
    """Measure the statistics of up to 200 evenly spaced images.

    levels: declared value range. Default: the range of the dtypes, or a measured one. NaN (missing data) is ignored.
    Raises a DataError that names the file.
    """
    own_range = kinds.measured_range and levels is None
    scale = None if own_range else levels or kinds.levels
    sampled = subsample(items, IMAGES)

    def image_sums(item: Item) -> NDArray[np.float64]:
        return sum_up(parts_of(item.image, channels, bands, scale, native=own_range), channels)

    sums = np.stack(map_items(sampled, image_sums))  # (images, 5, channels)
    count, total, low, high = sums[:, 0].sum(0), sums[:, 1].sum(0), sums[:, 3].min(0), sums[:, 4].max(0)
    if not count.all():
        raise DataError(f"{sampled[0].image} and {len(sampled) - 1} more images: a band has no finite value")
    mean = total / count
    # Sum deviations around each image's mean, to avoid cancellation when values are large but vary little.
    image_means = sums[:, 1] / np.maximum(sums[:, 0], 1)
    variance = (sums[:, 2] + sums[:, 0] * (image_means - mean) ** 2).sum(0) / count
    std = np.sqrt(variance)
    if own_range:
        high = np.where(high > low, high, low + 1)
        mean, std = (mean - low) / (high - low), std / (high - low)
        scale = Levels(tuple(low.tolist()), tuple(high.tolist()))
    std = np.where(std > 0, std, 1.0)  # a constant band
    return Statistics(tuple(mean.tolist()), tuple(std.tolist()), scale, len(sampled))


def sum_up(parts: Iterator[NDArray[Any]], channels: int) -> NDArray[np.float64]:
    """Return count, sum, sum of squared deviations, minimum and maximum (5, channels) over the parts of an image."""
    result = np.zeros((5, channels))
    result[3], result[4] = np.inf, -np.inf
    for part in parts:
        flat = part.reshape(-1, part.shape[2]).astype(np.float64) / (255 if part.dtype == np.uint8 else 1)
        known = np.isfinite(flat[:, :channels]) & flat[:, channels:].all(1, keepdims=True)
        flat = flat[:, :channels]
        count = known.sum(0)
        values = np.where(known, flat, 0.0)
        mean = values.sum(0) / np.maximum(count, 1)
        squares = (np.where(known, flat - mean, 0.0) ** 2).sum(0)
        before = result[1] / np.maximum(result[0], 1)
        both = result[0] * count / np.maximum(result[0] + count, 1)
        result[2] += squares + both * (mean - before) ** 2
        result[0] += count
        result[1] += values.sum(0)
        result[3] = np.minimum(result[3], np.where(known, flat, np.inf).min(0))
        result[4] = np.maximum(result[4], np.where(known, flat, -np.inf).max(0))
    return result


def parts_of(path: Path, channels: int, bands: Bands, levels: Levels | None, *, native: bool) -> Iterator[NDArray[Any]]:
    """Yield the image, or windows of an image that is too large to read whole.

    native: yield stored values as float64, and the whole image if the pixel limit permits, because its value range is
    measured as well.
    """
    windows = open_windows(path, channels, bands=bands, levels=levels)
    if windows is not None and (
        too_large(*windows.size, windows.raster.bands)
        or (not native and windows.size[0] * windows.size[1] > WINDOWS * WINDOW**2)
    ):
        for box in _spaced(windows.size):
            yield windows.known(box) if native else windows.read(box, with_known=True)
    elif native:
        yield read_known(path, channels, bands=bands)
    else:
        yield read_image(path, channels, bands=bands, levels=levels, with_known=True)


def _spaced(size: Size) -> Iterator[Box]:
    """Yield evenly spaced windows of an image (H, W)."""
    side = int(WINDOWS**0.5)
    for number in range(WINDOWS):
        y, x = (
            max(0, (length - WINDOW) * place // (side - 1))
            for length, place in zip(size, divmod(number, side), strict=True)
        )
        yield y, x, min(y + WINDOW, size[0]), min(x + WINDOW, size[1])
