"""Selection of validation images and of the remaining training images."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fuzzyseg.data.sample import DataError, DataSet, Item
from fuzzyseg.data.splits.groups import Groups, extras_in_groups, group_keys
from fuzzyseg.data.splits.spec import FOLD, parse_amount, parse_fold, read_list
from fuzzyseg.data.splits.stratify import shuffled, stratified
from fuzzyseg.data.text import counted, short

HELD_OUT = "1/5"
FEW = 20
"""Validation sets smaller than this cause a warning."""
MAX_READ = 200
"""Maximum number of validation images whose masks are read to find missing classes."""

Presence = Callable[[Sequence[Item]], NDArray[np.bool_]]
"""Function that maps items to the classes in their masks, (N,C)."""


def with_masks(items: Sequence[Item] | None) -> list[Item]:
    """Return the items that have a mask."""
    return [item for item in items or [] if item.mask is not None]


def need_masks(items: Sequence[Item], path: Path) -> None:
    """Raise DataError if an item of the list file `path` has no mask."""
    gaps = [item.name for item in items if item.mask is None]
    if gaps:
        raise DataError(f"{path}: lists {len(gaps)} images without a mask: {short(gaps)}; expected images with masks")


def validation_images(
    dataset: DataSet, named: Sequence[Item], val: str | None, seed: int, group: str | None, presence: Presence | None
) -> tuple[list[Item], str, list[str]]:
    """Return the validation images, a note on their source, and notes on their limitations.

    named: images from a list file; they remain labelled unless `fold:K/N` divides them into folds. presence: used for
    stratification by class. Default: no masks are read.
    """
    items, note = _select(dataset, named, val, seed, group, presence)
    return items, note, _shortcomings(dataset, items, presence, folds=(val or "").startswith(FOLD))


def _select(
    dataset: DataSet, named: Sequence[Item], val: str | None, seed: int, group: str | None, presence: Presence | None
) -> tuple[list[Item], str]:
    if val == "none":
        return [], "no validation (--val none)"
    if val is not None and (fold := parse_fold(val)) is not None:
        return _fold(list(named) or with_masks(dataset.train), *fold, seed, group, presence)
    folders = {name: items for name, items in (("val", dataset.val), ("test", dataset.test)) if items is not None}
    if val is None and with_masks(dataset.val):
        val = "val"
    if val in folders:
        return _folder(dataset, val, folders[val])
    pool = with_masks(dataset.train)
    what = "training images with masks, for validation"
    amount = parse_amount(val or HELD_OUT, len(pool), what, option="--val")
    if isinstance(amount, Path):
        if not amount.is_file():
            known = ", ".join([*folders, "none"])
            raise DataError(f"--val: found {val!r}; expected a fraction (0.2), a count, a list file, or one of {known}")
        return _listed(dataset, amount)
    kept = {item.name for item in named}
    keys = {} if group is None else keys_of(dataset.train, group)
    bound = {keys.get(name) for name in kept} - {None}  # groups of labelled training images are not held out
    free = [item for item in pool if item.name not in kept and keys.get(item.name) not in bound]
    if len(pool) < 2 or not free or amount >= len(pool) or (val is not None and amount > len(free)):
        raise DataError(
            f"{dataset.root}: {amount} validation images cannot be held out of {len(pool)} training images with masks, "
            f"{len(kept)} of them listed as labelled; add masks or a val folder, choose fewer, or use --val none"
        )
    groups = Groups(free, group)
    order = shuffled(groups.representatives, seed, "validation")
    first = groups.reached(order, amount)
    held_out = _parts(free, groups, [order[:first], order[first:]], None if kept else presence)[0]
    share = "a seeded fifth of" if val is None else f"{val} of"
    reason = "no val folder with masks: " if val is None else ""
    if group is not None:
        reason += f"whole groups ({group}), "
        if len(held_out) == len(pool):
            raise DataError(f"group: '{group}' puts all {len(pool)} images with masks into one group; use another rule")
    count = "" if share == f"{len(held_out)} of" else f", {len(held_out)},"
    return held_out, f"{reason}{share} the {len(pool)} training images with masks{count} held out for validation"


def _folder(dataset: DataSet, name: str, inside: Sequence[Item]) -> tuple[list[Item], str]:
    items = with_masks(inside)
    if not items:
        raise DataError(f"{dataset.root}: the {name} folder has no image with a mask; set --val to a fraction or none")
    gaps = len(inside) - len(items)
    return items, f"validation: {counted(len(items), 'image')} of {name}" + (f"; {gaps} have no mask" if gaps else "")


def _listed(dataset: DataSet, path: Path) -> tuple[list[Item], str]:
    """Return the images in a list file, or the validation images in the split.json of a run."""
    everyone = [item for items in (dataset.train, dataset.val, dataset.test) for item in items or []]
    if path.suffix == ".json":
        items = _recorded(path, everyone)
    else:
        items = read_list(path, everyone, dataset.root)
    need_masks(items, path)
    return items, f"validation: {counted(len(items), 'image')} of {path}"


def _recorded(path: Path, items: Sequence[Item]) -> list[Item]:
    known = {item.name: item for item in items}
    try:
        names = [str(name) for name in json.loads(path.read_text(encoding="utf-8"))["val"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise DataError(f"{path}: is not the split.json of a run; expected a list of names under val") from None
    if missing := [name for name in names if name not in known]:
        raise DataError(f"{path}: {len(missing)} of its validation images are missing in the data: {short(missing)}")
    return [known[name] for name in names]


def _fold(
    pool: list[Item], number: int, folds: int, seed: int, group: str | None, presence: Presence | None
) -> tuple[list[Item], str]:
    """Return one fold of the labelled images. The sizes of the folds differ by at most one group."""
    groups = Groups(pool, group)
    if folds > len(groups.members):
        what = "labelled images" if group is None else f"groups ({group}) of labelled images"
        raise DataError(f"--folds (data.val): found {folds} for {len(groups.members)} {what}; expected at most as many")
    order = shuffled(groups.representatives, seed, "validation")
    held_out = _parts(pool, groups, [order[place::folds] for place in range(folds)], presence)[number - 1]
    return held_out, f"fold {number} of {folds}: {len(held_out)} of the {len(pool)} labelled images for validation"


def _parts(items: list[Item], groups: Groups, parts: list[list[int]], presence: Presence | None) -> list[list[Item]]:
    """Convert lists of groups to lists of items, stratified by class unless `presence` is None."""
    if presence is not None:
        parts = stratified(parts, groups.presence(presence(items)), [len(places) for places in groups.members])
    return [[items[place] for group in part for place in groups.members[group]] for part in parts]


def keys_of(items: Sequence[Item], group: str) -> dict[str, str]:
    """Map item names to groups."""
    return dict(zip((item.name for item in items), group_keys(items, group), strict=True))


def without_validation(items: list[Item], val: list[Item], kept: set[str], group: str | None) -> tuple[list[Item], str]:
    """Exclude the items in `val` and, unless listed in `kept`, in its groups. Returns the rest, and a note."""
    val_names = {item.name for item in val}
    train = [item for item in items if item.name not in val_names]
    if group is None:
        return train, ""
    out = extras_in_groups(train, val, group)
    if len(train) < len(items):
        keys, scored = keys_of(train, group), set(keys_of(val, group).values())
        out |= {name for name, key in keys.items() if key in scored}
    outside_groups = [item for item in train if item.name not in out or item.name in kept]
    left = len(train) - len(outside_groups)
    return outside_groups, f"; {left} more images of its groups ({group}) are excluded from training" * (left > 0)


def _shortcomings(dataset: DataSet, val: Sequence[Item], presence: Presence | None, *, folds: bool) -> list[str]:
    """Return notes on missing classes and, except for folds, on too few validation images.

    With more than `MAX_READ` images, no masks are read, and only the evaluation reports classes without pixels.
    """
    lacking = []
    if presence is not None and 0 < len(val) <= MAX_READ:
        lacking = [name for name, count in zip(dataset.classes, presence(val).sum(0), strict=True) if not count]
    notes = [f"{', '.join(lacking)} not in the validation masks: the score excludes these classes"] if lacking else []
    if 0 < len(val) < FEW and not folds:
        text = f"{counted(len(val), 'validation image')}: a score on so few images depends on their choice"
        notes.append(f"{text}; `fuzzyseg compare --folds 5` validates on all labelled images in turn")
    return notes
