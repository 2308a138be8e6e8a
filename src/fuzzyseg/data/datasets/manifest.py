"""Table of images (CSV or JSON lines) with the columns image, mask and split."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

from fuzzyseg.data.dataset_yaml import Description
from fuzzyseg.data.datasets.pairing import existing
from fuzzyseg.data.datasets.split_files import PARTS, name_below, part_named
from fuzzyseg.data.labels.class_lists import numbered_lines
from fuzzyseg.data.sample import DataError, Files, Item, PublicDataset
from fuzzyseg.data.text import decoded, nearest, short

NAMES = ("manifest.csv", "manifest.jsonl")
SUFFIXES = (".csv", ".jsonl")
COLUMNS = ("image", "mask", "split")

Row = dict[str, str]

MOST = 20
"""Invalid lines reported in one error."""


class Manifest:
    """`manifest.csv` or `manifest.jsonl` with image, mask (may be empty) and split, or the path of such a file.

    Paths are relative to the file's folder; absolute paths and `..` are allowed.
    """

    expected = "manifest.csv or manifest.jsonl with image, mask, split (or the path of such a file)"
    public: PublicDataset | None = None
    automatic = True

    def matches(self, root: Path, description: Description) -> bool:
        """Whether `root` is or contains a table."""
        return _table(root) is not None

    def files(self, root: Path, description: Description) -> Files:
        """List the items of each split. Raises DataError with file and line."""
        path = _table(root)
        assert path is not None
        files = Files({})
        rows, extra = _read_csv(path) if path.suffix.lower() == ".csv" else _read_json_lines(path)
        if extra:
            files.notes.append(f"{path}: ignored columns: {short(extra)}")
        seen: dict[Path, int] = {}
        problems: list[str] = []
        for number, row in rows:
            try:
                split, item = _item(path, number, row)
            except DataError as error:
                problems.append(str(error))
                continue
            if item.image in seen:
                before = seen[item.image]
                problems.append(f"{path}, line {number}: {item.image} is also in line {before}; expected it once")
            seen.setdefault(item.image, number)
            files.splits.setdefault(split, []).append(item)
        if problems:
            left = len(problems) - MOST
            raise DataError("\n".join([*problems[:MOST], *([f"... and {left} more lines"] if left > 0 else [])]))
        return files


def _table(root: Path) -> Path | None:
    if root.is_file():
        return root if root.suffix.lower() in SUFFIXES else None
    found = [root / name for name in NAMES if (root / name).is_file()]
    if len(found) > 1:
        raise DataError(f"{root}: contains {' and '.join(NAMES)}; expected one of them")
    return found[0] if found else None


def _item(path: Path, number: int, row: Row) -> tuple[str, Item]:
    where = f"{path}, line {number}"
    name = row.get("split", "").strip() or "train"
    split = part_named(name)
    if split is None:
        raise DataError(f"{where}: found the split {name!r}.{nearest(name, PARTS)}")
    texts = [row.get("image", "").strip(), row.get("mask", "").strip()]
    if not texts[0]:
        raise DataError(f"{where}: has no image; expected a path")
    if split == "unlabelled":
        split, texts[1] = "train", ""
    files = [existing(Path(os.path.normpath(path.parent / text))) for text in texts if text]
    for file in files:
        if not file.is_file():
            raise DataError(f"{where}: {file} does not exist; expected a path relative to {path.parent}")
    mask = files[1] if len(files) > 1 else None
    return split, Item(files[0], mask, name_below(files[0], path.parent))


def _read_csv(path: Path) -> tuple[list[tuple[int, Row]], list[str]]:
    """Return numbered rows and the ignored columns. The delimiter (comma, semicolon, tab) is that of the header."""
    try:
        with io.StringIO(decoded(path.read_bytes(), "surrogateescape"), newline="") as file:
            head = file.readline()
            file.seek(0)
            reader = csv.DictReader(file, delimiter=max(",;\t", key=head.count), strict=True)
            columns = [str(name).strip() for name in reader.fieldnames or ()]
            reader.fieldnames = columns
            rows = [(reader.line_num, {str(k): str(v or "") for k, v in row.items()}) for row in reader]
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a table ({error}); expected CSV in UTF-8") from None
    if "image" not in columns:
        raise DataError(f"{path}: found the columns {short(columns)}; expected image, mask, split in the first line")
    return rows, sorted(set(columns) - set(COLUMNS))


def _read_json_lines(path: Path) -> tuple[list[tuple[int, Row]], list[str]]:
    """Return numbered rows and the ignored keys."""
    rows: list[tuple[int, Row]] = []
    extra: set[str] = set()
    for number, line in numbered_lines(path).items():
        try:
            value: Any = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: is not JSON ({error})") from None
        if not isinstance(value, dict) or not all(isinstance(value.get(key) or "", str) for key in COLUMNS):
            raise DataError(f'{path}, line {number}: found {line[:80]!r}; expected {{"image": "...", "mask": "..."}}')
        extra |= set(value) - set(COLUMNS)
        rows.append((number, {key: value.get(key) or "" for key in COLUMNS}))
    return rows, sorted(extra)
