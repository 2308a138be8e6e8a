"""CVAT's export "Segmentation mask": colours in `labelmap.txt`, masks in `SegmentationClass/`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fuzzyseg.data.annotations.reading import AnnotatedImage, Classes
from fuzzyseg.data.datasets.pairing import image_files
from fuzzyseg.data.io.mask import read_mask
from fuzzyseg.data.labels.class_lists import plain, read_labelmap
from fuzzyseg.data.labels.decode import training_labels
from fuzzyseg.data.sample import VOID, Colour, DataError, Encoding, Item, Size

MAP, MASKS = "labelmap.txt", "SegmentationClass"
IMAGES = ("JPEGImages", "images", "IMAGES")
BLACK = (0, 0, 0)


class Cvat:
    """The masks of a CVAT export; the images must be in it, or be put into `JPEGImages/` or `images/`."""

    def __init__(self, source: Path, labels: list[str] | None) -> None:
        """labels: class order; None: that of `labelmap.txt`. Raises DataError."""
        path = source / MAP
        entries = read_labelmap(path)
        self._classes = Classes(labels, [entry.name for entry in entries], path)
        indices = [self._classes.index(entry.name, str(path)) for entry in entries]
        table: dict[Colour, int] = {}
        for entry, index in zip(entries, indices, strict=True):
            if entry.colour in table:
                raise DataError(f"{path}: two labels have the colour {entry.colour}; expected one label per colour")
            table[entry.colour] = index
        table.setdefault(BLACK, self._classes.background)  # unannotated pixels
        self._coloured = Encoding(
            text=f"those of {MAP}", colours=tuple((*colour, -1 if i == VOID else i) for colour, i in table.items())
        )
        self._indexed = Encoding(
            text=f"0 to {len(entries) - 1}, the entries of {MAP}", table=tuple(enumerate(indices)), ignore=()
        )
        self.classes = self._classes.names
        colours = {plain(entry.name): entry.colour for entry in entries}
        if self._classes.background != VOID:
            colours.setdefault(self.classes[self._classes.background], BLACK)
        known = [colours[name] for name in self.classes if name in colours]
        self.colours: list[Colour] | None = known if len(known) == len(self.classes) else None
        self.pictures = self._pictures(source)
        self.notes = [f"{len(entries)} labels of {path}", *self._classes.notes]
        bare = sum(not picture.annotated for picture in self.pictures)
        if bare:
            self.notes.append(f"{bare} images have no mask in {MASKS} and remain unlabelled")

    def _pictures(self, source: Path) -> list[AnnotatedImage]:
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
            AnnotatedImage(name, path, masks.get(name, path), annotated=name in masks)
            for name, path in sorted(images.items())
        ]

    def mask(self, picture: AnnotatedImage, size: Size) -> NDArray[np.uint8]:
        """Decode a mask of colours, or of indices into the label map. Raises DataError."""
        path = picture.origin
        stored = read_mask(path, colours=True)
        if stored.shape[:2] != size:
            raise DataError(f"{path}: is {stored.shape[:2]} (height, width), its image {picture.image} is {size}")
        encoding = self._indexed if stored.ndim == 2 else self._coloured
        if stored.ndim == 2 and (stored == VOID).any():
            raise DataError(f"{path}: found the value {VOID}; expected {self._indexed.text}")
        item = Item(picture.image or path, path, picture.name, encoding)
        return training_labels(item, classes=len(self.classes), ignore_index=VOID, part=stored)
