"""Public datasets that are recognised by their folders: CamVid, Cityscapes, ADE20K.

CamVid as in the SegNet tutorial: Brostow et al., "Semantic object classes in video: a high-definition ground truth
database", PRL 2009. Cityscapes with 19 classes and fine masks; images of train_extra are used without masks: Cordts et
al., "The Cityscapes dataset for semantic urban scene understanding", CVPR 2016. ADE20K as in the scene parsing
benchmark, with 150 classes and mask value 0 for void: Zhou et al., "Scene parsing through ADE20K dataset", CVPR 2017.
"""

import re
from dataclasses import replace
from pathlib import Path

from fuzzyseg.data.dataset_yaml import Description
from fuzzyseg.data.datasets.pairing import Key, add_files, note_other_folders, pair, pair_folders, split_folders
from fuzzyseg.data.sample import VOID, Encoding, Files, Item, PublicDataset

CAMVID_EXPECTED = "train/ and trainannot/, val/ and valannot/, test/ and testannot/ (CamVid)"
_CAMVID = "sky building pole road pavement tree sign_symbol fence car pedestrian bicyclist"
CAMVID = PublicDataset("CamVid", tuple(_CAMVID.split()), 11, re.compile(r"(0001TP|0006R0|0016E5|Seq05VD)_f?\d+"))


def is_camvid(root: Path, description: Description) -> bool:
    """Return whether any split has an image and a mask folder."""
    return any(_annot(path).is_dir() for _, path in split_folders(root))


def camvid(root: Path, description: Description) -> Files:
    """List the items of `train/` with masks in `trainannot/`, and likewise for the other splits. Raises DataError."""
    splits = split_folders(root)
    masks = [("mask", split, _annot(folder)) for split, folder in splits]
    return pair_folders([*(("image", *each) for each in splits), *masks], [])


def _annot(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}annot")


IMAGES, MASKS, EXTRA = "leftImg8bit", "gtFine", "train_extra"
ENDS = {"labelIds": "_gtFine_labelIds", "labelTrainIds": "_gtFine_labelTrainIds"}
"""File name endings by mask type. labelTrainIds takes precedence, since users generate these files deliberately."""

LABELS = {
    "road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17, "traffic light": 19,
    "traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23, "person": 24, "rider": 25, "car": 26, "truck": 27,
    "bus": 28, "train": 31, "motorcycle": 32, "bicycle": 33,
}  # fmt: skip
"""Label ids of Cityscapes' evaluated classes, in the order of their train ids. Other label ids are void."""

LABEL_IDS = Encoding(
    table=tuple((value, {v: i for i, v in enumerate(LABELS.values())}.get(value, VOID)) for value in range(34)),
    text="Cityscapes label ids 0 to 33: 19 classes, the others void",
)
CITYSCAPES_EXPECTED = "leftImg8bit/train/<city>/ and gtFine/train/<city>/, also val, test, train_extra (Cityscapes)"
CITYSCAPES = PublicDataset("Cityscapes", tuple(LABELS), VOID)


def is_cityscapes(root: Path, description: Description) -> bool:
    """Return whether the image and mask folders exist."""
    return (root / IMAGES).is_dir() and (root / MASKS).is_dir()


def cityscapes(root: Path, description: Description) -> Files:
    """List the items `leftImg8bit/<split>/<city>/*_leftImg8bit.png`, with masks in `gtFine/`. Raises DataError."""
    notes: list[str] = []
    pictures, labels = dict[Key, Path](), dict[Key, Path]()
    places = [*split_folders(root / IMAGES), *((EXTRA, path) for path in (root / IMAGES).glob(EXTRA))]
    for split, place in places:
        add_files(pictures, place, split, "image", notes)
    for split, place in split_folders(root / MASKS):
        if split != "test":  # the test masks are dummies; the real ones are not public
            add_files(labels, place, split, "mask", [])
    notes += note_other_folders(root / IMAGES, [place for _, place in places], "not read")
    images = {(split, name.removesuffix(f"_{IMAGES}")): path for (split, name), path in pictures.items()}
    masks = {
        (split, name.removesuffix(end)): path
        for end in ENDS.values()
        for (split, name), path in labels.items()
        if name.endswith(end)
    }
    files = pair(images, masks, notes)
    if unlabelled := files.splits.pop(EXTRA, []):
        files.splits["train"] = files.splits.get("train", []) + unlabelled
        notes.append(f"{len(unlabelled)} images of train_extra are used without masks")
    files.change(_with_encoding)
    stems = [item.mask.stem for items in files.splits.values() for item in items if item.mask is not None]
    for kind, end in ENDS.items():
        used = sum(stem.endswith(end) for stem in stems)
        notes += [f"{used} masks are {kind} files"] * (used > 0)
    if (root / "gtCoarse").is_dir():
        notes.append(f"{root / 'gtCoarse'}: coarse masks are not read")
    return files


def _with_encoding(item: Item) -> Item:
    ids = item.mask is not None and item.mask.stem.endswith(ENDS["labelIds"])
    return replace(item, encoding=LABEL_IDS) if ids else item


_NAMES = Path(__file__).with_name("ade20k.txt").read_text(encoding="utf-8").splitlines()
ADE20K_EXPECTED = "images/training/ and annotations/training/, the same for validation (ADE20K)"
ADE20K = PublicDataset("ADE20K", tuple(_NAMES), VOID)
"""Short names of the benchmark's 150 classes; mask value v is class index v - 1."""

VALUES = Encoding(reduce_zero=True, text="ADE20K values: 0 is void, 1 to 150 are the classes")


def is_ade20k(root: Path, description: Description) -> bool:
    """Return whether any split has an image and a mask folder."""
    return ade20k_place(root) is not None


def ade20k(root: Path, description: Description) -> Files:
    """List the items of `images/training/` and `images/validation/`, with masks in `annotations/`. Raises DataError."""
    base = ade20k_place(root)
    assert base is not None
    places, notes = list[tuple[str, str | None, Path]](), list[str]()
    for kind, name in (("image", "images"), ("mask", "annotations")):
        folders = split_folders(base / name)
        places += [(kind, *each) for each in folders]
        notes += note_other_folders(base / name, [path for _, path in folders], "not read")
    files = pair_folders(places, notes)
    files.notes.append(VALUES.text)
    files.change(lambda item: replace(item, encoding=VALUES if item.mask else None))
    return files


def ade20k_place(root: Path) -> Path | None:
    """Return the folder with `images/` and `annotations/`: `root` or its `ADEChallengeData2016/`, or None."""
    for base in (root, root / "ADEChallengeData2016"):
        for part in ("training", "validation"):
            if (base / "images" / part).is_dir() and (base / "annotations" / part).is_dir():
                return base
    return None
