"""One mask, understood as training understands it: pixels of each class, and values that mean nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fuzzyseg.data.items import VOID, DataError, Item
from fuzzyseg.data.labels import UNKNOWN, decode, unpacked
from fuzzyseg.data.nearest import nearest_colour
from fuzzyseg.data.opening import counted

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
    try:
        found = decode(item, ignore_index)
    except DataError as error:
        return Labels(problem=str(error))
    labels = found.labels
    odd = (labels == UNKNOWN) | ((labels != VOID) & (labels >= classes))
    counts = np.bincount(labels[~odd].ravel(), minlength=VOID + 1)
    strange: list[Strange] = []
    values = np.empty(0)
    if odd.any():
        places = np.flatnonzero(odd.ravel())
        values, first, numbers = np.unique(found.stored.ravel()[places], return_index=True, return_counts=True)
        for place in np.argsort(-numbers, kind="stable")[:MOST]:
            row, column = divmod(int(places[first[place]]), labels.shape[1])
            strange.append(_strange(item, int(values[place]), int(numbers[place]), row, column))
    return Labels(
        counts=tuple(int(n) for n in counts[:classes]),
        void=int(counts[VOID]),
        snapped=found.snapped,
        strange=tuple(strange),
        strange_values=len(values),
        strange_pixels=int(odd.sum()),
    )


def _strange(item: Item, value: int, pixels: int, row: int, column: int) -> Strange:
    if item.encoding is None or item.encoding.colours is None:
        return Strange(value, pixels, row, column)
    colour = unpacked(value)
    return Strange(colour, pixels, row, column, nearest_colour(colour, item.encoding)[1])
