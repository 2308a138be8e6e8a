"""Cityscapes: 19 classes, fine masks; images of train_extra are used without masks.

Cordts et al., "The Cityscapes dataset for semantic urban scene understanding", CVPR 2016.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fuzzyseg.data.dataset_yaml import Description
from fuzzyseg.data.datasets.pairing import Key, image_files, note_ignored, pair
from fuzzyseg.data.sample import VOID, Encoding, Files, Item, PublicDataset

IMAGES, MASKS = "leftImg8bit", "gtFine"
ENDS = {"labelTrainIds": "_gtFine_labelTrainIds", "labelIds": "_gtFine_labelIds"}

FOLDERS = ("train", "train_extra", "val", "test")

CLASSES = {
    "road": 7,
    "sidewalk": 8,
    "building": 11,
    "wall": 12,
    "fence": 13,
    "pole": 17,
    "traffic light": 19,
    "traffic sign": 20,
    "vegetation": 21,
    "terrain": 22,
    "sky": 23,
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}
"""Evaluated classes in the order of their train ids, with their label ids. Other label ids are void."""

LABEL_IDS = Encoding(
    table=tuple((value, {v: i for i, v in enumerate(CLASSES.values())}.get(value, VOID)) for value in range(34)),
    text="Cityscapes label ids 0 to 33: 19 classes, the others void",
)


class Cityscapes:
    """`leftImg8bit/<split>/<city>/*_leftImg8bit.png` and `gtFine/<split>/<city>/*_gtFine_labelIds.png`."""

    expected = "leftImg8bit/train/<city>/ and gtFine/train/<city>/, also val, test, train_extra (Cityscapes)"
    public: PublicDataset | None = PublicDataset("Cityscapes", tuple(CLASSES), VOID)
    automatic = True

    def matches(self, root: Path, description: Description) -> bool:
        """Whether the image and the mask folder exist."""
        return (root / IMAGES).is_dir() and (root / MASKS).is_dir()

    def files(self, root: Path, description: Description) -> Files:
        """List the items of each split. Raises DataError."""
        notes: list[str] = []
        images: dict[Key, Path] = {}
        masks: dict[Key, Path] = {}
        for folder in FOLDERS:
            place = root / IMAGES / folder
            if place.is_dir():
                found, others = image_files(place)
                notes += note_ignored(place, others, "images")
                images |= {(folder, name.removesuffix(f"_{IMAGES}")): path for name, path in found.items()}
                masks |= {(folder, name): path for name, path in _masks(root / MASKS / folder).items()}
        files = pair(images, masks, notes)
        if extra := files.splits.pop("train_extra", []):
            files.splits["train"] = files.splits.get("train", []) + extra
            notes.append(f"{len(extra)} images of train_extra are used without masks")
        files.splits = {split: [_with_encoding(item) for item in items] for split, items in files.splits.items()}
        for kind, end in ENDS.items():
            used = sum(item.mask is not None for items in files.splits.values() for item in items if _ends(item, end))
            notes += [f"{used} masks are {kind} files"] * (used > 0)
        if (root / "gtCoarse").is_dir():
            notes.append(f"{root / 'gtCoarse'}: coarse masks are not read")
        return files


def _ends(item: Item, end: str) -> bool:
    return item.mask is not None and item.mask.stem.endswith(end)


def _with_encoding(item: Item) -> Item:
    return replace(item, encoding=LABEL_IDS) if _ends(item, ENDS["labelIds"]) else item


def _masks(folder: Path) -> dict[str, Path]:
    """Return masks by `<city>/<name>`. Train ids take precedence: they were generated on purpose."""
    if folder.name not in ("train", "val") or not folder.is_dir():
        return {}  # the test masks are dummies; the real ones are not public
    files = image_files(folder)[0]
    ends = (ENDS["labelIds"], ENDS["labelTrainIds"])
    return {name.removesuffix(end): path for end in ends for name, path in files.items() if name.endswith(end)}
