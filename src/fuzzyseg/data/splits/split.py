"""Selection of labelled, unlabelled and validation images.

Orders are made by hashing (purpose, seed, name), so that they are independent of the platform, of package versions and
of the order in which a file system lists files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fuzzyseg.data.labels.class_counts import class_presence
from fuzzyseg.data.sample import DataError, DataSet, Item
from fuzzyseg.data.splits.groups import Groups, extras_in_groups, group_keys
from fuzzyseg.data.splits.spec import parse_amount, parse_every, read_list
from fuzzyseg.data.text import counted, short

Policy = Literal["cover", "random"]

HELD_OUT = "1/5"


@dataclass
class Split:
    """The image lists of a run.

    labelled: with masks, in the order of selection. unlabelled: without masks (promise 2). all_: all training images,
    the labelled ones with masks. val, test: items with masks. uncovered: classes without a labelled mask (empty for the
    policy random, which reads no mask). policy: cover, random, list or all. held_out: validation images were taken from
    the training images. choose_best: there are enough labelled images to select a checkpoint by validation. notes:
    sentences for the user. hash: of the lists.
    """

    labelled: list[Item]
    unlabelled: list[Item]
    all_: list[Item]
    val: list[Item]
    test: list[Item]
    uncovered: list[str]
    policy: str
    seed: int
    held_out: bool
    choose_best: bool
    notes: list[str]
    hash: str = ""

    def __post_init__(self) -> None:
        lists = {part: sorted(names) for part, names in self._names().items()}
        self.hash = hashlib.sha256(json.dumps(lists, sort_keys=True).encode()).hexdigest()[:16]

    def _names(self) -> dict[str, list[str]]:
        return {part: [item.name for item in getattr(self, part)] for part in ("labelled", "unlabelled", "val", "test")}

    def record(self) -> dict[str, Any]:
        """Return the record stored with the run: names, policy, seed, hash, uncovered classes."""
        about = {key: getattr(self, key) for key in ("policy", "seed", "hash", "held_out", "choose_best", "uncovered")}
        return {**about, **self._names()}


def shuffled(items: Sequence[Item], seed: int, purpose: str) -> list[int]:
    """Return the indices of `items` in an order that depends only on (purpose, seed) and the names."""

    def key(index: int) -> bytes:
        return hashlib.sha256(f"{purpose}|{seed}|{items[index].name}".encode("utf-8", "surrogateescape")).digest()

    return sorted(range(len(items)), key=key)


def labelled_order(
    items: Sequence[Item], present: NDArray[np.bool_] | None, seed: int, policy: Policy = "cover"
) -> list[int]:
    """Return the order of items from which labelled images are taken: N are its first N, hence nested.

    cover: while a class is uncovered, the next image in the shuffle with the rarest uncovered class; then the rest of
    the shuffle. random: the shuffle; `present` (N, C) is unused and may be None.
    """
    order = shuffled(items, seed, "labelled")
    if policy == "random":
        return order
    assert present is not None
    images = present.sum(0)
    uncovered = images > 0
    chosen: list[int] = []
    while uncovered.any():
        rarest = uncovered & (images == images[uncovered].min())
        best = next(index for index in order if (present[index] & rarest).any())
        chosen.append(best)
        uncovered &= ~present[best]
    taken = set(chosen)
    return chosen + [index for index in order if index not in taken]


def _with_masks(items: Sequence[Item] | None) -> list[Item]:
    return [item for item in items or [] if item.mask is not None]


def _need_masks(items: Sequence[Item], path: Path) -> None:
    bare = [item.name for item in items if item.mask is None]
    if bare:
        raise DataError(f"{path}: lists {len(bare)} images without a mask: {short(bare)}; expected images with masks")


def without_mask(items: Sequence[Item]) -> list[Item]:
    """Return the items with their masks removed."""
    return [replace(item, mask=None) for item in items]


def _validation(
    dataset: DataSet, kept: set[str], val: str | None, seed: int, group: str | None
) -> tuple[list[Item], str]:
    """Return the validation images and a note. kept: names of training images that must stay labelled."""
    if val == "none":
        return [], "no validation (--val none)"
    folders = {name: items for name, items in (("val", dataset.val), ("test", dataset.test)) if items is not None}
    if val is None and _with_masks(dataset.val):
        val = "val"
    if val in folders:
        items = _with_masks(folders[val])
        if not items:
            raise DataError(
                f"{dataset.root}: the {val} folder has no image with a mask; use --val with a fraction, or none"
            )
        bare = len(folders[val]) - len(items)
        return items, f"validation: {counted(len(items), 'image')} of {val}" + (
            f"; {bare} have no mask" if bare else ""
        )
    pool = _with_masks(dataset.train)
    what = "training images with masks, for validation"
    amount = parse_amount(val or HELD_OUT, len(pool), what, option="--val")
    if isinstance(amount, Path):
        if not amount.is_file():
            known = ", ".join([*folders, "none"])
            raise DataError(
                f"found validation {val!r}, which is no file; expected a fraction (0.2), a count, a list file, or one "
                f"of {known}"
            )
        everyone = [item for items in (dataset.train, dataset.val, dataset.test) for item in items or []]
        items = read_list(amount, everyone, dataset.root)
        _need_masks(items, amount)
        return items, f"validation: {counted(len(items), 'image')} of {amount}"
    keys = {} if group is None else _keys(dataset.train, group)
    bound = {keys.get(name) for name in kept} - {None}  # groups of labelled training images are not held out
    free = [item for item in pool if item.name not in kept and keys.get(item.name) not in bound]
    if len(pool) < 2 or not free or amount >= len(pool) or (val is not None and amount > len(free)):
        raise DataError(
            f"{dataset.root}: {amount} validation images cannot be held out of {len(pool)} training images with masks, "
            f"{len(kept)} of them listed as labelled; add masks or a val folder, ask for fewer, or use --val none"
        )
    groups = Groups(free, group)
    held = [free[index] for index in groups.first(shuffled(groups.representatives, seed, "validation"), amount)]
    share = "a seeded fifth of" if val is None else f"{val} of"
    why = "no val folder with masks: " if val is None else ""
    if group is not None:
        why += f"whole groups ({group}), "
        if len(held) == len(pool):
            raise DataError(f"group: '{group}' puts all {len(pool)} images with masks into one group; use another rule")
    count = "" if share == f"{len(held)} of" else f", {len(held)},"
    return held, f"{why}{share} the {len(pool)} training images with masks{count} held out for validation"


def _keys(items: Sequence[Item], group: str) -> dict[str, str]:
    """Return the group of each item, by its name."""
    return dict(zip((item.name for item in items), group_keys(items, group), strict=True))


def _without(items: list[Item], val: list[Item], kept: set[str], group: str | None) -> tuple[list[Item], str]:
    """Return the items outside of validation and its groups (unless listed as labelled), and a note."""
    taken = {item.name for item in val}
    train = [item for item in items if item.name not in taken]
    if group is None:
        return train, ""
    out = extras_in_groups(train, val, group)
    if len(train) < len(items):
        keys, scored = _keys(train, group), set(_keys(val, group).values())
        out |= {name for name, key in keys.items() if key in scored}
    apart = [item for item in train if item.name not in out or item.name in kept]
    left = len(train) - len(apart)
    return apart, f"; {left} more images of its groups ({group}) are left out of training" * (left > 0)


def _uncovered(names: Sequence[str], present: NDArray[np.bool_], chosen: Sequence[int]) -> tuple[list[str], list[str]]:
    """Return the classes without a chosen image, and notes."""
    anywhere = set(np.flatnonzero(present.any(0)).tolist())
    covered = set(np.flatnonzero(present[list(chosen)].any(0)).tolist())
    left = [name for index, name in enumerate(names) if index in anywhere - covered]
    nowhere = [name for index, name in enumerate(names) if index not in anywhere]
    notes = [f"not covered by the {len(chosen)} labelled images: {', '.join(left)}"] if left else []
    notes += [f"in none of the {len(present)} masks: {', '.join(nowhere)}"] if nowhere else []
    return [name for index, name in enumerate(names) if index not in covered], notes


def _wanted(dataset: DataSet, pool: list[Item], labelled: str | None) -> tuple[int | Path | None, list[Item]]:
    """Parse `labelled` into a count, a list file or None (all), and return the images of a list."""
    if not pool:
        raise DataError(
            f"{dataset.root}: none of {len(dataset.train)} training images has a mask; expected at least one: put "
            "index masks of the same names into the mask folder"
        )
    if labelled is not None and (step := parse_every(labelled)) is not None:
        return Path(labelled), sorted(pool, key=lambda item: item.name)[::step]
    what = "training images with masks"
    wanted = None if labelled is None else parse_amount(labelled, len(pool), what, option="--labelled")
    if not isinstance(wanted, Path):
        return wanted, []
    named = read_list(wanted, dataset.train, dataset.root, [*(dataset.val or []), *(dataset.test or [])])
    _need_masks(named, wanted)
    return wanted, named


def _choose(
    dataset: DataSet, pool: list[Item], wanted: int | None, seed: int, policy: Policy, group: str | None = None
) -> tuple[list[Item], list[str], list[str]]:
    """Return the first `wanted` images (None: all) of the labelled order of `pool`, uncovered classes, and notes."""
    present = None
    if policy == "cover":
        present = class_presence(pool, classes=len(dataset.classes), ignore_index=dataset.ignore_index)
    chosen = list(range(len(pool)))
    if wanted is not None:
        groups = Groups(pool, group)
        held = None if present is None else groups.presence(present)
        chosen = groups.first(labelled_order(groups.representatives, held, seed, policy), wanted)
    uncovered, notes = _uncovered(dataset.classes, present, chosen) if present is not None else ([], [])
    return [pool[index] for index in chosen], uncovered, notes


def make_split(
    dataset: DataSet,
    *,
    labelled: str | None = None,
    val: str | None = None,
    seed: int = 0,
    policy: Policy = "cover",
    unlabelled: Literal["rest", "all"] = "rest",
    group: str | None = None,
    min_best: int = 10,
) -> Split:
    """Split the images of a dataset; the same arguments give the same lists on every platform. Raises DataError.

    labelled: count, fraction of the training images with masks (after holding out validation images), list file, or
    every:N (each Nth of these by name, from the first); None: all. val: fraction, count, list file, `val`, `test` or
    `none`; None: the val folder, or a fifth of the training images with masks. policy: cover reads the masks of the
    candidates, once (promise 10); random reads none. unlabelled: the images that are not labelled, or all. group: rule
    of images that stay together (`group_keys`); whole groups are taken until the number is reached, and groups of
    validation images are excluded from training. min_best: with fewer labelled images and held-out validation images,
    no best checkpoint is selected.
    """
    if policy not in ("cover", "random"):
        raise DataError(f"found the policy {policy!r}; expected cover or random")
    pool = _with_masks(dataset.train)
    wanted, named = _wanted(dataset, pool, labelled)
    kept = {item.name for item in named}
    val_items, val_note = _validation(dataset, kept, val, seed, group)
    if both := sorted(kept & {item.name for item in val_items}):
        raise DataError(f"{short(both)}: listed as labelled and as validation; expected them in one of the lists")
    train, apart = _without(dataset.train, val_items, kept, group)
    if not (left := _with_masks(train)):
        raise DataError(f"{dataset.root}: validation takes all {len(pool)} training images with masks; ask for fewer")
    if isinstance(wanted, int):
        wanted = parse_amount(str(labelled), len(left), "images with masks not for validation", option="--labelled")
        assert isinstance(wanted, int)
        chosen, uncovered, notes = _choose(dataset, left, wanted, seed, policy, group)
        note = f"{len(chosen)} of {len(left)} training images with masks are labelled (policy {policy}, seed {seed})"
        note += f": whole groups ({group}) until {wanted} are reached" * (group is not None)
    else:
        chosen, uncovered, notes = _choose(dataset, named or left, None, seed, policy)
        note = f"{len(chosen)} labelled images, " + (f"by {wanted}" if wanted else "all that have masks")
    names = {item.name for item in chosen}
    sources = [item for item in train if unlabelled == "all" or item.name not in names]
    held_out = len(train) < len(dataset.train)
    few = held_out and len(chosen) < min_best
    if few:
        notes.append(f"fewer than {min_best} labelled images: no best checkpoint is chosen, the last one counts")
    return Split(
        labelled=chosen,
        unlabelled=without_mask(sources),
        all_=[item if item.name in names else replace(item, mask=None) for item in train],
        val=val_items,
        test=_with_masks(dataset.test),
        uncovered=uncovered,
        policy=policy if isinstance(wanted, int) else "list" if named else "all",
        seed=seed,
        held_out=held_out,
        choose_best=bool(val_items) and not few,
        notes=[note, f"{len(sources)} images are used without masks", val_note + apart, *notes],
    )
