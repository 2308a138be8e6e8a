"""Detection of mask encodings, class colours and binary masks."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from fuzzyseg.data.io.header import Header, read_header
from fuzzyseg.data.labels.blocks import stored_parts
from fuzzyseg.data.labels.class_counts import map_items, values_of_each
from fuzzyseg.data.labels.declared import DeclaredLabels
from fuzzyseg.data.labels.decode import mask_of, pack_colours, unpack_colour
from fuzzyseg.data.sample import MAX_CLASSES, VOID, Colour, DataError, Encoding, Files, Item, LabelMap, attempt
from fuzzyseg.data.text import counted, short

S = TypeVar("S")

HEADERS, SAMPLE = 200, 32
"""Maximum number of headers and of masks to read."""

RARE, NEAR, MANY = 1e-4, 24.0, 64
"""A detected colour is doubtful if it covers less than RARE of the pixels, or if its distance in RGB to a colour 20
times as frequent is at most NEAR. More than MANY colours in total are doubtful as well."""


def subsample(items: Sequence[S], limit: int) -> list[S]:
    """Return at most `limit` evenly spaced items."""
    return list(items[:: max(1, -(-len(items) // limit))])


def detect_kind(items: Sequence[Item]) -> tuple[str, str]:
    """Return the kind of the masks (index, palette or colour) and a description.

    Raises DataError if only some masks are colour-coded.
    """
    groups: dict[str, tuple[Path, Header]] = {}
    sample = [mask_of(item) for item in subsample(items, HEADERS)]
    for path in sample:
        head = attempt(read_header, path)  # damaged masks raise an error only if they are read
        if head is not None:
            groups.setdefault("palette" if head.palette else "colour" if head.bands >= 3 else "index", (path, head))
    if not groups:
        for path in sample:  # all are damaged: raise the first error
            read_header(path)
        return "index", ""
    if "colour" in groups and len(groups) > 1:
        other = next(path for kind, (path, _) in groups.items() if kind != "colour")
        raise DataError(
            f"{groups['colour'][0]} is colour-coded and {other} contains one value per pixel; expected masks of one "
            "kind: put them into separate folders (--more), or convert one kind"
        )
    kind = "palette" if "palette" in groups else next(iter(groups))
    path, head = groups[kind]
    bits = f"{8 * np.dtype(head.dtype).itemsize}-bit"
    words = {
        "index": f"index masks ({bits} {head.format})",
        "palette": f"palette masks (the index is the class; {head.format})",
        "colour": f"colour-coded masks ({'RGBA' if head.alpha else 'RGB'} {head.format})",
    }
    return kind, words[kind]


def count_colours(items: Sequence[Item]) -> tuple[Counter[Colour], int]:
    """Count the pixels of each colour, and the transparent pixels.

    Raises DataError if transparent pixels leave fewer than two colours.
    """

    def count(item: Item) -> Counter[int]:  # by packed colour, -1: transparent
        counts: Counter[int] = Counter()
        for _, part in stored_parts(replace(item, encoding=Encoding(colours=()))):  # read as colours, not decoded
            if part.ndim == 2:
                raise DataError(f"{item.mask}: has one value per pixel; expected colours, as in the other masks")
            packed = pack_colours(part)
            if part.shape[2] == 4:
                packed[part[..., 3] == 0] = -1
            colours, numbers = np.unique(packed, return_counts=True)
            counts.update(dict(zip(colours.tolist(), numbers.tolist(), strict=True)))
        return counts

    total: Counter[int] = Counter()
    for counts in map_items(items, count):
        total += counts
    transparent = total.pop(-1, 0)
    opaque: Counter[Colour] = Counter({unpack_colour(colour): number for colour, number in total.items()})
    if not opaque:
        raise DataError(
            f"{items[0].mask} and {len(items) - 1} more masks: every pixel is transparent, which means void; save them "
            "without opacity (alpha)"
        )
    if transparent and len(opaque) == 1:
        raise DataError(
            f"{items[0].mask} and {len(items) - 1} more masks: contain one colour, {next(iter(opaque))}, and "
            "transparent pixels, which are void: if these are a class, save the masks without opacity (alpha)"
        )
    return opaque, transparent


def select_class_colours(counts: Counter[Colour], masks: int, snap: bool) -> list[Colour]:
    """Return the class colours, sorted. Raises DataError if they are ambiguous.

    snap: doubtful colours are not classes, and their pixels are assigned to the nearest class. Frequent colours that
    are close to each other still raise an error, because each may be a class or a compression artefact.
    """
    total = sum(counts.values())
    distinct: list[Colour] = []
    close: list[Colour] = []
    doubtful: list[Colour] = []
    for colour in sorted(counts, key=lambda colour: (-counts[colour], colour)):
        rare = counts[colour] < RARE * total
        near = [] if rare else [other for other in distinct if math.dist(other, colour) <= NEAR]
        if rare or any(counts[other] >= 20 * counts[colour] for other in near):
            doubtful.append(colour)
        else:
            (close if near else distinct).append(colour)
    unclear = bool(close) if snap else bool(doubtful) or len(counts) > MANY
    if not unclear and len(distinct) + len(close) <= MAX_CLASSES:
        return sorted(distinct + close)
    examples = ", ".join(f"{colour} {counts[colour]} times" for colour in doubtful[:5])
    hint = "or, for lossy or anti-aliased masks, assign each to the nearest frequent one with --snap"
    hint = "--snap then assigns the other colours to the nearest one" if snap else hint
    raise DataError(
        f"{masks} colour-coded masks contain {len(counts)} colours, of which {len(doubtful)} are rare or close to a "
        f"frequent one{': ' if examples else ''}{examples}. Declare the class colours in dataset.yaml, such as "
        f"colours: {{road: {list(distinct[0]) if distinct else [128, 64, 128]}, ...}}; {hint}. Frequent and distinct "
        f"colours: {short(distinct, 30)}"
    )


TABLE = ((0, 0), (VOID, 1))
FULL = {0, VOID}
HIGHS = (VOID, 2**16 - 1)
"""Object values in binary masks: the maximum of 8 or 16 bits."""


def binary_labels(declared: DeclaredLabels, base: Encoding | None, high: int = VOID) -> tuple[LabelMap, list[str]]:
    """Return the label map of masks with values 0 and `high`, and a note.

    Raises DataError if the number of declared names is not two.
    """
    names = declared.names or ["background", "foreground"]
    if len(names) != 2:
        raise DataError(f"encoding: binary masks have two classes, 0 and {high}; {len(names)} are declared: keep two")
    text, table = f"binary masks: 0 is {names[0]}, {high} is {names[1]}", ((0, 0), (high, 1))
    encoding = replace(base or Encoding(), table=table, ignore=declared.ignore or (), text=text, snap=declared.snap)
    return LabelMap(names, declared.void, encoding), [text]


def check_scales(declared: DeclaredLabels, labels: LabelMap, files: Files, base: Encoding | None) -> list[str]:
    """Check for masks with values 0 and 255, where 255 may be the object or void. Returns warnings.

    If masks are declared binary, sets the encodings of those with values 0 and 1 (or 65535). Otherwise, raises
    DataError if `labels` would decode 255 as void, or if there are also masks with values 0 and 1.
    """
    read = labels.encoding or Encoding()
    coloured = read.colours != (base and base.colours)
    named = dict(read.table or TABLE)  # a table without 255 makes it void, as class indices do
    other = 0 not in named or (VOID in named and read.table not in (None, TABLE))
    if labels.encoding is not None and (read.reduce_zero or coloured or other):
        return []

    def values(items: Sequence[Item]) -> list[set[int]]:
        return [set(distinct) for distinct in values_of_each([replace(item, encoding=base) for item in items])]

    masks = {
        split: [item for item in items if item.mask is not None and item.encoding is None]
        for split, items in files.splits.items()
    }
    if len(labels.classes) > 2:
        if declared.ignore is not None:
            return []
        samples = {split: subsample(items, SAMPLE) for split, items in masks.items()}
        return [note for split, items in samples.items() for note in _note_void_only(values(items), split)]
    all_items = [item for items in masks.values() for item in items]
    values_by_item = list(zip(all_items, values(all_items), strict=True))
    if declared.kind == "binary":
        rescaled: dict[Path | None, Encoding] = {}
        for high in (1, HIGHS[1]):
            text = f"binary masks: 0 is {labels.classes[0]}, {high} is {labels.classes[1]}"
            encoding = replace(read, table=((0, 0), (high, 1)), text=text)
            rescaled |= {item.mask: encoding for item, found in values_by_item if high in found and found <= {0, high}}
        files.change(lambda item: replace(item, encoding=rescaled.get(item.mask, item.encoding)))
        return [f"{len(rescaled)} masks contain 0 and 1 (or 65535), the others 0 and 255"] * bool(rescaled)
    ones = [item for item, found in values_by_item if 1 in found and found <= {0, 1, VOID}]
    full = [item for item, found in values_by_item if VOID in found and found <= FULL]
    if full and (ones or read.table != TABLE):
        conflict = f"{ones[0].mask} holds 1" if ones else "0 and 1 are expected"
        raise DataError(
            f"{full[0].mask} holds 0 and 255 ({counted(len(full), 'such mask')}), {conflict}. 255 can be "
            f"{labels.classes[1]!r} or void: declare `encoding: binary` in the dataset.yaml of this folder if it is "
            f"{labels.classes[1]!r}, or `ignore_index: 255` if it is void"
        )
    return []


def _note_void_only(values: Sequence[set[int]], split: str) -> list[str]:
    """Return a warning if most sampled masks of a split contain only 0 and 255, which is void."""
    count = sum(VOID in each and each <= FULL for each in values)
    if 2 * count <= len(values):
        return []
    return [
        f"warning: {count} of {counted(len(values), 'mask')} of {split} contain only 0 and 255, which is void: if 255 "
        f"is an object, correct these masks, or declare its value (values: {{name: 255, ...}} in dataset.yaml)"
    ]
