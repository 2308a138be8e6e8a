"""Which image has which mask: a folder on disk becomes lists of items."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from fuzzyseg.data.classes import count_classes
from fuzzyseg.data.description import FILE, Description, nearest, read_description
from fuzzyseg.data.formats import SUFFIXES, short
from fuzzyseg.data.items import MAX_CLASSES, VOID, DataError, DataSet, Item
from fuzzyseg.data.pairing import SPLITS, Key, image_files, pair, set_aside

__all__ = ["CamVid", "DataError", "DataSet", "Files", "Folder", "Item", "Layout", "read_dataset"]


@dataclass
class Files:
    """What a layout found: the items of each split that exists, and sentences on what it left aside."""

    splits: dict[str, list[Item]]
    found: list[str]


@dataclass(frozen=True)
class Known:
    """What is known of a public data set: its classes, ignore index, and how to tell its files from others."""

    name: str
    classes: tuple[str, ...]
    ignore_index: int
    stem: re.Pattern[str]


class Folder:
    """`images/` and `masks/` of equal names, with split folders above (`train/images`) or below (`images/train`)."""

    expected = "images/ and masks/ (each may have train/, val/, test/; or train/images, train/masks, ...)"
    known: Known | None = None

    def matches(self, root: Path, description: Description) -> bool:
        """Whether there is a folder of images by the name that is expected."""
        images = description.images or "images"
        return any((root / part / images).is_dir() for part in ("", *SPLITS))

    def files(self, root: Path, description: Description) -> Files:
        """The items of each split. Raises DataError."""
        found: list[str] = []
        places = [
            (root / (description.images or "images")).resolve(),
            (root / (description.masks or "masks")).resolve(),
        ]
        if places[0].is_relative_to(places[1]) or places[1].is_relative_to(places[0]):
            raise DataError(
                f"{root / FILE}: one of {places[0]} and {places[1]} lies in the other; expected two folders"
            )
        images = self._keys(root, description.images or "images", "image", found)
        masks = self._keys(root, description.masks or "masks", "mask", found)
        return Files(pair(images, masks), found)

    def _keys(self, root: Path, folder: str, what: str, found: list[str]) -> dict[Key, Path]:
        keys: dict[Key, Path] = {}
        for above in (None, *SPLITS):
            base = root / (above or "") / folder
            if not base.is_dir():
                continue
            files, others = image_files(base)
            found += set_aside(base, others, f"{what}s")
            for name, path in files.items():
                first, _, rest = name.partition("/")
                key = (first, rest) if above is None and rest and first in SPLITS else (above, name)
                if key in keys:
                    raise DataError(f"{path} and {keys[key]} are the same {what} of split {key[0]}; expected one")
                keys[key] = path
        return keys


class CamVid:
    """`train/`, `trainannot/`, `val/`, `valannot/`, `test/`, `testannot/`: the layout of the SegNet tutorial."""

    expected = "train/ and trainannot/, val/ and valannot/, test/ and testannot/ (CamVid)"
    known: Known | None = Known(
        "CamVid",
        (
            "sky",
            "building",
            "pole",
            "road",
            "pavement",
            "tree",
            "sign_symbol",
            "fence",
            "car",
            "pedestrian",
            "bicyclist",
        ),
        ignore_index=11,
        stem=re.compile(r"(0001TP|0006R0|0016E5|Seq05VD)_f?\d+"),
    )

    def matches(self, root: Path, description: Description) -> bool:
        """Whether some split has both of its folders."""
        return any((root / split).is_dir() and (root / f"{split}annot").is_dir() for split in SPLITS)

    def files(self, root: Path, description: Description) -> Files:
        """The items of each split. Raises DataError."""
        found: list[str] = []
        images: dict[Key, Path] = {}
        masks: dict[Key, Path] = {}
        for split in SPLITS:
            for folder, keys, what in ((root / split, images, "images"), (root / f"{split}annot", masks, "masks")):
                if folder.is_dir():
                    files, others = image_files(folder)
                    found += set_aside(folder, others, what)
                    keys.update({(split, name): path for name, path in files.items()})
        return Files(pair(images, masks), found)


Layout = Folder | CamVid


def _recognise(root: Path, layout: str, layouts: dict[str, Layout], description: Description) -> str:
    """The name of the layout to read. Raises DataError with what lies in the folder and what was expected."""
    if layout != "auto" and layout not in layouts:
        raise DataError(f"unknown layout {layout!r}.{nearest(layout, ['auto', *layouts])}")
    if not root.is_dir():
        raise DataError(
            f"{root}: {'is a file' if root.exists() else 'does not exist'}; expected a folder with a data set"
        )
    expected = "; or ".join(f"{name}: {known.expected}" for name, known in layouts.items())
    content = sorted(p.name + ("/" if p.is_dir() else "") for p in root.iterdir())
    if not content:
        raise DataError(f"{root}: is empty; expected {expected}")
    names = [name for name, known in layouts.items() if layout in ("auto", name) and known.matches(root, description)]
    if not names:
        wanted = expected if layout == "auto" else f"layout {layout}: {layouts[layout].expected}"
        raise DataError(
            f"{root}: no data set is recognised in it; found {short(content)}; expected {wanted}. "
            f"Other folder names can be given in {FILE} (images: ..., masks: ...)"
        )
    if len(names) > 1:
        raise DataError(f"{root}: fits several layouts: {', '.join(names)}; choose one with data.layout=...")
    return names[0]


def _names(
    files: Files, known: Known | None, classes: list[str] | None, ignore_index: int | None, description: Description
) -> tuple[list[str], int, list[str]]:
    """Class names, ignore index and where they come from: what was given, else what is known, else what masks hold."""
    given = classes if classes is not None else description.classes
    ignore = ignore_index if ignore_index is not None else description.ignore_index
    labelled = [item for part in SPLITS for item in files.splits.get(part, []) if item.mask is not None]
    # Validation and test masks are not looked at where there are others.
    labelled = [item for item in files.splits.get("train", []) if item.mask is not None] or labelled
    everyone = [item for items in files.splits.values() for item in items]
    if known and given in (None, list(known.classes)) and all(known.stem.fullmatch(i.image.stem) for i in everyone):
        ignore = known.ignore_index if ignore is None else ignore
        return (
            list(known.classes),
            ignore,
            [f"{len(known.classes)} classes and ignore index {ignore}, as in {known.name}"],
        )
    if given is not None:
        return given, VOID if ignore is None else ignore, [f"{len(given)} classes, as given"]
    if not labelled:
        raise DataError(
            f"the {len(everyone)} images have no mask, so the number of classes is unknown; add masks, or name the "
            f"classes in {FILE} (classes: [...])"
        )
    count, sentences = count_classes(labelled, VOID if ignore is None else ignore)
    if known and ignore is None and count == known.ignore_index + 1:
        sentences = [
            f"values 0 to {count - 1} in {len(labelled)} masks: taken for {known.name}'s classes, {count - 1} is void"
        ]
        return list(known.classes), known.ignore_index, sentences
    return [f"class_{index}" for index in range(count)], VOID if ignore is None else ignore, sentences


def read_dataset(
    root: str | Path, *, layout: str = "auto", classes: list[str] | None = None, ignore_index: int | None = None
) -> DataSet:
    """A folder as lists of items, with its classes, ignore index and colours.

    layout: a key of `DATASETS`, or auto, which takes the one that matches. classes, ignore_index: what is given here
    goes before `dataset.yaml`, this before what is known of the data set (CamVid), this before what the training masks
    hold: only then are they read. 255 is void where nothing else is said. Raises DataError.
    """
    from fuzzyseg.data import DATASETS  # the table of layouts needs this file

    root = Path(root)
    description = read_description(root)
    name = _recognise(root, layout, DATASETS, description)
    files = DATASETS[name].files(root, description)
    if not files.splits:
        raise DataError(
            f"{root}: no image in its folders (layout {name}); expected files in {', '.join(SUFFIXES)}. "
            + "; ".join(files.found)
        )
    if classes is not None and not 2 <= len(classes) <= MAX_CLASSES:
        raise DataError(f"found {len(classes)} class names; expected 2 to {MAX_CLASSES}")
    names, ignore, sentences = _names(files, DATASETS[name].known, classes, ignore_index, description)
    counts = [
        f"{part}: {len(items)} images, {sum(item.mask is not None for item in items)} with masks"
        for part in SPLITS
        if (items := files.splits.get(part))
    ]
    return DataSet(
        root=root,
        layout=name,
        classes=names,
        ignore_index=ignore,
        train=files.splits.get("train", []),
        val=files.splits.get("val"),
        test=files.splits.get("test"),
        colours=description.colours if description.colours and len(description.colours) == len(names) else None,
        found=[f"layout {name}", *counts, *files.found, *sentences, f"value {ignore} is ignored"],
    )
