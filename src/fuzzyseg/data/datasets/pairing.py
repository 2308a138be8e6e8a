"""Image files and mask files of a folder, and which belongs to which."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from fuzzyseg.data.dataset_yaml import nearest
from fuzzyseg.data.io.pillow import SUFFIXES
from fuzzyseg.data.sample import DataError, Files, Item
from fuzzyseg.data.text import short

Key = tuple[str | None, str]
"""(split or None, path without suffix below the split's folder)."""


def image_files(folder: Path) -> tuple[dict[str, Path], Counter[str]]:
    """Image files below `folder` by relative path without suffix, and how many other files there are of each suffix.

    Hidden files are skipped, links followed. Raises DataError where two files differ in the suffix alone.
    """
    files: dict[str, Path] = {}
    others: Counter[str] = Counter()
    seen = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if real not in seen else []
        names = names if real not in seen else []
        seen.add(real)
        for name in sorted(name for name in names if not name.startswith(".")):
            path = Path(place, name)
            if path.suffix.lower() not in SUFFIXES:
                others[path.suffix.lower() or "no suffix"] += 1
                continue
            key = path.relative_to(folder).with_suffix("").as_posix()
            if key in files:
                raise DataError(f"{path} and {files[key]} have the same name; expected one file a name: delete one")
            files[key] = path
    return files, others


def set_aside(folder: Path, others: Counter[str], what: str) -> list[str]:
    """A sentence on files that are no images, so that masks in another format do not vanish in silence."""
    if not others:
        return []
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()))
    return [f"{folder}: not read as {what}: {kinds}"]


def pair(images: dict[Key, Path], masks: dict[Key, Path], found: list[str]) -> Files:
    """Images with their masks, by split. An image outside of any split's folder is a training image.

    A mask belongs to the image with the same split and path; where only one of the two sides has split folders, to the
    one with the same path. found: what was left aside. Raises DataError for a mask with several images.
    """
    by_path: dict[str, list[Key]] = {}
    for key in images:
        by_path.setdefault(key[1], []).append(key)
    owner: dict[Key, Key] = {}
    orphans: list[Path] = []
    for key, path in masks.items():
        candidates = by_path.get(key[1], [])
        if key in images:
            candidates = [key]
        else:
            candidates = [c for c in candidates if c[0] is None or key[0] is None]
        if not candidates:
            orphans.append(path)
        elif len(candidates) > 1:
            raise DataError(f"{path}: fits several images: {short([images[c] for c in candidates])}; expected one")
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
    return Files(ordered, found, orphans)


def check_orphans(files: Files) -> None:
    """Raises DataError for the first mask without an image."""
    if files.orphans:
        count = sum(item.mask is not None for items in files.splits.values() for item in items) + len(files.orphans)
        raise DataError(
            f"{files.orphans[0]}: is a mask without an image ({len(files.orphans)} of {count} masks are); expected an "
            f"image of the same name.{likely_image(files.orphans[0], files)} Rename or delete it"
        )


def likely_image(mask: Path, files: Files) -> str:
    """Which image a mask without one may belong to, as a sentence; empty where no name is close."""
    said = nearest(mask.stem, sorted({item.image.stem for items in files.splits.values() for item in items}))
    return said if said.startswith(" Did") else ""
