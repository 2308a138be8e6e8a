"""Groups of images that a split keeps together, such as the frames of a video or the slices of a patient."""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fuzzyseg.data.sample import SPLITS, DataError, Item, attempt
from fuzzyseg.data.text import short

_PREFIX = re.compile(r"(.*?)[ _.-]*\d*$")


def group_keys(items: Sequence[Item], rule: str) -> list[str]:
    """Return the group of each item, derived from its name (the path below the image folder, without suffix).

    rule: `folder` (the image's folder), `prefix` (the name without its trailing number: `patient7_slice_012` ->
    `patient7_slice`), or a regular expression searched in the name (its first capturing group, or else the whole
    match). Raises DataError for an invalid rule and for names without a match.
    """
    if rule == "folder":
        return [item.name.rpartition("/")[0] for item in items]
    if rule == "prefix":
        return [_prefix(item.name) for item in items]
    try:
        pattern = re.compile(rule)
    except re.error as error:
        raise DataError(f"group: '{rule}' is not a regular expression ({error}), folder or prefix") from None
    matches = [pattern.search(item.name) for item in items]
    rest = [item.name for item, match in zip(items, matches, strict=True) if match is None]
    if rest:
        raise DataError(f"group: '{rule}' does not match {len(rest)} image names: {short(rest)}; expected to match all")
    return [str(match.group(1 if pattern.groups else 0) or "") for match in matches if match is not None]


def _prefix(name: str) -> str:
    match = _PREFIX.fullmatch(name)
    assert match is not None
    return match.group(1)


def extras_in_groups(items: Sequence[Item], held_out: Sequence[Item], rule: str) -> set[str]:
    """Return the names of items from additional sources (`Item.prefix`) that share a group with held-out items.

    The source's prefix and the split folder are removed before grouping, because they differ between sources. A name
    without a match belongs to no group.
    """

    def key(item: Item) -> str:
        first, _, rest = item.name.partition("/")
        below = replace(item, name=rest) if rest and first in (item.prefix, *SPLITS) else item
        try:
            return group_keys([below], rule)[0]
        except DataError:
            return ""

    extra = [item for item in items if item.prefix]
    groups = {key(item) for item in held_out} - {""} if extra else set()
    return {item.name for item in extra if key(item) in groups}


def in_groups(items: Sequence[Item], rule: str | None) -> list[tuple[str, Item]]:
    """Return (group, item) pairs, group by group. Without a rule or a match, each item is a separate group."""
    members: dict[str, list[Item]] = {}
    for item in items:
        key = None if rule is None else attempt(lambda one: group_keys([one], rule)[0], item)
        members.setdefault(item.name if key is None else key, []).append(item)
    return [(key, item) for key, each in members.items() for item in each]


class Groups:
    """Groups of items, each represented by one item, so that functions that order items can also order groups.

    representatives: one item per group, named after the group. members: item indices of each group. With rule None,
    each item is a group.
    """

    def __init__(self, items: Sequence[Item], rule: str | None) -> None:
        keys = [item.name for item in items] if rule is None else group_keys(items, rule)
        members: dict[str, list[int]] = {}
        for place, key in enumerate(keys):
            members.setdefault(key, []).append(place)
        self.representatives = [replace(items[places[0]], name=key) for key, places in members.items()]
        self.members = list(members.values())

    def presence(self, present: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return the classes in each group, (groups, C), from the classes in each item, (items, C)."""
        return np.stack([present[places].any(0) for places in self.members])

    def reached(self, order: Sequence[int], count: int) -> int:
        """Return how many groups at the start of `order` are needed to reach `count` items in total."""
        sizes = np.cumsum([len(self.members[group]) for group in order])
        return min(int(np.searchsorted(sizes, count)) + 1, len(order))

    def first(self, order: Sequence[int], count: int) -> list[int]:
        """Return the item indices of the groups at the start of `order` that reach `count` items in total."""
        return [place for group in order[: self.reached(order, count)] for place in self.members[group]]
