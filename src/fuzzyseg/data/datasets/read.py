"""Reading a dataset from disk: layout, files, labels."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Unpack

from fuzzyseg.data.dataset_yaml import FILE, Description, read_description
from fuzzyseg.data.datasets import folder, public, tables, voc
from fuzzyseg.data.datasets.pairing import check_unmatched
from fuzzyseg.data.datasets.suggest import suggest_dataset
from fuzzyseg.data.io.find import names_in
from fuzzyseg.data.io.pillow import SUFFIXES
from fuzzyseg.data.labels.class_lists import note_names
from fuzzyseg.data.labels.declared import LabelOptions, declared_labels
from fuzzyseg.data.labels.resolve import resolve_labels
from fuzzyseg.data.sample import SPLITS, DataError, DataSet, Files, PublicDataset
from fuzzyseg.data.text import counted, nearest, repeated, short


@dataclass(frozen=True)
class Layout:
    """A folder structure that `read_dataset` supports.

    expected: description for error messages. matches: function that tests whether a root (a folder or a table) has this
    layout. files: function that lists the items of each split of a matching root, or raises DataError. public: the
    public dataset with this layout, if any. automatic: whether `layout="auto"` tries it.
    """

    expected: str
    matches: Callable[[Path, Description], bool]
    files: Callable[[Path, Description], Files]
    public: PublicDataset | None = None
    automatic: bool = True


DATASETS = {
    "folder": Layout(folder.EXPECTED, folder.matches, folder.list_files),
    "camvid": Layout(public.CAMVID_EXPECTED, public.is_camvid, public.camvid, public.CAMVID),
    "voc": Layout(voc.EXPECTED, voc.matches, voc.list_files, voc.VOC),
    "voc_plain": Layout(voc.EXPECTED, voc.matches, partial(voc.list_files, augmented=False), voc.VOC, automatic=False),
    "cityscapes": Layout(public.CITYSCAPES_EXPECTED, public.is_cityscapes, public.cityscapes, public.CITYSCAPES),
    "ade20k": Layout(public.ADE20K_EXPECTED, public.is_ade20k, public.ade20k, public.ADE20K),
    "lists": Layout(tables.LISTS_EXPECTED, tables.has_lists, tables.read_lists),
    "manifest": Layout(tables.MANIFEST_EXPECTED, tables.has_manifest, tables.read_manifest),
}
"""Layouts keyed by name; `read_dataset(layout="auto")` uses the one that matches."""


@dataclass(frozen=True)
class DatasetLocation:
    """A dataset's root, file folder (`root`, or its parent for a table), layout and `dataset.yaml`."""

    root: Path
    folder: Path
    layout: str
    description: Description


def read_dataset(
    root: str | Path, *, layout: str = "auto", description: Path | None = None, **options: Unpack[LabelOptions]
) -> DataSet:
    """Read a dataset folder, or a table of images, into lists of items with classes, void value and mask encoding.

    Label metadata comes from the first source that declares it: the arguments, `dataset.yaml`, a class table, the
    layout's own files, the public dataset, `fallback`. If none does, all training masks are read to detect it. The
    default void value is 255.

    layout: a key of `DATASETS`, or `auto` to detect it. description: file to read instead of `dataset.yaml`. options:
    see `LabelOptions`. Raises DataError.
    """
    location = locate(root, layout=layout, description=description)
    files = list_files(location)
    check_unmatched(files)
    return build_dataset(location, files, **options)


def locate(root: str | Path, *, layout: str = "auto", description: Path | None = None) -> DatasetLocation:
    """Find a dataset's layout and `dataset.yaml`; arguments as in `read_dataset`. Raises DataError."""
    root = Path(root)
    declared = read_description(root, description)
    return DatasetLocation(root, root.parent if root.is_file() else root, _layout(root, layout, declared), declared)


def list_files(location: DatasetLocation) -> Files:
    """List images and masks by split, sorted by name, without opening them. Raises DataError."""
    root = location.root
    files = DATASETS[location.layout].files(root, location.description)
    files.splits = {split: sorted(items, key=lambda item: item.name) for split, items in files.splits.items() if items}
    if not files.splits:
        problem = f"contains no image (layout {location.layout})"
        raise DataError(f"{root}: {problem}; expected files in {', '.join(SUFFIXES)}. {'; '.join(files.notes)}")
    items = [item for items in files.splits.values() for item in items]
    if duplicates := repeated([item.name for item in items]):  # such as a.png and a.jpg in a list
        same = [item.image for item in items if item.name == duplicates[0]]
        raise DataError(f"{root}: {same[0]} and {same[1]} are both named {duplicates[0]}; rename one")
    return files


def build_dataset(location: DatasetLocation, files: Files, **options: Unpack[LabelOptions]) -> DataSet:
    """Resolve the labels of the listed files; see `read_dataset`. Raises DataError."""
    public = DATASETS[location.layout].public
    declared = declared_labels(location.folder, location.description, files, public, **options)
    labels, notes = resolve_labels(declared, files)
    counts = [
        f"{split}: {counted(len(items), 'image')}, {sum(item.mask is not None for item in items)} with masks"
        for split in SPLITS
        if (items := files.splits.get(split))
    ]
    return DataSet(
        root=location.folder,
        layout=location.layout,
        classes=labels.classes,
        ignore_index=labels.ignore_index,
        train=files.splits.get("train", []),
        val=files.splits.get("val"),
        test=files.splits.get("test"),
        colours=labels.colours,
        notes=[f"layout {location.layout}", *counts, *files.notes, *notes, *note_names(labels.classes)],
        encoding=labels.encoding,
    )


def _layout(root: Path, layout: str, description: Description) -> str:
    """Return the name of the layout to read.

    Raises a DataError that lists the folder's content and the known layouts.
    """
    if layout not in ("auto", *DATASETS):
        raise DataError(f"unknown layout {layout!r}.{nearest(layout, ['auto', *DATASETS])}")
    tried = [name for name, each in DATASETS.items() if (each.automatic if layout == "auto" else name == layout)]
    names = [name for name in tried if DATASETS[name].matches(root, description)]
    if len(names) == 1:
        return names[0]
    if names:
        raise DataError(f"{root}: fits several layouts: {', '.join(names)}; choose one with data.layout=...")
    expected = "expected one of these:\n" + "\n".join(f"  {name}: {DATASETS[name].expected}" for name in tried)
    if not root.is_dir():
        problem = "is a file" if root.exists() else "does not exist"
        raise DataError(f"{root}: {problem}; expected a dataset folder, or a table of images (.csv, .jsonl)")
    content = names_in(root)
    if not content:
        raise DataError(f"{root}: is empty; {expected}")
    annotations = next((path for pattern in ("*.json", "*/*.json") for path in sorted(root.glob(pattern))), None)
    hint = f" If {annotations} is a LabelMe or COCO file, `fuzzyseg convert {root} --out DIR` creates masks from it."
    near = suggest_dataset(root, _is_dataset)
    raise DataError(
        f"{root}: no dataset is recognised; found {short(content)}.{hint if annotations else ''}\n"
        f"{near + '. ' if near else ''}If the image and mask folders have other names, set them in {root / FILE} "
        f"(images: ..., masks: ...). Otherwise {expected}"
    )


def _is_dataset(root: Path) -> bool:
    try:
        description = read_description(root)
        return any(each.automatic and each.matches(root, description) for each in DATASETS.values())
    except (DataError, OSError):
        return False
