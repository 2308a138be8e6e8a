"""Interpretation of palette masks, whose classes are given by the indices or by the palette colours."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from fuzzyseg.data.dataset_yaml import FILE
from fuzzyseg.data.io.mask import palette_of, read_mask
from fuzzyseg.data.io.pillow import open_header
from fuzzyseg.data.labels.class_counts import map_items
from fuzzyseg.data.labels.declared import DeclaredLabels
from fuzzyseg.data.labels.decode import mask_of
from fuzzyseg.data.sample import VOID, Colour, DataError, Item, LabelMap, attempt

Palette = tuple[Colour, ...]
BLACK = (0, 0, 0)
DECLARE = "set encoding: index or encoding: colour in dataset.yaml"


def colours_decide(items: Sequence[Item], declared: DeclaredLabels) -> set[Colour] | None:
    """Return None if indices determine the classes; if colours do, return the unnamed colours whose indices are void.

    Colours determine the classes if they are named (declared, or known from the training data) and contradict the
    indices. The palettes of all files are compared; pixels are read only if palettes contradict each other or the
    indices.

    items: masks of all splits; those without a palette are skipped. Raises DataError if an index contradicts its named
    colour, or files disagree on the colour of an index, and some colour in use has no name.
    """
    if declared.kind is not None or declared.description.values or declared.description.reduce_zero_label:
        return None
    named, class_of = _named_colours(declared), partial(_class_of, declared)
    item_palettes = zip(items, map_items(items, _palette), strict=True)
    palettes = {mask_of(item): palette for item, palette in item_palettes if palette}
    known: dict[int, Colour] = {}
    if not any(
        known.setdefault(index, colour) != colour or _disagrees(index, palette, named, class_of)
        for palette in set(palettes.values())
        for index, colour in enumerate(palette)
    ):
        return None
    uses = map_items(list(palettes), lambda path: attempt(_indices, path) or [])
    colours: dict[int, Counter[Colour]] = {}
    files: dict[tuple[int, Colour], Path] = {}
    void: set[Colour] = set()
    others: list[tuple[Path, int, Colour]] = []
    for (path, palette), indices in zip(palettes.items(), uses, strict=True):
        for index in indices:
            colour = _colour(palette, index)
            if class_of(index) == VOID and (colour not in named or palette.count(colour) > 1):
                void |= {colour} - set(named)
                continue
            colours.setdefault(index, Counter())[colour] += 1
            files.setdefault((index, colour), path)
            others += [(path, index, colour)] * _disagrees(index, palette, named, class_of)
    several = [(index, counts) for index, counts in colours.items() if len(counts) > 1]
    if not others and not several:
        return None
    unnamed = next(((path, *place) for place, path in files.items() if place[1] not in named), None)
    if unnamed is None:
        return void
    if others:
        path, index, colour = others[0]
        raise DataError(
            f"{path}: index and colour disagree: index {index} is {_class(class_of(index))}, its colour {colour} is "
            f"declared as {_class(named[colour])}. {unnamed[0]}: index {unnamed[1]} has the colour {unnamed[2]}, which "
            f"has no class. Name it, or {DECLARE}"
        )
    index, counts = several[0]
    (usual, count), *_, (odd, few) = counts.most_common()
    raise DataError(
        f"{files[index, odd]} and {files[index, usual]}: their palettes have different colours for index {index} "
        f"({odd} in {few}, {usual} in {count} masks), so either could be the class; {DECLARE}"
    )


def note_other_colours(declared: DeclaredLabels, item: Item, names: list[str]) -> list[str]:
    """Return a warning if a class index has a palette colour that is not declared for the class."""
    if declared.kind is not None or declared.description.values or declared.description.reduce_zero_label:
        return []
    palette, places = palette_of(mask_of(item)) or [], declared.rows or names
    for place, (name, colour) in enumerate(zip(places, palette, strict=False)):
        expected = [other for index, other in declared.colours or () if name in names and index == names.index(name)]
        if expected and colour not in expected:
            return [
                f"warning: {item.mask}: index {place}, read as {name!r}, has the colour {colour} in the palette, but "
                f"{expected[0]} in {declared.source}: is the order of the classes right? If so, set encoding: index in "
                f"{FILE}"
            ]
    return []


def colour_names(colours: Sequence[Colour]) -> list[str]:
    """Return names for classes known only by their colour."""
    return ["colour_{}_{}_{}".format(*colour) for colour in colours]


def check_order(training: LabelMap, items: Sequence[Item]) -> None:
    """Raise DataError for index masks without a palette if training classes are known only by colour."""
    if items and training.classes == colour_names(training.colours or ()) and not palette_of(mask_of(items[0])):
        raise DataError(
            f"{items[0].mask}: contains class indices, but the training data defines its classes only by colour: use "
            f"colours, or declare the order in {FILE}, such as classes: {training.classes}"
        )


def _named_colours(declared: DeclaredLabels) -> dict[Colour, int]:
    """Map each declared colour, or else each colour of the fallback, to its class index (VOID for void)."""
    fallback = declared.fallback
    if declared.colours is not None:
        return {colour: VOID if index < 0 else index for index, colour in declared.colours}
    if fallback is not None and declared.names in (None, fallback.classes):
        if fallback.encoding is None:
            return {colour: index for index, colour in enumerate(fallback.colours or ())}
        if fallback.encoding.colours is not None and fallback.encoding.table is None:
            return {(r, g, b): VOID if i < 0 else i for r, g, b, i in fallback.encoding.colours}
    return {}


def _class_of(declared: DeclaredLabels, index: int) -> int | None:
    """Return the class index for a value: VOID for void, None if it has no class."""
    names = declared.names or (declared.fallback.classes if declared.fallback is not None else None)
    if declared.rows is not None and names is not None and index < len(declared.rows):
        return names.index(declared.rows[index]) if declared.rows[index] in names else VOID
    if index == VOID or index in (declared.ignore or ()):
        return VOID
    return index if names is None or index < len(names) else None


def _class(index: int | None) -> str:
    return "void" if index == VOID else "no class" if index is None else f"class {index}"


def _colour(palette: Palette, index: int) -> Colour:
    return palette[index] if index < len(palette) else BLACK


def _disagrees(index: int, palette: Palette, named: dict[Colour, int], class_of: Callable[[int], int | None]) -> bool:
    """Return whether the colour is declared for another class. Repeated void colours (padding) do not count."""
    colour, expected = _colour(palette, index), class_of(index)
    return colour in named and named[colour] != expected and not (expected == VOID and palette.count(colour) > 1)


def _palette(item: Item) -> Palette | None:
    """Return the palette of a mask, if any. None for unreadable files, which raise an error when decoded."""
    path = mask_of(item)
    try:
        with path.open("rb") as file:
            image = open_header(file)
            if image.mode not in ("P", "PA"):
                return None
            if image.format == "PNG" and image.palette is not None:  # known before the pixels are decoded
                data = bytes(image.palette.palette)
                return tuple(zip(data[::3], data[1::3], data[2::3], strict=True))
        return tuple(palette_of(path) or ())
    except (DataError, OSError, ValueError):
        return None


def _indices(path: Path) -> list[int]:
    indices: list[int] = np.unique(read_mask(path)).tolist()
    return indices
