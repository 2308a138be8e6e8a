"""Image lists, as published with several methods, and tables of images.

Each line of a list contains an image path and a mask path, separated by a space or tab (UniMatch, CPS on Cityscapes:
`JPEGImages/a.jpg SegmentationClass/a.png`), only an image path (U2PL on Cityscapes:
`leftImg8bit/train/ulm/ulm_0_leftImg8bit.png`) or only a name (CPS and U2PL on VOC: `2007_000032`). A leading slash may
denote the dataset root (CPS). Absolute paths and `..` are allowed; files outside the dataset folder are reported.

A table (`manifest.csv`, `manifest.jsonl`, or a file given as the dataset) has the columns image, mask (may be empty)
and split. Paths are relative to the table's folder.
"""

import csv
import io
import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from fuzzyseg.data.dataset_yaml import FILE, Description
from fuzzyseg.data.datasets.pairing import existing, split_named
from fuzzyseg.data.io.find import regular_files, why_not_file
from fuzzyseg.data.io.mat import SUFFIX as MATLAB
from fuzzyseg.data.io.pillow import SUFFIXES
from fuzzyseg.data.labels.class_lists import delimiter, numbered_lines, read_lines
from fuzzyseg.data.sample import DataError, Files, Item, attempt, attempt_all
from fuzzyseg.data.text import counted, decoded, nearest, short

PARTS = ("train", "unlabelled", "val", "test")
"""Parts of a dataset that can have lists."""

COLUMNS = ("image", "mask", "split")
COMMENT = " (a comment starts a line or follows two spaces; otherwise # is part of a name)"

_SUFFIX = "|".join(re.escape(suffix) for suffix in (*SUFFIXES, MATLAB))
_PAIR = re.compile(rf"(.+?(?:{_SUFFIX}))\s+(\S.*(?:{_SUFFIX}))", re.IGNORECASE)

LISTS_EXPECTED = "train.txt (or labelled.txt), unlabelled.txt, val.txt, test.txt with lines `image mask` (lists)"
MANIFEST_EXPECTED = "manifest.csv or manifest.jsonl with image, mask, split (or the path of such a file)"


def fields(line: str) -> tuple[str, str | None]:
    """Parse a line into (image, mask or None). Paths may contain spaces and #; two spaces or a tab start a comment.

    A name in quotation marks, as written by `quoted`, is decoded as JSON.
    """
    if line.startswith('"'):
        with suppress(ValueError):
            return json.loads(line), None
    line = re.split(r"(?:\s\s|\t)\s*#", line.strip())[0].rstrip()
    if "\t" in line:
        image, _, mask = line.partition("\t")
        return image.strip(), mask.strip() or None
    pair = _PAIR.fullmatch(line)
    return (pair[1], pair[2]) if pair else (line, None)


def quoted(name: str) -> str:
    """Return a line that `fields` parses back to `name`: a JSON string if the name itself would be misread."""
    plain = name.isprintable() and name == name.strip() and not name.startswith(("#", '"'))
    return name if plain and fields(name) == (name, None) else json.dumps(name)


def _part_named(name: str) -> str | None:
    """Return the part (see `PARTS`) denoted by a list's name or a table's split column, or None."""
    name = name.lower().replace("labeled", "labelled")
    return {"labelled": "train", "unlabelled": "unlabelled"}.get(name) or split_named(name)


def _item(image: Path, mask: Path | None, root: Path) -> Item:
    """Return an item named after its path without suffix, relative to the root if it is inside."""
    place = image.relative_to(root) if image.is_relative_to(root) else image.relative_to(image.anchor)
    return Item(image, mask, place.with_suffix("").as_posix())


def has_lists(root: Path, description: Description) -> bool:
    """Return whether lists are declared, or exist and start with an image file."""
    if description.lists is not None:
        return root.is_dir()
    entries = (attempt(list_entries, path) for path in _lists(root, description).get("train", []))
    firsts = [image for lines in entries for image, _ in (lines or [])[:1]]
    return any(Path(image).suffix.lower() in SUFFIXES and _located(image, root).is_file() for image in firsts)


def read_lists(root: Path, description: Description) -> Files:
    """Return the items of the lists at the root, or of those declared in `dataset.yaml` (`lists: {train: a.txt}`).

    Masks in an `unlabelled` list are ignored. Raises DataError.
    """
    files = Files({})
    assigned: dict[Path, str] = {}  # the first list that contains an image determines its part
    for part, path in ((part, path) for part, paths in _lists(root, description).items() for path in paths):
        fresh: list[Item] = []
        for item in _items(path, root, masks=part != "unlabelled"):
            before = assigned.get(item.image)
            if before is None:
                fresh.append(item)
            elif before != part and {before, part} != {"train", "unlabelled"}:
                raise DataError(f"{path}: contains {item.image}, which is in a list for {before}; expected one of them")
            assigned.setdefault(item.image, part)
        split = "train" if part == "unlabelled" else part
        files.splits[split] = files.splits.get(split, []) + fresh
        files.notes.append(f"{path}: {len(fresh)} images for {part}{_outside(fresh, root)}")
    return files


def _lists(root: Path, description: Description) -> dict[str, list[Path]]:
    """Return the list files of each part: the declared ones, otherwise those at the root."""
    if description.lists is None:
        lists = [(_part_named(path.stem), path) for path in regular_files(root, "*.[tT][xX][tT]")]
        return {part: selected for part in PARTS if (selected := [path for of, path in lists if of == part])}
    paths: dict[str, list[Path]] = {}
    for part, value in description.lists.items():
        paths[part] = [existing(root / name) for name in ([value] if isinstance(value, str) else value)]
        if missing := [path for path in paths[part] if not path.is_file()]:
            raise DataError(
                f"{root / FILE}: lists.{part}: {missing[0]} {why_not_file(missing[0])}; expected a list of images"
            )
    return paths


def list_entries(path: Path) -> list[tuple[str, str | None]]:
    """Return the lines of a list as (image, mask or None), without comments. Raises DataError."""
    return [fields(line) for line in read_lines(path, "surrogateescape") if not line.startswith("#")]


def _located(text: str, root: Path) -> Path:
    """Return the file for a list entry. A leading slash denotes `root` if the file exists there."""
    below = existing(root / text.lstrip("/"))
    return Path(text) if text.startswith("/") and not below.is_file() else below


def _items(path: Path, root: Path, *, masks: bool) -> Iterator[Item]:
    """Yield the items of a list. Raises DataError for missing files."""
    missing = []
    for image, mask in list_entries(path):
        files = [_located(text, root) for text in (image, mask if masks else None) if text]
        missing += [file for file in files if not file.is_file()]
        yield _item(files[0], files[1] if len(files) > 1 else None, root)
    if missing:
        named = [f"{file} {why_not_file(file)}" for file in missing]
        raise DataError(
            f"{path}: {counted(len(missing), 'file')} cannot be read: {short(named, 3)}; expected lines "
            f"`image mask` with paths below {root}{COMMENT * any(' #' in str(file) for file in missing)}"
        )


def _outside(items: list[Item], root: Path) -> str:
    """Return a note on files outside the root, which are allowed but should not go unnoticed."""
    top = os.path.abspath(root)
    files = [file for item in items for file in (item.image, item.mask) if file is not None]
    count = sum(not Path(os.path.abspath(file)).is_relative_to(top) for file in files)
    return f"; {counted(count, 'file')} outside {root}" if count else ""


Row = dict[str, str]


def has_manifest(root: Path, description: Description) -> bool:
    """Return whether `root` is or contains a table."""
    return _table(root) is not None


def read_manifest(root: Path, description: Description) -> Files:
    """Return the items of a table by split. Raises a DataError that names the file and line."""
    path = _table(root)
    assert path is not None
    files, seen = Files({}), dict[Path, int]()
    rows, columns = _read_csv(path) if path.suffix.lower() == ".csv" else _read_json_lines(path)
    if extra := sorted(columns - set(COLUMNS)):
        files.notes.append(f"{path}: ignored columns: {short(extra)}")

    def add(numbered: tuple[int, Row]) -> None:
        number, row = numbered
        where = f"{path}, line {number}"
        image, mask, name = (row.get(column, "").strip() for column in COLUMNS)
        part = _part_named(name or "train")
        if part is None:
            raise DataError(f"{where}: found the split {name!r}.{nearest(name, PARTS)}")
        if not image:
            raise DataError(f"{where}: has no image; expected a path")
        texts = [image] if part == "unlabelled" or not mask else [image, mask]
        paths = [existing(Path(os.path.normpath(path.parent / text))) for text in texts]
        if gaps := [file for file in paths if not file.is_file()]:
            raise DataError(f"{where}: {gaps[0]} {why_not_file(gaps[0])}; expected a file, relative to {path.parent}")
        if seen.setdefault(paths[0], number) != number:
            raise DataError(f"{where}: {paths[0]} is also in line {seen[paths[0]]}; remove one of them")
        item = _item(paths[0], paths[1] if len(paths) > 1 else None, path.parent)
        files.splits.setdefault("train" if part == "unlabelled" else part, []).append(item)

    attempt_all(add, rows, "invalid line", limit=20)
    without_split = [number for number, row in rows if not row.get("split", "").strip()]
    if 0 < len(without_split) < len(rows):
        files.notes.append(f"warning: {path}: no split in lines {short(without_split)}, which are used for training")
    return files


def _table(root: Path) -> Path | None:
    if root.is_file():
        return root if root.suffix.lower() in (".csv", ".jsonl") else None
    tables = [path for path in (root / "manifest.csv", root / "manifest.jsonl") if path.is_file()]
    if len(tables) > 1:
        raise DataError(f"{root}: contains manifest.csv and manifest.jsonl; expected one of them")
    return tables[0] if tables else None


def _read_csv(path: Path) -> tuple[list[tuple[int, Row]], set[str]]:
    """Return (line, row) pairs and the columns. The header determines the delimiter (comma, semicolon or tab)."""
    try:
        with io.StringIO(decoded(path.read_bytes(), "surrogateescape"), newline="") as file:
            head = file.readline()
            file.seek(0)
            reader = csv.DictReader(file, delimiter=delimiter(head), strict=True)
            columns = [str(name).strip().lower() for name in reader.fieldnames or ()]
            reader.fieldnames = columns
            rows = [(reader.line_num, {str(k): str(v or "") for k, v in row.items()}) for row in reader]
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a table ({error}); expected CSV in UTF-8") from None
    if "image" not in columns:
        raise DataError(f"{path}: found the columns {short(columns)}; expected image, mask, split in the first line")
    return rows, set(columns)


def _read_json_lines(path: Path) -> tuple[list[tuple[int, Row]], set[str]]:
    """Return (line, row) pairs and all keys."""
    rows: list[tuple[int, Row]] = []
    keys: set[str] = set()
    for number, line in numbered_lines(path).items():
        try:
            value: Any = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: is not JSON ({error})") from None
        if not isinstance(value, dict) or not all(isinstance(value.get(key) or "", str) for key in COLUMNS):
            raise DataError(f'{path}, line {number}: found {line[:80]!r}; expected {{"image": "...", "mask": "..."}}')
        keys |= set(value)
        rows.append((number, {key: value.get(key) or "" for key in COLUMNS}))
    return rows, keys
