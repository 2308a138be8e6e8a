"""PASCAL VOC 2012, with or without SBD, and folders in its form.

Everingham et al., "The PASCAL visual object classes challenge", IJCV 2010; SBD: Hariharan et al., ICCV 2011. The usual
"augmented" training set is VOC's train list and all that SBD has annotated, without VOC's val list: 10,582 images.
"""

from __future__ import annotations

import re
from pathlib import Path

from fuzzyseg.data.dataset_yaml import Description
from fuzzyseg.data.datasets.pairing import image_files, set_aside
from fuzzyseg.data.io.mat import SUFFIX
from fuzzyseg.data.labels.class_lists import read_label_map, read_lines, read_names
from fuzzyseg.data.sample import SPLITS, DataError, Files, Item, Known
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
    """`JPEGImages/`, `SegmentationClass/`, `ImageSets/Segmentation/*.txt`; SBD's `cls/*.mat` where it lies beside."""

    expected = "JPEGImages/ and SegmentationClass/, in VOCdevkit/VOC2012/ or at the top (PASCAL VOC; SBD beside it)"
    known: Known | None = Known("PASCAL VOC 2012", CLASSES, 255, re.compile(r"20\d\d_\d{6}"))

    def __init__(self, *, augmented: bool = True) -> None:
        """augmented: SBD's masks are used where they are; else the layout is only taken by its name."""
        self.augmented = augmented
        self.automatic = augmented

    def matches(self, root: Path, description: Description) -> bool:
        """Whether images and masks are in one of the usual places."""
        return _place(root) is not None

    def files(self, root: Path, description: Description) -> Files:
        """The items of each split, by the lists if there are any. Raises DataError."""
        base = _place(root)
        assert base is not None
        images, others = image_files(base / IMAGES)
        found = set_aside(base / IMAGES, others, "images")
        lists = _lists(base, images)
        masks, sentences = self._masks(root, base, images, lists)
        orphans = [masks.pop(name) for name in sorted(set(masks) - set(images))]
        splits = _splits(base, images, masks, lists, sentences)
        files = Files(splits, found + sentences, orphans)
        if (base / "class_names.txt").is_file():
            files.classes = read_names(base / "class_names.txt")
        elif (base / "labelmap.txt").is_file():
            labels = read_label_map(base / "labelmap.txt")
            files.classes, files.colours = [label.name for label in labels], [label.colour for label in labels]
        return files

    def _masks(
        self, root: Path, base: Path, images: dict[str, Path], lists: dict[str, list[str]]
    ) -> tuple[dict[str, Path], list[str]]:
        """Masks by name and what is to be said of them. VOC's own go before the augmented ones."""
        masks, others = image_files(base / MASKS)
        sentences = set_aside(base / MASKS, others, "masks")
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
                sentences.append(f"{len(added)} more masks of {source}, none of them of val or test")
            lost = len(set(more) - set(images))
            if lost:
                sentences.append(f"{source}: {lost} masks have no image in {base / IMAGES} and are not used")
            masks = {**masks, **added}
        elif lists.get("train"):
            masks = {name: path for name, path in masks.items() if name in {n for part in lists.values() for n in part}}
        return masks, sentences


def _place(root: Path) -> Path | None:
    """The folder that holds images and masks, at or below `root`."""
    bases = (root / part for part in PLACES)
    return next((base for base in bases if (base / IMAGES).is_dir() and (base / MASKS).is_dir()), None)


def _sbd(root: Path, base: Path) -> Path | None:
    """SBD's folder, in one of the usual places: in `root`, in VOC2012, or beside the VOCdevkit that they lie in."""
    beside = [folder.parent for folder in (base.absolute().parent,) if folder.name.startswith("VOCdevkit")]
    places = (above / part for above in dict.fromkeys((root, base, *beside)) for part in SBD)
    return next((place for place in places if (place / "cls").is_dir()), None)


def _lists(base: Path, images: dict[str, Path]) -> dict[str, list[str]]:
    """Names by split, from `ImageSets/Segmentation`. Raises DataError for a name without an image, but for test."""
    lists = {}
    for split in SPLITS:
        path = base / "ImageSets" / "Segmentation" / f"{split}.txt"
        if not path.is_file():
            continue
        names = read_lines(path)
        lost = [name for name in names if name not in images]
        if lost and split != "test":  # the test images are a download of their own
            raise DataError(
                f"{path}: names {len(lost)} images that are not in {base / IMAGES}: {short(lost)}; copy them there"
            )
        lists[split] = [name for name in names if name in images]
    return lists


def _splits(
    base: Path, images: dict[str, Path], masks: dict[str, Path], lists: dict[str, list[str]], sentences: list[str]
) -> dict[str, list[Item]]:
    """Items by split; without a train list, all that is in no other list is for training."""
    held = {*lists.get("val", ()), *lists.get("test", ())}
    if lists.get("train"):
        listed = set(lists["train"])
        train = sorted(name for name in images if name not in held and (name in listed or name in masks))
        left = len(images) - len({*train, *held})
        if left:
            sentences.append(
                f"{left} images of {base / IMAGES} are in no list and have no mask: --unlabelled {base / IMAGES} uses "
                "them too"
            )
    else:
        train = sorted(name for name in images if name not in held)
    splits = {"train": train, **{split: sorted(lists[split]) for split in ("val", "test") if lists.get(split)}}
    return {
        split: [Item(images[name], masks.get(name), name) for name in names] for split, names in splits.items() if names
    }
