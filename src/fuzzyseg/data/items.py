"""What the whole room speaks of: an item, a data set, and the error for the user's files."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

VOID = 255
"""Mask value inside the package for pixels that belong to no class, whatever the files use (promise 3)."""

MAX_CLASSES = 255
"""Masks are uint8 inside the package and 255 is void: indices 0 to 254."""


class DataError(ValueError):
    """Something is wrong with the user's files: which file, what was found, what was expected, what to do."""


@dataclass(frozen=True)
class Values:
    """What the values in a mask file mean, where a layout knows that they are not simply class indices.

    Taken in this order: ignore_index is void (None: the data set's); reduce_zero: 0 is void, v is index v - 1; table:
    (index so far, class index or VOID) pairs, and a value that is not in it is an error. text: the same in words.
    """

    table: tuple[tuple[int, int], ...] | None = None
    reduce_zero: bool = False
    ignore_index: int | None = None
    text: str = ""


@dataclass(frozen=True)
class Item:
    """One image file, its mask file or None, and its name.

    The name is the path below the image folder without suffix, the split's folder included (`train/cat_12`); it is
    unique in the data set. values: what the mask's values mean; None: class indices and the data set's ignore index.
    """

    image: Path
    mask: Path | None
    name: str
    values: Values | None = None


@dataclass(frozen=True)
class Known:
    """What is known of a public data set: its classes and ignore index, and how to tell its files from others.

    stem: what every image's stem fits; None: the folders alone are proof.
    """

    name: str
    classes: tuple[str, ...]
    ignore_index: int
    stem: re.Pattern[str] | None = None


@dataclass
class Files:
    """What a layout found: the items of each split that exists, and sentences on what it left aside.

    classes, colours: what files of the data set itself say of them, one (r, g, b) a class.
    """

    splits: dict[str, list[Item]]
    found: list[str] = field(default_factory=list)
    classes: list[str] | None = None
    colours: list[tuple[int, int, int]] | None = None


@dataclass
class DataSet:
    """A folder that was understood.

    train, val, test: the items of each split, sorted by name (where there are several roots, one root after the other);
    val and test None where there is no such folder. classes:
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
