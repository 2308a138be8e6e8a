"""PASCAL VOC 2012, with or without SBD, and folders in the same layout.

Everingham et al., "The PASCAL visual object classes challenge", IJCV 2010; SBD: Hariharan et al., ICCV 2011. The
"augmented" training set is VOC's train list plus the images annotated by SBD, minus VOC's val list: 10,582 images.
"""

import re
from pathlib import Path

from fuzzyseg.data.dataset_yaml import Description
from fuzzyseg.data.datasets.pairing import image_files, name_finder, note_ignored, split_named
from fuzzyseg.data.datasets.tables import list_entries
from fuzzyseg.data.io.find import regular_files
from fuzzyseg.data.io.mat import SUFFIX
from fuzzyseg.data.labels.class_lists import read_labelmap, read_names
from fuzzyseg.data.sample import DataError, Files, Item, PublicDataset
from fuzzyseg.data.text import short

IMAGES, MASKS, AUGMENTED = "JPEGImages", "SegmentationClass", "SegmentationClassAug"
PLACES = ("", "VOC2012", "VOCdevkit/VOC2012", "VOCtrainval_11-May-2012/VOCdevkit/VOC2012")
SBD = ("benchmark_RELEASE/dataset", "benchmark_RELEASE", "SBD/dataset", "SBD", "sbd/dataset", "sbd", "dataset")

_NAMES = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person "
    "pottedplant sheep sofa train tvmonitor"
)
EXPECTED = "JPEGImages/ and SegmentationClass/, in VOCdevkit/VOC2012/ or at the top (PASCAL VOC; SBD beside it)"
VOC = PublicDataset("PASCAL VOC 2012", tuple(_NAMES.split()), 255, re.compile(r"20\d\d_\d{6}"))


def matches(root: Path, description: Description) -> bool:
    """Return whether the image and mask folders are in one of the usual places."""
    return _place(root) is not None


def list_files(root: Path, description: Description, *, augmented: bool = True) -> Files:
    """List the items of each split, using VOC's lists if present. Raises DataError.

    augmented: use SBD's masks (`cls/*.mat`, or SegmentationClassAug) if present.
    """
    base = _place(root)
    assert base is not None
    images, others = image_files(base / IMAGES)
    notes = note_ignored(base / IMAGES, others, "images")
    lists = split_lists(base, images)
    mask_files, others = image_files(base / MASKS)
    notes += note_ignored(base / MASKS, others, "masks")
    known = name_finder(images)
    masks = {known(name): path for name, path in mask_files.items()}
    held_out = {*lists.get("val", ()), *lists.get("test", ())}
    listed = held_out.union(lists.get("train", ()))
    if augmented:
        if lists.get("train") and (free := sorted({*masks} & {*images} - listed)):
            notes.append(f"used for training, not listed in train, val or test: {len(free)} images: {short(free)}")
        source, more = _more_masks(root, base)
        added = {name: path for name, path in more.items() if name in images and name not in {*masks, *held_out}}
        if more:
            notes.append(f"{len(added)} more masks from {source}, none of them for val or test images")
        if unmatched_count := len(set(more) - set(images)):
            notes.append(f"{source}: {unmatched_count} masks have no image in {base / IMAGES} and are ignored")
        masks |= added
    elif lists.get("train"):
        masks = {name: path for name, path in masks.items() if name in listed}
    unmatched = [masks.pop(name) for name in sorted(set(masks) - set(images))]
    train = sorted(set(images) - held_out)
    if lists.get("train"):
        train = sorted({*lists["train"], *(name for name in images if name in masks)} - held_out)
        if left := len(images) - len({*train, *held_out}):
            notes.append(
                f"{left} images of {base / IMAGES} are in no list and have no mask: --unlabelled {base / IMAGES} uses "
                "them too"
            )
    splits = {"train": train, "val": sorted(lists.get("val", ())), "test": sorted(lists.get("test", ()))}
    files = Files({}, notes, unmatched)
    for split, names in splits.items():
        files.splits |= {split: [Item(images[name], masks.get(name), name) for name in names]} if names else {}
    listed_names, label_map = base / "class_names.txt", base / "labelmap.txt"
    if listed_names.is_file():
        files.orders[listed_names] = read_names(listed_names)
    if label_map.is_file():
        files.orders[label_map], files.colours = map(list, zip(*read_labelmap(label_map), strict=True))
    return files


def _place(root: Path) -> Path | None:
    """Return the folder that contains the image and mask folders (`root` or one of `PLACES` in it), or None."""
    bases = (root / part for part in PLACES)
    return next((base for base in bases if (base / IMAGES).is_dir() and (base / MASKS).is_dir()), None)


def _more_masks(root: Path, base: Path) -> tuple[Path, dict[str, Path]]:
    """Return the folder with additional masks, and the masks by name.

    The folder is SegmentationClassAug if it exists, otherwise SBD's `cls/` in `root`, in VOC2012 or next to VOCdevkit.
    """
    if (base / AUGMENTED).is_dir():
        return base / AUGMENTED, image_files(base / AUGMENTED)[0]
    siblings = [folder.parent for folder in (base.absolute().parent,) if folder.name.startswith("VOCdevkit")]
    places = (above / part / "cls" for above in (root, base, *siblings) for part in SBD)
    source = next((place for place in places if place.is_dir()), base)
    return source, {path.stem: path for path in sorted(source.glob(f"*{SUFFIX}"))}


def split_lists(base: Path, images: dict[str, Path], folder: str = IMAGES) -> dict[str, list[str]]:
    """Read image names per split from `ImageSets/Segmentation`. Raises DataError for missing images, except in test.

    images: image files keyed by name. folder: the image folder below `base`.
    """
    lists: dict[str, list[str]] = {}
    known = name_finder(images)
    for path in regular_files(base / "ImageSets" / "Segmentation", "*.txt"):
        split = split_named(path.stem)
        if split is None:
            continue
        listed = [name.replace("\\", "/").removeprefix(f"{folder}/") for name, _ in list_entries(path)]
        names = [known(name if known(name) in images else str(Path(name).with_suffix(""))) for name in listed]
        gaps = [name for name in names if name not in images]
        if gaps and split != "test":  # the test images are a separate download
            raise DataError(f"{path}: {len(gaps)} images are not in {base / folder}: {short(gaps)}; copy them there")
        lists[split] = list(dict.fromkeys([*lists.get(split, ()), *(name for name in names if name in images)]))
    return lists
