"""PASCAL VOC 2012, with or without SBD, and folders in the same layout.

Everingham et al., "The PASCAL visual object classes challenge", IJCV 2010; SBD: Hariharan et al., ICCV 2011. The
"augmented" training set is VOC's train list plus the images annotated by SBD, minus VOC's val list: 10,582 images.
"""

from __future__ import annotations

import re
from pathlib import Path

from fuzzyseg.data.dataset_yaml import Description
from fuzzyseg.data.datasets.pairing import image_files, name_finder, note_ignored, split_named
from fuzzyseg.data.io.mat import SUFFIX
from fuzzyseg.data.labels.class_lists import read_labelmap, read_lines, read_names
from fuzzyseg.data.sample import DataError, Files, Item, PublicDataset
from fuzzyseg.data.text import short

IMAGES, MASKS, AUGMENTED = "JPEGImages", "SegmentationClass", "SegmentationClassAug"
PLACES = ("", "VOC2012", "VOCdevkit/VOC2012", "VOCtrainval_11-May-2012/VOCdevkit/VOC2012")
SBD = ("benchmark_RELEASE/dataset", "benchmark_RELEASE", "SBD/dataset", "SBD", "sbd/dataset", "sbd", "dataset")

_NAMES = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person "
    "pottedplant sheep sofa train tvmonitor"
)
CLASSES = tuple(_NAMES.split())


class VOC:
    """`JPEGImages/`, `SegmentationClass/`, `ImageSets/Segmentation/*.txt`; optionally SBD's `cls/*.mat`."""

    expected = "JPEGImages/ and SegmentationClass/, in VOCdevkit/VOC2012/ or at the top (PASCAL VOC; SBD beside it)"
    public: PublicDataset | None = PublicDataset("PASCAL VOC 2012", CLASSES, 255, re.compile(r"20\d\d_\d{6}"))

    def __init__(self, *, augmented: bool = True) -> None:
        """augmented: use SBD's masks if present. Otherwise the layout must be selected by name."""
        self.augmented = augmented
        self.automatic = augmented

    def matches(self, root: Path, description: Description) -> bool:
        """Whether images and masks are in one of the usual places."""
        return _place(root) is not None

    def files(self, root: Path, description: Description) -> Files:
        """List the items of each split, by VOC's lists if present. Raises DataError."""
        base = _place(root)
        assert base is not None
        images, others = image_files(base / IMAGES)
        notes = note_ignored(base / IMAGES, others, "images")
        lists = _lists(base, images)
        masks, mask_notes = self._masks(root, base, images, lists)
        unmatched = [masks.pop(name) for name in sorted(set(masks) - set(images))]
        notes += mask_notes
        files = Files(_splits(base, images, masks, lists, notes), notes, unmatched)
        if (base / "class_names.txt").is_file():
            files.classes = read_names(base / "class_names.txt")
        elif (base / "labelmap.txt").is_file():
            labels = read_labelmap(base / "labelmap.txt")
            files.classes, files.colours = [label.name for label in labels], [label.colour for label in labels]
        return files

    def _masks(
        self, root: Path, base: Path, images: dict[str, Path], lists: dict[str, list[str]]
    ) -> tuple[dict[str, Path], list[str]]:
        """Return masks by name, and notes. VOC's own masks take precedence over the augmented ones."""
        files, others = image_files(base / MASKS)
        known = name_finder(images)
        masks = {known(name): path for name, path in files.items()}
        notes = note_ignored(base / MASKS, others, "masks")
        if self.augmented:
            more: dict[str, Path] = {}
            if (base / AUGMENTED).is_dir():
                more, source = image_files(base / AUGMENTED)[0], base / AUGMENTED
            elif (place := _sbd(root, base)) is not None:
                source = place / "cls"
                more = {path.stem: path for path in sorted(source.glob(f"*{SUFFIX}"))}
            held = {*lists.get("val", ()), *lists.get("test", ())}
            added = {name: path for name, path in more.items() if name in images and name not in {*masks, *held}}
            if more:
                notes.append(f"{len(added)} more masks of {source}, none of them of val or test")
            if lost := len(set(more) - set(images)):
                notes.append(f"{source}: {lost} masks have no image in {base / IMAGES} and are ignored")
            masks = {**masks, **added}
        elif lists.get("train"):
            masks = {name: path for name, path in masks.items() if name in {n for part in lists.values() for n in part}}
        return masks, notes


def _place(root: Path) -> Path | None:
    """Return the folder with images and masks, at or below `root`."""
    bases = (root / part for part in PLACES)
    return next((base for base in bases if (base / IMAGES).is_dir() and (base / MASKS).is_dir()), None)


def _sbd(root: Path, base: Path) -> Path | None:
    """Return SBD's folder: in `root`, in VOC2012, or next to VOCdevkit."""
    beside = [folder.parent for folder in (base.absolute().parent,) if folder.name.startswith("VOCdevkit")]
    places = (above / part for above in dict.fromkeys((root, base, *beside)) for part in SBD)
    return next((place for place in places if (place / "cls").is_dir()), None)


def _lists(base: Path, images: dict[str, Path]) -> dict[str, list[str]]:
    """Return names by split from `ImageSets/Segmentation`. Raises DataError for missing images, except of test."""
    lists: dict[str, list[str]] = {}
    known = name_finder(images)
    for path in sorted((base / "ImageSets" / "Segmentation").glob("*.txt")):
        split = split_named(path.stem)
        if split is None:
            continue
        names = [known(name) for name in read_lines(path)]
        lost = [name for name in names if name not in images]
        if lost and split != "test":  # the test images are a download of their own
            raise DataError(f"{path}: {len(lost)} images are not in {base / IMAGES}: {short(lost)}; copy them there")
        lists[split] = list(dict.fromkeys([*lists.get(split, ()), *(name for name in names if name in images)]))
    return lists


def _splits(
    base: Path, images: dict[str, Path], masks: dict[str, Path], lists: dict[str, list[str]], notes: list[str]
) -> dict[str, list[Item]]:
    """Return items by split; without a train list, all images in no other list are for training."""
    held = {*lists.get("val", ()), *lists.get("test", ())}
    if lists.get("train"):
        listed = set(lists["train"])
        train = sorted(name for name in images if name not in held and (name in listed or name in masks))
        left = len(images) - len({*train, *held})
        if left:
            notes.append(
                f"{left} images of {base / IMAGES} are in no list and have no mask: --unlabelled {base / IMAGES} uses "
                "them too"
            )
    else:
        train = sorted(name for name in images if name not in held)
    splits = {"train": train, **{split: sorted(lists[split]) for split in ("val", "test") if lists.get(split)}}
    return {
        split: [Item(images[name], masks.get(name), name) for name in names] for split, names in splits.items() if names
    }
