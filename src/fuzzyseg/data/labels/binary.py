"""Binary masks: 0 and 255, or 0 and 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fuzzyseg.data.labels.class_counts import values_of_each
from fuzzyseg.data.labels.declared import DeclaredLabels
from fuzzyseg.data.labels.detect import SAMPLE, subsample
from fuzzyseg.data.sample import VOID, DataError, Encoding, Files, Item, LabelMap
from fuzzyseg.data.text import counted

TABLE = ((0, 0), (VOID, 1))
FULL = {0, VOID}
HIGHS = (VOID, 2**16 - 1)
"""Values of the object in masks with 0 and the highest value of 8 or 16 bits."""


def binary_labels(
    names: list[str] | None, ignore: tuple[int, ...] | None, snap: bool, base: Encoding | None, high: int = VOID
) -> tuple[LabelMap, list[str]]:
    """Return the label map of masks with 0 and `high`, and a note. Raises DataError for other than two names."""
    if names is not None and len(names) != 2:
        raise DataError(
            f"encoding: binary masks have two classes, 0 and {high}, but {len(names)} are declared; name two"
        )
    names = names or ["background", "foreground"]
    text = f"binary masks: 0 is {names[0]}, {high} is {names[1]}"
    encoding = replace(base or Encoding(), table=((0, 0), (high, 1)), ignore=ignore or (), text=text, snap=snap)
    return LabelMap(names, ignore[0] if ignore else VOID, encoding), [text]


def _mixed_scales(items: Sequence[Item], labels: LabelMap, declared: bool) -> dict[Item, Encoding]:
    """Return the encoding of the masks with 0 and 1 beside masks with 0 and 255.

    A mask with 0 and 255 has an object where 255 is its value, and none where 255 is void. items: masks of all splits,
    of two classes. labels: their label map. declared: whether binary masks are declared, so that both are read. Raises
    DataError if they are not, and there is a mask with 0 and 255 that `labels` reads as void, or masks of both kinds.
    """
    values = [set(found) for found in values_of_each(items)]
    ones = [item for item, found in zip(items, values, strict=True) if 1 in found and found <= {0, 1, VOID}]
    full = [item for item, found in zip(items, values, strict=True) if VOID in found and found <= FULL]
    is_binary = labels.encoding is not None and labels.encoding.table == TABLE
    if declared:
        base, encodings = labels.encoding or Encoding(), dict[Item, Encoding]()
        for high in (1, HIGHS[1]):
            text = f"binary masks: 0 is {labels.classes[0]}, {high} is {labels.classes[1]}"
            each = replace(base, table=((0, 0), (high, 1)), text=text)
            encodings |= {item: each for item, v in zip(items, values, strict=True) if high in v and v <= {0, high}}
        return encodings
    if full and (ones or not is_binary):
        beside = f"{ones[0].mask} holds 0 and 1" if ones else "0 and 1 are expected"
        raise DataError(
            f"{full[0].mask} holds 0 and 255 ({counted(len(full), 'such mask')}), {beside}. 255 can be "
            f"{labels.classes[1]!r} or void: declare `encoding: binary` in the dataset.yaml of this folder if it is "
            f"{labels.classes[1]!r}, or `ignore_index: 255` if it is void"
        )
    return {}


def check_scales(declared: DeclaredLabels, labels: LabelMap, files: Files, base: Encoding | None) -> list[str]:
    """Set the encodings of masks with 0 and 1 beside 0 and 255, if declared as binary; return warnings.

    Raises DataError if both occur and binary masks are not declared.
    """
    read = labels.encoding
    if read is not None and (read.reduce_zero or read.colours != (base and base.colours)):
        return []
    if read is not None and read.table not in (None, TABLE):
        return []
    masks = {
        split: [replace(item, encoding=base) for item in items if item.mask is not None and item.encoding is None]
        for split, items in files.splits.items()
    }
    if len(labels.classes) > 2:
        if declared.ignore is not None:
            return []
        return [note for name, items in masks.items() for note in _note_void_only(subsample(items, SAMPLE), name)]
    everything = [item for items in masks.values() for item in items]
    found = _mixed_scales(everything, labels, declared.kind == "binary")
    encodings = {item.mask: encoding for item, encoding in found.items()}
    for split, items in files.splits.items():
        files.splits[split] = [replace(i, encoding=encodings.get(i.mask, i.encoding)) for i in items]
    return [f"{len(found)} masks hold 0 and 1 (or 65535), the others 0 and 255"] * bool(found)


def _note_void_only(items: Sequence[Item], split: str) -> list[str]:
    """Return a warning if most masks of a sample of a split hold nothing but 0 and 255, which is void."""
    found = sum(VOID in values and set(values) <= FULL for values in values_of_each(items))
    if 2 * found <= len(items):
        return []
    return [
        f"warning: {found} of {counted(len(items), 'mask')} of {split} hold only 0 and 255, which is void: if 255 is "
        "an object, correct these masks, or declare its value (values: {name: 255, ...} in dataset.yaml)"
    ]
