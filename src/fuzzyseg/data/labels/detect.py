"""Which kind of mask a data set has, told from a few of its files; and the colours that its files hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from fuzzyseg.data.io.header import Header, read_header
from fuzzyseg.data.io.mask import palette_of, read_mask
from fuzzyseg.data.io.pillow import short
from fuzzyseg.data.labels.blocks import stored_parts
from fuzzyseg.data.labels.class_counts import each
from fuzzyseg.data.labels.decode import colour_counts
from fuzzyseg.data.sample import MAX_CLASSES, Colour, DataError, Encoding, Item

Kind = Literal["index", "palette", "colour"]

IN_COLOURS = Encoding(colours=())
"""Of a mask that is read as colours before it is known what they mean."""

HEADERS, SAMPLE = 200, 32
"""How many masks are looked at: headers alone, and pixels."""

RARE, NEAR, MANY = 1e-4, 24.0, 64
"""Colours found in files are doubted where one covers less than this share of the pixels, lies this near (in RGB) to
one that is 20 times as frequent, or where there are more than so many."""


def spread(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many items, evenly spaced."""
    step = max(1, -(-len(items) // most))
    return list(items[::step])


def kind_of(items: Sequence[Item], colours: set[Colour] | None, told: bool = False) -> tuple[Kind, str]:
    """The kind of the items' masks and what the files are, in words. colours: those of the classes, where known.

    told: what a palette means is said elsewhere. Raises DataError where files of two kinds lie together, or where a
    palette can be read in two ways.
    """
    looked = spread([item for item in items if item.mask is not None], HEADERS)
    heads = _headers([item.mask for item in looked if item.mask is not None])
    groups: dict[Kind, tuple[Path, Header]] = {}
    for path, head in heads:
        kind: Kind = "palette" if head.palette else "colour" if head.bands >= 3 else "index"
        groups.setdefault(kind, (path, head))
    if not groups:
        return "index", ""
    if "palette" in groups and not told and _by_palette([path for path, head in heads if head.palette], colours):
        groups.setdefault("colour", groups.pop("palette"))
    if "colour" in groups and len(groups) > 1:
        (a, _), (b, _) = groups["colour"], next(value for kind, value in groups.items() if kind != "colour")
        raise DataError(
            f"{a} is colour-coded and {b} holds one value a pixel; expected masks of one kind: put them into folders "
            "of their own (--more), or convert one of the kinds"
        )
    kind = "palette" if "palette" in groups else next(iter(groups))
    path, head = groups[kind]
    bits = f"{8 * np.dtype(head.dtype).itemsize}-bit"
    words = {
        "index": f"index masks ({bits} {head.format})",
        "palette": f"palette masks (their index counts; {head.format})",
        "colour": f"colour-coded masks ({'RGBA' if head.alpha else 'RGB'} {head.format})",
    }
    return kind, words[kind]


def _headers(paths: Sequence[Path]) -> list[tuple[Path, Header]]:
    """The headers of the files that have one. DataError where none has.

    A single damaged file says nothing of the others, and may be of an image whose mask is never read; where it is read,
    that says so.
    """
    found: list[tuple[Path, Header]] = []
    wrong: list[DataError] = []
    for path in paths:
        try:
            found.append((path, read_header(path)))
        except DataError as error:
            wrong.append(error)
    if wrong and not found:
        raise wrong[0]
    return found


def _by_palette(paths: Sequence[Path], colours: set[Colour] | None, most: int = 8) -> bool:
    """Whether the palette's colours, not the index, mean the class. Raises DataError where that cannot be told."""
    used: dict[int, tuple[Colour, Path]] = {}
    differ: tuple[int, Path, Path] | None = None
    everything: set[Colour] = set()
    for path in paths[:: max(1, len(paths) // most)][:most]:
        palette = palette_of(path) or []
        for index in np.unique(read_mask(path)).tolist():
            colour = palette[index] if index < len(palette) else (0, 0, 0)
            everything.add(colour)
            before, other = used.setdefault(index, (colour, path))
            if before != colour:
                differ = differ or (index, other, path)
    if differ is None:
        return False
    if colours is not None and everything <= colours:
        return True
    index, a, b = differ
    raise DataError(
        f"{a} and {b}: their palettes have different colours for index {index}, so either can mean the class; write "
        "encoding: index or encoding: colour into dataset.yaml"
    )


def found_colours(items: Sequence[Item]) -> tuple[Counter[Colour], int]:
    """How many pixels of the items' masks have each colour, and how many are transparent. Every mask is read.

    Raises DataError where every pixel is transparent.
    """
    total: Counter[Colour | None] = Counter()

    def look(item: Item) -> Counter[Colour | None]:
        assert item.mask is not None
        counts: Counter[Colour | None] = Counter()
        for _, part in stored_parts(replace(item, encoding=IN_COLOURS)):
            counts += colour_counts(item.mask, part)
        return counts

    for counts in each(items, look):
        total += counts
    clear = total.pop(None, 0)
    opaque: Counter[Colour] = Counter({colour: count for colour, count in total.items() if colour is not None})
    if not opaque:
        raise DataError(
            f"{items[0].mask} and {len(items) - 1} more masks: every pixel is transparent, which means void; save them "
            "without opacity (alpha)"
        )
    return opaque, clear


def doubtful(counts: Counter[Colour]) -> list[Colour]:
    """The colours of `counts` that may be no classes: rare ones, and ones that lie near to a far more frequent one."""
    pixels = sum(counts.values())
    doubted = {colour for colour, number in counts.items() if number < RARE * pixels}
    # Among the others alone: there are 1 / RARE of them at most, however many colours a lossy file holds.
    colours = sorted(set(counts) - doubted)
    table, numbers = np.array(colours, dtype=float), np.array([counts[colour] for colour in colours])
    for colour, place, number in zip(colours, table, numbers, strict=True):
        near = ((table - place) ** 2).sum(1) <= NEAR**2
        if (numbers[near] >= 20 * number).any():
            doubted.add(colour)
    return sorted(doubted)


def apart(counts: Counter[Colour], colours: Sequence[Colour]) -> list[Colour]:
    """The most frequent of `colours`, then the next ones that do not lie near to one before."""
    chosen: list[Colour] = []
    for colour in sorted(colours, key=lambda each: (-counts[each], each)):
        if not chosen or ((np.array(chosen) - colour) ** 2).sum(1).min() > NEAR**2:
            chosen.append(colour)
    return chosen


def check_found(counts: Counter[Colour], masks: int, snap: bool) -> list[Colour]:
    """The colours that are classes, sorted. Raises DataError where that cannot be told from the files.

    snap: doubtful colours are none; they will be taken for the nearest. Frequent ones that lie near to each other are
    asked about all the same: each may be a class, or what loss made of one.
    """
    doubted = set(doubtful(counts))
    kept = [colour for colour in sorted(counts) if not snap or colour not in doubted]
    frequent = apart(counts, [colour for colour in counts if colour not in doubted])
    unclear = len(frequent) < len(kept) if snap else bool(doubted) or len(kept) > MANY
    if not unclear and len(kept) <= MAX_CLASSES:
        return kept
    odd = sorted(doubted, key=lambda colour: (-counts[colour], colour))[:5]
    which = ", ".join(f"{colour} {counts[colour]} times" for colour in odd)
    hint = (
        "--snap then takes each other colour for the nearest"
        if snap
        else ("or, if they come from lossy or smoothed files, --snap takes each for the nearest frequent one")
    )
    raise DataError(
        f"{masks} colour-coded masks hold {len(counts)} colours, of which {len(doubted)} are rare or lie next to a "
        f"frequent one{': ' if which else ''}{which}. Say in dataset.yaml which colours are classes, such as "
        f"colours: {{road: {list(frequent[0]) if frequent else [128, 64, 128]}, ...}}; {hint}. Frequent, and apart "
        f"from each other, are: {short(frequent, 30)}"
    )
