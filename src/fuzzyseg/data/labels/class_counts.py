"""Which classes a data set's masks hold, and how many there are."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fuzzyseg.data.io.mask import values_in
from fuzzyseg.data.io.pillow import short
from fuzzyseg.data.labels.blocks import stored_parts
from fuzzyseg.data.labels.decode import mask_of, stored_labels, training_labels
from fuzzyseg.data.sample import MAX_CLASSES, VOID, DataError, Item

T = TypeVar("T")
ADVICE = "give the class names (classes) and the void value (ignore_index) in dataset.yaml"


def each(items: Sequence[Item], look: Callable[[Item], T]) -> list[T]:
    """`look(item)` for every item, in the items' order, several at a time."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        # a new thread has no context variables (`pixel_limit`); a context serves one call at a time
        return list(pool.map(lambda item, context: context.run(look, item), items, [copy_context() for _ in items]))


def presence(items: Sequence[Item], *, classes: int, ignore_index: int) -> NDArray[np.bool_]:
    """(N, C) bool: whether the mask of item n holds a pixel of class c. Raises DataError for values out of range."""

    def look(item: Item) -> NDArray[np.bool_]:
        counts = np.zeros(VOID + 1, np.int64)
        for _, part in stored_parts(item):
            mask = training_labels(item, classes=classes, ignore_index=ignore_index, part=part)
            counts += np.bincount(mask.ravel(), minlength=VOID + 1)
        return counts[:classes] > 0

    return np.array(each(items, look), dtype=np.bool_).reshape(len(items), classes)


def seen_values(items: Sequence[Item], ignored: Sequence[int] = ()) -> dict[int, Item]:
    """Each value in the items' masks (class indices, where an encoding says so), with the first item that holds it.

    ignored: negative values that are not complained of. Raises DataError for a file that cannot be read.
    """

    def look(item: Item) -> list[int]:
        low = [value for value in ignored if value < 0]
        found: set[int] = set()
        for _, part in stored_parts(item):
            mask = stored_labels(item, part)
            found.update(values_in(mask[~np.isin(mask, low)] if low else mask, mask_of(item)))
        return sorted(found)

    seen: dict[int, Item] = {}
    for item, values in zip(items, each(items, look), strict=True):
        for value in values:
            seen.setdefault(value, item)
    return seen


def count_classes(
    items: Sequence[Item], ignore_index: int, seen: dict[int, Item] | None = None
) -> tuple[int, list[str]]:
    """Largest value in the items' masks that is not ignored, plus one; and sentences on what was found.

    seen: what `seen_values` gave, where the masks were read already. Raises DataError where fewer than two classes or
    more than 255 come out, or where so many values are missing that they are hardly class indices.
    """
    seen = seen_values(items) if seen is None else seen
    found = sorted(value for value in seen if value not in (ignore_index, VOID))
    ignored = "255 is" if ignore_index == VOID else f"{ignore_index} and 255 are"
    if not found or found[-1] < 1:
        raise DataError(
            f"{items[0].mask} and {len(items) - 1} more masks: found only the values {short(sorted(seen))}; expected "
            f"two classes or more, 0, 1, ... ({ignored} ignored; where 255 is a class, write 1): store "
            f"class indices, and {ADVICE}"
        )
    if found[-1] >= MAX_CLASSES:
        raise DataError(
            f"{seen[found[-1]].mask}: found the value {found[-1]}; expected class indices up to {MAX_CLASSES - 1}: "
            f"{ADVICE}"
        )
    if found[-1] >= 64 and 4 * len(found) <= found[-1] + 1:
        raise DataError(
            f"{len(items)} masks hold the values {short(sorted(seen), 20)}; {found[-1]} is in {seen[found[-1]].mask}: "
            "grey levels, or class indices of which most do not occur? Say which value is which class in dataset.yaml "
            f"(values: {{road: 50, car: [100, 150]}}), or {ADVICE}"
        )
    count = found[-1] + 1
    sentences = [f"{count} classes, found by reading {len(items)} masks"]
    missing = sorted(set(range(count)) - set(found) - {ignore_index})
    if missing:
        sentences.append(f"no mask holds the class index {short(missing)}: if these are no classes, {ADVICE}")
    return count, sentences
