"""Which training images count as labelled, which are used without masks, and which are kept for validation.

Every order is made by hashing (purpose, seed, name), so it depends on nothing else: not on the platform, the versions
of other packages, or the order in which a file system lists files.
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

from fuzzyseg.data.labels.class_counts import presence
from fuzzyseg.data.sample import DataError, DataSet, Item
from fuzzyseg.data.splits.groups import Groups, beside, group_keys
from fuzzyseg.data.splits.spec import parse_amount, parse_every, read_list
from fuzzyseg.data.text import counted, short

__all__ = ["Policy", "Split", "labelled_order", "make_split", "parse_amount", "read_list", "shuffled"]

Policy = Literal["cover", "random"]

HELD_OUT = "1/5"


@dataclass
class Split:
    """The lists that a run trains and validates on.

    labelled: with masks, in the order they were chosen. unlabelled: items without masks (promise 2). all_: every
    training image, the labelled ones with masks. val, test: only items with masks. uncovered: classes that no labelled
    mask holds (empty for the policy random, which looks at no mask). policy: cover, random, list or all. hash: of the
    lists. held_out: validation images were taken from the training images. choose_best: there are enough labelled
    images to choose a checkpoint by validation. sentences: what was done, for the user.
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
    sentences: list[str]
    hash: str = ""

    def __post_init__(self) -> None:
        lists = {part: sorted(names) for part, names in self._names().items()}
        self.hash = hashlib.sha256(json.dumps(lists, sort_keys=True).encode()).hexdigest()[:16]

    def _names(self) -> dict[str, list[str]]:
        return {part: [item.name for item in getattr(self, part)] for part in ("labelled", "unlabelled", "val", "test")}

    def record(self) -> dict[str, Any]:
        """What is stored with the run: lists of names, policy, seed, hash and uncovered classes."""
        about = {key: getattr(self, key) for key in ("policy", "seed", "hash", "held_out", "choose_best", "uncovered")}
        return {**about, **self._names()}


def shuffled(items: Sequence[Item], seed: int, purpose: str) -> list[int]:
    """The indices of `items` in an order that follows from (purpose, seed) and the names alone."""

    def key(index: int) -> bytes:
        return hashlib.sha256(f"{purpose}|{seed}|{items[index].name}".encode()).digest()

    return sorted(range(len(items)), key=key)


def labelled_order(
    items: Sequence[Item], present: NDArray[np.bool_] | None, seed: int, policy: Policy = "cover"
) -> list[int]:
    """The one order of the items (with masks) per seed; N labelled images are its first N, hence nested.

    cover: as long as classes are uncovered, the image that holds the rarest of them (the one that the fewest images
    hold; among several, the first in the shuffle), then the rest as shuffled. random: the shuffle; `present` (N, C) is
    not looked at and may be None.
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
        raise DataError(f"{path}: names {len(bare)} images without a mask: {short(bare)}; expected images with masks")


def without_mask(items: Sequence[Item]) -> list[Item]:
    return [replace(item, mask=None) for item in items]


def _validation(
    dataset: DataSet, kept: set[str], val: str | None, seed: int, group: str | None
) -> tuple[list[Item], str]:
    """The validation images and a sentence on them. `kept`: names of training images that must stay labelled."""
    if val == "none":
        return [], "no validation, as asked for"
    folders = {name: items for name, items in (("val", dataset.val), ("test", dataset.test)) if items is not None}
    if val is None and _with_masks(dataset.val):
        val = "val"
    if val in folders:
        items = _with_masks(folders[val])
        if not items:
            raise DataError(
                f"{dataset.root}: the {val} folder has no image with a mask; give --val a fraction, or none"
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
    bound = {keys.get(name) for name in kept} - {None}  # a group that is learnt from is not held out
    free = [item for item in pool if item.name not in kept and keys.get(item.name) not in bound]
    if len(pool) < 2 or not free or amount >= len(pool) or (val is not None and amount > len(free)):
        raise DataError(
            f"{dataset.root}: {amount} validation images cannot be held out of {len(pool)} training images with masks, "
            f"{len(kept)} of them named as labelled; add masks or a val folder, ask for fewer, or use --val none"
        )
    groups = Groups(free, group)
    held = [free[index] for index in groups.first(shuffled(groups.heads, seed, "validation"), amount)]
    share = "a seeded fifth of" if val is None else f"{val} of"
    why = "no val folder with masks: " if val is None else ""
    if group is not None:
        why += f"whole groups ({group}), "
        if len(held) == len(pool):
            raise DataError(f"group: '{group}' puts all {len(pool)} images with masks into one group; use another rule")
    count = "" if share == f"{len(held)} of" else f", {len(held)},"
    return held, f"{why}{share} the {len(pool)} training images with masks{count} held out for validation"


def _keys(items: Sequence[Item], group: str) -> dict[str, str]:
    """The group of each item, by its name."""
    return dict(zip((item.name for item in items), group_keys(items, group), strict=True))


def _without(items: list[Item], val: list[Item], kept: set[str], group: str | None) -> tuple[list[Item], str]:
    """The items that are not for validation, nor in a group of those that are unless named as labelled; and words."""
    taken = {item.name for item in val}
    train = [item for item in items if item.name not in taken]
    if group is None:
        return train, ""
    out = beside(train, val, group)
    if len(train) < len(items):
        keys, scored = _keys(train, group), set(_keys(val, group).values())
        out |= {name for name, key in keys.items() if key in scored}
    apart = [item for item in train if item.name not in out or item.name in kept]
    left = len(train) - len(apart)
    return apart, f"; {left} more images of its groups ({group}) are left out of training" * (left > 0)


def _uncovered(names: Sequence[str], present: NDArray[np.bool_], chosen: Sequence[int]) -> tuple[list[str], list[str]]:
    """Classes that no chosen image holds, and sentences that say why."""
    anywhere = set(np.flatnonzero(present.any(0)).tolist())
    covered = set(np.flatnonzero(present[list(chosen)].any(0)).tolist())
    left = [name for index, name in enumerate(names) if index in anywhere - covered]
    nowhere = [name for index, name in enumerate(names) if index not in anywhere]
    sentences = [f"not covered by the {len(chosen)} labelled images: {', '.join(left)}"] if left else []
    sentences += [f"in none of the {len(present)} masks that were read: {', '.join(nowhere)}"] if nowhere else []
    return [name for index, name in enumerate(names) if index not in covered], sentences


def _wanted(dataset: DataSet, pool: list[Item], labelled: str | None) -> tuple[int | Path | None, list[Item]]:
    """What `labelled` asks for (a count of `pool`, a list file, None: all), and the images that a list names."""
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
    """The first `wanted` images of the labelled order of `pool` (None: all of it), classes they lack, and sentences."""
    present = None
    if policy == "cover":
        present = presence(pool, classes=len(dataset.classes), ignore_index=dataset.ignore_index)
    chosen = list(range(len(pool)))
    if wanted is not None:
        groups = Groups(pool, group)
        held = None if present is None else groups.presence(present)
        chosen = groups.first(labelled_order(groups.heads, held, seed, policy), wanted)
    uncovered, sentences = _uncovered(dataset.classes, present, chosen) if present is not None else ([], [])
    return [pool[index] for index in chosen], uncovered, sentences


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
    """Splits a data set's images; the same arguments give the same lists everywhere. Raises DataError.

    labelled: count, fraction of the training images that have masks (after holding out), list file, every:N (each Nth
    of those by name, from the first); None: all. val: fraction, count, list file, `val`, `test` or `none`; None: the
    val folder, or a fifth of the training images with masks. Validation images are taken out before the labelled ones
    are chosen, and are in no training list. policy cover reads the masks that can be chosen, once (promise 10); random
    none. unlabelled: images that are not labelled, or all. group: images that stay together (`group_keys`); whole ones
    are taken until the number is there, and what belongs to a group of validation images is in no training list, with
    mask or without. min_best: with fewer labelled images and some held out no best one is chosen.
    """
    if policy not in ("cover", "random"):
        raise DataError(f"found the policy {policy!r}; expected cover or random")
    pool = _with_masks(dataset.train)
    wanted, named = _wanted(dataset, pool, labelled)
    kept = {item.name for item in named}
    val_items, val_said = _validation(dataset, kept, val, seed, group)
    if both := sorted(kept & {item.name for item in val_items}):
        raise DataError(f"{short(both)}: named as labelled and as validation; expected them in one of the two lists")
    train, apart = _without(dataset.train, val_items, kept, group)
    if not (left := _with_masks(train)):
        raise DataError(f"{dataset.root}: validation takes all {len(pool)} training images with masks; ask for fewer")
    if isinstance(wanted, int):
        wanted = parse_amount(str(labelled), len(left), "images with masks not for validation", option="--labelled")
        assert isinstance(wanted, int)
        chosen, uncovered, sentences = _choose(dataset, left, wanted, seed, policy, group)
        said = f"{len(chosen)} of {len(left)} training images with masks are labelled (policy {policy}, seed {seed})"
        said += f": whole groups ({group}) until the {wanted} asked for are there" * (group is not None)
    else:
        chosen, uncovered, sentences = _choose(dataset, named or left, None, seed, policy)
        said = f"{len(chosen)} labelled images, " + (f"by {wanted}" if wanted else "all that have masks")
    names = {item.name for item in chosen}
    sources = [item for item in train if unlabelled == "all" or item.name not in names]
    held_out = len(train) < len(dataset.train)
    few = held_out and len(chosen) < min_best
    if few:
        sentences.append(f"fewer than {min_best} labelled images: no best checkpoint is chosen, the last one counts")
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
        sentences=[said, f"{len(sources)} images are used without masks", val_said + apart, *sentences],
    )
