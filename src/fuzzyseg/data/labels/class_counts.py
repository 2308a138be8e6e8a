"""Distinct values, classes and pixel counts in the masks of a dataset."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fuzzyseg.data.io.mask import values_in
from fuzzyseg.data.labels.blocks import stored_parts
from fuzzyseg.data.labels.decode import mask_of, stored_labels, training_labels
from fuzzyseg.data.sample import MAX_CLASSES, VOID, DataError, Item, attempt
from fuzzyseg.data.text import short

S = TypeVar("S")
T = TypeVar("T")
MANY = 48
"""Values of at least this are assumed to be grey levels unless the classes are named."""

ADVICE = "declare the class names (classes) and the void value (ignore_index) in dataset.yaml"


def map_items(
    items: Sequence[S], function: Callable[[S], T], progress: Callable[[int, int], None] | None = None
) -> list[T]:
    """Apply `function` to each item in up to eight threads, and return the results in order.

    progress: called with the number of finished items and the total.
    """
    results: list[T] = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        # threads do not inherit context variables (`pixel_limit`), and a context can run only one call at a time
        contexts = [copy_context() for _ in items]
        for result in pool.map(lambda item, context: context.run(function, item), items, contexts):
            results.append(result)
            if progress is not None:
                progress(len(results), len(items))
    return results


def pixel_counts(items: Sequence[Item], *, classes: int, ignore_index: int) -> NDArray[np.int64]:
    """Return pixel counts (N, C+1): one row per mask, void last. Raises DataError for invalid values."""

    def count(item: Item) -> NDArray[np.int64]:
        counts = np.zeros(VOID + 1, np.int64)
        for _, part in stored_parts(item):
            mask = training_labels(item, classes=classes, ignore_index=ignore_index, part=part)
            counts += np.bincount(mask.ravel(), minlength=VOID + 1)
        return np.append(counts[:classes], counts[VOID])

    return np.array(map_items(items, count), dtype=np.int64).reshape(len(items), classes + 1)


def class_presence(items: Sequence[Item], *, classes: int, ignore_index: int) -> NDArray[np.bool_]:
    """Return a bool array (N, C): whether mask n contains class c. Raises DataError for invalid values."""
    return pixel_counts(items, classes=classes, ignore_index=ignore_index)[:, :classes] > 0


def median_frequency_weights(counts: NDArray[np.int64]) -> list[float]:
    """Return one weight per class: the median class frequency divided by the frequency of the class.

    counts: see `pixel_counts`. The frequency of a class is its fraction of the labelled pixels in the images that
    contain it. A class that occurs in no image has weight 1. Eigen & Fergus, ICCV 2015, section 6.3.2.
    """
    pixels = counts[:, :-1]
    image_pixels = (pixels > 0) * pixels.sum(1, keepdims=True)
    frequency = pixels.sum(0) / np.maximum(image_pixels.sum(0), 1)
    known = frequency > 0
    weights = np.ones(len(frequency))
    weights[known] = np.median(frequency[known]) / frequency[known] if known.any() else 1
    return [float(weight) for weight in weights]


def only_void(items: Sequence[Item], *, classes: int, ignore_index: int) -> bool:
    """Return whether all masks are void. Stops reading at the first class. Raises DataError for invalid values."""
    return not any(class_presence([item], classes=classes, ignore_index=ignore_index).any() for item in items)


def distinct_values(items: Sequence[Item], ignored: Sequence[int] = ()) -> dict[int, Item]:
    """Map each value in the masks (class index, if the item has an encoding) to the first item that contains it.

    ignored: void values, the only ones that may be negative. Raises DataError for unreadable files.
    """
    negative = [value for value in ignored if value < 0]
    first: dict[int, Item] = {}
    for item, values in zip(items, map_items(items, lambda item: _values(item, negative)), strict=True):
        for value in values:
            first.setdefault(value, item)
    return first


def values_of_each(items: Sequence[Item]) -> list[list[int]]:
    """Return the values in each mask (class indices, if the item has an encoding); empty for unreadable masks."""
    return map_items(items, lambda item: attempt(_values, item) or [])


def _values(item: Item, negative: Sequence[int] = ()) -> list[int]:
    """Return the distinct values in a mask except those in `negative`. Raises DataError for other negative values."""
    distinct: set[int] = set()
    for _, part in stored_parts(item):
        mask = stored_labels(item, part)
        distinct.update(values_in(mask[~np.isin(mask, negative)] if negative else mask, mask_of(item)))
    return sorted(distinct)


def count_classes(
    items: Sequence[Item], ignore_index: int, values: dict[int, Item] | None = None
) -> tuple[int, list[str]]:
    """Return the number of classes (the largest value other than void, plus one) and notes.

    values: result of `distinct_values`, if available. Raises DataError for fewer than 2 classes, and for values of
    `MANY` or above, which are probably not class indices.
    """
    values = distinct_values(items) if values is None else values
    labels = sorted(value for value in values if value not in (ignore_index, VOID))
    ignored = "255 is" if ignore_index == VOID else f"{ignore_index} and 255 are"
    if len(labels) < 2:
        raise DataError(
            f"{items[0].mask} and {len(items) - 1} more masks: found only the values {short(sorted(values))}; expected "
            f"at least two classes, 0, 1, ... ({ignored} ignored; a class stored as 255 must be 1): {ADVICE}"
        )
    largest, where = labels[-1], values[labels[-1]].mask
    if largest >= MAX_CLASSES:
        raise DataError(
            f"{where}: found the value {largest}; expected class indices up to {MAX_CLASSES - 1}: {ADVICE}, or, for "
            "objects of the highest value (0 and 65535) in some of the masks, encoding: binary"
        )
    if largest >= MANY:
        raise DataError(
            f"{len(items)} masks contain the values {short(sorted(values), 20)}; {largest} is in {where}: these may be "
            "grey levels, or class indices without names. Declare the values in dataset.yaml (values: {road: 50, car: "
            f"[100, 150]}}), or {ADVICE}. For masks of 0 and 255 that were compressed (JPEG) or resized smoothly, set "
            "encoding: binary there, and use --snap"
        )
    count = labels[-1] + 1
    notes = [f"{count} classes, detected in {len(items)} masks"]
    if missing := sorted(set(range(count)) - set(labels) - {ignore_index}):
        notes.append(f"no mask contains the class index {short(missing)}: if these are not classes, {ADVICE}")
    return count, notes
