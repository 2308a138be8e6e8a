"""Folders `images/` and `masks/` with files of equal names."""

from __future__ import annotations

from pathlib import Path

from fuzzyseg.data.dataset_yaml import FILE, Description
from fuzzyseg.data.datasets.ade20k import place as ade20k_place
from fuzzyseg.data.datasets.pairing import Key, image_files, note_ignored, pair
from fuzzyseg.data.sample import SPLITS, DataError, Files, PublicDataset


class Folder:
    """`images/` and `masks/`, with split folders above (`train/images`) or below (`images/train`)."""

    expected = "images/ and masks/ (each may have train/, val/, test/; or train/images, train/masks, ...)"
    public: PublicDataset | None = None
    automatic = True

    def matches(self, root: Path, description: Description) -> bool:
        """Whether an image folder of the expected name exists."""
        images, masks = description.images or "images", description.masks or "masks"
        if ade20k_place(root) == root and not (root / masks).is_dir():
            return False  # ADE20K names its splits and its mask folder differently
        return any((root / part / images).is_dir() for part in ("", *SPLITS))

    def files(self, root: Path, description: Description) -> Files:
        """List the items of each split. Raises DataError."""
        notes: list[str] = []
        names = description.images or "images", description.masks or "masks"
        images, masks = ((root / name).resolve() for name in names)
        if images.is_relative_to(masks) or masks.is_relative_to(images):
            raise DataError(f"{root / FILE}: {images} and {masks} contain each other; expected two separate folders")
        return pair(_keys(root, names[0], "image", notes), _keys(root, names[1], "mask", notes), notes)


def _keys(root: Path, folder: str, kind: str, notes: list[str]) -> dict[Key, Path]:
    keys: dict[Key, Path] = {}
    for above in (None, *SPLITS):
        base = root / (above or "") / folder
        if not base.is_dir():
            continue
        files, others = image_files(base)
        notes += note_ignored(base, others, f"{kind}s")
        for name, path in files.items():
            first, _, rest = name.partition("/")
            key = (first, rest) if above is None and rest and first in SPLITS else (above, name)
            if key in keys:
                raise DataError(f"{path} and {keys[key]} are the same {kind} of split {key[0]}; expected one")
            keys[key] = path
    return keys
