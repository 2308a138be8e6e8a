"""Statistics of one mask, decoded as in training: pixels per class, and unmapped values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fuzzyseg.data.labels.blocks import stored_parts
from fuzzyseg.data.labels.decode import PLAIN, decode_array, invalid_labels, mask_of, nearest_colours, unpack_colour
from fuzzyseg.data.sample import VOID, Colour, DataError, Item
from fuzzyseg.data.text import counted

MOST = 5
"""Unmapped values listed per mask, most frequent first."""


@dataclass(frozen=True)
class UnmappedValue:
    """A value or colour without a class: its pixels, the position of the first one, and the nearest class colour."""

    value: int | Colour
    pixels: int
    row: int
    column: int
    nearest: Colour | None = None

    def words(self) -> str:
        """Return, for example, `17 in 3 pixels, first at row 4, column 5`."""
        near = f" (nearest {self.nearest})" if self.nearest is not None else ""
        return f"{self.value}{near} in {counted(self.pixels, 'pixel')}, first at row {self.row}, column {self.column}"


@dataclass(frozen=True)
class MaskStatistics:
    """Number of pixels per class (C), of void, snapped to the nearest colour, and unmapped.

    unmapped: the most frequent of `unmapped_values` values. problem: error message of a mask that cannot be decoded.
    """

    counts: tuple[int, ...] = ()
    void: int = 0
    snapped: int = 0
    unmapped: tuple[UnmappedValue, ...] = ()
    unmapped_values: int = 0
    unmapped_pixels: int = 0
    problem: str | None = None

    @property
    def all_void(self) -> bool:
        """Whether every pixel is void."""
        return self.problem is None and not self.unmapped_pixels and not any(self.counts)


def mask_statistics(item: Item, classes: int, ignore_index: int) -> MaskStatistics:
    """Decode the mask of an item. Does not raise DataError, but sets `problem`."""
    counts, snapped = np.zeros(VOID + 1, np.int64), 0
    unmapped: dict[int, tuple[int, int, int]] = {}  # value: pixels, row and column of the first
    try:
        for top, part in stored_parts(item):
            found = decode_array(part, item.encoding or PLAIN, ignore_index, mask_of(item))
            invalid = invalid_labels(found.labels, classes)
            counts += np.bincount(found.labels[~invalid].ravel(), minlength=VOID + 1)
            snapped += found.snapped
            places = np.flatnonzero(invalid)
            values, first, pixels = np.unique(found.stored.ravel()[places], return_index=True, return_counts=True)
            for value, place, number in zip(values.tolist(), places[first].tolist(), pixels.tolist(), strict=True):
                row, column = divmod(place, invalid.shape[1])
                before, *where = unmapped.get(value, (0, top + row, column))
                unmapped[value] = (before + number, where[0], where[1])
    except DataError as error:
        return MaskStatistics(problem=str(error))
    most = sorted(unmapped, key=lambda value: (-unmapped[value][0], value))[:MOST]
    return MaskStatistics(
        counts=tuple(int(n) for n in counts[:classes]),
        void=int(counts[VOID]),
        snapped=snapped,
        unmapped=tuple(_unmapped(item, value, *unmapped[value]) for value in most),
        unmapped_values=len(unmapped),
        unmapped_pixels=sum(pixels for pixels, _, _ in unmapped.values()),
    )


def _unmapped(item: Item, value: int, pixels: int, row: int, column: int) -> UnmappedValue:
    if item.encoding is None or item.encoding.colours is None:
        return UnmappedValue(value, pixels, row, column)
    index, _ = nearest_colours(np.array([value], np.int32), item.encoding)
    return UnmappedValue(unpack_colour(value), pixels, row, column, item.encoding.colours[index[0]][:3])
