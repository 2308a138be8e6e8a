"""Code shared by the annotation readers: interface, class names, and validation of untrusted files."""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fuzzyseg.data.datasets.pairing import existing
from fuzzyseg.data.io.pillow import read_bytes
from fuzzyseg.data.labels.class_lists import IGNORE, background_of, check_names, note_names, plain
from fuzzyseg.data.sample import VOID, Colour, DataError, Size
from fuzzyseg.data.text import nearest, problems, short

Json = Any
"""Unvalidated contents of a JSON file."""

Coordinate = Annotated[float, Field(allow_inf_nan=False)]

MAX_DISTANCE = 10
"""Maximum absolute coordinate of a point, in multiples of the longer image side. It bounds the time to rasterise a
polygon, which is proportional to the length of its edges."""


class Model(BaseModel):
    """Base class of the file models: types are not converted, and unknown keys are ignored."""

    model_config = ConfigDict(strict=True)


M = TypeVar("M", bound=Model)


@dataclass(frozen=True)
class AnnotatedImage:
    """An image and its annotation.

    name: output path below images/, including the split folder, without suffix. image: the image file, or None if it is
    embedded in the annotation file `origin`. annotated: False for an image without annotations.
    """

    name: str
    image: Path | None
    origin: Path
    annotated: bool = True


class Annotations(Protocol):
    """Interface of the annotation readers.

    classes: names in index order. colours: one per class, if known. pictures: images and their annotations. notes:
    messages for the user.
    """

    classes: list[str]
    colours: list[Colour] | None
    pictures: list[AnnotatedImage]
    notes: list[str]

    def mask(self, picture: AnnotatedImage, size: Size) -> NDArray[np.uint8]:
        """Return the class indices (H, W), 255 for void, of an image of the given size. Raises DataError."""


class Classes:
    """Class names in index order, and the class index of each label.

    background: class index of unannotated pixels, or VOID if there is no background class. notes: messages for the
    user.
    """

    def __init__(self, labels: list[str] | None, present: list[str], where: Path) -> None:
        """Use the declared `labels` or, by default, `present`, with a background class prepended if there is none.

        Raises DataError.
        """
        names = [name for name in map(plain, present if labels is None else labels) if name != IGNORE]
        if labels is None:
            names = list(dict.fromkeys(names))
            names = names if background_of(names) is not None else ["background", *names]
        check_names(names, str(where))
        self.names = names
        place = background_of(names)
        self.background = VOID if place is None else place
        self._index = {name: index for index, name in enumerate(names)} | {IGNORE: VOID}
        self._index.setdefault("background", self.background)
        text = "no class is named background: unannotated pixels are void"
        if place is not None:
            text = f"unannotated pixels are class {place}, {names[place]}"
        padded = [repr(label) for label in present if label != label.strip()]
        blanks = [f"spaces around labels removed: {short(padded)}"] * bool(padded)
        self.notes = [text, *blanks, *note_names(names)]

    def index(self, label: str, where: str) -> int:
        """Return the class index of a label, or VOID for `__ignore__`. Raises DataError for unknown labels."""
        label = plain(label)
        if label not in self._index:
            raise DataError(
                f"{where}: found the label {label!r}, which is not one of the {len(self.names)} labels."
                f"{nearest(label, self.names)} Add it to the labels file, or use {IGNORE} for void"
            )
        return self._index[label]


def load_json(path: Path) -> Json:
    """Load a JSON file in UTF-8, UTF-16 or UTF-32. Raises DataError."""
    data = read_bytes(path)
    try:
        return json.loads(data.decode(json.detect_encoding(data)))
    except UnicodeDecodeError as error:
        fits = [name for name in ("GBK", "Shift-JIS", "Windows-1252") if _is_json(data, name)]
        hint = f"; it can be read as {' or '.join(fits)}: save it as UTF-8" if fits else ": export it again"
        raise DataError(f"{path}: is not encoded as UTF-8 ({error}){hint}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not valid JSON ({error}); export it again") from None


def _is_json(data: bytes, encoding: str) -> bool:
    try:
        json.loads(data.decode(encoding))
    except (ValueError, RecursionError):
        return False
    return True


def parse(model: type[M], content: Json, path: Path) -> M:
    """Validate the contents of a file. Raises a DataError that names the file, key and value."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        lines = list(problems(error))
        raise DataError(f"{path}: " + "\n".join(lines[:5])) from None


def inside(root: Path, base: Path, text: str, where: str) -> Path:
    """Resolve a path from an annotation file relative to `base`. Raises DataError if it is outside `root`.

    The check is lexical: symbolic links in the data folder are trusted and followed.
    """
    if "\0" in text or not text.strip():
        raise DataError(f"{where}: found the path {text!r}; expected the path of a file")
    path = existing(Path(os.path.normpath(base / text.replace("\\", "/"))))
    if not Path(os.path.abspath(path)).is_relative_to(os.path.abspath(root)):  # both without `..`
        raise DataError(
            f"{where}: found the path {text!r}, which leaves the data folder {root}; move the file into it, "
            "correct the path, or pass a folder that contains both"
        )
    return path


def check_points(points: Iterable[Sequence[float]], size: Size, where: str) -> None:
    """Raise DataError for points (x, y) far outside an image of `size` (H, W)."""
    for x, y in points:
        if max(abs(x), abs(y)) > MAX_DISTANCE * max(size):
            raise DataError(f"{where}: found the point ({x:g}, {y:g}) in an image of {size} (height, width)")


def check_size(declared: Size, size: Size, picture: AnnotatedImage) -> None:
    """Raise DataError unless the size declared by an annotation matches the image."""
    if declared != size:
        raise DataError(
            f"{picture.origin}: declares {picture.image or 'its image'} as {declared} (height, width), but it is {size}"
            + "; save the image with its EXIF orientation applied" * (declared == size[::-1])
        )
