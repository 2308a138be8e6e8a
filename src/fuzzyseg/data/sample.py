"""Data classes shared by the whole package (items, datasets, label maps), and the error raised for unusable files."""

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from fuzzyseg.data.text import counted

S = TypeVar("S")
T = TypeVar("T")


VOID = 255
"""Mask value of void pixels (pixels without a class) inside the package, regardless of the value in the files."""

MAX_CLASSES = 255
"""Masks are uint8 inside the package, and 255 is void, so class indices range from 0 to 254."""

SPLITS = ("train", "val", "test")

Colour = tuple[int, int, int]
"""Red, green and blue, from 0 to 255."""

Size = tuple[int, int]
"""Height and width."""

Box = tuple[int, int, int, int]
"""y0, x0, y1, x1; y1 and x1 are exclusive."""


class DataError(ValueError):
    """Raised if the user's files are unusable.

    The message names the file, the value found, the value expected and a remedy.
    """


def attempt(function: Callable[[S], T], value: S) -> T | None:
    """Return `function(value)`, or None if it raises DataError. For use where another check reports the error."""
    try:
        return function(value)
    except DataError:
        return None


def attempt_all(function: Callable[[S], T], values: Iterable[S], what: str, limit: int = 50) -> list[T]:
    """Apply `function` to all values. Raises one DataError with the number of errors and the first `limit` messages."""
    results, errors = list[T](), list[str]()
    for value in values:
        try:
            results.append(function(value))
        except DataError as error:
            errors.append(str(error))
    if errors:
        more = [f"... and {len(errors) - limit} more"] * (len(errors) > limit)
        raise DataError("\n".join([f"{counted(len(errors), what)}:", *errors[:limit], *more]))
    return results


@dataclass(frozen=True)
class Encoding:
    """Mapping from the array in a mask file to class indices. The fields apply in this order:

    colours: (r, g, b, value) entries for colour-coded masks; value -1 and transparent pixels are void. None: the file
    contains values.
    ignore: void values. None: the dataset's ignore index. 255 is also void unless `table` maps it.
    reduce_zero: value 0 is void, and any other value v becomes v - 1.
    table: (value, class index or VOID) pairs; other values are invalid. None: values are class indices.
    snap: map unmapped colours (and values of binary masks) to the nearest mapped one.
    text: description for messages.
    """

    table: tuple[tuple[int, int], ...] | None = None
    reduce_zero: bool = False
    ignore: tuple[int, ...] | None = None
    text: str = ""
    colours: tuple[tuple[int, int, int, int], ...] | None = None
    snap: bool = False

    def record(self) -> dict[str, Any]:
        """Return the fields as a JSON-serialisable dict."""
        return asdict(self)


@dataclass(frozen=True)
class Item:
    """An image file with an optional mask file.

    name: unique path below the image folder, without suffix but with the split folder (`train/cat_12`). encoding: mask
    encoding; None: class indices with the dataset's ignore index. prefix: first part of `name` for images from
    additional sources, such as `unlabelled`; otherwise empty. scores: file with a teacher's prediction (see
    `data.io.scores`), if any.
    """

    image: Path
    mask: Path | None
    name: str
    encoding: Encoding | None = None
    prefix: str = ""
    scores: Path | None = None


@dataclass(frozen=True)
class PublicDataset:
    """Label metadata of a public dataset. stem: pattern of all image stems. Default: the layout suffices."""

    name: str
    classes: tuple[str, ...]
    ignore_index: int
    stem: re.Pattern[str] | None = None


@dataclass
class Files:
    """Files found by a layout.

    splits: items by split, for existing splits. notes: messages about ignored files. unmatched_masks: masks without an
    image. orders: class names in index order, keyed by the file that declares them; the first file takes precedence.
    colours: class colours from the last of these files, one per name, if declared there.
    """

    splits: dict[str, list[Item]]
    notes: list[str] = field(default_factory=list)
    unmatched_masks: list[Path] = field(default_factory=list)
    orders: dict[Path, list[str]] = field(default_factory=dict)
    colours: list[Colour] | None = None

    def change(self, function: Callable[[Item], Item]) -> None:
        """Replace each item with `function(item)`."""
        self.splits = {split: [function(item) for item in items] for split, items in self.splits.items()}


@dataclass(frozen=True)
class LabelMap:
    """Class names in index order, void value in the files, mask encoding (None: class indices) and optional colours."""

    classes: list[str]
    ignore_index: int = VOID
    encoding: Encoding | None = None
    colours: list[Colour] | None = None


@dataclass
class DataSet:
    """A dataset on disk.

    train, val, test: items of each split, sorted by name within each root; None: the split does not exist. classes:
    class names in index order. ignore_index: void value in the files. colours: one per class, if known. notes: messages
    for the user. encoding: mask encoding of items that do not set one; None: class indices.
    """

    root: Path
    layout: str
    classes: list[str]
    ignore_index: int
    train: list[Item]
    val: list[Item] | None
    test: list[Item] | None
    colours: list[Colour] | None = None
    notes: list[str] = field(default_factory=list)
    encoding: Encoding | None = None

    @property
    def items(self) -> list[Item]:
        """The items of all splits."""
        return [*self.train, *(self.val or ()), *(self.test or ())]

    @property
    def fingerprint(self) -> str:
        """Hash of the names and file sizes of all images and masks."""
        digest = hashlib.sha256()
        for split, items in (("train", self.train), ("val", self.val), ("test", self.test)):
            for item in items or []:
                sizes = [path.stat().st_size if path is not None else None for path in (item.image, item.mask)]
                digest.update(f"{split}\0{item.name}\0{sizes}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()[:16]

    @property
    def label_map(self) -> LabelMap:
        """Label map for reading more data with the same labels."""
        return LabelMap(self.classes, self.ignore_index, self.encoding, self.colours)
