"""One mask, understood as training understands it: pixels of each class, and values that mean nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fuzzyseg.data.labels.blocks import stored_parts
from fuzzyseg.data.labels.decode import UNKNOWN, Decoded, decode, unpacked
from fuzzyseg.data.labels.nearest import nearest_colour
from fuzzyseg.data.sample import VOID, DataError, Item
from fuzzyseg.data.text import counted

MOST = 5
"""Of values that mean nothing, so many are listed, the most frequent first."""


@dataclass(frozen=True)
class Strange:
    """A value (or colour) that means nothing: pixels, the first one's row and column, and the nearest known colour."""

    value: int | tuple[int, int, int]
    pixels: int
    row: int
    column: int
    nearest: tuple[int, int, int] | None = None

    def words(self) -> str:
        """Such as `17 in 3 pixels, first at row 4, column 5`."""
        near = f" (nearest {self.nearest})" if self.nearest is not None else ""
        return f"{self.value}{near} in {counted(self.pixels, 'pixel')}, first at row {self.row}, column {self.column}"


@dataclass(frozen=True)
class Labels:
    """Pixels by class (C), of void, taken for the nearest colour; and what means nothing.

    strange: the most frequent of `strange_values` values, in `strange_pixels` pixels. problem: a sentence that names
    the file where it cannot be understood at all.
    """

    counts: tuple[int, ...] = ()
    void: int = 0
    snapped: int = 0
    strange: tuple[Strange, ...] = ()
    strange_values: int = 0
    strange_pixels: int = 0
    problem: str | None = None

    @property
    def all_void(self) -> bool:
        """Whether there is nothing to learn from."""
        return self.problem is None and not self.strange_pixels and not any(self.counts)


def count_labels(item: Item, classes: int, ignore_index: int) -> Labels:
    """Reads the item's mask. Never raises DataError: that is what `problem` tells."""
    counts, snapped = np.zeros(VOID + 1, np.int64), 0
    odd: dict[int, tuple[int, int, int]] = {}  # value: pixels, and row and column of the first
    try:
        for top, part in stored_parts(item):
            found = decode(item, ignore_index, part)
            strange = (found.labels == UNKNOWN) | ((found.labels != VOID) & (found.labels >= classes))
            counts += np.bincount(found.labels[~strange].ravel(), minlength=VOID + 1)
            snapped += found.snapped
            _add_odd(odd, found, strange, top)
    except DataError as error:
        return Labels(problem=str(error))
    most = sorted(odd, key=lambda value: (-odd[value][0], value))[:MOST]
    return Labels(
        counts=tuple(int(n) for n in counts[:classes]),
        void=int(counts[VOID]),
        snapped=snapped,
        strange=tuple(_strange(item, value, *odd[value]) for value in most),
        strange_values=len(odd),
        strange_pixels=sum(pixels for pixels, _, _ in odd.values()),
    )


def _add_odd(odd: dict[int, tuple[int, int, int]], found: Decoded, strange: NDArray[np.bool_], top: int) -> None:
    """Counts the values of the strange pixels of a part that begins at row `top`; parts come from top to bottom."""
    if not strange.any():
        return
    places = np.flatnonzero(strange.ravel())
    values, first, pixels = np.unique(found.stored.ravel()[places], return_index=True, return_counts=True)
    for value, place, number in zip(values.tolist(), places[first].tolist(), pixels.tolist(), strict=True):
        row, column = divmod(place, strange.shape[1])
        before, *where = odd.get(value, (0, top + row, column))
        odd[value] = (before + number, where[0], where[1])


def _strange(item: Item, value: int, pixels: int, row: int, column: int) -> Strange:
    if item.encoding is None or item.encoding.colours is None:
        return Strange(value, pixels, row, column)
    colour = unpacked(value)
    return Strange(colour, pixels, row, column, nearest_colour(colour, item.encoding)[1])
