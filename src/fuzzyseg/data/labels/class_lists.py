"""Class names from the text files that annotation tools and data sets leave beside their masks."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from fuzzyseg.data.sample import MAX_CLASSES, Colour, DataError

BACKGROUND, IGNORE = "_background_", "__ignore__"
"""LabelMe's names for what is under no shape, and for shapes that are void."""


def read_lines(path: Path) -> list[str]:
    """The lines of a text file without surrounding blanks; empty ones are left out. Raises DataError naming it."""
    try:
        return [text for line in path.read_text(encoding="utf-8-sig").splitlines() if (text := line.strip())]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text ({error}); expected UTF-8, one entry a line") from None


def read_names(path: Path) -> list[str]:
    """Class names in index order, one a line. `__ignore__` is no class and left out; `_background_` is `background`.

    Raises DataError naming the file.
    """
    names = [plain(name) for name in read_lines(path) if name != IGNORE]
    check_names(names, str(path))
    return names


def plain(name: str) -> str:
    """LabelMe's `_background_` as `background`, the name by which the package knows that class; others as they are."""
    return "background" if name == BACKGROUND else name


def check_names(names: list[str], where: str) -> None:
    """Raises DataError unless there are 2 to 255 names, each once."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{where}: found {', '.join(twice)} more than once; expected each class once")
    if not 2 <= len(names) <= MAX_CLASSES:
        raise DataError(f"{where}: found {len(names)} class names; expected 2 to {MAX_CLASSES}")


@dataclass(frozen=True)
class Label:
    """A line of `labelmap.txt`: a name and its colour in the masks."""

    name: str
    colour: Colour


COLUMNS = ("name", "r", "g", "b")
VOID_NAMES = ("void", "ignore", "ignored", "unlabelled", "unlabeled", "unlabel", IGNORE)
"""Names in a class table that are taken for what is no class."""


def class_table(root: Path) -> Path | None:
    """The class table (.csv with the columns name, r, g, b) at the top of a data set. Raises DataError for several."""
    tables = [path for path in sorted(root.glob("*.csv")) if set(COLUMNS) <= set(_columns(path))]
    if len(tables) > 1:
        raise DataError(f"{root}: holds several class tables: {', '.join(p.name for p in tables)}; expected one")
    return tables[0] if tables else None


def _columns(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            head = file.readline(1000)
    except OSError:
        return []
    return [part.strip().strip('"').lower() for part in head.split(_delimiter(head))]


def _delimiter(head: str) -> str:
    return max(",;\t", key=head.count)


def read_class_table(path: Path) -> list[Label]:
    """A class table: a line a class with its name and its colour in the masks. Raises DataError naming the line."""
    lines = read_lines(path)
    columns = [_columns(path).index(name) for name in COLUMNS]
    labels = []
    for number, row in enumerate(csv.reader(lines[1:], delimiter=_delimiter(lines[0])), 2):
        try:
            name, *colour = (row[column].strip() for column in columns)
            red, green, blue = (int(part) for part in colour)
        except (IndexError, ValueError):
            raise DataError(f"{path}, line {number}: found {row}; expected name,r,g,b") from None
        if not name or not all(0 <= value <= 255 for value in (red, green, blue)):
            raise DataError(f"{path}, line {number}: found {row}; expected a name and a colour from 0 to 255")
        labels.append(Label(name, (red, green, blue)))
    return labels


def read_label_map(path: Path) -> list[Label]:
    """CVAT's `labelmap.txt`: lines `name:r,g,b:parts:actions`, of which the last two are not used; # begins a comment.

    Raises DataError naming the file and the line.
    """
    labels = []
    for number, line in enumerate(read_lines(path), 1):
        if line.startswith("#"):
            continue
        parts = line.rsplit(":", 3)  # a name may hold colons
        try:
            red, green, blue = (int(part) for part in parts[1].split(","))
        except (IndexError, ValueError):
            raise DataError(f"{path}, entry {number}: found {line!r}; expected name:r,g,b:parts:actions") from None
        if not parts[0] or not all(0 <= value <= 255 for value in (red, green, blue)):
            raise DataError(f"{path}, entry {number}: found {line!r}; expected a name and a colour from 0 to 255")
        labels.append(Label(parts[0], (red, green, blue)))
    if not labels:
        raise DataError(f"{path}: names no class; expected lines such as road:128,64,128::")
    return labels
