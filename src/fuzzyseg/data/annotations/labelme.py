"""LabelMe: a JSON file for each image, with shapes that are drawn one over the other."""

from __future__ import annotations

import base64
import binascii
import io
import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from fuzzyseg.data.annotations.reading import Classes, Json, Picture, inside, load_json, near, number
from fuzzyseg.data.datasets.pairing import image_files
from fuzzyseg.data.io.pillow import SUFFIXES, counted, short
from fuzzyseg.data.sample import Colour, DataError, Size

LINE, POINT = 10, 5
"""Width of a line and radius of a point in pixels, as LabelMe draws them."""

COUNTS = {"polygon": (3, None), "rectangle": (2, 2), "circle": (2, 2), "line": (2, 2), "linestrip": (2, None)}
COUNTS |= {"point": (1, 1), "points": (1, None), "mask": (2, 2)}
"""Kind of shape -> fewest and most points."""


@dataclass(frozen=True)
class Shape:
    """One shape: its points (x, y) in pixels, and for the kind `mask` an encoded image of its pixels."""

    label: str
    kind: str
    points: tuple[tuple[float, float], ...]
    pixels: str | None = None


@dataclass(frozen=True)
class _File:
    """What is kept of an annotation file: shapes, and the size that it says its image has."""

    shapes: list[Shape]
    size: Size | None


def is_labelme(content: Json) -> bool:
    """Whether this is what LabelMe writes."""
    return isinstance(content, dict) and isinstance(content.get("shapes"), list)


class LabelMe:
    """The LabelMe files of a folder. Images beside them that have none are taken as images without masks."""

    kind = "LabelMe"
    colours: list[Colour] | None = None

    def __init__(self, source: Path, paths: list[Path], labels: list[str] | None) -> None:
        """Reads all files before anything is drawn. Raises DataError that names each file that is wrong."""
        self._root = source if source.is_dir() else source.parent
        self._files: dict[Path, _File] = {}
        self.pictures: list[Picture] = []
        problems = []
        for path in paths:
            try:
                content = load_json(path)
                self._files[path] = _File(_shapes(content, path), _size(content, path))
                self.pictures.append(self._picture(content, path))
            except DataError as error:
                problems.append(str(error))
        if problems:
            raise DataError(
                f"{counted(len(problems), 'wrong annotation file')}; nothing was written\n" + "\n".join(problems)
            )
        names = sorted({shape.label for file in self._files.values() for shape in file.shapes})
        self._classes = Classes(labels, names, source)
        for path, file in self._files.items():
            for shape in file.shapes:
                self._classes.index(shape.label, str(path))
        self.classes = self._classes.names
        shapes = sum(len(file.shapes) for file in self._files.values())
        self.found = [f"{len(paths)} LabelMe files with {shapes} shapes", self._classes.sentence()]
        if source.is_dir():
            self._add_bare()

    def _picture(self, content: Json, path: Path) -> Picture:
        text = content.get("imagePath")
        name = path.relative_to(self._root).with_suffix("").as_posix()
        if not isinstance(text, str):
            raise DataError(f"{path}: imagePath: found {str(text)[:40]!r}; expected the path of the image")
        image = inside(self._root, path.parent, text, f"{path}: imagePath")
        if image.suffix.lower() not in SUFFIXES:
            raise DataError(f"{path}: imagePath: found {text!r}; expected an image, one of {', '.join(SUFFIXES)}")
        if not image.is_file():
            if not isinstance(content.get("imageData"), str):
                raise DataError(f"{path}: its image {image} does not exist, and the file does not hold it (imageData)")
            return Picture(name, None, path)
        return Picture(name, image, path)

    def _add_bare(self) -> None:
        """The images that no file annotates."""
        images, _ = image_files(self._root)
        used = {picture.image.resolve() for picture in self.pictures if picture.image is not None}
        bare = [(name, path) for name, path in images.items() if path.resolve() not in used]
        self.pictures += [Picture(name, path, path, annotated=False) for name, path in bare]
        if bare:
            self.found.append(
                f"{len(bare)} images have no LabelMe file and stay without masks: {short([n for n, _ in bare])}"
            )

    def mask(self, picture: Picture, size: Size) -> NDArray[np.uint8]:
        """The shapes drawn one over the other: later ones win. Raises DataError naming the file."""
        file = self._files[picture.origin]
        if file.size not in (None, size):
            raise DataError(
                f"{picture.origin}: says that its image is {file.size} (height, width), but it is {size}; expected the "
                "same: annotate the image as it is now"
            )
        image = Image.new("L", (size[1], size[0]), self._classes.background)
        for place, shape in enumerate(file.shapes):
            where = f"{picture.origin}, shape {place}"
            near(list(shape.points), size, where)
            _draw(image, shape, self._classes.index(shape.label, where), where)
        return np.array(image, dtype=np.uint8)

    def image_bytes(self, picture: Picture) -> tuple[bytes, str]:
        """The image that the file itself holds. Raises DataError."""
        content = load_json(picture.origin)
        try:
            return base64.b64decode(content["imageData"], validate=True), Path(content["imagePath"]).suffix.lower()
        except (binascii.Error, ValueError) as error:
            raise DataError(
                f"{picture.origin}: imageData is damaged ({error}); put the image beside the file"
            ) from None


def _size(content: Json, path: Path) -> Size | None:
    values = content.get("imageHeight"), content.get("imageWidth")
    if values == (None, None):
        return None
    if not all(isinstance(value, int) and not isinstance(value, bool) and value > 0 for value in values):
        raise DataError(f"{path}: imageHeight, imageWidth: found {values}; expected two numbers of pixels")
    return values[0], values[1]


def _shapes(content: Json, path: Path) -> list[Shape]:
    if not is_labelme(content):
        raise DataError(f"{path}: is no LabelMe file; expected a list 'shapes'")
    return [_shape(value, f"{path}, shape {place}") for place, value in enumerate(content["shapes"])]


def _shape(value: Json, where: str) -> Shape:
    """One entry of `shapes`, checked. Files of LabelMe 3 name no kind: then it is a polygon."""
    if not isinstance(value, dict) or not isinstance(value.get("label"), str) or not value["label"]:
        raise DataError(f"{where}: found {str(value)[:60]!r}; expected a label and points")
    kind = value.get("shape_type") or "polygon"
    if not isinstance(kind, str) or kind not in COUNTS:
        raise DataError(f"{where}: found the shape_type {str(kind)[:40]!r}; expected one of {', '.join(COUNTS)}")
    points = value.get("points")
    fewest, most = COUNTS[kind]
    if not isinstance(points, list) or len(points) < fewest or (most is not None and len(points) > most):
        found = f"{len(points)} points" if isinstance(points, list) else str(points)[:40]
        raise DataError(f"{where}: found {found}; expected {fewest}{'' if most == fewest else ' or more'} for a {kind}")
    pairs = []
    for point in points:
        if not isinstance(point, list) or len(point) != 2:
            raise DataError(f"{where}: found the point {str(point)[:40]!r}; expected [x, y]")
        pairs.append((number(point[0], where), number(point[1], where)))
    pixels = value.get("mask") if kind == "mask" else None
    if kind == "mask" and not isinstance(pixels, str):
        raise DataError(f"{where}: is a mask without pixels; expected an encoded image (mask)")
    return Shape(value["label"], kind, tuple(pairs), pixels)


def _draw(image: Image.Image, shape: Shape, value: int, where: str) -> None:
    """Draws `value` where the shape is; outlines belong to it."""
    draw, xy = ImageDraw.Draw(image), list(shape.points)
    if shape.kind == "polygon":
        draw.polygon(xy, outline=value, fill=value)
    elif shape.kind == "rectangle":
        (x0, y0), (x1, y1) = xy
        draw.rectangle([min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)], outline=value, fill=value)
    elif shape.kind == "circle":
        (x, y), (edge_x, edge_y) = xy
        radius = math.hypot(edge_x - x, edge_y - y)
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], outline=value, fill=value)
    elif shape.kind in ("line", "linestrip"):
        draw.line(xy, fill=value, width=LINE)
    elif shape.kind in ("point", "points"):
        for x, y in xy:
            draw.ellipse([x - POINT, y - POINT, x + POINT, y + POINT], outline=value, fill=value)
    else:
        pixels = _pixels(shape, where)
        image.paste(value, (round(xy[0][0]), round(xy[0][1])), pixels)


def _pixels(shape: Shape, where: str) -> Image.Image:
    """The pixels of a shape of the kind `mask`, 255 where it is. They fill the box of its two points."""
    (x0, y0), (x1, y1) = shape.points
    box = (round(x1) - round(x0) + 1, round(y1) - round(y0) + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(base64.b64decode(shape.pixels or "", validate=True)))
            if image.size != box:
                raise ValueError(f"it is {image.size} (width, height), its points say {box}")
            return image.convert("L").point([0] + 255 * [255])
    except Exception as error:  # damaged bytes make the decoders raise nearly anything
        raise DataError(f"{where}: the encoded mask cannot be read ({error}); draw it again") from None
