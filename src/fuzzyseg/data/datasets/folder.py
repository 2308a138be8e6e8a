"""Folder layout: `images/` and `masks/` with matching file names."""

from pathlib import Path

from fuzzyseg.data.dataset_yaml import FILE, Description
from fuzzyseg.data.datasets.pairing import note_other_folders, pair_folders, split_folders, split_named
from fuzzyseg.data.datasets.public import ade20k_place
from fuzzyseg.data.datasets.suggest import suggest_masks
from fuzzyseg.data.sample import DataError, Files

CLASS_LISTS = ("classes.txt", "class_names.txt", "labels.txt", "labelmap.txt", "_classes.csv", "obj.names")
"""Class lists written by annotation tools; they do not specify the order of mask values."""
EXPECTED = "images/ and masks/ (each may have train/, val/, test/; or train/images, train/masks, ...)"


def matches(root: Path, description: Description) -> bool:
    """Return whether an image folder with the expected name exists."""
    images, masks = description.images or "images", description.masks or "masks"
    if ade20k_place(root) == root and not (root / masks).is_dir():
        return False  # ADE20K names its mask folder differently
    return any((base / images).is_dir() for base in (root, *(path for _, path in split_folders(root))))


def list_files(root: Path, description: Description) -> Files:
    """List the items of each split.

    Split folders may contain the image folder (`train/images`) or be inside it (`images/train`). Raises DataError.
    """
    names = {"image": description.images or "images", "mask": description.masks or "masks"}
    images, masks = ((root / name).resolve() for name in names.values())
    if images.is_relative_to(masks) or masks.is_relative_to(images):
        raise DataError(f"{root / FILE}: one of {images} and {masks} contains the other; expected two separate folders")
    splits = split_folders(root)
    above = [(split, path) for split, path in splits if any((path / name).is_dir() for name in names.values())]
    places = [(kind, split, base / name) for kind, name in names.items() for split, base in ((None, root), *above)]
    files = pair_folders(places, [])
    if not files.unmatched_masks and all(item.mask is None for items in files.splits.values() for item in items):
        near = suggest_masks(root, [path for kind, _, path in places if kind == "image" and path.is_dir()])
        if near:
            raise DataError(f"{root}: no image has a mask in {names['mask']}/; {near}")
    siblings = [path for _, path in split_folders(root.parent) if path != root and (path / names["image"]).is_dir()]
    if split_named(root.name) and siblings:
        others = ", ".join(f"{path.name}/" for path in siblings)
        files.notes.append(f"warning: {root} is one split, {others} are not read; pass {root.parent} to read all")
    below = [path for _, path in split_folders(root / names["image"])]
    files.notes += note_other_folders(root / names["image"], below, "no split folders, read as training images")
    subfolders = list(names.values())
    files.notes += note_other_folders(root, [path for _, path in above], "no split folders, not read", subfolders)
    if description.classes is None and description.colours_of is None and description.values is None:
        named = [root / name for name in CLASS_LISTS if (root / name).is_file()]
        files.notes += [f"warning: {path}: not read; name the classes in {root / FILE} (classes:)" for path in named]
    lists = [] if "val" in files.splits else sorted(root.glob("*.txt"))
    val_lists = [path for path in lists if split_named(path.stem) == "val"]
    files.notes += [f"{path}: not read; without --val {path}, its images are used for training" for path in val_lists]
    return files
