"""COCO: one JSON file for many images, with polygons or run lengths for each object.

Lin et al., "Microsoft COCO: common objects in context", ECCV 2014; the run-length code is described with its API.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_masks

from fuzzyseg.data.annotations.reading import Classes, Json, Picture, inside, load_json, near, number
from fuzzyseg.data.io.pillow import SUFFIXES, counted, short
from fuzzyseg.data.labels.class_lists import plain
from fuzzyseg.data.sample import Colour, DataError, Size

SPLITS = ("train", "val", "test")
PREFIXES = ("instances_", "stuff_", "annotations_")

Segments = list[Json]


def is_coco(content: Json) -> bool:
    """Whether this is a COCO file with segmentations (captions have no categories)."""
    keys = ("images", "annotations", "categories")
    return isinstance(content, dict) and all(isinstance(content.get(key), list) for key in keys)


class Coco:
    """The COCO files of a folder, or one of them; where there are several, each is a split by its name."""

    kind = "COCO"
    colours: list[Colour] | None = None

    def __init__(self, source: Path, paths: list[Path], labels: list[str] | None, left: list[Path]) -> None:
        """Reads all files before anything is drawn. Raises DataError naming the file."""
        above = source.parent
        self._root = source if source.is_dir() else above.parent if above.name == "annotations" else above
        self.pictures: list[Picture] = []
        self._objects: dict[str, list[tuple[str, Json]]] = {}
        self._sizes: dict[str, Size] = {}
        self._sources: dict[str, Path] = {}
        contents = {path: load_json(path) for path in paths}
        order: dict[int, str] = {}
        names = {path: _categories(content, path, order) for path, content in contents.items()}
        self._classes = Classes(labels, list(dict.fromkeys(order[key] for key in sorted(order))), source)
        crowds = 0
        for path, content in contents.items():
            split = _split(path) if len(paths) > 1 else ""
            keys = self._read_images(content, path, split)
            crowds += self._read_objects(content, path, keys, names[path])
        self.classes = self._classes.names
        self.found = [
            f"{counted(len(paths), 'COCO file')} with {sum(map(len, self._objects.values()))} objects, {crowds} of "
            "them crowds (drawn like the others)",
            self._classes.sentence(),
            *(f"{path}: has no segmentations and is not used" for path in left),
        ]

    def _read_images(self, content: Json, path: Path, split: str) -> dict[int, str]:
        """Adds the images of a file; their names by id."""
        keys: dict[int, str] = {}
        for place, entry in enumerate(content["images"]):
            where = f"{path}, image {place}"
            if not isinstance(entry, dict) or not isinstance(entry.get("file_name"), str):
                raise DataError(f"{where}: found {str(entry)[:60]!r}; expected an id and a file_name")
            identity = _whole(entry.get("id"), f"{where}: id")
            size = (_whole(entry.get("height"), f"{where}: height"), _whole(entry.get("width"), f"{where}: width"))
            text = entry["file_name"]
            image = self._find(text, path, where)
            below = Path(text.replace("\\", "/")).with_suffix("")
            parts = [part for part in below.parts if part not in ("..", ".", below.anchor)]
            name = "/".join([split, *parts] if split and parts[:1] != [split] else parts)
            if identity in keys:
                raise DataError(f"{where}: the id {identity} is given twice; expected one id an image")
            if name in self._sources:
                raise DataError(
                    f"{where}: {text!r} is in {self._sources[name]} already; name one of the files as SOURCE"
                )
            keys[identity], self._sources[name], self._sizes[name] = name, path, size
            self._objects[name] = []
            self.pictures.append(Picture(name, image, path))
        return keys

    def _find(self, text: str, path: Path, where: str) -> Path:
        """The image file, in one of the places where COCO's images lie. Raises DataError."""
        stem = path.stem
        for prefix in PREFIXES:
            stem = stem.removeprefix(prefix)
        bases = [self._root / part for part in ("", "images", stem, f"images/{stem}", "data")] + [path.parent]
        places = [inside(self._root, base, text, where) for base in bases]
        for place in places:
            if place.is_file() and place.suffix.lower() in SUFFIXES:
                return place
        raise DataError(
            f"{where}: its file {text!r} does not exist as an image; looked in {short(list(dict.fromkeys(bases)))}"
        )

    def _read_objects(self, content: Json, path: Path, keys: dict[int, str], names: dict[int, str]) -> int:
        """Adds the objects of a file to their images, checked but not drawn; how many of them are crowds."""
        crowds = 0
        for place, entry in enumerate(content["annotations"]):
            where = f"{path}, annotation {place}"
            if not isinstance(entry, dict):
                raise DataError(f"{where}: found {str(entry)[:60]!r}; expected an object of COCO")
            image = _whole(entry.get("image_id"), f"{where}: image_id")
            category = _whole(entry.get("category_id"), f"{where}: category_id")
            if image not in keys or category not in names:
                key, known = ("image_id", image) if image not in keys else ("category_id", category)
                raise DataError(f"{where}: {key} {known} is not in the file; expected one that is listed")
            self._classes.index(names[category], where)
            key = keys[image]
            segments = _checked(entry.get("segmentation"), self._sizes[key], where)
            self._objects[key].append((where, (names[category], segments)))
            crowds += entry.get("iscrowd") in (1, True)
        return crowds

    def mask(self, picture: Picture, size: Size) -> NDArray[np.uint8]:
        """The objects drawn in the order of the file: later ones win. Raises DataError naming file and annotation."""
        said = self._sizes[picture.name]
        if said != size:
            raise DataError(
                f"{picture.origin}: says that {picture.image} is {said} (height, width), but it is {size}; expected "
                "the same" + ("; its EXIF orientation turns it: save it turned" if said == size[::-1] else "")
            )
        result = np.full(size, self._classes.background, dtype=np.uint8)
        for where, (label, segments) in self._objects[picture.name]:
            result[_drawn(segments, size, where)] = self._classes.index(label, where)
        return result

    def image_bytes(self, picture: Picture) -> tuple[bytes, str]:
        """Never needed: every image is a file."""
        raise DataError(f"{picture.origin}: has no image file")


def _whole(value: Json, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise DataError(f"{where}: found {str(value)[:40]!r}; expected a whole number from 0")
    return value


def _split(path: Path) -> str:
    """train, val or test, by the file's name; else the name itself."""
    stem = path.stem.lower()
    return next((split for split in SPLITS if split in stem), path.stem)


def _categories(content: Json, path: Path, order: dict[int, str]) -> dict[int, str]:
    """Names by id; adds them to `order`. Raises DataError where two files disagree on an id."""
    names: dict[int, str] = {}
    for place, entry in enumerate(content["categories"]):
        where = f"{path}, category {place}"
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str) or not entry["name"]:
            raise DataError(f"{where}: found {str(entry)[:60]!r}; expected an id and a name")
        identity, name = _whole(entry.get("id"), f"{where}: id"), plain(entry["name"])
        if order.setdefault(identity, name) != name or identity in names:
            raise DataError(f"{where}: the id {identity} is {order[identity]!r} already; found {name!r}")
        names[identity] = name
    return names


def _checked(value: Json, size: Size, where: str) -> Json:
    """A segmentation whose form and numbers are right: a list of polygons, or (counts, size) of run lengths."""
    if isinstance(value, list) and value:
        return [_polygon(each, size, where) for each in value]
    if isinstance(value, dict) and isinstance(value.get("counts"), list | str):
        if value.get("size") != list(size):
            raise DataError(f"{where}: its size is {str(value.get('size'))[:40]}, that of its image {list(size)}")
        counts = value["counts"]
        runs = (
            unpack(counts, where) if isinstance(counts, str) else [_whole(each, f"{where}: counts") for each in counts]
        )
        if sum(runs) != size[0] * size[1] or min(runs, default=0) < 0:
            raise DataError(
                f"{where}: its run lengths have {sum(runs)} pixels; expected {size[0] * size[1]}, those of its image"
            )
        return runs
    raise DataError(
        f"{where}: found the segmentation {str(value)[:60]!r}; expected polygons or run lengths: a box is no mask"
    )


def _polygon(value: Json, size: Size, where: str) -> tuple[float, ...]:
    if not isinstance(value, list) or len(value) < 6 or len(value) % 2:
        raise DataError(
            f"{where}: found the polygon {str(value)[:60]!r}; expected [x, y, x, y, ...] of 3 points or more"
        )
    numbers = tuple(number(each, where) for each in value)
    near(list(zip(numbers[::2], numbers[1::2], strict=True)), size, where)
    return numbers


def unpack(text: str, where: str) -> list[int]:
    """COCO's compressed run lengths as numbers of pixels, by turns outside and inside, down the columns.

    Five bits a character from 48 on, the lowest first; bit 32 says that more follow, bit 16 of the last is the sign;
    from the fourth number on, it is the difference to the one before the last. Read here, for damaged text makes the
    API's own reader write beyond its memory.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 40:
            raise DataError(f"{where}: its compressed run lengths are damaged; export it again")
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise DataError(f"{where}: its compressed run lengths end too early; export it again")
    return runs


def _drawn(segments: Json, size: Size, where: str) -> NDArray[np.bool_]:
    """(H, W) bool: the pixels of an object. Polygons of one object are joined, rasterised by COCO's own code."""
    if segments and isinstance(segments[0], tuple):
        coded = coco_masks.merge(coco_masks.frPyObjects([list(each) for each in segments], *size))
        decoded: NDArray[np.bool_] = coco_masks.decode(coded).astype(bool)
        return decoded
    values = np.arange(len(segments)) % 2 == 1
    return np.repeat(values, segments).reshape(size, order="F")
