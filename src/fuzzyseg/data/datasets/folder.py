"""Folders `images/` and `masks/` with files of equal names."""

from __future__ import annotations

from pathlib import Path

from fuzzyseg.data.dataset_yaml import FILE, Description
from fuzzyseg.data.datasets.ade20k import place as ade20k_place
from fuzzyseg.data.datasets.pairing import Key, add_files, note_other_folders, pair, split_folders
from fuzzyseg.data.sample import DataError, Files, PublicDataset


class Folder:
    """`images/` and `masks/`, with split folders above (`train/images`) or below (`images/train`)."""

    expected = "images/ and masks/ (each may have train/, val/, test/; or train/images, train/masks, ...)"
    public: PublicDataset | None = None
    automatic = True

    def matches(self, root: Path, description: Description) -> bool:
        """Whether an image folder of the expected name exists."""
        images, masks = description.images or "images", description.masks or "masks"
        if ade20k_place(root) == root and not (root / masks).is_dir():
            return False  # ADE20K names its mask folder differently
        return any((base / images).is_dir() for base in (root, *(path for _, path in split_folders(root))))

    def files(self, root: Path, description: Description) -> Files:
        """List the items of each split. Raises DataError."""
        notes: list[str] = []
        names = description.images or "images", description.masks or "masks"
        images, masks = ((root / name).resolve() for name in names)
        if images.is_relative_to(masks) or masks.is_relative_to(images):
            raise DataError(f"{root / FILE}: {images} and {masks} contain each other; expected two separate folders")
        above = [(split, path) for split, path in split_folders(root) if any((path / name).is_dir() for name in names)]
        keys: dict[str, dict[Key, Path]] = {"image": {}, "mask": {}}
        for name, (kind, found) in zip(names, keys.items(), strict=True):
            for split, base in ((None, root), *above):
                add_files(found, base / name, split, kind, notes)
        below = [path for _, path in split_folders(root / names[0])]
        if below:
            notes += note_other_folders(root / names[0], below, "no split folders, read as training images")
        if above:
            notes += note_other_folders(root, [path for _, path in above], "no split folders, not read", names)
        return pair(keys["image"], keys["mask"], notes)
