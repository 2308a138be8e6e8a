"""CVAT's export format "Segmentation mask": colours in `labelmap.txt`, masks in `SegmentationClass/`."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fuzzyseg.data.annotations.reading import AnnotatedImage, Classes, check_size
from fuzzyseg.data.datasets.pairing import image_files, name_finder
from fuzzyseg.data.datasets.voc import split_lists
from fuzzyseg.data.io.mask import read_mask
from fuzzyseg.data.labels.class_lists import read_labelmap
from fuzzyseg.data.labels.decode import training_labels
from fuzzyseg.data.sample import VOID, Colour, DataError, Encoding, Item, Size
from fuzzyseg.data.text import repeated

MAP, MASKS = "labelmap.txt", "SegmentationClass"
IMAGES = ("JPEGImages", "images", "IMAGES")
BLACK = (0, 0, 0)


class Cvat:
    """Masks of a CVAT export. The images must be in the export or copied into its `JPEGImages/` or `images/`."""

    def __init__(self, source: Path, labels: list[str] | None) -> None:
        """Read `labelmap.txt`. labels: class names in index order. Default: file order. Raises DataError."""
        path = source / MAP
        entries = read_labelmap(path)
        if duplicates := repeated([colour for _, colour in entries]):
            raise DataError(f"{path}: two labels have the colour {duplicates[0]}; expected one label per colour")
        names = list(dict.fromkeys(name for name, _ in entries))
        black = next((name for name, colour in entries if colour == BLACK), None)
        classes = Classes(labels or (names if black is not None else None), names, path)
        if classes.background == VOID and black is not None:
            classes.notes[0] = f"unannotated pixels (black) are {black}"
        table = {colour: classes.index(name, str(path)) for name, colour in entries}
        indices = list(table.values())
        table.setdefault(BLACK, classes.background)  # unannotated pixels
        self._coloured = Encoding(
            text=f"those of {MAP}", colours=tuple((*colour, -1 if i == VOID else i) for colour, i in table.items())
        )
        self._indexed = Encoding(text=f"0 to {len(entries) - 1} of {MAP}", table=tuple(enumerate(indices)), ignore=())
        self.classes = classes.names
        colours = {index: colour for colour, index in reversed(table.items())}
        known = [colours[index] for index in range(len(self.classes)) if index in colours]
        self.colours: list[Colour] | None = known if len(known) == len(self.classes) else None
        self.pictures = _pictures(source)
        unannotated = sum(not picture.annotated for picture in self.pictures)
        unlabelled = [f"{unannotated} images have no mask in {MASKS} and remain unlabelled"] * bool(unannotated)
        self.notes = [f"{len(entries)} labels of {path}", *classes.notes, *unlabelled]

    def mask(self, picture: AnnotatedImage, size: Size) -> NDArray[np.uint8]:
        """Return class indices (H, W) from a colour mask or from a mask of `labelmap.txt` indices. Raises DataError."""
        path = picture.origin
        stored = read_mask(path, colours=True)
        check_size(stored.shape[:2], size, picture)
        if stored.ndim == 2 and (stored == VOID).any():
            raise DataError(f"{path}: found the value {VOID}; expected {self._indexed.text}")
        item = Item(picture.image or path, path, picture.name, self._indexed if stored.ndim == 2 else self._coloured)
        return training_labels(item, classes=len(self.classes), ignore_index=VOID, part=stored)


def _pictures(source: Path) -> list[AnnotatedImage]:
    folder = next((source / name for name in IMAGES if (source / name).is_dir()), None)
    if not (source / MASKS).is_dir():
        raise DataError(f"{source}: has {MAP} but no {MASKS}/; expected CVAT's export 'Segmentation mask'")
    masks, _ = image_files(source / MASKS)
    if folder is None or not masks:
        problem = f"no folder {' or '.join(IMAGES[:2])}" if folder is None else f"no mask in {MASKS}"
        raise DataError(f"{source}: has {problem}; export with 'Save images', or put the images into {IMAGES[0]}/")
    images, _ = image_files(folder)
    known = name_finder(images)
    masks = {known(name): path for name, path in masks.items()}
    if extra := sorted(set(masks) - set(images)):
        raise DataError(f"{masks[extra[0]]}: has no image in {folder} ({len(extra)} of {len(masks)} masks have none)")
    lists = split_lists(source, images, folder.name)
    held_out = {name: split for split in ("val", "test") for name in lists.get(split, ())}
    prefixes = {name: f"{held_out.get(name, 'train')}/" if held_out else "" for name in images}
    return [
        AnnotatedImage(f"{prefixes[name]}{name}", path, masks.get(name, path), name in masks)
        for name, path in sorted(images.items())
    ]
