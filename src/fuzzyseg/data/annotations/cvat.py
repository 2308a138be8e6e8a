"""CVAT's export "Segmentation mask": colours in `labelmap.txt`, masks in `SegmentationClass/`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fuzzyseg.data.annotations.reading import Classes, Picture
from fuzzyseg.data.datasets.pairing import image_files
from fuzzyseg.data.io.mask import read_colours
from fuzzyseg.data.io.pillow import counted, short
from fuzzyseg.data.labels.class_lists import Label, plain, read_label_map
from fuzzyseg.data.sample import VOID, Colour, DataError, Size

MAP, MASKS = "labelmap.txt", "SegmentationClass"
IMAGES = ("JPEGImages", "images", "IMAGES")
BLACK = (0, 0, 0)


class Cvat:
    """The masks of a CVAT export; the images must be in it, or be put into `JPEGImages/` or `images/`."""

    kind = "CVAT segmentation mask"

    def __init__(self, source: Path, labels: list[str] | None) -> None:
        """labels: the class order; `labelmap.txt`'s if not given. Raises DataError."""
        entries = read_label_map(source / MAP)
        self._labels = entries
        self._classes = Classes(labels, [entry.name for entry in entries], source / MAP)
        self._table = self._colours(entries, source / MAP)
        self.classes = self._classes.names
        colours = {plain(entry.name): entry.colour for entry in entries}
        if self._classes.background != VOID:
            colours.setdefault("background", BLACK)
        known = [colours.get(name) for name in self.classes]
        self.colours: list[Colour] | None = [c for c in known if c is not None] if None not in known else None
        self.pictures = self._pictures(source)
        self.found = [f"{len(entries)} labels of {source / MAP}", self._classes.sentence()]
        bare = sum(not picture.annotated for picture in self.pictures)
        if bare:
            self.found.append(f"{bare} images have no mask in {MASKS} and stay without")

    def _colours(self, entries: list[Label], path: Path) -> dict[Colour, int]:
        """Class index by colour. Black is what is under no shape, where no label has it."""
        table: dict[Colour, int] = {}
        for entry in entries:
            if entry.colour in table:
                raise DataError(f"{path}: two labels have the colour {entry.colour}; expected one colour a label")
            table[entry.colour] = self._classes.index(entry.name, str(path))
        table.setdefault(BLACK, self._classes.background)
        return table

    def _pictures(self, source: Path) -> list[Picture]:
        folder = next((source / name for name in IMAGES if (source / name).is_dir()), None)
        if not (source / MASKS).is_dir():
            raise DataError(f"{source}: has {MAP} but no {MASKS}/; expected CVAT's export 'Segmentation mask'")
        masks, _ = image_files(source / MASKS)
        if folder is None or not masks:
            what = f"no folder {' or '.join(IMAGES[:2])}" if folder is None else f"no mask in {MASKS}"
            raise DataError(f"{source}: has {what}; export with 'Save images', or put the images into {IMAGES[0]}/")
        images, _ = image_files(folder)
        lost = sorted(set(masks) - set(images))
        if lost:
            raise DataError(f"{masks[lost[0]]}: has no image in {folder} ({len(lost)} of {len(masks)} masks have none)")
        return [
            Picture(name, path, masks.get(name, path), annotated=name in masks) for name, path in sorted(images.items())
        ]

    def mask(self, picture: Picture, size: Size) -> NDArray[np.uint8]:
        """Colours, or places in the label map where the mask has one band, as class indices. Raises DataError."""
        path = picture.origin
        stored = read_colours(path)
        if stored.shape[:2] != size:
            raise DataError(f"{path}: is {stored.shape[:2]} (height, width), its image {picture.image} is {size}")
        if stored.ndim == 2:
            places = [self._classes.index(entry.name, str(path)) for entry in self._labels]
            bad = stored >= len(places)
            if bad.any():
                raise DataError(
                    f"{path}: found the values {short(sorted(set(stored[bad].tolist())))}; expected 0 to "
                    f"{len(places) - 1}, the places of the labels in {MAP}"
                )
            return np.array(places, dtype=np.uint8)[stored]
        codes = stored.astype(np.int32) @ np.array([65536, 256, 1], dtype=np.int32)
        values, inverse, counts = np.unique(codes, return_inverse=True, return_counts=True)
        colours = [(int(code) >> 16, int(code) >> 8 & 255, int(code) & 255) for code in values]
        unknown = [(colour, int(n)) for colour, n in zip(colours, counts, strict=True) if colour not in self._table]
        if unknown:
            listed = "; ".join(f"{colour} in {counted(n, 'pixel')}" for colour, n in unknown[:5])
            raise DataError(
                f"{path}: found {len(unknown)} colours that are not in {MAP}: {listed}; expected its colours exactly: "
                "export again as PNG, or add the label"
            )
        return np.array([self._table[colour] for colour in colours], dtype=np.uint8)[inverse.reshape(codes.shape)]

    def image_bytes(self, picture: Picture) -> tuple[bytes, str]:
        """Never needed: every image is a file."""
        raise DataError(f"{picture.origin}: has no image file")
