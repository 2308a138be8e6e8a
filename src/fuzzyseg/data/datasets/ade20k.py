"""ADE20K as in the scene parsing benchmark: 150 classes, mask value 0 is void.

Zhou et al., "Scene parsing through ADE20K dataset", CVPR 2017.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fuzzyseg.data.dataset_yaml import Description
from fuzzyseg.data.datasets.pairing import Key, add_files, note_other_folders, pair, split_folders
from fuzzyseg.data.sample import VOID, Encoding, Files, PublicDataset

FOLDERS = ("training", "validation")
PLACES = ("", "ADEChallengeData2016")

_NAMES = (
    "wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth, door, "
    "table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug, field, "
    "armchair, seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column, signboard, "
    "chest of drawers, counter, sand, sink, skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway, "
    "case, pool table, pillow, screen door, stairway, river, bridge, bookcase, blind, coffee table, toilet, flower, "
    "book, hill, bench, countertop, stove, palm, kitchen island, computer, swivel chair, boat, bar, arcade machine, "
    "hovel, bus, towel, light, truck, tower, chandelier, awning, streetlight, booth, television receiver, airplane, "
    "dirt track, apparel, pole, land, bannister, escalator, ottoman, bottle, buffet, poster, stage, van, ship, "
    "fountain, conveyer belt, canopy, washer, plaything, swimming pool, stool, barrel, basket, waterfall, tent, bag, "
    "minibike, cradle, oven, ball, food, step, tank, trade name, microwave, pot, animal, bicycle, lake, dishwasher, "
    "screen, blanket, sculpture, hood, sconce, vase, traffic light, tray, ashcan, fan, pier, crt screen, plate, "
    "monitor, bulletin board, shower, radiator, glass, clock, flag"
)
CLASSES = tuple(_NAMES.split(", "))
"""Short names of the benchmark's 150 classes; mask value v is class index v - 1."""

VALUES = Encoding(reduce_zero=True, text="ADE20K values: 0 is void, 1 to 150 are the classes")


class ADE20K:
    """`images/training/`, `annotations/training/` and validation; optionally in `ADEChallengeData2016/`."""

    expected = "images/training/ and annotations/training/, the same for validation (ADE20K)"
    public: PublicDataset | None = PublicDataset("ADE20K", CLASSES, VOID)
    automatic = True

    def matches(self, root: Path, description: Description) -> bool:
        """Whether both folders of a split exist."""
        return place(root) is not None

    def files(self, root: Path, description: Description) -> Files:
        """List the items of each split. Raises DataError."""
        base = place(root)
        assert base is not None
        notes: list[str] = []
        keys: dict[str, dict[Key, Path]] = {"images": {}, "annotations": {}}
        for name, found in keys.items():
            folders = split_folders(base / name)
            for split, folder in folders:
                add_files(found, folder, split, "image" if name == "images" else "mask", notes)
            notes += note_other_folders(base / name, [path for _, path in folders], "not read")
        files = pair(keys["images"], keys["annotations"], [*notes, VALUES.text])
        files.splits = {
            split: [replace(item, encoding=VALUES if item.mask else None) for item in items]
            for split, items in files.splits.items()
        }
        return files


def place(root: Path) -> Path | None:
    """Return the folder with `images/` and `annotations/`, at or below `root`."""
    bases = (root / part for part in PLACES)
    return next(
        (b for b in bases for f in FOLDERS if (b / "images" / f).is_dir() and (b / "annotations" / f).is_dir()), None
    )
