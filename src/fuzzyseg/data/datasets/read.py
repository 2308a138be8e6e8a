"""Which image has which mask: a folder on disk becomes lists of items."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fuzzyseg.data.dataset_yaml import FILE, Description, nearest, read_description
from fuzzyseg.data.datasets.ade20k import place as ade20k_place
from fuzzyseg.data.datasets.pairing import Key, check_orphans, image_files, pair, set_aside
from fuzzyseg.data.io.pillow import SUFFIXES
from fuzzyseg.data.labels.class_lists import check_names
from fuzzyseg.data.labels.declared import said_of
from fuzzyseg.data.labels.resolve import settle
from fuzzyseg.data.sample import SPLITS, DataError, DataSet, Files, Item, Known, Meaning
from fuzzyseg.data.text import counted, short

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
        return pair(images, masks, found)

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
        return pair(images, masks, found)


def _recognise(root: Path, layout: str, layouts: dict[str, Layout], description: Description) -> str:
    """The name of the layout to read. Raises DataError with what lies in the folder and what was expected."""
    if layout != "auto" and layout not in layouts:
        raise DataError(f"unknown layout {layout!r}.{nearest(layout, ['auto', *layouts])}")
    expected = "one of these:\n" + "\n".join(
        f"  {name}: {known.expected}" for name, known in layouts.items() if known.automatic
    )
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
            f"{root}: no data set is recognised in it; found {short(content)}.{_convertible(root)}\n"
            f"Where images and masks are in folders of other names, say which in {root / FILE} (images: ..., masks: "
            f"...). Else expected {wanted}"
        )
    if len(names) > 1:
        raise DataError(f"{root}: fits several layouts: {', '.join(names)}; choose one with data.layout=...")
    return names[0]


def _convertible(root: Path) -> str:
    """A sentence on how annotations become masks, where JSON files lie in the folder or in one of those in it."""
    path = next((path for pattern in ("*.json", "*/*.json") for path in sorted(root.glob(pattern))), None)
    if path is None:
        return ""
    return f" If {path} is of LabelMe or COCO, `fuzzyseg convert {root} --out DIR` makes masks of it."


def _check_unique(root: Path, files: Files) -> None:
    """Raises DataError where two items have the same name, as a.png and a.jpg of one list have."""
    images: dict[str, Path] = {}
    for item in (item for items in files.splits.values() for item in items):
        if item.name in images:
            raise DataError(f"{root}: {item.image} and {images[item.name]} are both named {item.name}; rename one")
        images[item.name] = item.image


@dataclass(frozen=True)
class Place:
    """Where a data set lies, by which layout, and what its `dataset.yaml` says. folder: `root`, or the one it is in."""

    root: Path
    folder: Path
    layout: str
    description: Description


def locate(root: str | Path, *, layout: str = "auto", description: Path | None = None) -> Place:
    """Recognises the layout. See `read_dataset`. Raises DataError."""
    from fuzzyseg.data import DATASETS  # the table of layouts needs this file

    root = Path(root)
    folder = root.parent if root.is_file() else root
    about = read_description(root, description)
    return Place(root, folder, _recognise(root, layout, DATASETS, about), about)


def list_files(place: Place) -> Files:
    """Images and masks of a place, by split and sorted by name; no image or mask is opened. Raises DataError."""
    from fuzzyseg.data import DATASETS

    files = DATASETS[place.layout].files(place.root, place.description)
    files.splits = {split: sorted(items, key=lambda item: item.name) for split, items in files.splits.items() if items}
    if not files.splits:
        raise DataError(
            f"{place.root}: no image in its folders (layout {place.layout}); expected files in {', '.join(SUFFIXES)}. "
            + "; ".join(files.found)
        )
    _check_unique(place.root, files)
    return files


def understand(
    place: Place,
    files: Files,
    *,
    classes: list[str] | None = None,
    ignore_index: int | None = None,
    otherwise: Meaning | None = None,
    encoding: str | None = None,
    snap: bool = False,
) -> DataSet:
    """Settles what the masks mean; see `read_dataset`. Raises DataError."""
    from fuzzyseg.data import DATASETS

    if classes is not None:
        check_names(classes, str(place.root))
    given: dict[str, Any] = {"classes": classes, "ignore_index": ignore_index, "encoding": encoding, "snap": snap}
    said = said_of(place.folder, place.description, files, DATASETS[place.layout].known, otherwise=otherwise, **given)
    meaning, sentences = settle(said, files)
    counts = [
        f"{part}: {counted(len(items), 'image')}, {sum(item.mask is not None for item in items)} with masks"
        for part in SPLITS
        if (items := files.splits.get(part))
    ]
    return DataSet(
        root=place.folder,
        layout=place.layout,
        classes=meaning.classes,
        ignore_index=meaning.ignore_index,
        train=files.splits.get("train", []),
        val=files.splits.get("val"),
        test=files.splits.get("test"),
        colours=meaning.colours,
        found=[f"layout {place.layout}", *counts, *files.found, *sentences, f"value {meaning.ignore_index} is ignored"],
        encoding=meaning.encoding,
    )


def read_dataset(
    root: str | Path,
    *,
    layout: str = "auto",
    classes: list[str] | None = None,
    ignore_index: int | None = None,
    otherwise: Meaning | None = None,
    description: Path | None = None,
    encoding: str | None = None,
    snap: bool = False,
) -> DataSet:
    """A folder, or a table of images, as lists of items, with its classes, ignore index, colours, and masks' encoding.

    layout: a key of `DATASETS`, or auto, which takes the one that matches. classes, ignore_index: what is given here
    goes before `dataset.yaml` (or the file `description` in place of it), this before a class table, this before what
    is known of the data set (CamVid), this before `otherwise`, this before what the training masks hold: only then are
    all of them read. 255 is void where nothing else is said. encoding: index, colour or binary, where it is not to be
    found out; snap: see `Encoding`. Raises DataError.
    """
    place = locate(root, layout=layout, description=description)
    files = list_files(place)
    check_orphans(files)
    given: dict[str, Any] = {"classes": classes, "ignore_index": ignore_index, "encoding": encoding, "snap": snap}
    return understand(place, files, otherwise=otherwise, **given)
