"""What the whole room speaks of: an item, a data set, and the error for the user's files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

VOID = 255
"""Mask value inside the package for pixels that belong to no class, whatever the files use (promise 3)."""

MAX_CLASSES = 255
"""Masks are uint8 inside the package and 255 is void: indices 0 to 254."""

Size = tuple[int, int]
"""Height and width."""

Box = tuple[int, int, int, int]
"""y0, x0, y1, x1; the last row and column are outside."""

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""


class DataError(ValueError):
    """Something is wrong with the user's files: which file, what was found, what was expected, what to do."""


@dataclass(frozen=True)
class Encoding:
    """What mask files hold and what it means: how a file's array becomes class indices.

    Taken in this order. colours: (r, g, b, value so far) for files of colours; value -1 is void, as transparent pixels
    are; None: the file holds values. ignore: values that are void (None: the data set's ignore index), as 255 is unless
    the table names it. reduce_zero: 0 is void, v is index v - 1. table: (index so far, class index or VOID) pairs, and
    an index that is not in it is an error; None: as it is. snap: a colour (or a binary value) that means nothing is
    taken for the nearest that does. text: all this in words.
    """

    table: tuple[tuple[int, int], ...] | None = None
    reduce_zero: bool = False
    ignore: tuple[int, ...] | None = None
    text: str = ""
    colours: tuple[tuple[int, int, int, int], ...] | None = None
    snap: bool = False

    def record(self) -> dict[str, Any]:
        """As what JSON holds; `from_record` takes it back."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Encoding:
        """What `record` gave, also after it has been through JSON. Raises TypeError, ValueError for what is none."""

        def frozen(value: Any) -> Any:
            return tuple(frozen(part) for part in value) if isinstance(value, list | tuple) else value

        return cls(**{key: frozen(value) for key, value in record.items()})


@dataclass(frozen=True)
class Item:
    """One image file, its mask file or None, and its name.

    The name is the path below the image folder without suffix, the split's folder included (`train/cat_12`); it is
    unique in the data set. encoding: what the mask holds; None: class indices, and the data set's ignore index is void.
    under: what the name of a file that is named besides the data set begins with, such as `unlabelled`.
    """

    image: Path
    mask: Path | None
    name: str
    encoding: Encoding | None = None
    under: str = ""


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

    orphans: masks without an image. classes, colours: what files of the data set itself say of them, one (r, g, b) a
    class.
    """

    splits: dict[str, list[Item]]
    found: list[str] = field(default_factory=list)
    orphans: list[Path] = field(default_factory=list)
    classes: list[str] | None = None
    colours: list[tuple[int, int, int]] | None = None


@dataclass(frozen=True)
class Meaning:
    """What masks mean: class names in index order, the files' value for void, their encoding, a colour a class or None.

    encoding None: class indices.
    """

    classes: list[str]
    ignore_index: int = VOID
    encoding: Encoding | None = None
    colours: list[tuple[int, int, int]] | None = None


@dataclass
class DataSet:
    """A folder that was understood.

    train, val, test: the items of each split, sorted by name (where there are several roots, one root after the other);
    val and test None where there is no such folder. classes:
    names in index order. ignore_index: the value that the files use for void. colours: one (r, g, b) a class, or None.
    found: sentences for the user on what was found out. encoding: of the masks that have none of their own; None: class
    indices.
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
    encoding: Encoding | None = None

    @property
    def meaning(self) -> Meaning:
        """What its masks mean, for further data of the same kind."""
        return Meaning(self.classes, self.ignore_index, self.encoding, self.colours)
