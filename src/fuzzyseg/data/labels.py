"""An item's mask as class indices: the file's values, and what the layout says that they mean."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fuzzyseg.data.formats import read_mask, short, to_training_mask
from fuzzyseg.data.items import VOID, DataError, Item, Values

HIGHEST = 65535
"""The largest value that a mask file of 16 bits holds."""


def stored_labels(item: Item) -> NDArray[np.integer]:
    """The mask of an item as (H, W) class indices. Raises DataError naming the file.

    Without `values` the file's values as they are; with them VOID is void. An item without a mask is an error.
    """
    if item.mask is None:
        raise DataError(f"{item.image}: has no mask, but one was asked for")
    mask = read_mask(item.mask)
    return mask if item.values is None else apply_values(mask, item.values, item.mask)


def training_labels(item: Item, *, classes: int, ignore_index: int) -> NDArray[np.uint8]:
    """The mask of an item as (H, W) uint8 class indices, void 255. Raises DataError naming the file.

    ignore_index: the data set's, a value in the files; `values.ignore_index` goes before it.
    """
    if item.mask is None:
        raise DataError(f"{item.image}: has no mask, but one was asked for")
    mask = read_mask(item.mask)
    if item.values is not None:
        mask = apply_values(mask, item.values, item.mask, ignore_index)
        ignore_index = VOID
    return to_training_mask(mask, classes=classes, ignore_index=ignore_index, path=item.mask)


def apply_values(
    mask: NDArray[np.integer], values: Values, path: Path, ignore_index: int = VOID
) -> NDArray[np.integer]:
    """File values (H, W) -> class indices, VOID for void. Raises DataError for a value without meaning."""
    low, high = (int(mask.min()), int(mask.max())) if mask.size else (0, 0)
    if low < 0 or high > HIGHEST:
        raise DataError(f"{path}: found values from {low} to {high}; expected 0 to {HIGHEST}")
    ignored = ignore_index if values.ignore_index is None else values.ignore_index
    result: NDArray[np.int32] = _meaning(values, ignored, high + 1)[mask]
    bad = result < 0
    if bad.any():
        expected = values.text or f"one of {short([value for value, _ in values.table or ()])}"
        found = [int(value) for value in np.unique(mask[bad])]
        raise DataError(f"{path}: found the values {short(found)} in {int(bad.sum())} pixels; expected {expected}")
    return result


@lru_cache(maxsize=256)
def _meaning(values: Values, ignored: int, length: int) -> NDArray[np.int32]:
    """(length,): the class index of each file value, VOID for void, -1 for no meaning."""
    result = np.arange(length, dtype=np.int32)
    void = (result == ignored) | (result == VOID)
    if values.reduce_zero:
        void |= result == 0
        result -= 1
    if values.table is not None:
        table = dict(values.table)
        result = np.array([table.get(int(value), -1) for value in result], dtype=np.int32)
    result[void] = VOID
    result.setflags(write=False)
    return result


def renamed(values: Values | None, ignore_index: int, order: list[int], text: str) -> Values:
    """`values` (None: class indices) followed by class index i -> order[i]; `ignore_index` is fixed in it."""
    base = values or Values()
    table = base.table if base.table is not None else tuple((index, index) for index in range(len(order)))
    mapped = tuple((value, VOID if index == VOID else order[index]) for value, index in table)
    own = ignore_index if base.ignore_index is None else base.ignore_index
    return Values(mapped, base.reduce_zero, own, text)
