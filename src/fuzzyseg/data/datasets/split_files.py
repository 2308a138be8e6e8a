"""Split files: text files with one image per line, as published with several methods.

A line is an image and its mask, separated by a space or tab (`JPEGImages/a.jpg SegmentationClass/a.png`: UniMatch, CPS
on Cityscapes), an image (`leftImg8bit/train/ulm/ulm_0_leftImg8bit.png`: U2PL on Cityscapes) or a name (`2007_000032`:
CPS and U2PL on VOC). A leading slash may denote the dataset root (CPS). Absolute paths and `..` are allowed; files
outside of the folder are reported.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from fuzzyseg.data.dataset_yaml import FILE, Description
from fuzzyseg.data.datasets.pairing import existing, split_named
from fuzzyseg.data.io.mat import SUFFIX as MATLAB
from fuzzyseg.data.io.pillow import SUFFIXES
from fuzzyseg.data.labels.class_lists import read_lines
from fuzzyseg.data.sample import DataError, Files, Item, PublicDataset
from fuzzyseg.data.text import counted, short

PARTS = ("train", "unlabelled", "val", "test")
"""Parts of a dataset that have lists."""

_SUFFIX = "|".join(re.escape(suffix) for suffix in (*SUFFIXES, MATLAB))
_PAIR = re.compile(rf"(.+?(?:{_SUFFIX}))\s+(\S.*(?:{_SUFFIX}))", re.IGNORECASE)


def fields(line: str) -> tuple[str, str | None]:
    """Parse a line into (image, mask or None). Paths may contain spaces; ` #` starts a comment.

    A name in quotation marks, as `quoted` writes it, is taken as it is.
    """
    if line.startswith('"'):
        with suppress(ValueError):
            name = json.loads(line)
            return name, None
    text = line.partition(" #")[0].strip()
    if "\t" in text:
        image, _, mask = text.partition("\t")
        return image.strip(), mask.strip() or None
    pair = _PAIR.fullmatch(text)
    return (pair[1], pair[2]) if pair else (text, None)


def quoted(name: str) -> str:
    """Return the line for a name that `fields` gives back: a JSON string where the name itself would be misread."""
    plain = name.isprintable() and name == name.strip() and not name.startswith(("#", '"'))
    return name if plain and fields(name) == (name, None) else json.dumps(name)


def part_named(name: str) -> str | None:
    """Return the part of a dataset (see `PARTS`) for the name of a list or of a split in a table, None for another."""
    name = name.lower()
    if name in ("unlabelled", "unlabeled"):
        return "unlabelled"
    return "train" if name in ("labelled", "labeled") else split_named(name)


def located(text: str, root: Path) -> Path:
    """Return the file of a list entry: below `root` even with a leading slash, else an absolute path."""
    below = existing(root / text.lstrip("/"))
    return Path(text) if text.startswith("/") and not below.is_file() else below


class Lists:
    """Lists of images and masks at the root, or declared in `dataset.yaml` (`lists: {train: a.txt}`)."""

    expected = "train.txt (or labelled.txt), unlabelled.txt, val.txt, test.txt with lines `image mask` (lists)"
    public: PublicDataset | None = None
    automatic = True

    def matches(self, root: Path, description: Description) -> bool:
        """Whether lists are declared, or exist and start with an image file."""
        if description.lists is not None:
            return True
        return any(_first_is_there(path, root) for path in _paths(root, description).get("train", []))

    def files(self, root: Path, description: Description) -> Files:
        """List the items of each split. Masks in an `unlabelled` list are ignored. Raises DataError."""
        files = Files({})
        taken: dict[Path, str] = {}  # the first list that contains an image determines its part
        listed: set[Path] = set()
        for part, paths in _paths(root, description).items():
            for path in paths:
                fresh: list[Item] = []
                for item in _items(path, root, masks=part != "unlabelled"):
                    before = taken.setdefault(item.image, part)
                    if before == part and item.image not in listed:
                        fresh.append(item)
                    elif before != part and {before, part} != {"train", "unlabelled"}:
                        raise DataError(
                            f"{path}: contains {item.image}, which is in a list for {before}; expected one of them"
                        )
                    listed.add(item.image)
                split = "train" if part == "unlabelled" else part
                files.splits[split] = files.splits.get(split, []) + fresh
                files.notes.append(f"{path}: {len(fresh)} images for {part}{_outside(fresh, root)}")
        return files


def _paths(root: Path, description: Description) -> dict[str, list[Path]]:
    """Return the list files of each part: the declared ones, else those at the root."""
    if description.lists is None:
        lists = [(part_named(path.stem), path) for path in sorted(root.glob("*.[tT][xX][tT]"))]
        return {part: found for part in PARTS if (found := [path for of, path in lists if of == part])}
    paths: dict[str, list[Path]] = {}
    for part, value in description.lists.items():
        paths[part] = [root / name for name in ([value] if isinstance(value, str) else value)]
        for path in paths[part]:
            if not path.is_file():
                raise DataError(f"{root / FILE}: lists.{part}: {path} does not exist; expected a list of images")
    return paths


def _first_is_there(path: Path, root: Path) -> bool:
    try:
        lines = read_lines(path, "surrogateescape")
    except DataError:
        return False
    first = next((line for line in lines if not line.startswith("#")), "")
    image, _ = fields(first)
    return Path(image).suffix.lower() in SUFFIXES and located(image, root).is_file()


def _items(path: Path, root: Path, *, masks: bool) -> Iterator[Item]:
    """Yield the items of a list. Raises DataError for missing files."""
    lost = []
    for line in read_lines(path, "surrogateescape"):
        if line.startswith("#"):
            continue
        image, mask = fields(line)
        files = [located(text, root) for text in (image, mask if masks else None) if text]
        lost += [file for file in files if not file.is_file()]
        yield Item(files[0], files[1] if len(files) > 1 else None, name_below(files[0], root))
    if lost:
        raise DataError(
            f"{path}: {len(lost)} files do not exist: {short(lost, 3)}; expected lines `image mask` with paths below "
            f"{root}"
        )


def _outside(items: list[Item], root: Path) -> str:
    """Return a note on files outside of the root, which are allowed but should not go unnoticed."""
    top = os.path.abspath(root)
    files = [file for item in items for file in (item.image, item.mask) if file is not None]
    count = sum(not Path(os.path.abspath(file)).is_relative_to(top) for file in files)
    return f"; {counted(count, 'file')} outside of {root}" if count else ""


def name_below(path: Path, root: Path) -> str:
    """Return an item name: the path below `root` without suffix, or the whole path of a file elsewhere."""
    place = path.relative_to(root) if path.is_relative_to(root) else path.relative_to(path.anchor)
    return place.with_suffix("").as_posix()
