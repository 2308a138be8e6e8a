"""Label metadata declared by the user or shipped with the dataset."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, Unpack

from fuzzyseg.data.dataset_yaml import FILE, Description
from fuzzyseg.data.labels.class_lists import IGNORE, VOID_NAMES, check_names, class_table, read_class_table
from fuzzyseg.data.sample import VOID, Colour, DataError, Files, LabelMap, PublicDataset
from fuzzyseg.data.text import nearest, repeated, short


class LabelOptions(TypedDict, total=False):
    """Label metadata given by the caller. It takes precedence over the dataset's files, except for `fallback`.

    classes: names in index order. ignore_index: void value in the files. fallback: label map to use if nothing else is
    declared. encoding: index, colour or binary. Default: detected. snap: see `Encoding`.
    """

    classes: list[str] | None
    ignore_index: int | None
    fallback: LabelMap | None
    encoding: str | None
    snap: bool


@dataclass(frozen=True)
class DeclaredLabels:
    """Label metadata known before any mask is read.

    names: class names in index order. colours: (class index, colour) pairs, index -1 for void, from the file `source`.
    ignore: void values; None: not declared. kind: encoding (index, colour, binary), if declared. snap: see `Encoding`.
    public: public dataset to which the files belong. same_layout: public dataset with the same layout. fallback: label
    map to use if nothing else is declared. rows: names in file order, from a class table or label map that contains
    void or repeats a class. disorder: error message if two files disagree on the class order, otherwise empty.
    """

    description: Description
    names: list[str] | None
    colours: list[tuple[int, Colour]] | None
    source: str
    ignore: tuple[int, ...] | None
    kind: str | None
    snap: bool
    public: PublicDataset | None
    same_layout: PublicDataset | None
    fallback: LabelMap | None
    rows: tuple[str, ...] | None = None
    disorder: str = ""

    @property
    def void(self) -> int:
        """The first void value; 255 if none is declared."""
        return self.ignore[0] if self.ignore else VOID

    @property
    def class_colours(self) -> list[Colour] | None:
        """The first colour of each class."""
        return None if self.colours is None else first_colours(self.colours)


def first_colours(colours: list[tuple[int, Colour]]) -> list[Colour]:
    """Return the first colour of each class, in index order, from (class index, colour) pairs."""
    firsts = {index: colour for index, colour in reversed(colours) if index >= 0}
    return [firsts[index] for index in sorted(firsts)]


def declared_labels(
    root: Path,
    description: Description,
    files: Files,
    same_layout: PublicDataset | None,
    **options: Unpack[LabelOptions],
) -> DeclaredLabels:
    """Collect label metadata from arguments, `dataset.yaml`, a class table and the layout's files. Raises DataError."""
    classes, ignore_index = options.get("classes"), options.get("ignore_index")
    if classes is not None:
        check_names(classes, str(root))
    table = None if description.has_colours or description.values else class_table(root)
    names, source, rows = classes or description.names, FILE, None
    rest = () if len(files.orders) > 1 else (IGNORE,)  # void shifts the indices if only one file lists it
    orders = {path: [n for n in dict.fromkeys(every) if n not in rest] for path, every in files.orders.items()}
    listed = next(iter(orders.values()), None)
    colours: list[tuple[int, Colour]] | None = None
    if description.colours is not None:
        if names is None or len(names) == len(description.colours):
            colours = list(enumerate(description.colours))
    elif description.colours_of is not None:
        colours = _by_name(names, description.colours_of, FILE)
    elif table is not None:
        labels, source = read_class_table(table), table.name
        orders = {table: [name for name, _ in labels if name.lower() not in VOID_NAMES], **orders}
        names = names or [name for name, _ in labels if name.lower() not in VOID_NAMES]
        void = [(-1, colour) for name, colour in labels if name not in names and name.lower() in VOID_NAMES]
        named = {name: [colour] for name, colour in labels if (-1, colour) not in void}
        colours = [*_by_name(names, named, source), *void]
        rows = tuple(name for name, _ in labels) if void else None
    elif files.colours is not None:
        (path, entries), names = list(files.orders.items())[-1], names or listed
        source, declared = path.name, orders[path]
        if names is not None and set(names) == set(declared):
            pairs = zip(entries, files.colours, strict=True)
            colours = [(names.index(name) if name in names else -1, colour) for name, colour in pairs]
            rows = tuple(entries) if declared != entries else None
    names = names or listed
    if colours is not None:
        colours += [(-1, colour) for colour in description.ignore_colours or ()]
        if twice := repeated([colour for _, colour in colours]):
            raise DataError(f"{root / source}: the colour {twice[0]} is declared twice; expected one class per colour")
    ignore = None if description.ignore_index is None else (description.ignore_index, *(description.ignore_also or ()))
    ignore = ignore if ignore_index is None else (ignore_index,)
    matches = same_layout and names in (None, list(same_layout.classes)) and _is(same_layout, files)
    return DeclaredLabels(
        description=description,
        names=names,
        colours=colours,
        source=source,
        ignore=ignore,
        kind=options.get("encoding") or description.encoding,
        snap=options.get("snap", False),
        public=same_layout if matches else None,
        same_layout=same_layout,
        fallback=options.get("fallback"),
        rows=rows,
        disorder="" if classes else _disorder({root / FILE: description.names or [], **orders}),
    )


def _disorder(orders: Mapping[Path, list[str]]) -> str:
    """Return an error message if another file contradicts the class indices of the first file, otherwise ''."""
    (first, names), *others = [each for each in orders.items() if each[1]] or [(Path(), [])]
    for path, other in others:
        for index, name in enumerate(other):
            if name in names and names.index(name) != index:
                return (
                    f"{first} and {path} list the classes in different orders: {name!r} is class {names.index(name)} "
                    f"in {first.name} and {index} in {path.name}, and these masks contain only indices. Correct or "
                    f"remove one of the files, or set encoding: index in {FILE}, for {first.name}"
                )
    return ""


def _is(public: PublicDataset, files: Files) -> bool:
    """Return whether the image names match those of the public dataset."""
    stems = (item.image.stem for items in files.splits.values() for item in items)
    return public.stem is None or all(map(public.stem.fullmatch, stems))


def _by_name(names: list[str] | None, colours: dict[str, list[Colour]], source: str) -> list[tuple[int, Colour]]:
    names = names or list(colours)
    for name in names:
        if name not in colours:
            raise DataError(f"{source}: has no colour for the class {name!r}.{nearest(name, list(colours))}")
    for name in colours:
        if name not in names:
            raise DataError(
                f"{source}: has a colour for {name!r}, which is not one of the classes {short(names)}: add it to them, "
                f"and exclude it with `ignore: [{name}]` in {FILE}"
            )
    return [(names.index(name), colour) for name, several in colours.items() for colour in several]
