"""An item's mask as class indices: what the file holds, and what its encoding says that it means."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fuzzyseg.data.io.mask import out_of_range, read_mask
from fuzzyseg.data.io.pillow import counted, short
from fuzzyseg.data.labels.nearest import nearest_colour, nearest_values
from fuzzyseg.data.sample import MAX_CLASSES, VOID, Box, Colour, DataError, Encoding, Item

HIGHEST = 65535
"""The largest value that may mean something."""

UNKNOWN = -1
"""The label of a pixel whose value or colour means nothing."""

PLAIN = Encoding()

_TRANSPARENT = -1  # the value that Encoding.colours has for void


@dataclass(frozen=True)
class Decoded:
    """A mask file that was understood: its labels (H, W) int32, class index, `VOID` or `UNKNOWN`, and what is stored.

    stored: values (H, W), or colours (H, W) as one number each, red * 65536 + green * 256 + blue. snapped: pixels whose
    colour was taken for the nearest.
    """

    labels: NDArray[np.int32]
    stored: NDArray[np.integer]
    snapped: int = 0


def read_stored(item: Item, box: Box | None = None) -> NDArray[np.integer]:
    """The mask of an item as `read_mask` gives it, read as its encoding asks for. box: see there. Raises DataError.

    The functions below take a `part` of it, some of its rows, in place of reading it.
    """
    coloured = item.encoding is not None and item.encoding.colours is not None
    return read_mask(mask_of(item), colours=coloured, lossy=coloured or (item.encoding or PLAIN).snap, box=box)


def stored_labels(item: Item, part: NDArray[np.integer] | None = None) -> NDArray[np.integer]:
    """The mask of an item as (H, W) class indices. Raises DataError naming the file.

    Without an encoding the file's values as they are; with one VOID is void. An item without a mask is an error.
    """
    path = mask_of(item)
    mask = read_stored(item) if part is None else part
    if item.encoding is None:
        return _one_band(mask, path)
    found = understood(mask, item.encoding, VOID, path)
    _refuse(found, found.labels == UNKNOWN, item.encoding, path, "")
    return found.labels


def training_labels(
    item: Item, *, classes: int, ignore_index: int, part: NDArray[np.integer] | None = None
) -> NDArray[np.uint8]:
    """The mask of an item as (H, W) uint8 class indices, void 255 (promise 3). Raises DataError naming the file.

    ignore_index: the data set's, a value in the files; the item's encoding goes before it.
    """
    if classes > MAX_CLASSES:
        raise DataError(f"found {classes} classes; at most {MAX_CLASSES} are supported: merge some")
    path, encoding = mask_of(item), item.encoding or PLAIN
    mask = read_stored(item) if part is None else part
    if encoding.colours is None and not encoding.snap and mask.ndim == 2 and mask.dtype == np.uint8:
        table, wrong = _bytes(encoding, _ignored(encoding, ignore_index), classes)
        if not (np.bincount(mask.ravel(), minlength=256)[wrong]).any():
            quick: NDArray[np.uint8] = table[mask]
            return quick
    found = understood(mask, encoding, ignore_index, path)
    labels = found.labels
    strange = (labels == UNKNOWN) | ((labels != VOID) & (labels >= classes))
    _refuse(found, strange, item.encoding, path, f"0 to {classes - 1} ({classes} classes) or {ignore_index}")
    return labels.astype(np.uint8)


def decode(item: Item, ignore_index: int, part: NDArray[np.integer] | None = None) -> Decoded:
    """The item's mask file, read and understood as far as it can be. Raises DataError for one that cannot be read."""
    mask = read_stored(item) if part is None else part
    return understood(mask, item.encoding or PLAIN, ignore_index, mask_of(item))


def understood(mask: NDArray[np.integer], encoding: Encoding, ignore_index: int, path: Path) -> Decoded:
    """What is stored, as `read_mask` gives it, understood as far as it can be. Raises DataError naming `path`."""
    ignored = _ignored(encoding, ignore_index)
    if encoding.colours is None:
        stored = _one_band(mask, path)
        labels = _labels(stored, encoding, ignored)
        return _nearest_value(labels, stored, encoding) if encoding.snap else Decoded(labels, stored)
    stored, values, snapped = _colour_values(mask, encoding, path)
    labels = _labels(np.maximum(values, 0), encoding, ignored)
    labels[values == _TRANSPARENT] = VOID
    labels[values < _TRANSPARENT] = UNKNOWN
    return Decoded(labels, stored, snapped)


def colour_counts(path: Path, part: NDArray[np.integer] | None = None) -> Counter[Colour | None]:
    """How many pixels of a mask file, or of a part of it, have each colour; None: are transparent. Raises DataError."""
    array = read_mask(path, colours=True, lossy=True) if part is None else part
    if array.ndim == 2:
        raise DataError(f"{path}: holds one value a pixel; expected colours as in the other masks")
    packed, counts = np.unique(_packed(array), return_counts=True)
    found: Counter[Colour | None] = Counter()
    if array.shape[2] == 4:
        clear = array[..., 3] == 0
        if clear.any():
            found[None] = int(clear.sum())
        packed, counts = np.unique(_packed(array)[~clear], return_counts=True)
    for colour, count in zip(packed, counts, strict=True):
        found[unpacked(int(colour))] = int(count)
    return found


def unpacked(colour: int) -> Colour:
    """One number as (r, g, b)."""
    return colour >> 16, colour >> 8 & 255, colour & 255


def encoded(labels: NDArray[np.integer], encoding: Encoding | None, ignore_index: int, path: Path) -> NDArray[Any]:
    """Class indices (H, W) as the files of the encoding hold them: values (H, W), or colours (H, W, 3) uint8.

    Of several values or colours of a class the first is taken. Raises DataError where a class has none.
    """
    encoding = encoding or PLAIN
    ignored = _ignored(encoding, ignore_index)
    count = int(labels.max()) + 1 if labels.size else 0
    table = _meaning(encoding, ignored, HIGHEST + 1)
    sources: dict[int, Any] = {}
    if encoding.colours is not None:
        for r, g, b, value in encoding.colours:
            if value >= 0:
                sources.setdefault(int(table[value]), (r, g, b))
    else:
        first = np.unique(table, return_index=True)
        sources = {int(label): int(value) for label, value in zip(*first, strict=True)}
    lost = sorted(set(np.unique(labels).tolist()) - set(sources))
    if lost:
        raise DataError(f"{path}: the encoding ({encoding.text}) has nothing for the class index {short(lost)}")
    rows = [sources.get(index, sources[next(iter(sources))]) for index in range(count)]
    highest = max((int(np.max(row)) for row in rows), default=0)
    stored: NDArray[Any] = np.array(rows, dtype=np.uint8 if highest < 256 else np.uint16)[labels]
    return stored


def renamed(encoding: Encoding | None, ignore_index: int, order: list[int], text: str) -> Encoding:
    """`encoding` (None: class indices) followed by class index i -> order[i]; `ignore_index` is fixed in it."""
    base = encoding or PLAIN
    table = base.table if base.table is not None else tuple((index, index) for index in range(len(order)))
    mapped = tuple((value, VOID if index == VOID else order[index]) for value, index in table)
    own = (ignore_index,) if base.ignore is None else base.ignore
    return Encoding(mapped, base.reduce_zero, own, text, base.colours, base.snap)


def mask_of(item: Item) -> Path:
    """The mask file of an item. Raises DataError where there is none."""
    if item.mask is None:
        raise DataError(f"{item.image}: has no mask, but one was asked for")
    return item.mask


def _one_band(mask: NDArray[np.integer], path: Path) -> NDArray[np.integer]:
    if mask.ndim == 2:
        return mask
    raise DataError(
        f"{path}: found {mask.shape[0]}x{mask.shape[1]} pixels with {mask.shape[2]} bands; expected one band that "
        "holds a class index a pixel, as in the other masks. Colour-coded masks need all files to be so"
    )


def _labels(values: NDArray[np.integer], encoding: Encoding, ignored: tuple[int, ...]) -> NDArray[np.int32]:
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    if low >= 0 and high <= HIGHEST:
        known: NDArray[np.int32] = _meaning(encoding, ignored, 256 if high < 256 else HIGHEST + 1)[values]
        return known
    labels: NDArray[np.int32] = _meaning(encoding, ignored, HIGHEST + 1)[np.clip(values, 0, HIGHEST)]
    labels[(values < 0) | (values > HIGHEST)] = UNKNOWN
    labels[np.isin(values, ignored)] = VOID
    return labels


@lru_cache(maxsize=64)
def _meaning(encoding: Encoding, ignored: tuple[int, ...], length: int) -> NDArray[np.int32]:
    """(length,): the class index of each value, VOID for void, UNKNOWN for no meaning."""
    values = np.arange(length, dtype=np.int32)
    named = dict(encoding.table or ())
    void = np.isin(values, ignored)
    if encoding.reduce_zero:
        void |= (values == 0) | (values == VOID)
    elif VOID not in named:
        void |= values == VOID  # there are at most 255 classes, so it can be nothing else
    result = values - 1 if encoding.reduce_zero else values.copy()
    if encoding.table is not None:
        result = np.array([named.get(int(value), UNKNOWN) for value in result], dtype=np.int32)
    result[void] = VOID
    result.setflags(write=False)
    return result


@lru_cache(maxsize=64)
def _bytes(encoding: Encoding, ignored: tuple[int, ...], classes: int) -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
    """(256,) the label of each byte, and the bytes that mean nothing: the quick way for the masks that most have."""
    labels = _meaning(encoding, ignored, 256)
    wrong = (labels == UNKNOWN) | ((labels != VOID) & (labels >= classes))
    return np.where(wrong, VOID, labels).astype(np.uint8), np.flatnonzero(wrong)


def _ignored(encoding: Encoding, ignore_index: int) -> tuple[int, ...]:
    return (ignore_index,) if encoding.ignore is None else encoding.ignore


def _packed(colours: NDArray[np.integer]) -> NDArray[np.int32]:
    wide = colours[..., :3].astype(np.int32)
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


@lru_cache(maxsize=4)
def _colour_table(colours: tuple[tuple[int, int, int, int], ...]) -> NDArray[np.int16]:
    """(2**24,): the value of each colour plus 2, 0 for none; zeros take no memory until used."""
    table = np.zeros(2**24, np.int16)
    for r, g, b, value in colours:
        table[r << 16 | g << 8 | b] = value + 2
    return table


def _colour_values(
    mask: NDArray[np.integer], encoding: Encoding, path: Path
) -> tuple[NDArray[np.int32], NDArray[np.int32], int]:
    """Packed colours, their values (-1: void, -2: none), and how many were taken for the nearest."""
    assert encoding.colours is not None
    if mask.ndim == 2:
        raise DataError(f"{path}: holds one value a pixel; expected colours ({encoding.text}), as in the other masks")
    packed = _packed(mask)
    values = _colour_table(encoding.colours)[packed].astype(np.int32) - 2
    clear = None
    if mask.shape[2] == 4:
        clear = mask[..., 3] == 0
        values[(mask[..., 3] > 0) & (mask[..., 3] < 255)] = -2  # half transparent: the edge of something drawn smoothly
        values[clear] = _TRANSPARENT
    off = values == -2
    snapped = int(off.sum()) if encoding.snap else 0
    if snapped:
        which, places = np.unique(packed[off], return_inverse=True)
        values[off] = nearest_values(which, encoding)[places]
    return packed, values, snapped


def _nearest_value(labels: NDArray[np.int32], stored: NDArray[np.integer], encoding: Encoding) -> Decoded:
    off = labels == UNKNOWN
    if not off.any() or encoding.table is None or {value for value, _ in encoding.table} != {0, VOID}:
        return Decoded(labels, stored)  # between 0 and 255 there is a nearest; between other numbers it says nothing
    known = np.array([value for value, _ in encoding.table])
    meant = np.array([index for _, index in encoding.table])
    distance = np.abs(stored[off].astype(np.int64)[:, None] - known)
    labels[off] = meant[distance.argmin(1)]
    return Decoded(labels, stored, int(off.sum()))


def _refuse(found: Decoded, strange: NDArray[np.bool_], encoding: Encoding | None, path: Path, expected: str) -> None:
    """Raises DataError where a pixel means nothing: which values or colours, how many, what to do."""
    if not strange.any():
        return
    if encoding is not None and encoding.colours is not None:
        raise DataError(off_colours(found.stored, strange, encoding, path))
    if encoding is None or not encoding.text:
        raise DataError(out_of_range(found.stored, strange, expected or "class indices", path))
    values, count = [int(v) for v in np.unique(found.stored[strange])], int(strange.sum())
    raise DataError(f"{path}: found the values {short(values)} in {counted(count, 'pixel')}; expected {encoding.text}")


def off_colours(
    stored: NDArray[np.integer], strange: NDArray[np.bool_], encoding: Encoding, path: Path, most: int = 5
) -> str:
    """The message on colours that no class has: which, how many pixels, what is nearest, what to do."""
    colours, counts = np.unique(stored[strange], return_counts=True)
    lines = []
    for place in np.argsort(-counts, kind="stable")[:most]:
        colour = unpacked(int(colours[place]))
        _, near, distance = nearest_colour(colour, encoding)
        lines.append(f"{colour} {counts[place]} times (nearest {near}, {distance:.0f} away)")
    more = f" and {len(colours) - most} more" if len(colours) > most else ""
    share = 100 * int(strange.sum()) / strange.size
    return (
        f"{path}: found {int(strange.sum())} pixels ({share:.2g} %) of {len(colours)} colours that no class has: "
        f"{'; '.join(lines)}{more}; expected the colours of the classes ({encoding.text}). If a colour is a class, "
        "name it in dataset.yaml; if the file was stored with loss or drawn with smooth edges, --snap takes the "
        "nearest colour"
    )
