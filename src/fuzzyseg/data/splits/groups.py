"""Images that belong together: frames of a video, slices of a patient, tiles of a scene. A split never divides them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fuzzyseg.data.sample import SPLITS, DataError, Item
from fuzzyseg.data.text import short

_PREFIX = re.compile(r"(.*?)[ _.-]*\d*$")


def group_keys(items: Sequence[Item], rule: str) -> list[str]:
    """The group of each item by its name (the path below the image folder, without suffix).

    rule: `folder`, the folder that holds the image; `prefix`, the name without the number at its end
    (`patient7_slice_012` -> `patient7_slice`); else a regular expression that is searched for in the name: its first
    group, or all it matches without one. Raises DataError for names that it does not fit.
    """
    if rule == "folder":
        return [item.name.rpartition("/")[0] for item in items]
    if rule == "prefix":
        return [_prefix(item.name) for item in items]
    try:
        pattern = re.compile(rule)
    except re.error as error:
        raise DataError(f"group: '{rule}' is no regular expression ({error}); or use folder or prefix") from None
    found = [pattern.search(item.name) for item in items]
    bare = [item.name for item, match in zip(items, found, strict=True) if match is None]
    if bare:
        raise DataError(f"group: '{rule}' is not found in {len(bare)} image names: {short(bare)}; expected it in all")
    return [str(match.group(1 if pattern.groups else 0) or "") for match in found if match is not None]


def _prefix(name: str) -> str:
    match = _PREFIX.fullmatch(name)
    assert match is not None
    return match.group(1)


def beside(items: Sequence[Item], held: Sequence[Item], rule: str) -> set[str]:
    """Names of the items from besides the data set (`Item.under`) that belong to a group of those held.

    Their names begin otherwise: what is compared is the group by the path below the folder that was named, and below
    the folder of the split. A name to which the rule gives nothing is in no group.
    """

    def key(item: Item) -> str:
        first, _, rest = item.name.partition("/")
        below = replace(item, name=rest) if rest and first in (item.under, *SPLITS) else item
        try:
            return group_keys([below], rule)[0]
        except DataError:
            return ""

    extra = [item for item in items if item.under]
    groups = {key(item) for item in held} - {""} if extra else set()
    return {item.name for item in extra if key(item) in groups}


class Groups:
    """The groups of some items as items of their own: what orders items by name and content orders groups alike.

    heads: one item a group, named by its key. members: the places of each group's items. rule None: each by itself.
    """

    def __init__(self, items: Sequence[Item], rule: str | None) -> None:
        keys = [item.name for item in items] if rule is None else group_keys(items, rule)
        members: dict[str, list[int]] = {}
        for place, key in enumerate(keys):
            members.setdefault(key, []).append(place)
        self.heads = [replace(items[places[0]], name=key) for key, places in members.items()]
        self.members = list(members.values())

    def presence(self, present: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(groups, C) from (items, C): which classes a group holds."""
        return np.stack([present[places].any(0) for places in self.members])

    def first(self, order: Sequence[int], count: int) -> list[int]:
        """The places of the items of the first groups of `order` that together hold `count` items or more."""
        chosen: list[int] = []
        for group in order:
            if len(chosen) >= count:
                break
            chosen += self.members[group]
        return chosen
