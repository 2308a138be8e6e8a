"""What is said of a data set's masks before any is read: arguments, `dataset.yaml`, a class table, a label map."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fuzzyseg.data.dataset_yaml import FILE, Description, nearest
from fuzzyseg.data.io.pillow import short
from fuzzyseg.data.labels.class_lists import VOID_NAMES, class_table, read_class_table
from fuzzyseg.data.sample import Colour, DataError, Files, Item, Known, Meaning


@dataclass(frozen=True)
class Said:
    """What is known before any mask is read.

    names: of the classes, in the files' order. colours: (class, colour), class -1 for void; from `source`. ignore: the
    values for void, None where nothing is said. rows: all names of a class table that also names void, in its order.
    known: the public data set that these files are; like: the one that lies as they do. otherwise: what masks mean
    where nothing else is said.
    """

    description: Description
    names: list[str] | None
    colours: list[tuple[int, Colour]] | None
    source: str
    ignore: tuple[int, ...] | None
    kind: str | None
    snap: bool
    known: Known | None
    like: Known | None
    otherwise: Meaning | None
    rows: tuple[str, ...] | None = None

    @property
    def class_colours(self) -> list[Colour] | None:
        """The first colour of each class."""
        if self.colours is None:
            return None
        firsts = {index: colour for index, colour in reversed(self.colours) if index >= 0}
        return [firsts[index] for index in sorted(firsts)]


def said_of(
    root: Path,
    description: Description,
    files: Files,
    like: Known | None,
    *,
    classes: list[str] | None = None,
    ignore_index: int | None = None,
    otherwise: Meaning | None = None,
    encoding: str | None = None,
    snap: bool = False,
) -> Said:
    """Puts together arguments, `dataset.yaml`, a class table beside the data, and what the layout read. DataError."""
    table = None if description.has_colours or description.values else class_table(root)
    names, source, rows = classes or description.names, FILE, None
    colours: list[tuple[int, Colour]] | None = None
    if description.colours is not None:
        if names is None or len(names) == len(description.colours):
            colours = list(enumerate(description.colours))
    elif description.colours_of is not None:
        colours = _by_name(names, description.colours_of, FILE)
    elif table is not None:
        labels, source = read_class_table(table), table.name
        names = names or [label.name for label in labels if label.name.lower() not in VOID_NAMES]
        void = [(-1, label.colour) for label in labels if label.name not in names and label.name.lower() in VOID_NAMES]
        rest = {label.name: [label.colour] for label in labels if (-1, label.colour) not in void}
        colours = [*_by_name(names, rest, source), *void]
        rows = tuple(label.name for label in labels) if void else None
    elif files.colours is not None and files.classes is not None:
        names, source = names or files.classes, "labelmap.txt"
        if names == files.classes:
            colours = list(enumerate(files.colours))
    names = names or files.classes
    if colours is not None:
        colours += [(-1, colour) for colour in description.ignore_colours or ()]
        twice = [colour for colour in dict(c[::-1] for c in colours) if [c for _, c in colours].count(colour) > 1]
        if twice:
            raise DataError(f"{root / source}: the colour {twice[0]} is given twice; expected another for each class")
    ignore = None if description.ignore_index is None else (description.ignore_index, *(description.ignore_also or ()))
    ignore = ignore if ignore_index is None else (ignore_index,)
    everyone = [item for items in files.splits.values() for item in items]
    known = like if like and names in (None, list(like.classes)) and _is(like, everyone) else None
    kind = encoding or description.encoding
    return Said(description, names, colours, source, ignore, kind, snap, known, like, otherwise, rows)


def _is(known: Known, items: list[Item]) -> bool:
    """Whether these are files of the public data set, by their names."""
    return known.stem is None or all(known.stem.fullmatch(item.image.stem) for item in items)


def _by_name(names: list[str] | None, lists: dict[str, list[Colour]], source: str) -> list[tuple[int, Colour]]:
    names = names or list(lists)
    for wrong in [name for name in names if name not in lists]:
        raise DataError(f"{source}: has no colour for the class {wrong!r}.{nearest(wrong, list(lists))}")
    for wrong in [name for name in lists if name not in names]:
        raise DataError(
            f"{source}: has a colour for {wrong!r}, which is none of the classes {short(names)}: name it among them, "
            f"and leave it out with `ignore: [{wrong}]` in {FILE}"
        )
    return [(names.index(name), colour) for name, colours in lists.items() for colour in colours]


def colour_name(colour: Colour) -> str:
    """The name of a class that is known by its colour alone."""
    return "colour_{}_{}_{}".format(*colour)
