"""Statistics of one mask, decoded as in training: pixels per class, and unmapped values."""

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import cast

import numpy as np
from numpy.typing import NDArray

from fuzzyseg.data.labels.blocks import stored_parts
from fuzzyseg.data.labels.decode import PLAIN, decode_array, invalid_labels, mask_of, nearest_colours, unpack_colour
from fuzzyseg.data.labels.detect import NEAR
from fuzzyseg.data.sample import VOID, Colour, DataError, Item
from fuzzyseg.data.text import counted

MAX_LISTED = 5
"""Maximum number of unmapped values listed per mask, most frequent first."""

WIDTH = 7
"""Regions narrower than this number of pixels count as lines."""

NO_CLASS = VOID + 1
"""Label of unmapped pixels in `MaskStatistics.changes` and `inner`."""

THIN, INVOLVED, ONE_SIDE = 0.05, 0.9, 0.75
"""A label is an outline if at most `THIN` of its pixels are inner pixels (see `MaskStatistics`), at least `INVOLVED` of
all label changes involve it, and at most `ONE_SIDE` of these involve the same other label."""

BESIDE, LOOSE, MAX_SHARE = 0.9, 0.75, 0.5
"""An unnamed label is scattered if it borders at least `BESIDE` of the other labels (mean over its masks with three or
more labels) and misses less than half as many as any other label; if at most `LOOSE` of its pixels are inner pixels;
and if it covers at most `MAX_SHARE` of all pixels."""


@dataclass(frozen=True)
class UnmappedValue:
    """A value or colour without a class, with its pixel count, first position and nearest class colour."""

    value: int | Colour
    pixels: int
    row: int
    column: int
    nearest: Colour | None = None

    @property
    def is_near(self) -> bool:
        """Whether the colour is close enough to a class colour for lossy compression to explain it."""
        return self.nearest is not None and math.dist(self.nearest, cast(Colour, self.value)) <= NEAR

    def words(self) -> str:
        """Return a description such as `17 in 3 pixels, first at row 4, column 5`."""
        near = f" (nearest {self.nearest})" if self.nearest is not None else ""
        return f"{self.value}{near} in {counted(self.pixels, 'pixel')}, first at row {self.row}, column {self.column}"


@dataclass(frozen=True)
class MaskStatistics:
    """Pixel counts of a mask: per class (C), void, snapped to the nearest colour, and unmapped.

    unmapped: the most frequent of the `unmapped_values` distinct values. changes: number of adjacent pixel pairs with
    different labels, by label pair (lower, higher). inner: per label, number of pixels whose `WIDTH` x `WIDTH`
    neighbourhood contains no other label (within one block of a large file). problem: error message if the mask cannot
    be decoded.
    """

    counts: tuple[int, ...] = ()
    void: int = 0
    snapped: int = 0
    unmapped: tuple[UnmappedValue, ...] = ()
    unmapped_values: int = 0
    unmapped_pixels: int = 0
    changes: Counter[tuple[int, int]] = field(default_factory=Counter)
    inner: Counter[int] = field(default_factory=Counter, compare=False)
    problem: str | None = None

    @property
    def all_void(self) -> bool:
        """Whether every pixel is void."""
        return self.problem is None and not self.unmapped_pixels and not any(self.counts)

    def pixels_of(self, label: int) -> int:
        """Return the number of pixels of a label."""
        return self.unmapped_pixels if label == NO_CLASS else self.void if label == VOID else self.counts[label]


Masks = Sequence[MaskStatistics]


def mask_statistics(item: Item, classes: int, ignore_index: int) -> MaskStatistics:
    """Decode an item's mask and return its statistics. Sets `problem` instead of raising DataError."""
    counts, snapped = np.zeros(VOID + 1, np.int64), 0
    unmapped: dict[int, tuple[int, int, int]] = {}  # value -> pixels, row and column of the first
    changes, inner, last = Counter[tuple[int, int]](), Counter[int](), np.zeros((0, 0), np.int32)
    try:
        for top, part in stored_parts(item):
            decoded = decode_array(part, item.encoding or PLAIN, ignore_index, mask_of(item))
            invalid = invalid_labels(decoded.labels, classes)
            counts += np.bincount(decoded.labels[~invalid].ravel(), minlength=VOID + 1)
            snapped += decoded.snapped
            labels = np.where(invalid, NO_CLASS, decoded.labels)
            changes += _changes(labels[:, 1:], labels[:, :-1]) + _changes(labels[1:], labels[:-1])
            changes += _changes(labels[:1], last)
            inner, last = inner + _inner(labels), labels[-1:]
            places = np.flatnonzero(invalid)
            values, first, pixels = np.unique(decoded.stored.ravel()[places], return_index=True, return_counts=True)
            for value, place, number in zip(values.tolist(), places[first].tolist(), pixels.tolist(), strict=True):
                row, column = divmod(place, invalid.shape[1])
                before, *where = unmapped.get(value, (0, top + row, column))
                unmapped[value] = (before + number, where[0], where[1])
    except DataError as error:
        return MaskStatistics(problem=str(error))
    most_frequent = sorted(unmapped, key=lambda value: (-unmapped[value][0], value))[:MAX_LISTED]
    return MaskStatistics(
        counts=tuple(int(n) for n in counts[:classes]),
        void=int(counts[VOID]),
        snapped=snapped,
        unmapped=tuple(_unmapped(item, value, *unmapped[value]) for value in most_frequent),
        unmapped_values=len(unmapped),
        unmapped_pixels=sum(pixels for pixels, _, _ in unmapped.values()),
        changes=changes,
        inner=inner,
    )


def _changes(one: NDArray[np.int32], other: NDArray[np.int32]) -> Counter[tuple[int, int]]:
    """Count pairs of different labels at corresponding positions of two arrays; none if `other` is empty."""
    if not other.size:
        return Counter()
    differ, base = one != other, NO_CLASS + 1
    pairs = np.minimum(one[differ], other[differ]) * base + np.maximum(one[differ], other[differ])
    pair_counts = zip(*np.unique(pairs, return_counts=True), strict=True)
    return Counter({divmod(int(pair), base): int(number) for pair, number in pair_counts})


def _inner(labels: NDArray[np.int32]) -> Counter[int]:
    """Count, per label, the pixels whose WIDTH x WIDTH neighbourhood contains only that label. labels: (H, W)."""
    if min(labels.shape) < WIDTH:
        return Counter()
    edge = np.zeros(labels.shape, np.bool_)
    edge[:, :-1] |= labels[:, 1:] != labels[:, :-1]
    edge[:-1] |= labels[1:] != labels[:-1]
    sums = np.pad(edge.astype(np.int32).cumsum(0).cumsum(1), ((1, 0), (1, 0)))  # edges above and to the left
    squares = sums[WIDTH:, WIDTH:] - sums[:-WIDTH, WIDTH:] - sums[WIDTH:, :-WIDTH] + sums[:-WIDTH, :-WIDTH]
    half = WIDTH // 2
    counts = np.bincount(labels[half:-half, half:-half][squares == 0])
    return Counter({label: int(counts[label]) for label in np.flatnonzero(counts).tolist()})


def likely_void(masks: Masks, unnamed: Collection[int] = ()) -> list[int]:
    """Return the labels, except void, that form thin lines between other labels in every mask with several labels.

    Drawing programs and annotation tools draw such outlines around objects. unnamed: labels that are also returned if
    they are scattered between all others, as unannotated regions are.
    """
    masks = [mask for mask in masks if mask.changes]
    changes = sum((mask.changes for mask in masks), Counter[tuple[int, int]]())
    labels = [{label for pair in mask.changes for label in pair} for mask in masks]
    missed = _missed(masks, labels)
    total = sum(sum(mask.counts) + mask.void + mask.unmapped_pixels for mask in masks)
    void_labels = []
    for label in sorted(set().union(*labels) - {VOID}):
        beside = [number for pair, number in changes.items() if label in pair]
        pixels, inner = sum(mask.pixels_of(label) for mask in masks), sum(mask.inner[label] for mask in masks)
        between = sum(beside) >= INVOLVED * changes.total() and max(beside) <= ONE_SIDE * sum(beside)
        line = between and inner <= THIN * pixels and all(label in each for each in labels)
        others = min((share for other, share in missed.items() if other != label), default=0.0)
        pieces = missed.get(label, 1.0) <= 1 - BESIDE and 2 * missed[label] < others and pixels <= MAX_SHARE * total
        if line or (label in unnamed and pieces and inner <= LOOSE * pixels):
            void_labels.append(label)
    return void_labels


def _missed(masks: Masks, labels: Sequence[set[int]]) -> dict[int, float]:
    """Return, per label, the mean fraction of a mask's other labels that it does not border.

    Only masks with three or more labels count, and only labels that occur in three or more of these masks are returned.
    """
    shares: dict[int, list[float]] = {}
    for mask, each in zip(masks, labels, strict=True):
        for label in each if len(each) > 2 else ():
            shares.setdefault(label, []).append(1 - sum(label in pair for pair in mask.changes) / (len(each) - 1))
    return {label: fmean(fractions) for label, fractions in shares.items() if len(fractions) > 2}


def _unmapped(item: Item, value: int, pixels: int, row: int, column: int) -> UnmappedValue:
    if item.encoding is None or item.encoding.colours is None:
        return UnmappedValue(value, pixels, row, column)
    index, _ = nearest_colours(np.array([value], np.int32), item.encoding)
    return UnmappedValue(unpack_colour(value), pixels, row, column, item.encoding.colours[index[0]][:3])
