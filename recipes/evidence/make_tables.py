"""Tables of the data sets of docs/evidence.md: which images a run may train on, and which it is scored on.

    python recipes/evidence/make_tables.py DATA --out TABLES

DATA holds the folders nyu39 and voc_animals. For each of them two tables are written: NAME-round1 has the first half of
val.txt as its validation images, NAME-round2 the second half. Training images are the same in both; the validation
images of one round occur nowhere in the table of the other.
"""

from __future__ import annotations

import argparse
import csv
import random
from pathlib import Path

TRAIN = {"nyu39": None, "voc_animals": 1200}
"""Training images that take part, drawn once; None: all."""


def scenes(name: str, stems: list[str]) -> list[list[str]]:
    """Validation images in groups that are not parted: neighbouring frames of NYUv2 show the same room."""
    groups: list[list[str]] = []
    for stem in sorted(stems):
        if name == "nyu39" and groups and int(stem) == int(groups[-1][-1]) + 1:
            groups[-1].append(stem)
        else:
            groups.append([stem])
    return groups


def write(name: str, source: Path, out: Path) -> None:
    """The two tables of one data set."""
    train = sorted((source / "train.txt").read_text().split())
    count = TRAIN[name]
    if count is not None:
        train = sorted(random.Random(0).sample(train, count))
    groups = scenes(name, (source / "val.txt").read_text().split())
    description = (source / "dataset.yaml").read_text()
    for number in (1, 2):
        val = [stem for group in groups[number - 1 :: 2] for stem in group]
        folder = out / f"{name}-round{number}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "dataset.yaml").write_text(description)
        with (folder / "manifest.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "mask", "split"])
            for split, stems in (("train", train), ("val", val)):
                for stem in stems:
                    image, mask = source / "images" / f"{stem}.jpg", source / "masks" / f"{stem}.png"
                    writer.writerow([image.resolve(), mask.resolve(), split])
        print(f"{folder}: {len(train)} train, {len(val)} val")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--out", type=Path, required=True, metavar="TABLES")
    given = parser.parse_args()
    for each in TRAIN:
        write(each, given.data / each, given.out)
