"""Hints about folders that the user may have meant, for when no dataset or mask is found."""

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import combinations, islice
from pathlib import Path

from fuzzyseg.data.dataset_yaml import FILE
from fuzzyseg.data.io.find import is_hidden, walk
from fuzzyseg.data.io.pillow import SUFFIXES, suffix_of
from fuzzyseg.data.text import short

FOLDERS, FILES = 50, 20_000
"""Maximum number of folders to search and of files to list in each, since the user may pass a home folder."""

_MASKS = re.compile("mask|label|annot|gt|truth|seg|target|colou?r", re.IGNORECASE)


def suggest_masks(root: Path, images: Sequence[Path]) -> str:
    """Return a hint about up to three folders next to the image folders that contain files with the same names.

    Returns an empty string if there are none.
    """
    matches: Counter[str] = Counter()
    for folder in images:
        names = _names(folder)
        for other in _folders(folder.parent):
            if not other.is_relative_to(folder):
                matches[other.relative_to(folder.parent).as_posix()] += len(names & _names(other))
    likely = [(name, count) for name, count in matches.most_common(3) if count]
    if not likely:
        return ""
    listed = ", ".join(f"{name}/ contains {count} files named like the images" for name, count in likely)
    return f"{listed}: if these are the masks, add `masks: {likely[0][0]}` to {root / FILE}"


def suggest_dataset(root: Path, is_dataset: Callable[[Path], bool]) -> str:
    """Return a hint about datasets inside or above `root`, or else about two of its folders that share file names.

    Returns an empty string if there are none.
    """
    inside = [folder for folder in _folders(root) if is_dataset(folder)]
    if inside:
        level = min(len(folder.parts) for folder in inside)
        return f"found a dataset in {short([folder for folder in inside if len(folder.parts) == level], 3)}: pass it"
    for above in list(root.parents)[:2]:
        if is_dataset(above):
            return f"{root} is part of the dataset {above}: pass that folder"
    files = {folder: names for folder in _folders(root) if (names := _names(folder))}
    pairs = {pair: len(files[pair[0]] & files[pair[1]]) for pair in combinations(files, 2)}
    if not any(pairs.values()):
        return ""
    pair = max(pairs, key=lambda pair: pairs[pair])
    ordered = sorted(pair, key=lambda folder: (_MASKS.search(folder.name) is not None, -len(files[folder])))
    images, masks = (folder.relative_to(root).as_posix() for folder in ordered)
    return (
        f"{images}/ and {masks}/ contain {pairs[pair]} files with the same names: add `images: {images}` and `masks: "
        f"{masks}` to {root / FILE}"
    )


def _folders(root: Path) -> list[Path]:
    """Return up to `FOLDERS` folders: the subfolders of `root`, then their subfolders. Hidden folders are skipped."""

    def inside(place: Path) -> list[Path]:
        _, names, _ = next(os.walk(place), ("", [], []))  # empty for an unreadable folder
        return [place / name for name in sorted(names) if not is_hidden(name)]

    first = inside(root)
    return [*first, *(folder for place in first for folder in inside(place))][:FOLDERS]


def _names(folder: Path) -> set[str]:
    files = islice(walk(folder, 3), FILES)
    return {path.relative_to(folder).with_suffix("").as_posix() for path in files if suffix_of(path) in SUFFIXES}
