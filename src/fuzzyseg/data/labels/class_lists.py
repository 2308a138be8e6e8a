"""Class names and colours from the text files of annotation tools and datasets."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from unicodedata import normalize

from fuzzyseg.data.io.find import regular_files
from fuzzyseg.data.sample import MAX_CLASSES, Colour, DataError
from fuzzyseg.data.text import decoded, repeated

BACKGROUND, IGNORE = "_background_", "__ignore__"
"""LabelMe's labels for unannotated pixels and for void shapes."""


def numbered_lines(path: Path, errors: str = "strict") -> dict[int, str]:
    """Return the stripped, non-empty lines of a text file, keyed by line number from 1. errors: see `decoded`.

    Raises DataError.
    """
    try:
        lines = decoded(path.read_bytes(), errors).splitlines()
    except (OSError, UnicodeError) as error:
        raise DataError(f"{path}: cannot be read as text ({error}); expected UTF-8, one entry per line") from None
    return {number: text for number, line in enumerate(lines, 1) if (text := line.strip())}


def read_lines(path: Path, errors: str = "strict") -> list[str]:
    """Return the stripped, non-empty lines of a text file. errors: see `decoded`. Raises DataError."""
    return list(numbered_lines(path, errors).values())


def read_names(path: Path) -> list[str]:
    """Read class names in index order, one per line. Skips `__ignore__`; `_background_` becomes `background`.

    Raises a DataError that names the line.
    """
    lines = numbered_lines(path)
    names: dict[str, int] = {}
    for number, line in lines.items():
        name = plain(line)
        if name in names:
            raise DataError(f"{path}, line {number}: {line!r} is also in line {names[name]}; expected each name once")
        if name != IGNORE:
            names[name] = number
        if "," in line and len(lines) == 1:
            raise DataError(f"{path}, line {number}: found {line!r}; expected one name per line, without commas")
    if len(names) == 1:
        advice = f"add the line {BACKGROUND} for pixels outside all objects"
        raise DataError(f"{path}: lists one class, {next(iter(names))!r}; expected two or more: {advice}")
    check_names(list(names), str(path))
    return list(names)


def plain(name: str) -> str:
    """Strip a label and normalise it to NFC. LabelMe's `_background_` becomes `background`."""
    name = normalize("NFC", name.strip())
    return "background" if name == BACKGROUND else name


def background_of(names: Sequence[str]) -> int | None:
    """Return the index of the class `background` (case-insensitive), if any."""
    return next((index for index, name in enumerate(names) if name.casefold() == "background"), None)


def note_names(names: Sequence[str]) -> list[str]:
    """Return notes on void-like names, and on names that differ only in case, Unicode form or separators."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(re.sub(r"[\s_-]+", "", normalize("NFKC", name).casefold()), []).append(repr(name))
    alike = [" and ".join(group) for group in groups.values() if len(group) > 1]
    notes = [f"nearly equal names of different classes: {', '.join(alike)}; if one class is meant, rename"]
    notes *= bool(alike)
    if void := ", ".join(name for name in names if name.lower() in VOID_NAMES):
        notes.append(f"warning: {void}: counted as a class; if it is void, add `ignore: [{void}]` to dataset.yaml")
    return notes


_GENERATED = re.compile(r"class_\d+|colour_\d+_\d+_\d+")


def is_generated(name: str) -> bool:
    """Return whether a name has the form of the names generated for detected classes."""
    return _GENERATED.fullmatch(name) is not None


def check_names(names: list[str], where: str) -> None:
    """Raise DataError unless there are 2 to 255 distinct names."""
    if duplicates := repeated(names):
        raise DataError(f"{where}: found {', '.join(duplicates)} more than once; expected distinct names")
    if not 2 <= len(names) <= MAX_CLASSES:
        raise DataError(f"{where}: found {len(names)} class names; expected 2 to {MAX_CLASSES}")


Label = tuple[str, Colour]
"""A class name and its colour in the masks."""

COLUMNS = ("name", "r", "g", "b")
VOID_NAMES = ("void", "ignore", "ignored", "unlabelled", "unlabeled", "unlabel", IGNORE)
"""Names in a class table that denote void."""


def class_table(root: Path) -> Path | None:
    """Find a dataset's class table (.csv with columns name, r, g, b), if any.

    Raises DataError if there are several.
    """
    tables = [path for path in regular_files(root, "*.csv") if set(COLUMNS) <= set(_columns(path))]
    if len(tables) > 1:
        raise DataError(f"{root}: contains several class tables: {', '.join(p.name for p in tables)}; expected one")
    return tables[0] if tables else None


def _columns(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            head = decoded(file.read(1000), "replace").partition("\n")[0]
    except (OSError, UnicodeError):
        return []
    return [part.strip().strip('"').lower() for part in head.split(delimiter(head))]


def delimiter(head: str) -> str:
    """Detect the delimiter of a table from its first line: comma, semicolon or tab."""
    return max(",;\t", key=head.count)


def read_class_table(path: Path) -> list[Label]:
    """Read the class name and colour in each line of a class table. Raises a DataError that names the line."""
    lines = read_lines(path)
    columns = [_columns(path).index(name) for name in COLUMNS]
    labels = []
    for number, row in enumerate(csv.reader(lines[1:], delimiter=delimiter(lines[0])), 2):
        name, *colour = (row[column].strip() if column < len(row) else "" for column in columns)
        labels.append(_label(name, colour, f"{path}, line {number}: found {row}; expected name,r,g,b"))
    return labels


def read_labelmap(path: Path) -> list[Label]:
    """Read CVAT's `labelmap.txt`: lines `name:r,g,b:parts:actions` and comments (#). Parts and actions are ignored.

    Raises a DataError that names the line.
    """
    labels = []
    for number, line in numbered_lines(path).items():
        if line.startswith("#"):
            continue
        name, rest = (*line.rsplit(":", 3), "")[:2]  # names may contain colons
        expected = f"{path}, line {number}: found {line!r}; expected name:r,g,b:parts:actions"
        labels.append(_label(name, rest.split(","), expected))
    if not labels:
        raise DataError(f"{path}: declares no class; expected lines such as road:128,64,128::")
    return labels


def _label(name: str, colour: list[str], message: str) -> Label:
    values = [int(part) if part.strip().isdecimal() else -1 for part in colour]
    if not name.strip() or len(values) != 3 or not all(0 <= value <= 255 for value in values):
        raise DataError(f"{message}, with a name and colours from 0 to 255")
    return plain(name), (values[0], values[1], values[2])
