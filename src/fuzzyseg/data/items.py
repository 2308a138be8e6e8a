"""What the whole room speaks of: an item, a data set, and the error for the user's files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

VOID = 255
"""Mask value inside the package for pixels that belong to no class, whatever the files use (promise 3)."""

MAX_CLASSES = 255
"""Masks are uint8 inside the package and 255 is void: indices 0 to 254."""


class DataError(ValueError):
    """Something is wrong with the user's files: which file, what was found, what was expected, what to do."""


@dataclass(frozen=True)
class Item:
    """One image file, its mask file or None, and its name.

    The name is the path below the image folder without suffix, the split's folder included (`train/cat_12`); it is
    unique in the data set.
    """

    image: Path
    mask: Path | None
    name: str


@dataclass
class DataSet:
    """A folder that was understood.

    train, val, test: the items of each split, sorted by name; val and test None where there is no such folder. classes:
    names in index order. ignore_index: the value that the files use for void. colours: one (r, g, b) a class, or None.
    found: sentences for the user on what was found out.
    """

    root: Path
    layout: str
    classes: list[str]
    ignore_index: int
    train: list[Item]
    val: list[Item] | None
    test: list[Item] | None
    colours: list[tuple[int, int, int]] | None = None
    found: list[str] = field(default_factory=list)
