"""Resolution of a dataset's label map from declared metadata and, if necessary, from its masks."""

from collections.abc import Sequence
from dataclasses import replace

from fuzzyseg.data.dataset_yaml import FILE
from fuzzyseg.data.io.header import read_header
from fuzzyseg.data.io.mask import palette_of
from fuzzyseg.data.labels.class_counts import ADVICE, count_classes, distinct_values
from fuzzyseg.data.labels.declared import DeclaredLabels, first_colours
from fuzzyseg.data.labels.decode import mask_of, remap_classes
from fuzzyseg.data.labels.detect import (
    HIGHS,
    SAMPLE,
    binary_labels,
    check_scales,
    count_colours,
    detect_kind,
    select_class_colours,
    subsample,
)
from fuzzyseg.data.labels.merge import merged
from fuzzyseg.data.labels.palettes import check_order, colour_names, colours_decide, note_other_colours
from fuzzyseg.data.sample import MAX_CLASSES, SPLITS, VOID, Colour, DataError, Encoding, Files, Item, LabelMap, attempt
from fuzzyseg.data.text import short

UNDECLARED = "none declared here: the class order of the training data is assumed"
GREY = Encoding(colours=tuple((v, v, v, v) for v in range(256)), text="index masks stored as RGB")
Resolved = tuple[LabelMap, list[str]]
"""A label map, and notes on how it was determined."""


def resolve_labels(declared: DeclaredLabels, files: Files) -> Resolved:
    """Determine the label map; masks are read only if declared metadata is insufficient.

    Sets the `encoding` of each item in `files` whose mask is not plain class indices. Raises DataError.
    """
    masks = {split: [i for i in files.splits.get(split, []) if i.mask is not None] for split in SPLITS}
    # Validation and test masks are examined only if there are no training masks.
    items = masks["train"] or [item for split in SPLITS for item in masks[split]]
    plain = [item for item in items if item.encoding is None]
    undeclared = [item for split in SPLITS for item in masks[split] if item.encoding is None]
    kind, words = detect_kind(plain)
    void = colours_decide(undeclared, declared) if kind == "palette" else None
    if void is not None:
        kind, words = "colour", "palette masks whose colours, not indices, are the classes"
    if kind == "palette" and declared.colours and not note_other_colours(declared, plain[0], declared.names or []):
        declared = replace(declared, disorder="")  # the colours confirm that the indices follow `names`
    base = None
    if declared.kind == "colour":
        kind = "colour"
    elif declared.kind is not None and kind == "colour":
        kind, base = "index", GREY
    if kind == "colour":
        labels, notes = _coloured(declared, plain, void)
    else:
        labels, notes = _indexed(declared, items, base)
        shown = declared.class_colours
        if shown is not None:
            labels = replace(labels, colours=shown if len(shown) == len(labels.classes) else None)
            notes = notes + (note_other_colours(declared, plain[0], labels.classes) if kind == "palette" else [])
        elif kind == "palette" and plain:
            labels = replace(labels, colours=_palette(plain[0], labels))
    grey = labels.encoding is not None and labels.encoding.colours == GREY.colours
    if (kind != "colour" or grey) and declared.public is None and VOID not in (declared.ignore or ()):
        notes = notes + check_scales(declared, labels, files, GREY if grey else None)
    order = None
    if declared.fallback is None or labels.classes is not declared.fallback.classes:  # the fallback is already merged
        labels, order = merged(declared.description, labels)
    _set_encodings(files, labels, order)
    ignore_index_used = dict((labels.encoding and labels.encoding.table) or ()).get(labels.ignore_index, VOID) != VOID
    if (kind != "colour" or grey) and not ignore_index_used:
        notes = [*notes, f"value {labels.ignore_index} is ignored"]
    elif void is None:
        words = ""  # the notes cover this
    return labels, [words, *notes] if words else notes


def _palette(item: Item, labels: LabelMap) -> list[Colour] | None:
    """Return the palette colours of the classes, if they are complete and distinct."""
    assert item.mask is not None
    palette = (palette_of(item.mask) or [])[: len(labels.classes)]
    plain = labels.encoding is None or labels.encoding.table is None
    return palette if plain and len(set(palette)) == len(labels.classes) else None


def _coloured(declared: DeclaredLabels, items: Sequence[Item], void: set[Colour] | None) -> Resolved:
    """Resolve the labels of colour-coded masks from declared colours, else from the fallback, else by detection.

    void: additional void colours of palette masks. None: not palette masks.
    """
    ignore, fallback, unseen = declared.ignore or (), declared.fallback, list[str]()
    if declared.colours is not None:
        table, source = declared.colours, f"from {declared.source}"
        names = declared.names or colour_names([colour for index, colour in table if index >= 0])
        unseen = _note_transparent(items, table, names)
    elif fallback is not None and fallback.encoding is not None and fallback.encoding.colours:
        colours = fallback.encoding.colours + tuple((*colour, -1) for colour in void or ())
        encoding = replace(fallback.encoding, colours=colours, snap=declared.snap or fallback.encoding.snap)
        note = f"{len(fallback.encoding.colours)} colours, as in the training data"
        return replace(fallback, encoding=encoding), [note, *_snap_note(encoding)]
    elif void is not None and fallback is not None and fallback.colours is not None:
        names, table, source = fallback.classes, list(enumerate(fallback.colours)), "as in the training data"
    else:
        counts, transparent = count_colours(items)
        if all(r == g == b for r, g, b in counts):
            labels, notes = _indexed(declared, items, GREY)
            return labels, [GREY.text, *notes]
        codes = select_class_colours(counts, len(items), declared.snap)
        if declared.names is not None:
            raise DataError(
                f"{items[0].mask}: is colour-coded, as others are; found the colours {short(codes, 40)}. Declare the "
                f"colour of each class in {FILE}, such as colours: {{{declared.names[0]}: {list(codes[0])}, ...}}"
            )
        names, table = colour_names(codes), list(enumerate(codes))
        source = "found in the files; name them in dataset.yaml (colours: {road: [r, g, b], ...})"
        if transparent:
            source += f"; {transparent} transparent pixels are ignored"
    if not 2 <= len(names) <= MAX_CLASSES:
        where = declared.source if declared.colours is not None else items[0].mask
        raise DataError(f"{where}: found {len(names)} colours; expected 2 to {MAX_CLASSES} classes: {ADVICE}")
    text = f"colour-coded, {len(table)} colours, {source}"
    entries = (*((*colour, index) for index, colour in table), *((*colour, -1) for colour in void or ()))
    encoding = Encoding(ignore=ignore, text=text, colours=entries, snap=declared.snap)
    labels = LabelMap(names, declared.void, encoding, first_colours(table))
    return labels, [text, *unseen, *_snap_note(encoding)]


def _note_transparent(items: Sequence[Item], table: Sequence[tuple[int, Colour]], names: list[str]) -> list[str]:
    """Return a warning if sampled masks have transparent pixels, which are void, but no opaque pixel of some class."""
    sample = [item for item in subsample(items, SAMPLE) if (head := attempt(read_header, mask_of(item))) and head.alpha]
    counts, transparent = count_colours(sample) if sample else ({}, 0)
    present = {index for index, colour in table if colour in counts}
    absent = [name for index, name in enumerate(names) if index not in present]
    return [
        f"warning: {item.mask} and others: no opaque pixel of {short(absent)}, but {transparent} transparent ones, "
        "which are void: if these are a class, save the masks without opacity (alpha)"
        for item in sample[:1]
        if transparent and absent
    ]


def _snap_note(encoding: Encoding) -> list[str]:
    return ["--snap: other colours become the nearest one; `fuzzyseg check --snap` counts them"] * encoding.snap


def _indexed(declared: DeclaredLabels, items: Sequence[Item], base: Encoding | None = None) -> Resolved:
    """Resolve the labels of index masks. base: encoding that maps stored data to indices. Default: identity."""
    names, ignore, description, first = declared.names, declared.ignore, declared.description, declared.void
    start = base or Encoding()
    if items and declared.disorder and declared.kind is None and description.values is None:
        raise DataError(f"{items[0].mask}: {declared.disorder}")
    table: list[tuple[int, int]] | None = None
    if description.values is not None and names is not None:
        table = [(value, names.index(name)) for name, values in description.values.items() for value in values]
        text = f"values of {len(names)} classes, from {FILE}: "
        if len(dict(table)) < len(table):
            raise DataError(f"{FILE}: values: a value is declared for two classes; expected one class per value")
    elif declared.rows is not None and names is not None:
        table = [(row, names.index(name) if name in names else VOID) for row, name in enumerate(declared.rows)]
        text = f"row numbers of {declared.source}: "
    if table is not None and names is not None:
        text += short([f"{value} {'void' if i == VOID else names[i]}" for value, i in sorted(table)], 40)
        return LabelMap(names, first, replace(start, table=tuple(table), ignore=ignore or (), text=text)), [text]
    if declared.kind == "binary":
        return binary_labels(declared, base)
    if description.reduce_zero_label:
        text = "0 is ignored and value v is class index v - 1 (reduce_zero_label)"
        offset = replace(start, reduce_zero=True, ignore=ignore or (), text=text)
        if names is not None:
            return LabelMap(names, first, offset), [f"{len(names)} classes, as declared", text]
        count, notes = count_classes([replace(item, encoding=offset) for item in items], VOID)
        return LabelMap([f"class_{i + 1}" for i in range(count)], first, offset), [*notes, text]
    public, fallback = declared.public, declared.fallback
    if public is not None and base is None:
        first = public.ignore_index if ignore is None else first
        text = f"{len(public.classes)} classes and ignore index {first}, as in {public.name}"
        return LabelMap(list(public.classes), first, _with_ignored(None, ignore)), [text]
    items = [replace(item, encoding=item.encoding or base) for item in items]
    if names is not None:
        return _named(names, items, base, declared)
    if fallback is not None:
        if _is_coloured(fallback):
            check_order(fallback, items)
            fallback = LabelMap(fallback.classes, VOID, base, fallback.colours)
        first = fallback.ignore_index if ignore is None else first
        return replace(fallback, ignore_index=first), [f"{len(fallback.classes)} classes, {UNDECLARED}"]
    if not items:
        raise DataError(
            f"no image has a mask: add masks (`fuzzyseg convert` draws those of LabelMe, COCO and CVAT), or declare "
            f"the classes in {FILE} (classes: [...])"
        )
    return _detected(declared, items, base)


def _named(names: list[str], items: Sequence[Item], base: Encoding | None, declared: DeclaredLabels) -> Resolved:
    """Resolve the labels of masks with named classes. A sample determines whether they are binary or start at 1."""
    ignore, fallback, first = declared.ignore, declared.fallback, declared.void
    if fallback is not None and fallback.classes == names and ignore is None and not _is_coloured(fallback):
        return fallback, [f"{len(names)} classes, as in the training data"]
    plain, notes = LabelMap(names, first, _with_ignored(base, ignore)), [f"{len(names)} classes, as declared"]
    undeclared = [item for item in items if item.encoding is base]
    if ignore is not None and len(names) == 2 and declared.kind is None and undeclared and fallback is None:
        _check_kept(undeclared, ignore, names)
    if ignore is not None or declared.kind is not None or not undeclared:
        return plain, notes
    values = set(distinct_values(subsample(undeclared, SAMPLE)))
    if len(names) == 2 and values in ({0, high} for high in HIGHS):
        return binary_labels(declared, base, max(values))
    inside = values - {VOID}
    if inside and max(inside) == len(names) and min(inside) >= 1:
        offset = _offset(len(names), base)
        return LabelMap(names, first, offset), [*notes, offset.text]
    if inside and max(inside) == len(names) and min(inside) == 0:
        raise DataError(
            f"{undeclared[0].mask} and others contain the values 0 to {len(names)}, but {len(names)} classes are "
            f"declared. Declare 0 as void (reduce_zero_label: true in {FILE}) or {len(names)} as void (ignore_index: "
            f"{len(names)}), or name the missing class"
        )
    return plain, notes


def _check_kept(items: Sequence[Item], ignore: Sequence[int], names: Sequence[str]) -> None:
    """Raise DataError if declared void values leave only one of two classes. Reads a sample, then all if needed."""
    for examined in (subsample(items, SAMPLE), items):
        values = set(distinct_values(examined, ignore))
        if len(values - {*ignore, VOID}) > 1 or not values & set(ignore):
            return
    ignored = sorted(values & set(ignore))
    raise DataError(
        f"{items[0].mask} and the other masks contain only the values {short(sorted(values))}, of which "
        f"{short(ignored)} is declared void (ignore_index), which leaves one class of {' and '.join(names)}: remove "
        f"ignore_index if {short(ignored)} is a class"
    )


def _detected(declared: DeclaredLabels, items: Sequence[Item], base: Encoding | None) -> Resolved:
    """Resolve undeclared labels from the values in all masks."""
    ignore = declared.ignore
    values = distinct_values(items, ignore or ())
    alike = all(item.encoding is base for item in items)
    if ignore is None and set(values) in ({0, high} for high in HIGHS) and alike:
        return binary_labels(declared, base, max(values))
    inside = set(values) - {VOID}
    if ignore is None and len(inside) >= 2 and min(inside) == 1 and alike:
        count, _ = count_classes(items, VOID, values)
        offset = _offset(count - 1, base)
        notes = [f"{count - 1} classes, detected in {len(items)} masks", offset.text]
        return LabelMap([f"class_{i}" for i in range(1, count)], VOID, offset), notes
    values = {value: item for value, item in values.items() if value not in (ignore or ())[1:]}
    first = declared.void
    count, notes = count_classes(items, first, values)
    public = declared.same_layout
    if public is not None and ignore is None and base is None and count == public.ignore_index + 1:
        text = f"values 0 to {count - 1} in {len(items)} masks: the classes of {public.name}, {count - 1} is void"
        return LabelMap(list(public.classes), public.ignore_index), [text]
    return LabelMap([f"class_{i}" for i in range(count)], first, _with_ignored(base, ignore)), notes


def _is_coloured(labels: LabelMap) -> bool:
    return labels.encoding is not None and labels.encoding.colours is not None


def _offset(count: int, base: Encoding | None) -> Encoding:
    """Return an encoding of values 1 to `count`. The value 0, which occurs in no mask, is invalid."""
    text = f"values 1 to {count} and never 0: value v is class index v - 1 (if 0 is void, reduce_zero_label: true)"
    return replace(base or Encoding(), table=tuple((i + 1, i) for i in range(count)), ignore=(), text=text)


def _with_ignored(base: Encoding | None, ignore: tuple[int, ...] | None) -> Encoding | None:
    """Add void values to `base`, unless an ignore index is sufficient."""
    if base is None and (ignore is None or (len(ignore) == 1 and ignore[0] >= 0)):
        return None
    text = base.text if base is not None else f"class indices, {short(ignore or ())} are void"
    return replace(base or Encoding(), ignore=ignore or (VOID,), text=text)


def _set_encodings(files: Files, labels: LabelMap, order: list[int] | None) -> None:
    """Set the encoding of each item with a mask."""

    def encoding_of(item: Item) -> Encoding | None:
        if item.mask is None:
            return None
        if item.encoding is None:
            return labels.encoding
        if order is None:
            return item.encoding
        return remap_classes(item.encoding, labels.ignore_index, order, item.encoding.text)

    if labels.encoding is not None or order is not None:
        files.change(lambda item: replace(item, encoding=encoding_of(item)))
