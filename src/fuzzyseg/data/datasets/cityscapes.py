"""Cityscapes: 19 classes, fine masks; images of train_extra are used without masks.

Cordts et al., "The Cityscapes dataset for semantic urban scene understanding", CVPR 2016.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fuzzyseg.data.dataset_yaml import Description
from fuzzyseg.data.datasets.pairing import Key, add_files, image_files, note_other_folders, pair, split_folders
from fuzzyseg.data.sample import VOID, Encoding, Files, Item, PublicDataset

IMAGES, MASKS, EXTRA = "leftImg8bit", "gtFine", "train_extra"
ENDS = {"labelTrainIds": "_gtFine_labelTrainIds", "labelIds": "_gtFine_labelIds"}

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
        extra = root / IMAGES / EXTRA
        places = [*split_folders(root / IMAGES), *[(EXTRA, extra)] * extra.is_dir()]
        for split, place in places:
            add_files(images, place, split, "image", notes)
        for split, place in split_folders(root / MASKS):
            if split != "test":  # the test masks are dummies; the real ones are not public
                masks |= {(split, name): path for name, path in _masks(place).items()}
        notes += note_other_folders(root / IMAGES, [place for _, place in places], "not read")
        images = {(split, name.removesuffix(f"_{IMAGES}")): path for (split, name), path in images.items()}
        files = pair(images, masks, notes)
        if bare := files.splits.pop(EXTRA, []):
            files.splits["train"] = files.splits.get("train", []) + bare
            notes.append(f"{len(bare)} images of train_extra are used without masks")
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
    files = image_files(folder)[0]
    ends = (ENDS["labelIds"], ENDS["labelTrainIds"])
    return {name.removesuffix(end): path for end in ends for name, path in files.items() if name.endswith(end)}
