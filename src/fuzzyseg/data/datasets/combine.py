"""Merging datasets, and adding images without masks."""

import glob
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from fuzzyseg.data.datasets.pairing import by_name, note_ignored
from fuzzyseg.data.datasets.read import read_dataset
from fuzzyseg.data.io.find import Found, counts, find_images, why_not_image
from fuzzyseg.data.io.pillow import SUFFIXES
from fuzzyseg.data.labels.declared import LabelOptions
from fuzzyseg.data.labels.decode import remap_classes
from fuzzyseg.data.sample import SPLITS, DataError, DataSet, Encoding, Item
from fuzzyseg.data.text import nearest, short


def combine(
    first: DataSet,
    *,
    more: Sequence[str | Path] | None = None,
    unlabelled: Sequence[str | Path] | None = None,
    **options: Unpack[LabelOptions],
) -> DataSet:
    """Return `first` with the datasets `more` and the images `unlabelled` added. Raises DataError.

    more: dataset roots. unlabelled: see `add_unlabelled`. options: as in `read_dataset`, for all roots; a root without
    class names uses the label map of `first`.
    """
    options["fallback"] = first.label_map
    others = [read_dataset(root, **options) for root in more or ()]
    dataset = merge_datasets(first, others) if others else first
    return add_unlabelled(dataset, unlabelled) if unlabelled else dataset


def merge_datasets(first: DataSet, others: Sequence[DataSet]) -> DataSet:
    """Return the merged dataset. It has the classes of `first`; classes of the others are matched by name.

    Items from the others are named `<folder>/<name>`. Images that are already included are skipped. Raises DataError if
    another dataset has a class that `first` lacks.
    """
    lists: dict[str, Any] = {split: getattr(first, split) for split in SPLITS}
    notes = list(first.notes)
    prefixes = {item.name.split("/")[0] for item in first.items}
    images = {item.image.resolve() for item in first.items}
    for other in others:
        prefix = _free(other.root.resolve().stem, prefixes)
        if unknown := [name for name in other.classes if name not in first.classes]:
            raise DataError(
                f"{other.root}: has the class {unknown[0]!r}, which is missing in "
                f"{first.root}.{nearest(unknown[0], first.classes)} Use the same class names in both (dataset.yaml) or "
                "declare all classes in the first"
            )
        order = [first.classes.index(name) for name in other.classes]
        for split, items in ((split, getattr(other, split)) for split in SPLITS):
            fresh = [item for item in items or () if item.image.resolve() not in images]
            images |= {item.image.resolve() for item in fresh}
            if items is not None:
                lists[split] = [*(lists[split] or ()), *(_remapped(item, prefix, other, order) for item in fresh)]
        notes += [f"{other.root}: {note}" for note in [*other.notes, f"names begin with {prefix}/"]]
    return replace(first, **lists, notes=notes)


def _remapped(item: Item, prefix: str, other: DataSet, order: list[int]) -> Item:
    encoding: Encoding | None = None
    if item.mask is not None:
        names = ", ".join(f"{index} {name}" for index, name in enumerate(other.classes[:30]))
        text = item.encoding.text if item.encoding and item.encoding.text else f"{names}, {other.ignore_index} void"
        encoding = remap_classes(item.encoding, other.ignore_index, order, text)
    return Item(item.image, item.mask, f"{prefix}/{item.name}", encoding)


def _free(name: str, used: set[str]) -> str:
    """Return the first unused name among `name`, `name_2`, `name_3`, ..., and add it to `used`."""
    free = next(each for each in (name, *(f"{name}_{n}" for n in range(2, len(used) + 3))) if each not in used)
    used.add(free)
    return free


def add_unlabelled(dataset: DataSet, sources: Sequence[str | Path]) -> DataSet:
    """Return the dataset with additional unlabelled training images.

    sources: folders (searched recursively), files or glob patterns. Files that are already in the dataset, as an image
    of any split or as a mask, are skipped, so that validation images are not trained on and masks are not used as
    images. Raises DataError for a source without images.
    """
    known = {path.resolve() for item in dataset.items for path in (item.image, item.mask) if path is not None}
    prefixes = {item.name.split("/")[0] for item in dataset.items}
    train, notes = list(dataset.train), list(dataset.notes)
    for source in sources:
        files, ignored = _images(str(source))
        fresh = {name: path for name, path in files.items() if path.resolve() not in known}
        known |= {path.resolve() for path in fresh.values()}
        notes = [note for note in notes if f"--unlabelled {source} uses" not in note]  # drop the layout's hint
        prefix = _free("unlabelled", prefixes)
        train += [Item(path, None, f"{prefix}/{name}", prefix=prefix) for name, path in sorted(fresh.items())]
        left = len(files) - len(fresh)
        also = f"; {left} files that are already in the dataset are skipped" if left else ""
        notes.append(f"{source}: {len(fresh)} more training images without masks{also}")
        notes += note_ignored(Path(source), ignored, "images")
    return replace(dataset, train=train, notes=notes)


def _images(source: str) -> tuple[dict[str, Path], Counter[str]]:
    """Return image files keyed by path without suffix, and counts of other files by suffix.

    Paths are relative to the folder or to the fixed part of the pattern.
    """
    path = Path(source).expanduser()
    if path.is_file():
        images = Found(path.parent, [path] if why_not_image(path) is None else [])
    elif path.is_dir() or glob.has_magic(source):
        images = find_images(path)
    else:
        raise DataError(f"--unlabelled: {source} does not exist; expected a folder, an image file, or a quoted pattern")
    if not images.files:
        others = f"; not read: {counts(images.others)}" if images.others else ""
        raise DataError(f"--unlabelled: {source} contains no image{others}; expected files in {short(SUFFIXES, 20)}")
    return by_name(images), images.others
