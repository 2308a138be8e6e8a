"""Which image has which mask: a folder on disk becomes lists of items."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol

from fuzzyseg.data.ade20k import place as ade20k_place
from fuzzyseg.data.class_names import check_names
from fuzzyseg.data.classes import count_classes
from fuzzyseg.data.description import FILE, Description, nearest, read_description
from fuzzyseg.data.formats import SUFFIXES, short
from fuzzyseg.data.items import VOID, DataError, DataSet, Files, Item, Known
from fuzzyseg.data.pairing import SPLITS, Key, image_files, pair, set_aside

__all__ = ["CamVid", "DataError", "DataSet", "Files", "Folder", "Item", "Known", "Layout", "read_dataset"]


class Layout(Protocol):
    """A way in which data sets lie on disk.

    expected: what it looks like, for messages. known: the public data set whose files lie like this, if one does.
    automatic: whether `auto` looks for it.
    """

    expected: str
    known: Known | None
    automatic: bool

    def matches(self, root: Path, description: Description) -> bool:
        """Whether `root` (a folder, or the file that names the images) looks like it."""

    def files(self, root: Path, description: Description) -> Files:
        """The items of each split, once it matches. Raises DataError."""


class Folder:
    """`images/` and `masks/` of equal names, with split folders above (`train/images`) or below (`images/train`)."""

    expected = "images/ and masks/ (each may have train/, val/, test/; or train/images, train/masks, ...)"
    known: Known | None = None
    automatic = True

    def matches(self, root: Path, description: Description) -> bool:
        """Whether there is a folder of images by the name that is expected."""
        images, masks = description.images or "images", description.masks or "masks"
        if ade20k_place(root) == root and not (root / masks).is_dir():
            return False  # its images/ has splits by other names, and its masks would be passed over
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
    automatic = True

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


def _recognise(root: Path, layout: str, layouts: dict[str, Layout], description: Description) -> str:
    """The name of the layout to read. Raises DataError with what lies in the folder and what was expected."""
    if layout != "auto" and layout not in layouts:
        raise DataError(f"unknown layout {layout!r}.{nearest(layout, ['auto', *layouts])}")
    expected = "; or ".join(f"{name}: {known.expected}" for name, known in layouts.items() if known.automatic)
    if root.is_file() and layouts.get(layout, layouts["manifest"]).matches(root, description):
        return "manifest" if layout == "auto" else layout
    if not root.is_dir():
        raise DataError(
            f"{root}: {'is a file' if root.exists() else 'does not exist'}; expected a folder with a data set, or a "
            "table of images (.csv, .jsonl)"
        )
    content = sorted(p.name + ("/" if p.is_dir() else "") for p in root.iterdir())
    if not content:
        raise DataError(f"{root}: is empty; expected {expected}")
    asked = [name for name, known in layouts.items() if name == layout or (layout == "auto" and known.automatic)]
    names = [name for name in asked if layouts[name].matches(root, description)]
    if not names:
        wanted = expected if layout == "auto" else f"layout {layout}: {layouts[layout].expected}"
        raise DataError(
            f"{root}: no data set is recognised in it; found {short(content)}; expected {wanted}. "
            f"Other folder names can be given in {FILE} (images: ..., masks: ...). Tried: {', '.join(asked)}"
        )
    if len(names) > 1:
        raise DataError(f"{root}: fits several layouts: {', '.join(names)}; choose one with data.layout=...")
    return names[0]


def _names(
    files: Files,
    known: Known | None,
    given: list[str] | None,
    ignore: int | None,
    otherwise: list[str] | None,
) -> tuple[list[str], int, list[str]]:
    """Class names, ignore index and where they come from: what was given, else what is known, else what masks hold."""
    labelled = [item for part in SPLITS for item in files.splits.get(part, []) if item.mask is not None]
    # Validation and test masks are not looked at where there are others.
    labelled = [item for item in files.splits.get("train", []) if item.mask is not None] or labelled
    everyone = [item for items in files.splits.values() for item in items]
    if known and given in (None, list(known.classes)) and _is(known, everyone):
        ignore = known.ignore_index if ignore is None else ignore
        return (
            list(known.classes),
            ignore,
            [f"{len(known.classes)} classes and ignore index {ignore}, as in {known.name}"],
        )
    if given is not None:
        return given, VOID if ignore is None else ignore, [f"{len(given)} classes, as given"]
    if otherwise is not None:
        usual = known.ignore_index if known and otherwise == list(known.classes) else VOID
        return otherwise, usual if ignore is None else ignore, [f"{len(otherwise)} classes, none named here"]
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


def _is(known: Known, items: list[Item]) -> bool:
    """Whether these are files of the public data set, by their names."""
    return known.stem is None or all(known.stem.fullmatch(item.image.stem) for item in items)


def _check_unique(root: Path, files: Files) -> None:
    """Raises DataError where two items have the same name, as a.png and a.jpg of one list have."""
    images: dict[str, Path] = {}
    for item in (item for items in files.splits.values() for item in items):
        if item.name in images:
            raise DataError(f"{root}: {item.image} and {images[item.name]} are both named {item.name}; rename one")
        images[item.name] = item.image


def read_dataset(
    root: str | Path,
    *,
    layout: str = "auto",
    classes: list[str] | None = None,
    ignore_index: int | None = None,
    otherwise: list[str] | None = None,
) -> DataSet:
    """A folder, or a table of images, as lists of items, with its classes, ignore index and colours.

    layout: a key of `DATASETS`, or auto, which takes the one that matches. classes, ignore_index: what is given here
    goes before `dataset.yaml`, this before what is known of the data set (CamVid), this before `otherwise` (class
    names), this before what the training masks hold: only then are they read. 255 is void where nothing else is said.
    Raises DataError.
    """
    from fuzzyseg.data import DATASETS  # the table of layouts needs this file

    root = Path(root)
    folder = root.parent if root.is_file() else root
    description = read_description(root)
    name = _recognise(root, layout, DATASETS, description)
    files = DATASETS[name].files(root, description)
    files.splits = {split: sorted(items, key=lambda item: item.name) for split, items in files.splits.items() if items}
    if not files.splits:
        raise DataError(
            f"{root}: no image in its folders (layout {name}); expected files in {', '.join(SUFFIXES)}. "
            + "; ".join(files.found)
        )
    _check_unique(root, files)
    if classes is not None:
        check_names(classes, str(root))
    given = next((names for names in (classes, description.classes, files.classes) if names is not None), None)
    ignore = ignore_index if ignore_index is not None else description.ignore_index
    names, ignore, sentences = _names(files, DATASETS[name].known, given, ignore, otherwise)
    counts = [
        f"{part}: {len(items)} images, {sum(item.mask is not None for item in items)} with masks"
        for part in SPLITS
        if (items := files.splits.get(part))
    ]
    colours = description.colours or (files.colours if names == files.classes else None)
    return DataSet(
        root=folder,
        layout=name,
        classes=names,
        ignore_index=ignore,
        train=files.splits.get("train", []),
        val=files.splits.get("val"),
        test=files.splits.get("test"),
        colours=colours if colours and len(colours) == len(names) else None,
        found=[f"layout {name}", *counts, *files.found, *sentences, f"value {ignore} is ignored"],
    )
