"""Selection of labelled, unlabelled and validation images.

Images are ordered by a hash of (purpose, seed, name), which does not depend on the platform, on package versions, or on
the order in which a file system lists files.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fuzzyseg.data.labels.class_counts import class_presence, pixel_counts
from fuzzyseg.data.sample import DataError, DataSet, Item
from fuzzyseg.data.splits.groups import Groups
from fuzzyseg.data.splits.spec import FOLD, parse_amount, parse_every, read_list
from fuzzyseg.data.splits.stratify import shuffled
from fuzzyseg.data.splits.validation import Presence, need_masks, validation_images, with_masks, without_validation
from fuzzyseg.data.text import counted, short

Policy = Literal["cover", "random"]
MIN_BEST = 10
"""Minimum number of labelled images for selecting a best checkpoint when validation images are held out of the training
images."""


@dataclass
class Split:
    """Image lists of a run.

    labelled: items with masks, in order of selection. unlabelled: items whose masks are never read. all_: all training
    images, the labelled ones with masks. val, test: items with masks. uncovered: classes that no labelled mask contains
    (empty for the policy random, which reads no masks). policy: cover, random, list or all. held_out: whether
    validation images were taken from the training images. choose_best: whether validation selects the best checkpoint,
    which requires enough images. notes: messages for the user. hash: hash of the lists.
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
        """Return the values stored with the run: names, policy, seed, hash, uncovered classes."""
        values = {key: getattr(self, key) for key in ("policy", "seed", "hash", "held_out", "choose_best", "uncovered")}
        return {**values, **self._names()}


def labelled_order(items: Sequence[Item], present: NDArray[np.bool_] | None, seed: int) -> list[int]:
    """Return the order in which items become labelled. The first N are labelled, so sets of different sizes are nested.

    While a class is uncovered, the next item is the first in shuffled order that contains the rarest such class; the
    others follow in shuffled order. present: (N,C), the classes of each item. Default: only shuffle.
    """
    order = shuffled(items, seed, "labelled")
    if present is None:
        return order
    images = present.sum(0)
    uncovered = images > 0
    chosen: list[int] = []
    while uncovered.any():
        rarest = uncovered & (images == images[uncovered].min())
        best = next(index for index in order if (present[index] & rarest).any())
        chosen.append(best)
        uncovered &= ~present[best]
    selected = set(chosen)
    return chosen + [index for index in order if index not in selected]


def without_mask(items: Sequence[Item]) -> list[Item]:
    """Return the items with their masks removed."""
    return [replace(item, mask=None) for item in items]


def _uncovered(names: Sequence[str], present: NDArray[np.bool_], chosen: Sequence[int]) -> tuple[list[str], list[str]]:
    """Return the classes that no chosen image contains, and notes."""
    anywhere = set(np.flatnonzero(present.any(0)).tolist())
    covered = set(np.flatnonzero(present[list(chosen)].any(0)).tolist())
    left = [name for index, name in enumerate(names) if index in anywhere - covered]
    nowhere = [name for index, name in enumerate(names) if index not in anywhere]
    notes = [f"not covered by the {len(chosen)} labelled images: {', '.join(left)}"] if left else []
    notes += [f"in none of the {len(present)} masks: {', '.join(nowhere)}"] if nowhere else []
    return [name for index, name in enumerate(names) if index not in covered], notes


def _labelled_amount(dataset: DataSet, pool: list[Item], labelled: str | None) -> tuple[int | Path | None, list[Item]]:
    """Parse `labelled` as a count, a list file or None (all). Also returns the images in the list."""
    if not pool:
        raise DataError(
            f"{dataset.root}: none of {len(dataset.train)} training images has a mask; expected at least one: put "
            "index masks of the same names into the mask folder"
        )
    if labelled is not None and (step := parse_every(labelled)) is not None:
        return Path(labelled), sorted(pool, key=lambda item: item.name)[::step]
    what = "training images with masks"
    amount = None if labelled is None else parse_amount(labelled, len(pool), what, option="--labelled")
    if not isinstance(amount, Path):
        return amount, []
    named = read_list(amount, dataset.train, dataset.root, [*(dataset.val or []), *(dataset.test or [])])
    need_masks(named, amount)
    return amount, named


def _presence_of(dataset: DataSet) -> Presence:
    """Return a function that maps items to the classes in their masks, (N,C), and reads each mask once."""
    known: dict[str, NDArray[np.bool_]] = {}

    def presence(items: Sequence[Item]) -> NDArray[np.bool_]:
        new = [item for item in items if item.name not in known]
        rows = class_presence(new, classes=len(dataset.classes), ignore_index=dataset.ignore_index)
        known.update(zip((item.name for item in new), rows, strict=True))
        return np.array([known[item.name] for item in items]).reshape(len(items), len(dataset.classes))

    return presence


def _choose(
    dataset: DataSet, pool: list[Item], amount: int | None, seed: int, presence: Presence | None, group: str | None
) -> tuple[list[Item], list[str], list[str]]:
    """Return the first `amount` images in the labelled order (None: all), the uncovered classes, and notes."""
    present = None if presence is None else presence(pool)
    chosen = list(range(len(pool)))
    if amount is not None:
        groups = Groups(pool, group)
        group_presence = None if present is None else groups.presence(present)
        chosen = groups.first(labelled_order(groups.representatives, group_presence, seed), amount)
    uncovered, notes = _uncovered(dataset.classes, present, chosen) if present is not None else ([], [])
    return [pool[index] for index in chosen], uncovered, notes


def _described(chosen: int, of: int, amount: int | Path | None, method: str, group: str | None) -> str:
    """Format the note on the labelled images."""
    if not isinstance(amount, int):
        return f"{chosen} labelled images, " + (f"by {amount}" if amount else "all that have masks")
    groups = f": whole groups ({group}) until {amount} are reached" * (group is not None)
    return f"{chosen} of {of} training images with masks are labelled ({method}){groups}"


def _with_void(dataset: DataSet, chosen: Sequence[Item], notes: list[str]) -> set[str]:
    """Return the names of labelled images that have void pixels, and add a note."""
    counts = pixel_counts(chosen, classes=len(dataset.classes), ignore_index=dataset.ignore_index)
    partly = {item.name for item, count in zip(chosen, counts, strict=True) if count[-1]}
    notes.append(f"{counted(len(partly), 'labelled image')} with void pixels are used without masks, too")
    return partly


def make_split(
    dataset: DataSet,
    *,
    labelled: str | None = None,
    val: str | None = None,
    seed: int = 0,
    policy: Policy = "cover",
    unlabelled: Literal["rest", "all"] = "rest",
    void: Literal["ignored", "unlabelled"] = "ignored",
    group: str | None = None,
    presence: Presence | None = None,
) -> Split:
    """Split the images of a dataset. The same arguments give the same lists on every platform. Raises DataError.

    labelled: count, fraction of the training images with masks (after holding out validation images), list file, or
    every:N (every Nth by name, starting with the first). Default: all. val: fraction, count, list file, split.json of a
    run, `fold:K/N` of the labelled images, `val`, `test` or `none`. Default: the val folder, or a fifth of the images
    with masks. policy: `cover` reads the masks of all candidates once, so that labelled images, held-out images and
    folds contain all classes if possible; `random` reads none. unlabelled: the images that are not labelled, or all.
    void: `unlabelled` also uses labelled images with void pixels as unlabelled (reads masks). group: see `group_keys`;
    groups of validation images are excluded from training. presence: function that returns the classes in masks.
    """
    pool = with_masks(dataset.train)
    amount, named = _labelled_amount(dataset, pool, labelled)
    presence = (presence or _presence_of(dataset)) if policy == "cover" else None
    val_items, val_note, val_notes = validation_images(dataset, named, val, seed, group, presence)
    if (val or "").startswith(FOLD):
        named = [item for item in named if item not in val_items]
    kept = {item.name for item in named}
    if listed := sorted(kept & {item.name for item in val_items}):
        raise DataError(f"{short(listed)}: listed as labelled and as validation; expected them in one list only")
    train, extra = without_validation(dataset.train, val_items, kept, group)
    if not (left := with_masks(train)):
        raise DataError(f"{dataset.root}: validation takes all {len(pool)} training images with masks; choose fewer")
    if isinstance(amount, int):
        amount = parse_amount(str(labelled), len(left), "images with masks not for validation", option="--labelled")
        assert isinstance(amount, int)
        chosen, uncovered, notes = _choose(dataset, left, amount, seed, presence, group)
    else:
        chosen, uncovered, notes = _choose(dataset, named or left, None, seed, presence, None)
    note = _described(len(chosen), len(left), amount, f"policy {policy}, seed {seed}", group)
    names = {item.name for item in chosen}
    both = names if unlabelled == "all" else _with_void(dataset, chosen, notes) if void == "unlabelled" else set()
    sources = [item for item in train if item.name not in names - both]
    held_out = len(train) < len(dataset.train)
    if few := held_out and len(chosen) < MIN_BEST:
        notes.append(f"fewer than {MIN_BEST} labelled images: no best checkpoint is chosen; the last one is used")
    return Split(
        labelled=chosen,
        unlabelled=without_mask(sources),
        all_=[item if item.name in names else replace(item, mask=None) for item in train],
        val=val_items,
        test=with_masks(dataset.test),
        uncovered=uncovered,
        policy=policy if isinstance(amount, int) else "list" if named else "all",
        seed=seed,
        held_out=held_out,
        choose_best=bool(val_items) and not few,
        notes=[note, f"{len(sources)} unlabelled images", val_note + extra, *notes, *val_notes],
    )
