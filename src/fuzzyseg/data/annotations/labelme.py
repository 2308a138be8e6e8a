"""LabelMe: one JSON file per image, with shapes that are drawn in order."""

from __future__ import annotations

import base64
import binascii
import io
import math
from pathlib import Path
from typing import Annotated

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL import ImageDraw
from pydantic import Field, PositiveInt, model_validator

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
from fuzzyseg.data.datasets.pairing import image_files
from fuzzyseg.data.io.pillow import SUFFIXES, open_header, too_large
from fuzzyseg.data.sample import Colour, DataError, Size, attempt_all
from fuzzyseg.data.text import short

LINE, POINT = 10, 5
"""Line width and point radius in pixels, as drawn by LabelMe."""

POLYGONS = ("oriented_rectangle", "rotation", "quadrilateral")
"""Four-point polygon types of newer LabelMe versions and X-AnyLabeling."""

MIN_POINTS = {"polygon": 3, "rectangle": 2, "circle": 2, "line": 2, "linestrip": 2, "point": 1, "points": 1, "mask": 2}
OPEN = ("polygon", "linestrip", "points")
"""Shape types that may have more points than `MIN_POINTS` requires."""


class Shape(Model):
    """An entry in `shapes`. points: (x, y) in pixels. mask: encoded image, for shapes of type mask.

    LabelMe 3 does not write shape types, because all of its shapes are polygons.
    """

    label: str = Field(min_length=1)
    points: list[Annotated[list[Coordinate], Field(min_length=2, max_length=2)]]
    shape_type: str | None = None
    mask: str | None = None

    @property
    def kind(self) -> str:
        """The shape type; `polygon` if it is missing, and for quadrilaterals such as rotated rectangles."""
        four = self.shape_type == "rectangle" and len(self.points) == 4
        return "polygon" if four or self.shape_type in POLYGONS else self.shape_type or "polygon"

    @model_validator(mode="after")
    def _complete(self) -> Shape:
        fewest, count = MIN_POINTS.get(self.kind, 0), len(self.points)
        if self.kind not in MIN_POINTS:
            return self  # `mask` raises an error
        if count < fewest or (count > fewest and self.kind not in OPEN):
            raise ValueError(f"found {count} points; expected {fewest}{' or more' * (self.kind in OPEN)}")
        if self.kind == "mask" and self.mask is None:
            raise ValueError("found a mask without an encoded image")
        return self


class File(Model):
    """Contents of a LabelMe file. imageData: encoded image, if embedded."""

    shapes: list[Shape]
    imagePath: str
    imageData: str | None = None
    imageHeight: PositiveInt | None = None
    imageWidth: PositiveInt | None = None


def is_labelme(content: Json) -> bool:
    """Return whether `content` comes from a LabelMe file."""
    return isinstance(content, dict) and isinstance(content.get("shapes"), list)


class LabelMe:
    """Annotations from the LabelMe files in a folder. Images without such a file are unlabelled."""

    colours: list[Colour] | None = None

    def __init__(self, source: Path, paths: list[Path], labels: list[str] | None, *, strict: bool = False) -> None:
        """Read and validate all files; masks are drawn later. Raises a DataError that lists every invalid file.

        strict: treat a file with a shape of an unknown type as invalid; otherwise `mask` raises DataError for it.
        """
        self._root = source if source.is_dir() else source.parent
        self._files: dict[Path, File] = {}
        self._strict = strict
        self.pictures = attempt_all(self._picture, paths, "invalid annotation file")
        shapes = [(path, shape) for path, file in self._files.items() for shape in file.shapes]
        self._classes = Classes(labels, sorted({shape.label for _, shape in shapes}), source)
        for path, shape in shapes:
            self._classes.index(shape.label, str(path))
        self.classes = self._classes.names
        self.notes = [f"{len(paths)} LabelMe files with {len(shapes)} shapes", *self._classes.notes]
        if source.is_dir():
            self._add_unlabelled()

    def _picture(self, path: Path) -> AnnotatedImage:
        file = parse(File, load_json(path), path)
        for place, shape in enumerate(file.shapes if self._strict else ()):
            _check_kind(shape, f"{path}: shapes.{place}")
        self._files[path] = file.model_copy(update={"imageData": None})  # may be large; read again if needed
        image = inside(self._root, path.parent, file.imagePath, f"{path}: imagePath")
        if image.suffix.lower() not in SUFFIXES:
            raise DataError(f"{path}: imagePath: found {file.imagePath!r}; expected one of {', '.join(SUFFIXES)}")
        embedded = not image.is_file()
        if embedded and file.imageData is None:
            raise DataError(f"{path}: its image {image} does not exist, and is not embedded (imageData)")
        name = path.relative_to(self._root).with_suffix("").as_posix()
        return AnnotatedImage(name, None if embedded else image, path)

    def _add_unlabelled(self) -> None:
        images, _ = image_files(self._root)
        used = {picture.image.resolve() for picture in self.pictures if picture.image is not None}
        unlabelled = [(name, path) for name, path in images.items() if path.resolve() not in used]
        self.pictures += [AnnotatedImage(name, path, path, annotated=False) for name, path in unlabelled]
        if unlabelled:
            names = short([name for name, _ in unlabelled])
            self.notes.append(f"{len(unlabelled)} images have no LabelMe file and remain unlabelled: {names}")

    def mask(self, picture: AnnotatedImage, size: Size) -> NDArray[np.uint8]:
        """Return the mask of an image, drawn in file order: later shapes overwrite earlier ones. Raises DataError."""
        file, path = self._files[picture.origin], picture.origin
        check_size((file.imageHeight or size[0], file.imageWidth or size[1]), size, picture)
        image = PIL.Image.new("L", size[::-1], self._classes.background)
        for place, shape in enumerate(file.shapes):
            where = f"{path}: shapes.{place}"
            _check_kind(shape, where)
            check_points(shape.points, size, where)
            _draw(image, shape, self._classes.index(shape.label, where), where)
        return np.array(image, dtype=np.uint8)


def embedded_image(path: Path) -> tuple[bytes, str]:
    """Return the encoded image embedded in a LabelMe file, and its suffix. Raises DataError."""
    file = parse(File, load_json(path), path)
    try:
        return _decoded(file.imageData or ""), Path(file.imagePath).suffix.lower()
    except (binascii.Error, ValueError) as error:
        raise DataError(f"{path}: imageData is damaged ({error}); put the image next to the file") from None


def _decoded(text: str) -> bytes:
    """Decode base64 that may contain line breaks (RFC 2045). Raises ValueError."""
    return base64.b64decode("".join(text.split()), validate=True)


def _check_kind(shape: Shape, where: str) -> None:
    if shape.kind not in MIN_POINTS:
        raise DataError(f"{where}: found the shape type {shape.kind!r}; expected one of {', '.join(MIN_POINTS)}")


def _draw(image: PIL.Image.Image, shape: Shape, value: int, where: str) -> None:
    """Fill the shape, including its outline, with `value`."""
    draw, xy = ImageDraw.Draw(image), [(x, y) for x, y in shape.points]
    if shape.kind == "polygon":
        draw.polygon(xy, outline=value, fill=value)
    elif shape.kind == "rectangle":
        (x0, y0), (x1, y1) = xy
        draw.rectangle([min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)], outline=value, fill=value)
    elif shape.kind in ("circle", "point", "points"):
        circle = shape.kind == "circle"
        radius = math.dist(*xy) if circle else POINT
        for x, y in xy[:1] if circle else xy:
            draw.ellipse([x - radius, y - radius, x + radius, y + radius], outline=value, fill=value)
    elif shape.kind in ("line", "linestrip"):
        draw.line(xy, fill=value, width=LINE)
    else:
        image.paste(value, (math.floor(xy[0][0] + 0.5), math.floor(xy[0][1] + 0.5)), _pixels(shape, where))


def _pixels(shape: Shape, where: str) -> PIL.Image.Image:
    """Return the image of a mask shape: 255 inside the object, sized like the box spanned by its two points.

    Moving a mask in LabelMe makes its points fractional.
    """
    (x0, y0), (x1, y1) = shape.points
    box = (x1 - x0 + 1, y1 - y0 + 1)
    try:
        image = open_header(io.BytesIO(_decoded(shape.mask or "")))
        if too_large(*image.size) or any(abs(side - span) >= 1 for side, span in zip(image.size, box, strict=True)):
            raise ValueError(f"it is {image.size} (width, height), its points span {box}")
        if image.mode in ("P", "PA", "LA", "RGBA"):  # the object may be a palette index or the alpha channel
            raise ValueError(f"its pixels are {image.mode}; expected grey, 0 outside the object")
        return image.convert("L").point([0] + 255 * [255])
    except Exception as error:  # decoders raise nearly any exception on damaged bytes
        raise DataError(f"{where}: the encoded mask cannot be read ({error}); draw it again") from None
