"""Manifests of the datasets in docs/evidence.md, with the training and validation images of each round.

    python recipes/evidence/make_tables.py DATA --out TABLES

DATA contains the folders nyu39 and voc_animals. Each gives two manifests with the same training images. The validation
images of NAME-round1 are the first half of val.txt, those of NAME-round2 the second half. They do not overlap.
"""

from __future__ import annotations

import argparse
import csv
import random
from pathlib import Path

TRAIN = {"nyu39": None, "voc_animals": 1200}
"""Number of training images, drawn once; None: all."""


def scenes(name: str, stems: list[str]) -> list[list[str]]:
    """Groups of validation images that stay together: neighbouring frames of NYUv2 show the same room."""
    groups: list[list[str]] = []
    for stem in sorted(stems):
        if name == "nyu39" and groups and int(stem) == int(groups[-1][-1]) + 1:
            groups[-1].append(stem)
        else:
            groups.append([stem])
    return groups


def write(name: str, source: Path, out: Path) -> None:
    """The two manifests of a dataset."""
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
