"""Several data sets as one, and further images without masks."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fuzzyseg.data.dataset_yaml import nearest
from fuzzyseg.data.datasets.pairing import image_files
from fuzzyseg.data.datasets.read import read_dataset
from fuzzyseg.data.io.pillow import SUFFIXES
from fuzzyseg.data.labels.decode import renamed
from fuzzyseg.data.sample import DataError, DataSet, Encoding, Item
from fuzzyseg.data.text import short


def gather(
    first: DataSet,
    *,
    more: Sequence[str | Path] | None = None,
    unlabelled: Sequence[str | Path] | None = None,
    classes: list[str] | None = None,
    ignore_index: int | None = None,
    encoding: str | None = None,
    snap: bool = False,
) -> DataSet:
    """`first` with the data sets of further roots and with further images without masks. Raises DataError.

    classes, ignore_index, encoding, snap: as given for all roots. Where a root names no classes, its indices (or
    colours) are taken for `first`'s.
    """
    others = [
        read_dataset(
            root,
            classes=classes,
            ignore_index=ignore_index,
            otherwise=first.meaning,
            encoding=encoding,
            snap=snap,
        )
        for root in more or ()
    ]
    dataset = together(first, others) if others else first
    return with_unlabelled(dataset, unlabelled) if unlabelled else dataset


def together(first: DataSet, others: Sequence[DataSet]) -> DataSet:
    """One data set of several. Classes are the first one's; those of the others are found by name.

    The items of the others are named `<folder>/<name>`. Raises DataError for a class that the first has not.
    """
    lists = {split: list(getattr(first, split) or []) for split in ("train", "val", "test")}
    there = {split for split in lists if getattr(first, split) is not None}
    found = list(first.found)
    taken = {item.name.split("/")[0] for items in lists.values() for item in items}
    images = {item.image.resolve() for items in lists.values() for item in items}
    for other in others:
        prefix = _free(other.root.resolve().stem, taken)
        order = _order(first, other)
        for split in lists:
            items = getattr(other, split)
            if items is None:
                continue
            there.add(split)
            fresh = [item for item in items if item.image.resolve() not in images]
            images |= {item.image.resolve() for item in fresh}
            lists[split] += [_moved(item, prefix, other, order) for item in fresh]
        found += [f"{other.root}: {sentence}" for sentence in other.found] + [
            f"{other.root}: names begin with {prefix}/"
        ]
    train, val, test = (lists[split] if split in there else None for split in ("train", "val", "test"))
    return replace(first, train=train or [], val=val, test=test, found=found)


def _order(first: DataSet, other: DataSet) -> list[int]:
    """The class index in the first data set of each class of the other."""
    unknown = [name for name in other.classes if name not in first.classes]
    if unknown:
        raise DataError(
            f"{other.root}: has the class {unknown[0]!r}, which {first.root} has not."
            f"{nearest(unknown[0], first.classes)} Name the classes alike in both (dataset.yaml), or give the "
            "first all of them"
        )
    return [first.classes.index(name) for name in other.classes]


def _moved(item: Item, prefix: str, other: DataSet, order: list[int]) -> Item:
    encoding: Encoding | None = None
    if item.mask is not None:
        names = ", ".join(f"{index} {name}" for index, name in enumerate(other.classes[:30]))
        text = item.encoding.text if item.encoding and item.encoding.text else f"{names}, {other.ignore_index} void"
        encoding = renamed(item.encoding, other.ignore_index, order, text)
    return Item(item.image, item.mask, f"{prefix}/{item.name}", encoding)


def _free(name: str, taken: set[str]) -> str:
    """`name`, or `name_2`, `name_3`, ... where it is taken; takes it."""
    names = (name if number == 1 else f"{name}_{number}" for number in range(1, len(taken) + 2))
    free = next(each for each in names if each not in taken)
    taken.add(free)
    return free


def with_unlabelled(dataset: DataSet, sources: Sequence[str | Path]) -> DataSet:
    """The data set with more training images that have no mask: folders (with all below them), files or patterns.

    A file that is in the data set already, as an image of any split or as a mask, is left out: so nothing of val is
    learnt from, and no mask is taken for an image. Raises DataError for a source without an image.
    """
    everyone = [item for items in (dataset.train, dataset.val, dataset.test) for item in items or []]
    known = {path.resolve() for item in everyone for path in (item.image, item.mask) if path is not None}
    taken = {item.name.split("/")[0] for item in everyone}
    train, found = list(dataset.train), list(dataset.found)
    for source in sources:
        files = _images(str(source))
        fresh = {name: path for name, path in files.items() if path.resolve() not in known}
        known |= {path.resolve() for path in fresh.values()}
        found = [sentence for sentence in found if f"--unlabelled {source} uses" not in sentence]  # now it does
        prefix = _free("unlabelled", taken)
        train += [Item(path, None, f"{prefix}/{name}", under=prefix) for name, path in sorted(fresh.items())]
        left = len(files) - len(fresh)
        also = f"; {left} files are in the data set already and are left out" if left else ""
        found.append(f"{source}: {len(fresh)} more training images without masks{also}")
    return replace(dataset, train=train, found=found)


def _images(source: str) -> dict[str, Path]:
    """Image files by name: the path without suffix below the folder, or below what precedes a pattern's wildcards."""
    path = Path(source).expanduser()
    if path.is_dir():
        files, _ = image_files(path)
    elif path.is_file():
        files = {path.stem: path} if path.suffix.lower() in SUFFIXES else {}
    elif glob.has_magic(source):
        parts = path.parts
        fixed = Path(*parts[: next(i for i, part in enumerate(parts) if glob.has_magic(part))])
        files = {}
        for each in sorted(glob.glob(str(path), recursive=True)):
            file = Path(each)
            if file.suffix.lower() not in SUFFIXES or not file.is_file():
                continue
            name = file.relative_to(fixed).with_suffix("").as_posix()
            if name in files:
                raise DataError(f"{file} and {files[name]} have the same name; expected one file a name: delete one")
            files[name] = file
    else:
        raise DataError(f"--unlabelled: {source} does not exist; expected a folder, an image file, or a quoted pattern")
    if not files:
        raise DataError(f"--unlabelled: {source} has no image; expected files in {short(SUFFIXES, 20)}")
    return files
