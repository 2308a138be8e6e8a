"""Cityscapes: 19 classes, fine masks; images of train_extra are used without masks.

Cordts et al., "The Cityscapes dataset for semantic urban scene understanding", CVPR 2016.
"""

from __future__ import annotations

from pathlib import Path

from fuzzyseg.data.dataset_yaml import Description
from fuzzyseg.data.datasets.pairing import image_files, note_ignored
from fuzzyseg.data.sample import VOID, Encoding, Files, Item, PublicDataset

IMAGES, MASKS = "leftImg8bit", "gtFine"
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
        files = Files({})
        used: dict[str, int] = {}
        for split, folder in (("train", "train"), ("train", "train_extra"), ("val", "val"), ("test", "test")):
            place = root / IMAGES / folder
            if not place.is_dir():
                continue
            images, others = image_files(place)
            files.notes += note_ignored(place, others, "images")
            # The test masks are dummies; the real ones are not public.
            masks = _masks(root / MASKS / folder) if folder in ("train", "val") else {}
            items, unmatched = _items(folder, images, masks)
            files.unmatched_masks += unmatched
            files.splits[split] = files.splits.get(split, []) + items
            for item in items:
                if item.mask is not None:
                    kind = "labelTrainIds" if item.encoding is None else "labelIds"
                    used[kind] = used.get(kind, 0) + 1
            if folder == "train_extra":
                files.notes.append(f"{len(items)} images of train_extra are used without masks")
        files.notes += [f"{count} masks are {kind} files" for kind, count in sorted(used.items())]
        if (root / "gtCoarse").is_dir():
            files.notes.append(f"{root / 'gtCoarse'}: coarse masks are not read")
        return files


def _masks(folder: Path) -> dict[str, tuple[Path, Encoding | None]]:
    """Return masks by `<city>/<name>`. Train ids take precedence: they were generated on purpose."""
    if not folder.is_dir():
        return {}
    masks: dict[str, tuple[Path, Encoding | None]] = {}
    for name, path in image_files(folder)[0].items():
        for kind, end in ENDS.items():
            key = name.removesuffix(end)
            if name.endswith(end) and (key not in masks or kind == "labelTrainIds"):
                masks[key] = (path, LABEL_IDS if kind == "labelIds" else None)
    return masks


def _items(
    folder: str, images: dict[str, Path], masks: dict[str, tuple[Path, Encoding | None]]
) -> tuple[list[Item], list[Path]]:
    """Return the items of an image folder, and the masks without an image."""
    names = {name.removesuffix(f"_{IMAGES}"): path for name, path in images.items()}
    items = []
    for name in sorted(names):
        mask, values = masks.get(name, (None, None))
        items.append(Item(names[name], mask, f"{folder}/{name}", values))
    return items, [masks[name][0] for name in sorted(set(masks) - set(names))]
