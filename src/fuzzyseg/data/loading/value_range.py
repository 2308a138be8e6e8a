"""Value ranges of image files by dtype, and outliers that may mark missing data."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fuzzyseg.data.io.header import Header, read_header
from fuzzyseg.data.io.image import Bands, Levels
from fuzzyseg.data.io.pillow import TIFF, suffix_of
from fuzzyseg.data.labels.class_counts import map_items
from fuzzyseg.data.labels.detect import subsample
from fuzzyseg.data.loading.normalisation import HEADERS, parts_of
from fuzzyseg.data.sample import Item, attempt

SAMPLE = 8
"""Number of files per dtype whose pixels are read."""

FACTOR = 3.0
"""Maximum ratio between the largest values of comparable images. For 16-bit versus 14-bit data, the ratio is 4."""

Ranges = Mapping[str, tuple[float, float]]
"""Smallest and largest value by dtype, without outliers."""


@dataclass(frozen=True)
class Values:
    """Statistics of sampled pixel values.

    ranges: smallest and largest value by dtype, without outliers. outliers: number of files that contain each
    outlier. example: one file per dtype.
    """

    ranges: dict[str, tuple[float, float]]
    outliers: dict[float, int]
    example: dict[str, Path]

    def notes(self, channels: int) -> list[str]:
        """Return notes on outliers, and on 16-bit files with only 10 to 14 significant bits among 8-bit files."""
        notes = [
            f"{count} of the sampled images contain the value {value:g}, far from all others: if it marks missing "
            f"data, declare it in the files (gdal_edit.py -a_nodata {value:g} FILE) or replace it with NaN"
            for value, count in sorted(self.outliers.items())
        ]
        bits = bits_of(self.ranges.get("uint16"))
        if bits and "uint8" in self.ranges:
            low, high = ",".join(["0"] * channels), ",".join([str(2**bits - 1)] * channels)
            notes.append(
                f"warning: 8-bit images are mixed with 16-bit files such as {self.example['uint16']}, whose values do "
                f"not exceed {self.ranges['uint16'][1]:g} ({bits} bits): the latter look almost black; set "
                f"data.low=[{low}] data.high=[{high}]"
            )
        return notes


def bits_of(limits: tuple[float, float] | None) -> int | None:
    """Return the bits (10, 12 or 14) that 16-bit values need; None if they fit into 8 bits or need more than 14."""
    return None if limits is None else next((bits for bits in (10, 12, 14) if 255 < limits[1] < 2**bits), None)


def values_of(items: Sequence[Item], channels: int, bands: Sequence[int] | None) -> Values:
    """Sample pixel values by dtype, from up to 500 images. The range of uint8 is always 0 to 255.

    Unreadable files are skipped, because other checks report them.
    """
    by_type: dict[str, list[Item]] = {}
    sampled = subsample(items, HEADERS)
    for item, head in zip(sampled, _headers([item.image for item in sampled]), strict=True):
        if head is not None:
            by_type.setdefault("uint8" if head.dtype == "bool" else head.dtype, []).append(item)
    result = Values({}, {}, {name: files[0].image for name, files in by_type.items()})
    for name, files in by_type.items():
        if name == "uint8":
            result.ranges[name] = (0.0, 255.0)
            continue
        ends = []
        for item in subsample(files, SAMPLE):
            limits, outliers = attempt(lambda item: _limits(item.image, channels, bands), item) or (None, ())
            ends += [limits] if limits is not None else []
            for value in outliers:
                result.outliers[value] = result.outliers.get(value, 0) + 1
        if ends:
            result.ranges[name] = min(low for low, _ in ends), max(high for _, high in ends)
    return result


def _headers(paths: Sequence[Path]) -> list[Header | None]:
    return map_items(paths, lambda path: attempt(read_header, path))


def header_notes(items: Sequence[Item]) -> list[str]:
    """Return notes on TIFF images and masks (up to 500 each) that declare missing data or have several pages."""
    notes = []
    for what, paths in (("images", [item.image for item in items]), ("masks", [item.mask for item in items])):
        tiffs = [path for path in paths if path is not None and suffix_of(path) in TIFF]
        heads = [head for head in _headers(subsample(tiffs, HEADERS)) if head is not None]
        for value, count in sorted(Counter(head.nodata for head in heads if head.nodata is not None).items()):
            effect = "these pixels are not used"
            if what == "masks":
                effect = f"these pixels are void; if {value:g} is a class, remove it (gdal_edit.py -unsetnodata FILE)"
            notes.append(f"{count} of {len(heads)} TIFF {what} declare {value:g} as missing data: {effect}")
        if paged := sum(head.pages > 1 for head in heads):
            notes.append(f"{paged} of {len(heads)} TIFF {what} have several pages, read as bands of one image")
    return notes


def _limits(path: Path, channels: int, bands: Sequence[int] | None) -> tuple[tuple[float, float] | None, set[float]]:
    """Return a file's smallest and largest value, excluding outliers, and the outliers.

    The smallest or largest value is an outlier if its distance to the next value exceeds the range of all others.
    """
    parts = [part.reshape(-1, channels) for part in parts_of(path, channels, bands, None, native=True)]
    outliers: set[float] = set()
    ends = []
    for band in np.concatenate(parts).T:
        values = np.unique(band[np.isfinite(band)])
        if len(values) > 3 and values[1] - values[0] > values[-1] - values[1]:
            outliers.add(float(values[0]))
            values = values[1:]
        if len(values) > 3 and values[-1] - values[-2] > values[-2] - values[0]:
            outliers.add(float(values[-1]))
            values = values[:-1]
        ends += [(float(values[0]), float(values[-1]))] * bool(len(values))
    return (min(low for low, _ in ends), max(high for _, high in ends)) if ends else None, outliers


def compare(
    items: Sequence[Item], trained: Ranges | None, channels: int, bands: Bands, levels: Levels | None
) -> list[str]:
    """Return warnings for images whose value ranges differ from those of a model's training images.

    trained: ranges of the training images. None (not recorded): assume 8 bits or, with levels, check nothing.
    """
    if trained is None:
        trained = {"uint8": (0.0, 255.0)} if levels is None else {}
    if not trained:
        return []
    measured = values_of(items, channels, bands)
    reach = {name: _units(high, name, levels) for name, (_, high) in trained.items()}
    notes = []
    for name, (low, high) in measured.ranges.items():
        reached, expected = _units(high, name, levels), reach.get(name, max(reach.values()))
        if reached * FACTOR < expected or reached > expected * FACTOR:
            bits = bits_of((low, high)) if name == "uint16" else None
            training_ranges = " and ".join(f"{a:g} to {b:g} ({kind})" for kind, (a, b) in trained.items())
            notes.append(
                f"warning: {measured.example[name]}: images of this type ({name}) have values from {low:g} to "
                f"{high:g}{f' ({bits} bits)' if bits else ''}, those of the training {training_ranges}: the model sees "
                f"them {'almost black' if reached < expected else 'far too bright'} (its input reaches {reached:.2g} "
                f"instead of {expected:.2g}). Convert them to the range of the training images (gdal_translate -scale "
                f"{low:g} {high:g} ...), or train on images of this kind with data.low and data.high"
            )
    return notes


def _units(value: float, dtype: str, levels: Levels | None) -> float:
    """Return the network input for a value, before normalisation by mean and standard deviation."""
    if levels is not None and levels.low is not None and levels.high is not None:
        if dtype == "uint8" and max(levels.high) > 255:
            return value / 255
        return (value - min(levels.low)) / max(max(levels.high) - min(levels.low), 1e-12)
    return value / float(np.iinfo(dtype).max) if dtype in ("uint8", "uint16") else value
