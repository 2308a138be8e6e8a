"""COCO: one JSON file for many images, with polygons or run-length encodings (RLE) of the objects.

Lin et al., "Microsoft COCO: common objects in context", ECCV 2014.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Discriminator, Field, NonNegativeInt, Tag

from fuzzyseg.data.annotations.reading import (
    AnnotatedImage,
    Classes,
    Coordinate,
    Json,
    Model,
    check_points,
    check_size,
    inside,
    load_json,
    parse,
)
from fuzzyseg.data.datasets.pairing import split_folders, split_named
from fuzzyseg.data.io.pillow import SUFFIXES
from fuzzyseg.data.labels.class_lists import plain
from fuzzyseg.data.sample import Colour, DataError, Size
from fuzzyseg.data.text import counted, short


class Image(Model):
    """An entry in `images`."""

    id: NonNegativeInt
    file_name: str
    height: NonNegativeInt
    width: NonNegativeInt


class Category(Model):
    """An entry in `categories`."""

    id: NonNegativeInt
    name: str = Field(min_length=1)


class RunLengths(Model):
    """Run lengths in pixels, alternately outside and inside the object, in column-major order."""

    size: list[NonNegativeInt]
    counts: list[NonNegativeInt] | str


def _points(polygon: list[float]) -> list[float]:
    if len(polygon) % 2 or len(polygon) < 6:
        raise ValueError(f"a polygon of {len(polygon)} numbers; expected at least 3 points, [x, y, x, y, x, y, ...]")
    return polygon


Polygon = Annotated[list[Coordinate], AfterValidator(_points)]
Shape = Annotated[
    Annotated[list[Polygon], Tag("polygons")] | Annotated[RunLengths, Tag("run lengths")],
    Discriminator(lambda value: "run lengths" if isinstance(value, dict | RunLengths) else "polygons"),
]


class Annotation(Model):
    """An entry in `annotations`: one object in an image."""

    image_id: NonNegativeInt
    category_id: NonNegativeInt
    segmentation: Shape
    iscrowd: int | bool = 0


class File(Model):
    """Contents of a COCO file."""

    images: list[Image]
    annotations: list[Annotation]
    categories: list[Category]


def lacking(content: Json) -> list[str]:
    """Return the required COCO lists that are missing from `content`, such as `categories` in caption files.

    Returns all of them if `content` is not an object.
    """
    return [key for key in File.model_fields if not (isinstance(content, dict) and isinstance(content.get(key), list))]


def _check_segmented(content: Json, path: Path) -> None:
    """Raise DataError for objects with boxes or keypoints but no segmentation."""
    every = content["annotations"]
    gaps = [place for place, entry in enumerate(every) if isinstance(entry, dict) and not entry.get("segmentation")]
    if gaps:
        present = " and ".join(key for key in ("bbox", "keypoints") if every[gaps[0]].get(key)) or "no polygon"
        raise DataError(
            f"{path}: annotations.{gaps[0]}: found {present} where a segmentation is expected, as in {len(gaps)} of "
            f"{len(every)} annotations; expected polygons or run lengths: export for instance segmentation, or remove "
            "these annotations (a box does not show which pixels belong to the object)"
        )


@dataclass
class _Entry:
    """An image, its first `images` entry, and its objects as (location in the file, label, annotation)."""

    picture: AnnotatedImage
    image: Image
    objects: list[tuple[str, str, Annotation]] = field(default_factory=list)


class Coco:
    """Annotations from one COCO file, or from all COCO files in a folder.

    In a folder, the names of files and folders determine the splits.
    """

    colours: list[Colour] | None = None

    def __init__(self, source: Path, paths: list[Path], labels: list[str] | None, left: list[Path]) -> None:
        """Read and validate all files; masks are drawn later. left: JSON files that are ignored. Raises DataError."""
        above = source.parent
        self._root = source if source.is_dir() else above.parent if above.name == "annotations" else above
        self._entries: dict[str, _Entry] = {}
        self._listed: dict[tuple[str | None, Path], _Entry] = {}  # keyed by split and image
        self._joined: list[str] = []
        contents = {path: load_json(path) for path in paths}
        for path, content in contents.items():
            _check_segmented(content, path)
        files = {path: parse(File, content, path) for path, content in contents.items()}
        names: dict[int, str] = {}
        for path, file in files.items():
            for category in file.categories:
                name = names.setdefault(category.id, category.name)
                if plain(name) != plain(category.name):
                    raise DataError(f"{path}: the category id {category.id} is both {name!r} and {category.name!r}")
        self._classes = Classes(labels, [names[key] for key in sorted(names)], source)
        for path, file in files.items():
            below = path.relative_to(source) if source.is_dir() else Path(path.name)
            self._read_objects(file, path, self._read_images(file, path, _folder_of(below, len(paths) > 1)))
        self.classes = self._classes.names
        self.pictures = [entry.picture for entry in self._entries.values()]
        crowds = [bool(item.iscrowd) for file in files.values() for item in file.annotations]
        self.notes = [
            f"{counted(len(paths), 'COCO file')} with {len(crowds)} objects, {sum(crowds)} of them crowds (drawn like "
            "the others)",
            *self._classes.notes,
            *(f"{path}: has no list {' or '.join(lacking(load_json(path)))} and is ignored" for path in left),
            *[f"listed more than once, with objects merged: {short(self._joined)}"] * bool(self._joined),
        ]

    def _read_images(self, file: File, path: Path, folder: str) -> dict[int, _Entry]:
        """Add a file's images and return their entries keyed by id. folder: their output folder. Raises DataError."""
        entries: dict[int, _Entry] = {}
        for place, image in enumerate(file.images):
            where = f"{path}: images.{place}"
            picture = self._find(image.file_name, path, split_named(folder), where)
            below = Path(image.file_name.replace("\\", "/")).with_suffix("")
            parts = [part for part in below.parts if part not in ("..", ".", below.anchor)]
            name = "/".join([folder, *parts] if folder and parts[:1] != [folder] else parts)
            fresh = _Entry(AnnotatedImage(name, picture, path), image)
            key = split_named(folder), picture
            entry = self._listed.setdefault(key, self._listed.get(key) or self._entries.setdefault(name, fresh))
            if entries.setdefault(image.id, entry) is not entry:
                named = entries[image.id].picture.name
                raise DataError(f"{where}: the id {image.id} belongs to {named!r} and {name!r}; use two ids")
            if entry is fresh:
                continue
            first, other = entry.image, entry.picture
            listed = f"{image.file_name!r} is listed twice (image {first.id} of {other.origin}, image {image.id} here)"
            if other.image != picture:
                raise DataError(f"{where}: {picture} and {other.image} are both named {name}; rename one")
            if (first.height, first.width) != (image.height, image.width):
                raise DataError(f"{where}: {listed} with different sizes; remove one entry")
            self._joined.append(listed)
        return entries

    def _find(self, text: str, path: Path, split: str | None, where: str) -> Path:
        """Search the usual folders near the annotation file for an image, nearest first. Raises DataError."""
        stem = re.sub("^(instances_|stuff_|annotations_)+", "", path.stem)
        above = [folder for folder in path.parents if folder.is_relative_to(self._root)]
        bases = [folder / part for folder in above for part in ("", "images", "data", stem, f"images/{stem}")]
        named = (each for folder in above for part in ("", "images") for each in split_folders(folder / part))
        bases += [folder for name, folder in named if name == split]
        for place in [inside(self._root, base, text, where) for base in bases]:
            if place.is_file() and place.suffix.lower() in SUFFIXES:
                return place
        raise DataError(f"{where}: found no image {text!r} in {short(list(dict.fromkeys(bases)))}")

    def _read_objects(self, file: File, path: Path, images: dict[int, _Entry]) -> None:
        """Validate the objects of a file and add them to their images, without drawing them."""
        labels = {category.id: plain(category.name) for category in file.categories}
        for place, item in enumerate(file.annotations):
            where = f"{path}: annotations.{place}"
            for key, value, known in (("image_id", item.image_id, images), ("category_id", item.category_id, labels)):
                if value not in known:
                    raise DataError(f"{where}: found the {key} {value}, which is not in the file")
            entry, label = images[item.image_id], labels[item.category_id]
            self._classes.index(label, where)
            _check(item.segmentation, (entry.image.height, entry.image.width), where)
            entry.objects.append((where, label, item))

    def mask(self, picture: AnnotatedImage, size: Size) -> NDArray[np.uint8]:
        """Return the mask of an image, drawn in file order: later objects overwrite earlier ones. Raises DataError."""
        entry = self._entries[picture.name]
        check_size((entry.image.height, entry.image.width), size, picture)
        result = np.full(size, self._classes.background, dtype=np.uint8)
        for where, label, item in entry.objects:
            result[_pixels(item.segmentation, size)] = self._classes.index(label, where)
        return result


def _folder_of(path: Path, several: bool) -> str:
    """Return the output folder for a file's images: the split in its path, or else its path joined by underscores.

    path: relative to the source. several: whether there are other files. A single file's name is ignored, since it may
    contain any split; without a split folder, the result is empty.
    """
    words = re.split(r"[^a-z0-9]+", path.stem.lower()) if several else []
    folders = [folder.name for folder in path.parents]
    split = next((split for word in (*words, *folders) if (split := split_named(word)) is not None), None)
    return split or ("_".join(path.with_suffix("").parts) if several else "")


def _check(segmentation: list[list[float]] | RunLengths, size: Size, where: str) -> None:
    """Raise DataError for points far outside the image, and for run lengths that do not sum to its size."""
    if isinstance(segmentation, list):
        for polygon in segmentation:
            check_points(zip(polygon[::2], polygon[1::2], strict=True), size, where)
        return
    total = sum(_runs(segmentation, where))
    if segmentation.size != list(size) or total != size[0] * size[1]:
        raise DataError(
            f"{where}: found run lengths of {total} pixels and size {segmentation.size}; expected {size[0] * size[1]} "
            f"pixels and {list(size)}, like its image"
        )


def _runs(segmentation: RunLengths, where: str = "") -> list[int]:
    return segmentation.counts if isinstance(segmentation.counts, list) else decompress(segmentation.counts, where)


def decompress(text: str, where: str) -> list[int]:
    """Decode a compressed RLE string. Raises DataError if it is damaged.

    Each character minus 48 contains five bits of a number, least significant group first, and a continuation bit (32).
    In the last character of a number, bit 16 is the sign. From the fourth number on, each is the difference from the
    number two before it. pycocotools checks neither the string nor the sum of the numbers: its `decode` would return
    uninitialised memory.
    """
    runs: list[int] = []
    value = shift = 0
    for code in (ord(character) - 48 for character in text):
        if not 0 <= code < 64 or shift > 40:
            break
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            value -= bool(code & 16) << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    else:
        if not shift and min(runs, default=0) >= 0:
            return runs
    raise DataError(f"{where}: its compressed run lengths are damaged; export it again")


def _pixels(segmentation: list[list[float]] | RunLengths, size: Size) -> NDArray[np.bool_]:
    """Return an object's mask (H, W), like `COCO.annToMask`, whose class needs a file and prints to stdout."""
    if not isinstance(segmentation, list):
        runs = _runs(segmentation)
        return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(size[::-1]).T
    try:
        from pycocotools import mask as coco_masks
    except ModuleNotFoundError:
        raise DataError("COCO's polygons need pycocotools: pip install 'fuzzyseg[annotate]'") from None
    pixels: NDArray[np.bool_] = coco_masks.decode(coco_masks.merge(coco_masks.frPyObjects(segmentation, *size))) > 0
    return pixels
