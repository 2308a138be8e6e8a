"""Image and mask files of a folder, and their assignment to each other."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from fuzzyseg.data.io.find import Found, counts, find_images
from fuzzyseg.data.sample import DataError, Files, Item
from fuzzyseg.data.text import nearest, short

Key = tuple[str | None, str]
"""(split or None, path without suffix below the split folder)."""


def image_files(folder: Path) -> tuple[dict[str, Path], Counter[str]]:
    """Return the image files below `folder` by relative path without suffix, and the count of other files by suffix.

    Hidden files are skipped, links are followed. Raises DataError for two files that differ in suffix only.
    """
    found = find_images(folder)
    return by_name(found), found.others


def by_name(found: Found) -> dict[str, Path]:
    """Return image files by relative path without suffix. Raises DataError for two that differ in suffix only."""
    files: dict[str, Path] = {}
    for path in found.files:
        key = path.relative_to(found.root).with_suffix("").as_posix()
        if key in files:
            raise DataError(f"{path} and {files[key]} have the same name; expected one file per name: delete one")
        files[key] = path
    return files


def note_ignored(folder: Path, others: Counter[str], what: str) -> list[str]:
    """Return a note on files of other formats, if any."""
    return [f"{folder}: not read as {what}: {counts(others)}"] if others else []


def pair_folders(folders: dict[str, tuple[Path, Path]]) -> Files:
    """Pair the files of an image and a mask folder per split; missing folders are skipped. Raises DataError."""
    notes: list[str] = []
    keys: tuple[dict[Key, Path], dict[Key, Path]] = ({}, {})
    for split, pairs in folders.items():
        for folder, paths, what in zip(pairs, keys, ("images", "masks"), strict=True):
            if folder.is_dir():
                files, others = image_files(folder)
                notes += note_ignored(folder, others, what)
                paths.update({(split, name): path for name, path in files.items()})
    return pair(*keys, notes)


def pair(images: dict[Key, Path], masks: dict[Key, Path], notes: list[str]) -> Files:
    """Match masks to images by split and path, or by path alone where only one side has split folders.

    An image outside of split folders is a training image. notes: passed on. Raises DataError for a mask that matches
    several images, and for an image with two masks.
    """
    by_path: dict[str, list[Key]] = {}
    for key in images:
        by_path.setdefault(key[1], []).append(key)
    owner: dict[Key, Key] = {}
    unmatched: list[Path] = []
    for key, path in masks.items():
        candidates = [c for c in by_path.get(key[1], []) if c == key or (key not in images and None in (c[0], key[0]))]
        if not candidates:
            unmatched.append(path)
        elif len(candidates) > 1:
            raise DataError(f"{path}: matches several images: {short([images[c] for c in candidates])}; expected one")
        elif candidates[0] in owner:
            raise DataError(
                f"{images[candidates[0]]}: has two masks, {masks[owner[candidates[0]]]} and {path}; expected one"
            )
        else:
            owner[candidates[0]] = key
    splits: dict[str, list[Item]] = {}
    for key, path in images.items():
        mask = owner.get(key)
        split = key[0] or (mask[0] if mask else None)
        item = Item(path, masks[mask] if mask else None, f"{split}/{key[1]}" if split else key[1])
        splits.setdefault(split or "train", []).append(item)
    ordered = {split: sorted(items, key=lambda item: item.name) for split, items in splits.items()}
    return Files(ordered, notes, unmatched)


def check_unmatched(files: Files) -> None:
    """Raise DataError for the first mask without an image."""
    if files.unmatched_masks:
        path, count = files.unmatched_masks[0], len(files.unmatched_masks)
        total = sum(item.mask is not None for items in files.splits.values() for item in items) + count
        raise DataError(
            f"{path}: is a mask without an image ({count} of {total} masks are); expected an image of the same name."
            f"{suggest_image(path, files)} Rename or delete it"
        )


def suggest_image(mask: Path, files: Files) -> str:
    """Return a sentence with the most similar image name, if any."""
    text = nearest(mask.stem, sorted({item.image.stem for items in files.splits.values() for item in items}))
    return text if text.startswith(" Did") else ""
