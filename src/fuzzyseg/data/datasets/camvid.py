"""CamVid in the layout of the SegNet tutorial.

Brostow et al., "Semantic object classes in video: a high-definition ground truth database", PRL 2009.
"""

from __future__ import annotations

import re
from pathlib import Path

from fuzzyseg.data.dataset_yaml import Description
from fuzzyseg.data.datasets.pairing import Key, add_files, pair, split_folders
from fuzzyseg.data.sample import Files, PublicDataset

CLASSES = "sky building pole road pavement tree sign_symbol fence car pedestrian bicyclist"


class CamVid:
    """`train/`, `trainannot/`, `val/`, `valannot/`, `test/`, `testannot/`."""

    expected = "train/ and trainannot/, val/ and valannot/, test/ and testannot/ (CamVid)"
    public: PublicDataset | None = PublicDataset(
        "CamVid", tuple(CLASSES.split()), 11, re.compile(r"(0001TP|0006R0|0016E5|Seq05VD)_f?\d+")
    )
    automatic = True

    def matches(self, root: Path, description: Description) -> bool:
        """Whether both folders of a split exist."""
        return any(_masks(path).is_dir() for _, path in split_folders(root))

    def files(self, root: Path, description: Description) -> Files:
        """List the items of each split. Raises DataError."""
        images: dict[Key, Path] = {}
        masks: dict[Key, Path] = {}
        notes: list[str] = []
        for split, folder in split_folders(root):
            add_files(images, folder, split, "image", notes)
            add_files(masks, _masks(folder), split, "mask", notes)
        return pair(images, masks, notes)


def _masks(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}annot")
