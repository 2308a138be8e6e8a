"""Lists of images: which files belong to which split, one a line, as the authors of several methods publish them.

A line is an image and its mask (`JPEGImages/a.jpg SegmentationClass/a.png`, a blank or a tab between: UniMatch, CPS on
Cityscapes), an image alone (`leftImg8bit/train/ulm/ulm_0_leftImg8bit.png`: U2PL on Cityscapes) or a bare name
(`2007_000032`: CPS and U2PL on VOC). A slash at the start does not mean the top of the file system (CPS). Lists are
there to name files, so that absolute paths and `..` are followed; it is said that they leave the folder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from fuzzyseg.data.dataset_yaml import FILE, Description
from fuzzyseg.data.io.mat import SUFFIX as MATLAB
from fuzzyseg.data.io.pillow import SUFFIXES
from fuzzyseg.data.labels.class_lists import read_lines
from fuzzyseg.data.sample import DataError, Files, Item, Known
from fuzzyseg.data.text import counted, short

PARTS = {
    "train": ("train.txt", "labelled.txt", "labeled.txt"),
    "unlabelled": ("unlabelled.txt", "unlabeled.txt"),
    "val": ("val.txt",),
    "test": ("test.txt",),
}
"""What a list is for -> the file names by which it is found at the top of a data set."""

_SUFFIX = "|".join(re.escape(suffix) for suffix in (*SUFFIXES, MATLAB))
_PAIR = re.compile(rf"(.+?(?:{_SUFFIX}))\s+(\S.*(?:{_SUFFIX}))", re.IGNORECASE)


def fields(line: str) -> tuple[str, str | None]:
    """A line of a list as (image, mask or None). Blanks within a path stay; a comment begins with ` #`."""
    text = line.partition(" #")[0].strip()
    if "\t" in text:
        image, _, mask = text.partition("\t")
        return image.strip(), mask.strip() or None
    pair = _PAIR.fullmatch(text)
    return (pair[1], pair[2]) if pair else (text, None)


def located(text: str, root: Path) -> Path:
    """The file that a list names: below `root`, also with a slash at the start; else as an absolute path."""
    below = root / text.lstrip("/")
    return Path(text) if text.startswith("/") and not below.is_file() else below


class Lists:
    """Lists of images and masks at the top of a folder, or named in `dataset.yaml` (`lists: {train: a.txt}`)."""

    expected = "train.txt (or labelled.txt), unlabelled.txt, val.txt, test.txt with lines `image mask` (lists)"
    known: Known | None = None
    automatic = True

    def matches(self, root: Path, description: Description) -> bool:
        """Whether lists are named, or lie there and their first line names an image file."""
        if description.lists is not None:
            return True
        return any(_first_is_there(path, root) for path in _paths(root, description).get("train", []))

    def files(self, root: Path, description: Description) -> Files:
        """The items of each split. An image of a list `unlabelled` has no mask, whatever its line says."""
        files = Files({})
        taken: dict[Path, str] = {}  # what each image is for: the first list that names it says
        seen: set[Path] = set()
        for part, paths in _paths(root, description).items():
            for path in paths:
                fresh: list[Item] = []
                for item in _items(path, root, masks=part != "unlabelled"):
                    before = taken.setdefault(item.image, part)
                    if before == part and item.image not in seen:
                        fresh.append(item)
                    elif before != part and {before, part} != {"train", "unlabelled"}:
                        raise DataError(
                            f"{path}: names {item.image}, which is in a list for {before}; expected one of them"
                        )
                    seen.add(item.image)
                split = "train" if part == "unlabelled" else part
                files.splits[split] = files.splits.get(split, []) + fresh
                files.found.append(f"{path}: {len(fresh)} images for {part}{_outside(fresh, root)}")
        return files


def _paths(root: Path, description: Description) -> dict[str, list[Path]]:
    """The list files of each part: those that the description names, else those at the top."""
    if description.lists is None:
        return {
            part: found for part, names in PARTS.items() if (found := [root / n for n in names if (root / n).is_file()])
        }
    paths: dict[str, list[Path]] = {}
    for part, value in description.lists.items():
        paths[part] = [root / name for name in ([value] if isinstance(value, str) else value)]
        for path in paths[part]:
            if not path.is_file():
                raise DataError(f"{root / FILE}: lists.{part}: {path} does not exist; expected a list of images")
    return paths


def _first_is_there(path: Path, root: Path) -> bool:
    try:
        lines = read_lines(path)
    except DataError:
        return False
    first = next((line for line in lines if not line.startswith("#")), "")
    image, _ = fields(first)
    return Path(image).suffix.lower() in SUFFIXES and located(image, root).is_file()


def _items(path: Path, root: Path, *, masks: bool) -> Iterator[Item]:
    """The items of one list. Raises DataError that names the files that are not there."""
    lost = []
    for line in read_lines(path):
        if line.startswith("#"):
            continue
        image, mask = fields(line)
        files = [located(text, root) for text in (image, mask if masks else None) if text]
        lost += [file for file in files if not file.is_file()]
        yield Item(files[0], files[1] if len(files) > 1 else None, name_below(files[0], root))
    if lost:
        raise DataError(
            f"{path}: names {len(lost)} files that do not exist: {short(lost, 3)}; expected lines `image mask` with "
            f"paths below {root}"
        )


def _outside(items: list[Item], root: Path) -> str:
    """How many files lie elsewhere: a list may name them, but nobody should be led there unawares."""
    top = os.path.abspath(root)
    files = [file for item in items for file in (item.image, item.mask) if file is not None]
    count = sum(not Path(os.path.abspath(file)).is_relative_to(top) for file in files)
    return f"; {counted(count, 'file')} outside of {root}" if count else ""


def name_below(path: Path, root: Path) -> str:
    """The name of an image: its path below `root` without suffix, or the whole path where it lies elsewhere."""
    place = path.relative_to(root) if path.is_relative_to(root) else path.relative_to(path.anchor)
    return place.with_suffix("").as_posix()
