"""Which classes a data set's masks hold, and how many there are."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fuzzyseg.data.formats import short, values_in
from fuzzyseg.data.items import MAX_CLASSES, VOID, DataError, Item
from fuzzyseg.data.labels import stored_labels, training_labels

T = TypeVar("T")


def _each(items: Sequence[Item], look: Callable[[Item], T]) -> list[T]:
    """`look(item)` for every item, in the items' order, several at a time."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(look, items))


def presence(items: Sequence[Item], *, classes: int, ignore_index: int) -> NDArray[np.bool_]:
    """(N, C) bool: whether the mask of item n holds a pixel of class c. Raises DataError for values out of range."""

    def look(item: Item) -> NDArray[np.bool_]:
        mask = training_labels(item, classes=classes, ignore_index=ignore_index)
        return np.bincount(mask.ravel(), minlength=VOID + 1)[:classes] > 0

    return np.array(_each(items, look), dtype=np.bool_).reshape(len(items), classes)


def count_classes(items: Sequence[Item], ignore_index: int) -> tuple[int, list[str]]:
    """Largest value in the items' masks that is not ignored, plus one; and sentences on what was found.

    Raises DataError where fewer than two classes or more than 255 come out.
    """

    def look(item: Item) -> list[int]:
        mask = stored_labels(item)
        assert item.mask is not None
        return values_in(mask, item.mask)

    advice = "give the class names (classes) and the void value (ignore_index) in dataset.yaml"
    seen: dict[int, Item] = {}
    for item, values in zip(items, _each(items, look), strict=True):
        for value in values:
            seen.setdefault(value, item)
    found = sorted(value for value in seen if value not in (ignore_index, VOID))
    ignored = "255 is" if ignore_index == VOID else f"{ignore_index} and 255 are"
    if not found or found[-1] < 1:
        raise DataError(
            f"{items[0].mask} and {len(items) - 1} more masks: found only the values {short(sorted(seen))}; expected "
            f"two classes or more, 0, 1, ... ({ignored} ignored; where 255 is a class, write 1): store "
            f"class indices, and {advice}"
        )
    if found[-1] >= MAX_CLASSES:
        raise DataError(
            f"{seen[found[-1]].mask}: found the value {found[-1]}; expected class indices up to {MAX_CLASSES - 1}: "
            f"{advice}"
        )
    count = found[-1] + 1
    sentences = [f"{count} classes, found by reading {len(items)} masks"]
    missing = sorted(set(range(count)) - set(found) - {ignore_index})
    if missing:
        sentences.append(f"no mask holds the class index {short(missing)}: if these are no classes, {advice}")
    return count, sentences
