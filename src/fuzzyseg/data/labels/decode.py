"""Decoding mask files into class indices, according to their encodings."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fuzzyseg.data.io.header import read_header
from fuzzyseg.data.io.mask import read_mask
from fuzzyseg.data.sample import MAX_CLASSES, VOID, DataError, Encoding, Item
from fuzzyseg.data.text import counted, short

HIGHEST = 65535
"""Largest mask value that can be mapped."""

UNMAPPED = -1
"""Label of pixels whose value or colour has no class."""

PLAIN = Encoding()

Integers = NDArray[np.integer]
"""A mask as returned by `read_stored`, or class indices."""

_TRANSPARENT = -1  # void in Encoding.colours


@dataclass(frozen=True)
class Decoded:
    """A decoded mask.

    labels (H, W) int32: class indices, `VOID` or `UNMAPPED`. stored (H, W): values in the file, or packed colours (red
    * 65536 + green * 256 + blue). snapped: number of pixels assigned to the nearest colour or value.
    """

    labels: NDArray[np.int32]
    stored: NDArray[np.integer]
    snapped: int = 0


def read_stored(item: Item) -> NDArray[np.integer]:
    """Read an item's mask with `read_mask`, as its encoding requires. Raises DataError.

    The functions below accept rows of the result as `part` instead of reading the file.
    """
    encoding, path = item.encoding or PLAIN, mask_of(item)
    if dict(encoding.table or ()).get(VOID, VOID) != VOID and (nodata := read_header(path).nodata) is not None:
        raise DataError(
            f"{path}: declares {nodata:g} as the value of missing data, which is read as {VOID}, but {VOID} is a class "
            f"({encoding.text}): remove the tag (gdal_edit.py -unsetnodata FILE), or give missing pixels another value "
            "and set ignore_index"
        )
    coloured = encoding.colours is not None
    return read_mask(path, colours=coloured, lossy=coloured or encoding.snap)


def stored_labels(item: Item, part: NDArray[np.integer] | None = None) -> NDArray[np.integer]:
    """Return an item's mask as (H, W) class indices with `VOID`, or its values if it has no encoding.

    Raises DataError, including for items without a mask.
    """
    path = mask_of(item)
    mask = read_stored(item) if part is None else part
    if item.encoding is None:
        return _one_band(mask, path)
    decoded = decode_array(mask, item.encoding, VOID, path)
    _check(decoded, decoded.labels == UNMAPPED, item.encoding, path, "class indices")
    return decoded.labels


def training_labels(item: Item, *, classes: int, ignore_index: int, part: Integers | None = None) -> NDArray[np.uint8]:
    """Return an item's mask as (H, W) uint8 class indices, 255 for void. Raises DataError.

    ignore_index: void value in the dataset's files, used unless the item's encoding declares void values.
    """
    if classes > MAX_CLASSES:
        raise DataError(f"found {classes} classes; at most {MAX_CLASSES} are supported: merge some")
    path, encoding = mask_of(item), item.encoding or PLAIN
    mask = read_stored(item) if part is None else part
    if encoding.colours is None and not encoding.snap and mask.ndim == 2 and mask.dtype == np.uint8:
        table, bad_bytes = _byte_table(encoding, _ignored(encoding, ignore_index), classes)
        if not (np.bincount(mask.ravel(), minlength=256)[bad_bytes]).any():
            quick: NDArray[np.uint8] = table[mask]
            return quick
    decoded = decode_array(mask, encoding, ignore_index, path)
    invalid = invalid_labels(decoded.labels, classes)
    _check(decoded, invalid, item.encoding, path, f"0 to {classes - 1} ({classes} classes) or {ignore_index} (ignored)")
    return decoded.labels.astype(np.uint8)


def invalid_labels(labels: NDArray[np.int32], classes: int) -> NDArray[np.bool_]:
    """Return a bool array that is True where labels are neither a class index nor void."""
    return np.asarray((labels == UNMAPPED) | ((labels != VOID) & (labels >= classes)))


def decode_array(mask: NDArray[np.integer], encoding: Encoding, ignore_index: int, path: Path) -> Decoded:
    """Decode the result of `read_stored`; invalid pixels become UNMAPPED. Raises DataError with `path`."""
    ignored = _ignored(encoding, ignore_index)
    if encoding.colours is None:
        stored = _one_band(mask, path)
        labels = _labels(stored, encoding, ignored)
        return _snap_binary(labels, stored, encoding) if encoding.snap else Decoded(labels, stored)
    stored, values, snapped = _colour_values(mask, encoding, path)
    labels = _labels(np.maximum(values, 0), encoding, ignored)
    labels[values == _TRANSPARENT] = VOID
    labels[values < _TRANSPARENT] = UNMAPPED
    greys = _snap_binary(labels, values, encoding).snapped if encoding.snap else 0
    return Decoded(labels, stored, snapped + greys)


def unpack_colour(colour: Any) -> Any:
    """Split packed colours (an integer or an array) into r, g, b."""
    return colour >> 16, colour >> 8 & 255, colour & 255


def encode_labels(labels: Integers, encoding: Encoding | None, ignore_index: int, path: Path) -> NDArray[Any]:
    """Encode class indices (H, W) as values (H, W) or colours (H, W, 3) uint8, the inverse of `decode_array`.

    Uses the first value or colour of each class. Raises DataError for a class without one.
    """
    encoding = encoding or PLAIN
    ignored = _ignored(encoding, ignore_index)
    table = _lookup_table(encoding, ignored, HIGHEST + 1)
    if encoding.colours is None:
        values: Any = np.unique(table, return_index=True)[1]
        sources: dict[int, Any] = dict(zip(table[values].tolist(), values.tolist(), strict=True))
    else:
        pairs = [(int(table[value]), colour) for *colour, value in encoding.colours if value >= 0]
        sources = dict(reversed(pairs))
    if unencodable := sorted(set(np.unique(labels).tolist()) - set(sources)):
        raise DataError(f"{path}: the encoding ({encoding.text}) has no value for the class index {short(unencodable)}")
    count = int(labels.max()) + 1 if labels.size else 0
    rows = np.array([sources.get(index, next(iter(sources.values()))) for index in range(count)])
    stored: NDArray[Any] = rows.astype(np.uint16 if (rows > 255).any() else np.uint8)[labels]
    return stored


def remap_classes(encoding: Encoding | None, ignore_index: int, order: list[int], text: str) -> Encoding:
    """Make `encoding` (None: class indices) map class index i to order[i]. ignore_index: default void value."""
    base = encoding or PLAIN
    table = base.table if base.table is not None else tuple((index, index) for index in range(len(order)))
    mapped = tuple((value, VOID if index == VOID else order[index]) for value, index in table)
    ignore = (ignore_index,) if base.ignore is None else base.ignore
    return Encoding(mapped, base.reduce_zero, ignore, text, base.colours, base.snap)


def mask_of(item: Item) -> Path:
    """Return the mask file of an item. Raises DataError if it has none."""
    if item.mask is None:
        raise DataError(f"{item.image}: has no mask, but one is required")
    return item.mask


def _one_band(mask: NDArray[np.integer], path: Path) -> NDArray[np.integer]:
    if mask.ndim == 2:
        return mask
    raise DataError(f"{path}: found {mask.shape[2]} bands; expected one with a class index per pixel")


def _labels(values: NDArray[np.integer], encoding: Encoding, ignored: tuple[int, ...]) -> NDArray[np.int32]:
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    table = _lookup_table(encoding, ignored, 256 if high < 256 else HIGHEST + 1)
    labels: NDArray[np.int32] = table[values if low >= 0 and high <= HIGHEST else np.clip(values, 0, HIGHEST)]
    if low < 0 or high > HIGHEST:
        labels[(values < 0) | (values > HIGHEST)] = UNMAPPED
        labels[np.isin(values, ignored)] = VOID
    return labels


@lru_cache(maxsize=64)
def _lookup_table(encoding: Encoding, ignored: tuple[int, ...], length: int) -> NDArray[np.int32]:
    """Return a table (length,) that maps values to labels."""
    values = np.arange(length, dtype=np.int32)
    named = dict(encoding.table or ())
    void = np.isin(values, ignored)
    if encoding.reduce_zero:
        void |= (values == 0) | (values == VOID)
    elif VOID not in named:
        void |= values == VOID  # there are at most 255 classes, so 255 cannot be a class
    result = values - 1 if encoding.reduce_zero else values.copy()
    if encoding.table is not None:
        result = np.array([named.get(int(value), UNMAPPED) for value in result], dtype=np.int32)
    result[void] = VOID
    result.setflags(write=False)
    return result


@lru_cache(maxsize=64)
def _byte_table(
    encoding: Encoding, ignored: tuple[int, ...], classes: int
) -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
    """Return a table (256,) that maps bytes to labels, and the invalid bytes, as a fast path for 8-bit index masks."""
    labels = _lookup_table(encoding, ignored, 256)
    wrong = invalid_labels(labels, classes)
    return np.where(wrong, VOID, labels).astype(np.uint8), np.flatnonzero(wrong)


def _ignored(encoding: Encoding, ignore_index: int) -> tuple[int, ...]:
    return (ignore_index,) if encoding.ignore is None else encoding.ignore


def pack_colours(colours: NDArray[np.integer]) -> NDArray[np.int32]:
    """Pack colours (..., 3 or more) into one integer each: red * 65536 + green * 256 + blue."""
    wide = colours[..., :3].astype(np.int32)
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


@lru_cache(maxsize=4)
def _colour_table(colours: tuple[tuple[int, int, int, int], ...]) -> NDArray[np.int16]:
    """Return a table (2**24,) that maps packed colours to value + 2, or 0. Pages that stay zero use no memory."""
    table = np.zeros(2**24, np.int16)
    for r, g, b, value in colours:
        table[r << 16 | g << 8 | b] = value + 2
    return table


def _colour_values(mask: Integers, encoding: Encoding, path: Path) -> tuple[NDArray[np.int32], NDArray[np.int32], int]:
    """Return packed colours, their values (-1: void, -2: none), and the number of snapped pixels."""
    assert encoding.colours is not None
    if mask.ndim == 2:
        raise DataError(f"{path}: has one value per pixel; expected colours ({encoding.text}), as in the other masks")
    packed = pack_colours(mask)
    values = _colour_table(encoding.colours)[packed].astype(np.int32) - 2
    clear = None
    if mask.shape[2] == 4:
        clear = mask[..., 3] == 0
        values[(mask[..., 3] > 0) & (mask[..., 3] < 255)] = -2  # semi-transparent: an anti-aliased edge
        values[clear] = _TRANSPARENT
    off = values == -2
    snapped = int(off.sum()) if encoding.snap else 0
    if snapped:
        distinct, places = np.unique(packed[off], return_inverse=True)
        meant = np.array([value for *_, value in encoding.colours])
        values[off] = meant[nearest_colours(distinct, encoding)[0]][places]
    return packed, values, snapped


def _snap_binary(labels: NDArray[np.int32], stored: NDArray[np.integer], encoding: Encoding) -> Decoded:
    """Snap greys in masks of 0 and 255 (or 65535) to the nearer of the two. Other encodings are unchanged."""
    table = dict(encoding.table or ())
    if set(table) not in ({0, VOID}, {0, HIGHEST}):
        return Decoded(labels, stored)
    off = (labels == UNMAPPED) & (stored >= 0) & (stored <= (high := max(table)))
    labels[off] = np.where(2 * stored[off].astype(np.int64) < high, table[0], table[high])
    return Decoded(labels, stored, int(off.sum()))


def nearest_colours(packed: Integers, encoding: Encoding) -> tuple[NDArray[np.intp], NDArray[np.int32]]:
    """Find the nearest entry of `encoding.colours` for each packed colour (N,).

    Returns the entry's index (N,), the first one for ties, and the squared Euclidean distance in RGB (N,).
    """
    assert encoding.colours is not None
    channels = np.stack(unpack_colour(packed), 1)
    index, best = np.zeros(len(packed), np.intp), np.full(len(packed), np.iinfo(np.int32).max, np.int32)
    for place, (*colour, _) in enumerate(encoding.colours):  # a loop saves memory: lossy files may have 100,000 colours
        distance = ((channels - np.array(colour, np.int32)) ** 2).sum(1, dtype=np.int32)
        closer = distance < best
        index[closer], best[closer] = place, distance[closer]
    return index, best


def _check(decoded: Decoded, invalid: NDArray[np.bool_], encoding: Encoding | None, path: Path, expected: str) -> None:
    """Raise DataError with the values (or colours) and counts of any invalid pixels."""
    if not invalid.any():
        return
    if encoding is not None and encoding.colours is not None:
        raise DataError(_unmapped_colours(decoded.stored, invalid, encoding, path))
    if encoding is not None and encoding.text:
        expected = encoding.text
    values, (y, x) = np.unique(decoded.stored[invalid]).tolist(), np.argwhere(invalid)[0]
    raise DataError(
        f"{path}: found the values {short(values)} in {counted(int(invalid.sum()), 'pixel')}; expected {expected}. The "
        f"first is at row {y}, column {x}. If a value is void, set ignore_index to it; if it is a class, name all "
        "classes in dataset.yaml"
    )


def _unmapped_colours(stored: Integers, unmapped: NDArray[np.bool_], encoding: Encoding, path: Path) -> str:
    """Format the message on colours without a class, with pixel counts and the nearest class colours."""
    assert encoding.colours is not None
    colours, counts = np.unique(stored[unmapped], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:5]
    lines = [
        f"{unpack_colour(int(colours[place]))} {counts[place]} times (nearest {encoding.colours[index][:3]}, "
        f"distance {squared**0.5:.0f})"
        for place, index, squared in zip(order, *nearest_colours(colours[order], encoding), strict=True)
    ]
    more = f" and {len(colours) - len(order)} more" if len(colours) > len(order) else ""
    share = 100 * int(unmapped.sum()) / unmapped.size
    return (
        f"{path}: found {int(unmapped.sum())} pixels ({share:.2g} %) of {len(colours)} colours without a class: "
        f"{'; '.join(lines)}{more}; expected the colours of the classes ({encoding.text}). If a colour is a class, "
        "declare it in dataset.yaml; for lossy or anti-aliased masks, --snap uses the nearest colour"
    )
