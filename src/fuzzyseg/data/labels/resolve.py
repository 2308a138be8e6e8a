"""What a data set's masks mean: settled once, from what is said of them and from the files, and told in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fuzzyseg.data.dataset_yaml import FILE, Description, nearest
from fuzzyseg.data.datasets.pairing import SPLITS
from fuzzyseg.data.io.mask import palette_of
from fuzzyseg.data.io.pillow import short
from fuzzyseg.data.labels.blocks import stored_parts
from fuzzyseg.data.labels.class_counts import ADVICE, count_classes, seen_values
from fuzzyseg.data.labels.declared import Said, colour_name
from fuzzyseg.data.labels.decode import decode, renamed
from fuzzyseg.data.labels.detect import SAMPLE, check_found, found_colours, kind_of, spread
from fuzzyseg.data.sample import MAX_CLASSES, VOID, Colour, DataError, Encoding, Files, Item, Meaning

GREY = Encoding(colours=tuple((v, v, v, v) for v in range(256)), text="index masks that are stored as RGB")
BINARY = ((0, 0), (VOID, 1))
Found = tuple[Meaning, list[str]]


def settle(said: Said, files: Files) -> Found:
    """What the masks mean, and sentences on how that was found; masks are read only where nothing else tells it.

    Each item's `encoding` is set in `files` where it is more than class indices. Raises DataError.
    """
    items = [item for part in SPLITS for item in files.splits.get(part, []) if item.mask is not None]
    # Validation and test masks are not looked at where there are others.
    items = [item for item in files.splits.get("train", []) if item.mask is not None] or items
    plain = [item for item in items if item.encoding is None]
    colours = None if said.colours is None else {colour for _, colour in said.colours}
    kind, words = kind_of(plain, colours, told=said.kind is not None)
    base = None
    if said.kind == "colour":
        kind = "colour"
    elif said.kind is not None and kind == "colour":
        kind, base = "index", GREY
    sentences = [words] if words else []
    if kind == "colour":
        meaning, more = _coloured(said, plain)
    else:
        everyone = sum(len(part) for part in files.splits.values())
        meaning, more = _indexed(said, items, base, everyone=everyone)
        shown = said.class_colours
        if shown is not None:
            meaning = replace(meaning, colours=shown if len(shown) == len(meaning.classes) else None)
        elif kind == "palette" and plain:
            meaning = replace(meaning, colours=_palette(plain[0], meaning))
    order = None
    if said.otherwise is None or meaning.classes is not said.otherwise.classes:  # those are merged already
        meaning, order = _merged(said.description, meaning)
    _attach(files, meaning, order)
    return meaning, [*sentences, *more]


def _palette(item: Item, meaning: Meaning) -> list[Colour] | None:
    """The palette's colours of the classes, if it has them all and they differ."""
    assert item.mask is not None
    palette = (palette_of(item.mask) or [])[: len(meaning.classes)]
    plain = meaning.encoding is None or meaning.encoding.table is None
    return palette if plain and len(set(palette)) == len(meaning.classes) else None


def _coloured(said: Said, items: Sequence[Item]) -> Found:
    """Masks of colours: by the colours that are given, else those of data of the same kind, else those in the files."""
    ignore = said.ignore or ()
    if said.colours is not None:
        table, source = said.colours, f"from {said.source}"
        names = said.names or [colour_name(colour) for _, colour in table if _ >= 0]
    elif said.otherwise is not None and said.otherwise.encoding is not None and said.otherwise.encoding.colours:
        usual = replace(said.otherwise.encoding, snap=said.snap or said.otherwise.encoding.snap)
        meaning = replace(said.otherwise, encoding=usual)
        return meaning, [f"{len(usual.colours or ())} colours, as in the data learnt from", *_snapped(meaning, items)]
    else:
        counts, clear = found_colours(items)
        if all(r == g == b for r, g, b in counts):
            meaning, sentences = _indexed(said, items, GREY)
            return meaning, [GREY.text, *sentences]
        found = check_found(counts, len(items), said.snap)
        if said.names is not None:
            raise DataError(
                f"{items[0].mask}: is colour-coded, as the other masks; found the colours {short(found, 40)}. Say in "
                f"{FILE} which is which, such as colours: {{{said.names[0]}: {list(found[0])}, ...}}"
            )
        names, table = [colour_name(colour) for colour in found], list(enumerate(found))
        source = "found in the files; name them in dataset.yaml (colours: {road: [r, g, b], ...})"
        if clear:
            source += f"; {clear} transparent pixels are ignored"
    if not 2 <= len(names) <= MAX_CLASSES:
        where = said.source if said.colours is not None else items[0].mask
        raise DataError(f"{where}: found {len(names)} colours; expected 2 to {MAX_CLASSES} classes: {ADVICE}")
    text = f"colour-coded, {len(table)} colours, {source}"
    encoding = Encoding(
        ignore=ignore, text=text, colours=tuple((*colour, index) for index, colour in table), snap=said.snap
    )
    firsts = {index: colour for index, colour in reversed(table) if index >= 0}
    meaning = Meaning(names, ignore[0] if ignore else VOID, encoding, [firsts[i] for i in range(len(names))])
    return meaning, [text, *_snapped(meaning, items)]


def _snapped(meaning: Meaning, items: Sequence[Item]) -> list[str]:
    """How many pixels of a sample are taken for the nearest colour."""
    if meaning.encoding is None or not meaning.encoding.snap or not items:
        return []
    looked = [replace(item, encoding=meaning.encoding) for item in spread(items, SAMPLE)]
    snapped = pixels = 0
    for item in looked:
        for _, part in stored_parts(item):
            found = decode(item, VOID, part)
            snapped, pixels = snapped + found.snapped, pixels + found.labels.size
    share = snapped / max(1, pixels)
    return [f"--snap: {100 * share:.2g} % of the pixels of {len(looked)} masks are taken for the nearest colour"]


def _indexed(said: Said, items: Sequence[Item], base: Encoding | None = None, everyone: int = 0) -> Found:
    """Masks of values. base: how values are made of what is stored, None where they are what is stored."""
    names, ignore, description = said.names, said.ignore, said.description
    first = VOID if ignore is None else ignore[0]
    if description.values is not None:
        assert names is not None
        table = tuple((value, names.index(name)) for name, values in description.values.items() for value in values)
        text = f"values of {len(names)} classes, from {FILE}: {_listed(names, dict(table))}"
        if len(dict(table)) < len(table):
            raise DataError(f"{FILE}: values: the same value is given to two classes; expected one class a value")
        return Meaning(names, first, replace(base or Encoding(), table=table, ignore=ignore or (), text=text)), [text]
    if said.rows is not None:
        assert names is not None
        places = {name: index for index, name in enumerate(names)}
        table = tuple((row, places.get(name, VOID)) for row, name in enumerate(said.rows))
        text = f"row numbers of {said.source}: {_listed(names, dict(table))}"
        return Meaning(names, first, replace(base or Encoding(), table=table, ignore=ignore or (), text=text)), [text]
    if said.kind == "binary":
        return _binary(names, ignore, said.snap, base)
    if description.reduce_zero_label:
        text = "0 is ignored and value v is class index v - 1 (reduce_zero_label)"
        offset = replace(base or Encoding(), reduce_zero=True, ignore=ignore or (), text=text)
        if names is not None:
            return Meaning(names, first, offset), [f"{len(names)} classes, as given", text]
        count, sentences = count_classes([replace(item, encoding=offset) for item in items], VOID)
        return Meaning([f"class_{i + 1}" for i in range(count)], first, offset), [*sentences, text]
    known = said.known
    if known is not None and base is None:
        first = known.ignore_index if ignore is None else first
        own = _ignoring(None, ignore)
        text = f"{len(known.classes)} classes and ignore index {first}, as in {known.name}"
        return Meaning(list(known.classes), first, own), [text]
    encoded = [replace(item, encoding=item.encoding or base) for item in items]
    if names is not None:
        return _named(names, ignore, first, encoded, base, said)
    if said.otherwise is not None:
        usual = said.otherwise
        if _in_colours(usual):
            usual = Meaning(usual.classes, VOID, base, usual.colours)
        first = usual.ignore_index if ignore is None else first
        return replace(usual, ignore_index=first), [f"{len(usual.classes)} classes, none named here"]
    if not items:
        raise DataError(
            f"the {everyone} images have no mask, so the number of classes is unknown; add masks, or name the "
            f"classes in {FILE} (classes: [...])"
        )
    return _counted(said, encoded, base, first)


def _named(
    names: list[str],
    ignore: tuple[int, ...] | None,
    first: int,
    items: Sequence[Item],
    base: Encoding | None,
    said: Said,
) -> Found:
    """Classes are named; where nothing is said of void, a few masks tell whether they begin at 1 or are binary."""
    own = [item for item in items if item.encoding is base]
    usual = said.otherwise
    if usual is not None and usual.classes == names and ignore is None and not _in_colours(usual):
        return usual, [f"{len(names)} classes, as in the data learnt from"]
    plain = Meaning(names, first, _ignoring(base, ignore))
    sentences = [f"{len(names)} classes, as given"]
    if ignore is not None or said.kind is not None or not own:
        return plain, sentences
    seen = set(seen_values(spread(own, SAMPLE)))
    if len(names) == 2 and seen == {0, VOID}:
        return _binary(names, None, said.snap, base)
    inside = seen - {VOID}
    if inside and max(inside) == len(names) and min(inside) >= 1:
        offset = _offset(len(names), base)
        return Meaning(names, first, offset), [*sentences, offset.text]
    if inside and max(inside) == len(names) and min(inside) == 0:
        raise DataError(
            f"{own[0].mask} and others hold the values 0 to {len(names)}, but {len(names)} classes are named: is 0 "
            f"void (write reduce_zero_label: true into {FILE}), is {len(names)} void (ignore_index: {len(names)}), or "
            "is a class without a name?"
        )
    return plain, sentences


def _counted(said: Said, items: Sequence[Item], base: Encoding | None, first: int) -> Found:
    """Nothing is said: every mask is read, and what the values are is told from them."""
    seen = seen_values(items, said.ignore or ())
    own = [item for item in items if item.encoding is base]
    if said.ignore is None and set(seen) == {0, VOID} and len(own) == len(items):
        return _binary(None, None, said.snap, base)
    inside = set(seen) - {VOID}
    if said.ignore is None and len(inside) >= 2 and min(inside) == 1 and len(own) == len(items):
        count, _ = count_classes(items, VOID, seen)
        offset = _offset(count - 1, base)
        sentences = [f"{count - 1} classes, found by reading {len(items)} masks", offset.text]
        return Meaning([f"class_{i}" for i in range(1, count)], VOID, offset), sentences
    seen = {value: item for value, item in seen.items() if value not in (said.ignore or ())[1:]}
    count, sentences = count_classes(items, first, seen)
    like = said.like
    if like is not None and said.ignore is None and base is None and count == like.ignore_index + 1:
        text = f"values 0 to {count - 1} in {len(items)} masks: taken for {like.name}'s classes, {count - 1} is void"
        return Meaning(list(like.classes), like.ignore_index), [text]
    return Meaning([f"class_{i}" for i in range(count)], first, _ignoring(base, said.ignore)), sentences


def _in_colours(meaning: Meaning) -> bool:
    return meaning.encoding is not None and meaning.encoding.colours is not None


def _offset(count: int, base: Encoding | None) -> Encoding:
    """Values 1 to `count`; 0, which no mask holds, has no meaning."""
    text = f"values 1 to {count} and never 0: value v is class index v - 1 (if 0 is void, reduce_zero_label: true)"
    return replace(base or Encoding(), table=tuple((i + 1, i) for i in range(count)), ignore=(), text=text)


def _ignoring(base: Encoding | None, ignore: tuple[int, ...] | None) -> Encoding | None:
    """`base` with values that are void, where that is more than one number says."""
    if base is None and (ignore is None or (len(ignore) == 1 and ignore[0] >= 0)):
        return None
    text = base.text if base is not None else f"class indices, {short(ignore or ())} are void"
    return replace(base or Encoding(), ignore=ignore or (VOID,), text=text)


def _binary(names: list[str] | None, ignore: tuple[int, ...] | None, snap: bool, base: Encoding | None) -> Found:
    if names is not None and len(names) != 2:
        raise DataError(f"encoding: binary masks hold two classes, 0 and 255, but {len(names)} are named; name two")
    names = names or ["background", "foreground"]
    text = f"binary masks: 0 is {names[0]}, 255 is {names[1]}"
    encoding = replace(base or Encoding(), table=BINARY, ignore=ignore or (), text=text, snap=snap)
    return Meaning(names, ignore[0] if ignore else VOID, encoding), [text]


def _listed(names: list[str], table: dict[int, int]) -> str:
    return short([f"{value} {'void' if index == VOID else names[index]}" for value, index in sorted(table.items())], 40)


def _merged(description: Description, meaning: Meaning) -> tuple[Meaning, list[int] | None]:
    """The meaning after `merge` and `ignore`, and the class index that each index so far becomes."""
    if not description.merge and not description.ignore:
        return meaning, None
    owner = {name: name for name in meaning.classes}
    gone = set(description.ignore or ())
    for new, parts in (description.merge or {}).items():
        for part in parts:
            if part not in owner:
                raise DataError(f"{FILE}: merge.{new}: found no class {part!r}.{nearest(part, meaning.classes)}")
            owner[part] = new
    for name in gone - set(owner):
        raise DataError(f"{FILE}: ignore: found no class {name!r}.{nearest(name, meaning.classes)}")
    names = list(dict.fromkeys(owner[name] for name in meaning.classes if name not in gone))
    order = [VOID if name in gone else names.index(owner[name]) for name in meaning.classes]
    if len(names) < 2:
        raise DataError(f"{FILE}: merge and ignore leave {len(names)} class; expected 2 or more")
    colours = meaning.colours and [meaning.colours[order.index(index)] for index in range(len(names))]
    joined = "; ".join(f"{new} of {', '.join(parts)}" for new, parts in (description.merge or {}).items())
    text = f"{len(meaning.classes)} classes of the files become {len(names)}" + (f": {joined}" if joined else "")
    text += f"; ignored: {', '.join(sorted(gone))}" if gone else ""
    before = f"{meaning.encoding.text}; " if meaning.encoding is not None else ""
    encoding = renamed(meaning.encoding, meaning.ignore_index, order, before + text)
    return Meaning(names, meaning.ignore_index, encoding, colours), order


def _attach(files: Files, meaning: Meaning, order: list[int] | None) -> None:
    """Gives each item the encoding of its mask."""

    def own(item: Item) -> Encoding | None:
        if item.mask is None:
            return None
        if item.encoding is None:
            return meaning.encoding
        if order is None:
            return item.encoding
        return renamed(item.encoding, meaning.ignore_index, order, item.encoding.text)

    if meaning.encoding is not None or order is not None:
        files.splits = {
            split: [replace(item, encoding=own(item)) for item in items] for split, items in files.splits.items()
        }
