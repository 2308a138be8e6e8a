"""Detection of the mask encoding, and of class colours, from mask files."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fuzzyseg.data.io.header import Header, read_header
from fuzzyseg.data.labels.blocks import stored_parts
from fuzzyseg.data.labels.class_counts import map_items
from fuzzyseg.data.labels.decode import mask_of, pack_colours, unpack_colour
from fuzzyseg.data.sample import MAX_CLASSES, Colour, DataError, Encoding, Item, attempt
from fuzzyseg.data.text import short

HEADERS, SAMPLE = 200, 32
"""Number of masks examined: headers only, and pixels."""

RARE, NEAR, MANY = 1e-4, 24.0, 64
"""Detected colours are doubtful if they cover less than this share of the pixels, lie this near (in RGB) to a colour 20
times as frequent, or if there are more than this many."""


def subsample(items: Sequence[Item], most: int) -> list[Item]:
    """Return at most `most` evenly spaced items."""
    step = max(1, -(-len(items) // most))
    return list(items[::step])


def detect_kind(items: Sequence[Item]) -> tuple[str, str]:
    """Return the kind of the masks, and a description. Raises DataError for a mixture of kinds."""
    groups: dict[str, tuple[Path, Header]] = {}
    sample = [mask_of(item) for item in subsample(items, HEADERS)]
    for path in sample:
        head = attempt(read_header, path)  # a damaged mask may never be read; otherwise reading reports it
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
    """Count pixels per colour, and transparent pixels, in all masks. Raises DataError if all are transparent."""

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
    return opaque, transparent


def select_class_colours(counts: Counter[Colour], masks: int, snap: bool) -> list[Colour]:
    """Return the colours that are classes, sorted. Raises DataError if the files do not tell.

    snap: doubtful colours are no classes; pixels of these are assigned to the nearest class. Frequent colours near to
    each other are an error even then: each may be a class, or a compression artefact.
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
