"""Binary masks: 0 and 255, or 0 and 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

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


def check_scales(declared: DeclaredLabels, labels: LabelMap, files: Files, base: Encoding | None) -> list[str]:
    """Set the encodings of masks with 0 and 1 beside 0 and 255, if declared as binary; return warnings.

    A mask with 0 and 255 has an object where 255 is its value, and none where 255 is void. Raises DataError if binary
    masks are not declared, and there is a mask with 0 and 255 that `labels` reads as void, or masks of both kinds.
    """
    read = labels.encoding or Encoding()
    coloured = read.colours != (base and base.colours)
    if labels.encoding is not None and (read.reduce_zero or coloured or read.table not in (None, TABLE)):
        return []

    def values(items: Sequence[Item]) -> list[set[int]]:
        return [set(found) for found in values_of_each([replace(item, encoding=base) for item in items])]

    masks = {
        split: [item for item in items if item.mask is not None and item.encoding is None]
        for split, items in files.splits.items()
    }
    if len(labels.classes) > 2:
        if declared.ignore is not None:
            return []
        samples = {split: subsample(items, SAMPLE) for split, items in masks.items()}
        return [note for split, items in samples.items() for note in _note_void_only(values(items), split)]
    everything = [item for items in masks.values() for item in items]
    held = list(zip(everything, values(everything), strict=True))
    if declared.kind == "binary":
        own: dict[Path | None, Encoding] = {}
        for high in (1, HIGHS[1]):
            text = f"binary masks: 0 is {labels.classes[0]}, {high} is {labels.classes[1]}"
            encoding = replace(read, table=((0, 0), (high, 1)), text=text)
            own |= {item.mask: encoding for item, found in held if high in found and found <= {0, high}}
        files.change(lambda item: replace(item, encoding=own.get(item.mask, item.encoding)))
        return [f"{len(own)} masks hold 0 and 1 (or 65535), the others 0 and 255"] * bool(own)
    ones = [item for item, found in held if 1 in found and found <= {0, 1, VOID}]
    full = [item for item, found in held if VOID in found and found <= FULL]
    if full and (ones or read.table != TABLE):
        beside = f"{ones[0].mask} holds 0 and 1" if ones else "0 and 1 are expected"
        raise DataError(
            f"{full[0].mask} holds 0 and 255 ({counted(len(full), 'such mask')}), {beside}. 255 can be "
            f"{labels.classes[1]!r} or void: declare `encoding: binary` in the dataset.yaml of this folder if it is "
            f"{labels.classes[1]!r}, or `ignore_index: 255` if it is void"
        )
    return []


def _note_void_only(values: Sequence[set[int]], split: str) -> list[str]:
    """Return a warning if most masks of a sample of a split hold nothing but 0 and 255, which is void."""
    found = sum(VOID in each and each <= FULL for each in values)
    if 2 * found <= len(values):
        return []
    return [
        f"warning: {found} of {counted(len(values), 'mask')} of {split} hold only 0 and 255, which is void: if 255 is "
        "an object, correct these masks, or declare its value (values: {name: 255, ...} in dataset.yaml)"
    ]
